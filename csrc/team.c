/* Teams: threads that run a job together, wait for each other and agree. Without OpenMP at compile time every team has
 * one thread. */
#define _GNU_SOURCE /* sched_getcpu */
#include "team.h"
#include "fastrnn.h"
#include "fp_mode.h"
#include "policy.h"
#include "schedule.h"
#include "workers.h"

#include <sched.h>
#include <setjmp.h>

int count_reaches(struct count *count, int64_t value, const struct team *team, const struct stop *stop)
{
    count_wait(count, value, meeting_awake);
    come_late(FASTRNN_AFTER_COUNT, team->id, value);
    return !stop_asked(stop);
}

/* How threads agree. There is one kind of meeting: each thread posts a number and waits for all, and then all of
 * them see the same n numbers. Whether a thread goes on to the next meeting may depend on these and on what was the
 * same for all from the start, on nothing else that changes: else one leaves, and another waits for it for ever.
 *
 * Why all see the same. What thread i posts at its k-th meeting lies in arrivals[i].posted[k % 2]. It is written before
 * reached becomes k (release), and read by others who have seen that (acquire). Thread i writes there again at its
 * meeting k + 2; so it has left meeting k + 1; so everybody had reached that, and whoever reaches it has read what it
 * wanted of meeting k. However late a thread reads, nobody has written since.
 *
 * A barrier of our own: the runtime's spins for milliseconds before it lets another program have the processor, and on
 * a busy machine the thread that is waited for may be the one that needs it. Each thread has a cache line of its own:
 * nobody waits to write. */
struct arrival {
    _Alignas(64) struct count reached; /* meetings */
    int64_t posted[2];
};

static void meet(const struct team *team, int64_t post)
{
    struct arrival *mine = &team->arrivals[team->id];
    const int64_t round = count_now(&mine->reached) + 1;
    come_late(FASTRNN_BEFORE_MEETING, team->id, round);
    mine->posted[round % 2] = post;
    count_set(&mine->reached, round);
    for (int i = 0; i < team->n; i++)
        count_wait(&team->arrivals[i].reached, round, meeting_awake);
    come_late(FASTRNN_AFTER_MEETING, team->id, round);
}

/* What thread i posted at this thread's last meeting. */
static int64_t posted(const struct team *team, int i)
{
    const int64_t round = count_now(&team->arrivals[team->id].reached);
    return team->arrivals[i].posted[round % 2];
}

void team_barrier(const struct team *team)
{
    if (team->n > 1)
        meet(team, 0);
}

int64_t team_broadcast(const struct team *team, int64_t value)
{
    if (team->n == 1)
        return value;
    meet(team, value);
    return posted(team, 0);
}

int team_meets_apart(const struct team *team)
{
    if (team->n == 1)
        return 1;
#ifdef __linux__
    meet(team, team->placed ? sched_getcpu() : -1); /* negative: not known */
    for (int i = 0; i < team->n; i++)
        for (int j = 0; j < i; j++)
            if (posted(team, i) == posted(team, j) && posted(team, i) >= 0)
                return 0;
#else
    meet(team, 0);
#endif
    return 1;
}

static void run_thread(struct team team, void (*work)(const struct team *, void *), void *job)
{
    const fp_mode old = fp_enter();
    team.mode = (uint64_t)old;
    work(&team, job);
    fp_leave(old);
}

#ifdef _OPENMP
struct team_job {
    void (*work)(const struct team *team, void *job);
    void *job;
    struct team common; /* what all threads have */
};

static void run_one(int id, void *shared)
{
    const struct team_job *job = shared;
    struct team team = job->common;
    team.id = id;
    run_thread(team, job->work, job->job);
}

static int run_together(int n, double flops, void (*work)(const struct team *team, void *job), void *job,
                        jmp_buf *way_out)
{
    /* In the time that this takes, asking the system what a thread had is nothing. */
    static const double watched_from = 2e7;
    struct arrival arrivals[n];
    for (int i = 0; i < n; i++)
        arrivals[i].reached = (struct count){0};
    struct team_job each = {
        work, job, {.n = n, .arrivals = arrivals, .placed = policy_looks_where(), .way_out = way_out}};
    struct workers_job all = {.work = run_one, .job = &each, .watched = flops >= watched_from * n};
    if (workers_run(n, &all) != 0)
        return -1;
    policy_saw(n, flops, &all);
    return 0;
}

/* A signal handler may fork in the middle of a call. Its child has this thread and no other, and would wait for the
 * rest of the team for ever, in a meeting or at the end of the job. So it jumps out (stop_poll), and the call
 * is made again from its arguments, which nobody has changed, by one thread. */
static int run_or_leave(int n, double flops, void (*work)(const struct team *team, void *job), void *job)
{
    jmp_buf here;
    if (setjmp(here) != 0)
        return -1;
    return run_together(n, flops, work, job, &here);
}
#endif

int team_run(int n, double flops, void (*work)(const struct team *team, void *job), void *job)
{
    (void)flops; /* of interest to several threads only */
    if (n <= 1) {
        run_thread((struct team){.n = 1}, work, job);
        return 0;
    }
#ifdef _OPENMP
    return run_or_leave(n, flops, work, job);
#else
    return -1;
#endif
}

int team_job(int threads, double flops, int64_t max, uintptr_t (*layout)(void *job, int threads, uintptr_t at),
             void (*work)(const struct team *team, void *job), void *job)
{
    for (int n = team_size(threads, flops, max);; n = 1) {
        void *const scratch = scratch_take(layout(job, n, 0));
        if (!scratch)
            return FASTRNN_NO_MEMORY;
        layout(job, n, (uintptr_t)scratch);
        const int missing = team_run(n, flops, work, job);
        scratch_give(scratch);
        if (!missing)
            return FASTRNN_OK;
    }
}
