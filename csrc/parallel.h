/* Teams of threads, scratch memory and the floating-point mode, for the kernels. */
#ifndef FASTRNN_PARALLEL_H
#define FASTRNN_PARALLEL_H
#include "count.h"
#include "fastrnn.h"

#include <stddef.h>

/* One member of a team of n, 0 <= id < n; member 0 is the thread that made the call. */
struct arrival;
struct team {
    int id, n;
    struct arrival *arrivals; /* (n,) of each member; of a team of one NULL */
    int placed;               /* whether team_meets_apart looks where members run */
    uint64_t mode;            /* the floating-point mode that this member's thread came with */
    int deaf;      /* member 0 of this team is not the thread that made the call: it does not ask whether to stop */
    void *way_out; /* of a team of several: where a child goes on that was forked while it asked */
};

/* The meetings of a team. Each member must come to the same ones, so whether it does may depend only on what these
 * return and on what was the same for all members from the start; parallel.c says why all get the same.
 *
 * Waits for all members. */
void team_barrier(const struct team *team);
/* The same, and whether each is on a processor of its own, as far as the system tells: threads that have just
 * been woken often are not. All get the same answer. Until the system moves one of them, two on one processor take
 * turns: who waits for the other at every step then is slower than one alone. */
int team_meets_apart(const struct team *team);

/* How many members work of so many operations deserves now: at most `threads` (0: fastrnn_get_num_threads()) and
 * `most` (for how many there is work), at least 1; fewer where others have the processors, and 1 where the work is too
 * small to wake threads that sleep. A wish: see team_run. */
int team_size(int threads, double flops, int64_t most);

/* As many as are allowed, whatever the work and whoever has the processors. */
int team_size_in_any_company(void);

/* How many members, at most `most`, should share a step of so many operations, after which all wait for all. */
int team_size_in_step(double flops, int64_t most);

/* Runs work(team, job), of so many operations, on n members, each in round-to-nearest with subnormals flushed to zero;
 * the caller's floating-point mode is as before afterwards. Returns 0, or -1 where another team is at work, there are
 * fewer threads, or this is a child that was forked in the middle: run it alone then. n = 1 never fails. */
int team_run(int n, double flops, void (*work)(const struct team *team, void *job), void *job);

/* Runs work(team, job) on as many members as team_size says, or alone, with scratch memory. `layout` carves it for
 * so many members from the address `at` on and returns its end; it is called with 0 to count, and with the
 * address of the memory. Returns an enum fastrnn_status. */
int team_job(int threads, double flops, int64_t most, uintptr_t (*layout)(void *job, int members, uintptr_t at),
             void (*work)(const struct team *team, void *job), void *job);
/* Whether a call should end early. Member 0 asks the caller's function, at most every 20 ms; the others
 * read what it found. */
struct stop {
    int (*interrupted)(void *context);
    void *context;
    double last;
    int64_t polls;
    _Atomic int asked;
};
struct stop stop_for(const struct fastrnn_call *call);
/* The status of a call: that of team_job, unless somebody asked to stop. */
int stop_status(const struct stop *stop, int status);
void stop_poll(struct stop *stop, const struct team *team);
/* What was found last. Members may read different answers: who has a meeting ahead may leave out work, but must go
 * there. */
int stop_asked(const struct stop *stop);
/* A meeting, like team_barrier, that asks: all get the same answer, and may leave. */
int stop_together(struct stop *stop, const struct team *team);

/* Waits until the count of another member is at least `least`; 0 where `stop` has ended the call. */
int count_reaches(struct count *count, int64_t least, const struct team *team, const struct stop *stop);

/* scratch.c: 64-byte aligned memory from a small per-process cache; NULL where there is none. The content is
 * whatever the last user left. */
void *scratch_take(size_t bytes);
void scratch_give(void *p);
/* How the last call of directions in this thread was run. */
void plan_made(const struct fastrnn_plan *plan);

/* An arena: takes `count` things of `size` from the address *at, aligned to a cache line. */
void *arena_take(uintptr_t *at, int64_t count, size_t size);
#endif
