/* What kernels know of threads: teams, cancellation and scratch memory. */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H
#include "count.h"
#include "fastrnn.h"

#include <stddef.h>

/* One thread's view of its team of n: 0 <= id < n, and thread 0 is the one that made the call. */
struct arrival;
struct team {
    int id, n;
    struct arrival *arrivals; /* (n,) of each thread; of a team of one NULL */
    int placed;               /* whether team_meets_apart looks where threads run */
    uint64_t mode;            /* the floating-point mode that this thread came with */
    int deaf;                 /* thread 0 of this team did not make the call: it does not ask whether to stop */
    void *way_out;            /* of a team of several: where a child goes on that was forked while it asked */
};

/* A team of this thread alone, in the middle of what the other one does. */
static inline struct team team_of_one(const struct team *team)
{
    return (struct team){.n = 1, .mode = team->mode, .deaf = team->id != 0, .way_out = team->way_out};
}

/* team.c: the meetings of a team. Each thread must come to the same ones, so whether it does may depend only on what
 * these return and on what was the same for all threads from the start; team.c says why all get the same.
 *
 * Waits for all threads. */
void team_barrier(const struct team *team);
/* The same; returns the value of thread 0. */
int64_t team_broadcast(const struct team *team, int64_t value);
/* The same; returns whether each is on a processor of its own, as far as the system tells: threads that have just
 * been woken often are not. Until the system moves one of them, two on one processor take turns: who waits for the
 * other at every step then is slower than one alone. */
int team_meets_apart(const struct team *team);

/* Runs work(team, job), of so many operations, on n threads, each in round-to-nearest with subnormals flushed to zero;
 * the caller's floating-point mode is as before afterwards. Returns 0, or -1 where another team is at work, there are
 * fewer threads, or this is a child that was forked in the middle: run it alone then. n = 1 never fails. */
int team_run(int n, double flops, void (*work)(const struct team *team, void *job), void *job);
/* Runs work(team, job) on as many threads as team_size says, or alone, with scratch memory. `layout` takes what so
 * many threads need from the address `at` on and returns its end; it is called with 0 to count, and with the address
 * of the memory. Returns an enum fastrnn_status. */
int team_job(int threads, double flops, int64_t max, uintptr_t (*layout)(void *job, int threads, uintptr_t at),
             void (*work)(const struct team *team, void *job), void *job);

/* policy.c: how many threads work of so many operations deserves now: at least 1, at most `threads` (0:
 * fastrnn_get_num_threads()) and `max`, for how many there is work; fewer where others have the processors, and 1 where
 * the work is too small to wake threads that sleep. A wish: see team_run. */
int team_size(int threads, double flops, int64_t max);
/* As many as are allowed, whatever the work and whoever has the processors. */
int team_size_in_any_company(void);
/* How many threads, at most `max`, should split a step of so many operations, after which all wait for all. */
int team_size_in_step(double flops, int64_t max);
/* Whether a matrix of so many bytes outgrows the second-level cache of a processor, so that it comes from further away
 * each time. */
int is_far(double bytes);
/* How the last call of directions in this thread was run. */
void plan_made(const struct fastrnn_plan *plan);

/* stop.c: whether a call should end early. Thread 0 asks the caller's function, at most every 20 ms; the others
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
/* What was found last. Threads may read different answers: who has a meeting ahead may leave out work, but must go
 * there. */
int stop_asked(const struct stop *stop);
/* A meeting that asks: all get the same answer, and may leave. */
int stop_together(struct stop *stop, const struct team *team);
/* Waits until the count of another thread is at least `value`; 0 where `stop` has ended the call. */
int count_reaches(struct count *count, int64_t value, const struct team *team, const struct stop *stop);

/* arena.c: 64-byte aligned memory from a small per-process cache; NULL where there is none. The content is
 * whatever the last user left. */
void *scratch_take(size_t bytes);
void scratch_give(void *p);
/* Takes `count` things of `size` from the address *at, aligned to a cache line. */
static inline void *arena_take(uintptr_t *at, int64_t count, size_t size)
{
    const uintptr_t p = *at;
    *at = p + (((uintptr_t)count * size + 63) & ~(uintptr_t)63);
    return (void *)p;
}
#endif
