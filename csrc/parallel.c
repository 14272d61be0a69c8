/* Teams: how many members a call has, how they meet, and how a call is stopped. Also the floating-point mode that each
 * thread needs. Without OpenMP at compile time every team has one member. */
#define _GNU_SOURCE /* sched_getcpu */
#include "parallel.h"
#include "company.h"
#include "fastrnn.h"
#include "schedule.h"
#include "workers.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ------------------------------------------------------------------------------ floating-point mode */

#if defined(__x86_64__)
typedef unsigned fp_mode;
/* MXCSR: every exception masked (0x1F80), round to nearest, FTZ (0x8000), DAZ (0x0040). */
static fp_mode fp_enter(void)
{
    const fp_mode old = _mm_getcsr();
    _mm_setcsr(0x1F80 | 0x8000 | 0x0040);
    return old;
}
static void fp_leave(fp_mode old) { _mm_setcsr(old); }
#elif defined(__aarch64__)
typedef uint64_t fp_mode;
/* FPCR: traps off, round to nearest, FZ (bit 24): subnormal inputs and results are zero. */
static fp_mode fp_enter(void)
{
    fp_mode old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"((fp_mode)1 << 24));
    return old;
}
static void fp_leave(fp_mode old) { __asm__ volatile("msr fpcr, %0" : : "r"(old)); }
#else
typedef int fp_mode;
static fp_mode fp_enter(void) { return 0; }
static void fp_leave(fp_mode old) { (void)old; }
#endif

/* ---------------------------------------------------------------------------------- process state */

/* The OpenMP runtime ends the process where it cannot make the threads that it is asked for. So many
 * are always fine; above that, four a processor are, but counting processors is a system call. */
static const int64_t fine_threads = 64;

static atomic_int num_threads;   /* 0: nobody has said */
static int processors_paid_for;  /* what the control groups allow */
static pthread_once_t started = PTHREAD_ONCE_INIT;
static atomic_long forks; /* from the first process to this one */
static void start_again(void)
{
    atomic_fetch_add(&forks, 1);
    started = (pthread_once_t)PTHREAD_ONCE_INIT; /* the thread that was at it may not be there */
}
__attribute__((constructor)) static void count_forks(void) { pthread_atfork(NULL, NULL, start_again); }

static void start(void)
{
    processors_paid_for = getenv("OMP_NUM_THREADS") ? 0 : fastrnn_cpu_quota("");
}

int fastrnn_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

int fastrnn_get_num_threads(void)
{
    pthread_once(&started, start);
    const int n = atomic_load(&num_threads);
    if (n > 0)
        return n;
#ifdef _OPENMP
    /* OMP_NUM_THREADS, or what somebody told the runtime since then; else the processors this process may use. */
    const int most = omp_get_max_threads();
    return processors_paid_for && processors_paid_for < most ? processors_paid_for : most;
#else
    return 1;
#endif
}

void fastrnn_set_num_threads(int n)
{
    pthread_once(&started, start);
    atomic_store(&num_threads, n);
}

/* ------------------------------------------------------------------------------------------- teams */

/* Members have to be called together, and that costs more the more they are: n of them take flops/n + n c, which is
 * least at n^2 = flops/c. c is the cost of one member in operations, and is measured, see measure_meeting; until
 * then it is that of the machine on which the limits were found. */
static const double usual_meeting = 1.5e5;
static _Atomic double flops_to_meet = usual_meeting;

static int64_t worth(double flops, double c, int64_t most)
{
    return (double)most * (double)most * c <= flops ? most : (int64_t)sqrt(flops / c);
}

/* At the end of a step they only wait for each other: two processors do so in about 0.3 microseconds, where
 * calling them takes some. */
int team_size_in_step(double flops, int64_t most)
{
    const int64_t n = worth(flops, flops_to_meet / 12, most < fine_threads ? most : fine_threads);
    return n < 1 ? 1 : (int)n;
}

static int64_t most_threads(void)
{
#ifdef _OPENMP
    return 4 * (int64_t)omp_get_num_procs();
#else
    return 1;
#endif
}

/* Workers who sleep have to be woken, which takes some tens of microseconds on a processor that is idle, and some
 * hundred after a long rest, on the virtual machine where this was measured. So a call of fewer operations than this,
 * or than five times this, has a team only where it follows closely on another, by workers_stay_awake at most. */
static const double usual_wake = 2e7;
static _Atomic double flops_to_wake = usual_wake;
static atomic_long teams_run;

void fastrnn_swap_team_policy(double *to_meet, double *to_wake)
{
    *to_meet = atomic_exchange(&flops_to_meet, *to_meet);
    *to_wake = atomic_exchange(&flops_to_wake, *to_wake);
}

long fastrnn_teams_run(void) { return atomic_load(&teams_run); }

#ifdef _OPENMP
/* The last time that a call wanted a team, or had one. */
static _Atomic double last_wish;

static int is_worth_waking(double flops)
{
    static const double short_rest = 0.03; /* seconds */
    const double t = now(), rest = t - atomic_exchange_explicit(&last_wish, t, memory_order_relaxed);
    return rest < workers_stay_awake || flops >= flops_to_wake * (rest < short_rest ? 1 : 5);
}

/* What processors others have. */
static struct company company;
static pthread_mutex_t company_lock = PTHREAD_MUTEX_INITIALIZER;
static void before_fork(void) { pthread_mutex_lock(&company_lock); }
static void after_fork(void) { pthread_mutex_unlock(&company_lock); }
static pthread_once_t meeting_measured = PTHREAD_ONCE_INIT;
static void after_fork_in_child(void)
{
    after_fork();
    meeting_measured = (pthread_once_t)PTHREAD_ONCE_INIT; /* the thread that measures may not be there */
}
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* Tests that have a team for any work have one in any company, and say nothing of it: their members are late on
 * purpose. */
static int is_forced(void) { return flops_to_meet <= 0; }

static int allowed_in_company(int n)
{
    if (is_forced())
        return n;
    pthread_mutex_lock(&company_lock);
    n = company_allows(&company, n, now());
    pthread_mutex_unlock(&company_lock);
    return n;
}

static void tell_company(int n, double flops, const struct workers_job *job, double end)
{
    if (is_forced() || flops == 0)
        return;
    pthread_mutex_lock(&company_lock);
    company_saw(&company, n, job->wall, job->lost, end);
    pthread_mutex_unlock(&company_lock);
}

/* Once a process, when it first has work for several threads: how long it takes to call the members together, and
 * how many operations one could have done meanwhile. The shortest of some times is what the machine can do; the
 * bounds keep a process that had a bad moment from being stuck with it. What is lost in a team besides (caches that
 * are cold, lines that are shared, a member that comes late) is about twice as much again: so 3 times. Waking a worker
 * is not measured, for first it would have to fall asleep: it is worth it for work of this length where a virtual
 * machine's idle processor has to be called back. */
static const double seconds_to_wake = 2.5e-4;

static void nothing(const struct team *team, void *job)
{
    (void)team;
    (void)job;
}

static void measure_meeting(void)
{
    /* Not more than processors: what threads that take turns cost is another question. */
    const int asked = fastrnn_get_num_threads(), processors = omp_get_num_procs();
    const int most = processors < fine_threads ? processors : (int)fine_threads, n = asked < most ? asked : most;
    double meet = usual_meeting, wake = usual_wake, meeting = 1, rate = 0;
    if (n < 2 || atomic_load(&flops_to_meet) != meet || workers_for(n) < n)
        return;
    for (int i = 0; i < 12; i++) {
        const double begin = now();
        if (team_run(n, 0, nothing, NULL) != 0)
            return;
        const double met = now();
        const double flops = fastrnn_kernels_in_use()->multiply_adds[0](500);
        const double calculated = now();
        meeting = met - begin < meeting ? met - begin : meeting;
        rate = flops > rate * (calculated - met) ? flops / (calculated - met) : rate;
    }
    double c = 3 * meeting / n * rate;
    c = c < meet / 3 ? meet / 3 : c > meet * 3 ? meet * 3 : c;
    atomic_compare_exchange_strong(&flops_to_meet, &meet, c);
    atomic_compare_exchange_strong(&flops_to_wake, &wake, seconds_to_wake * rate);
}
#endif

static int64_t allowed_threads(int threads, int64_t most)
{
    int64_t n = threads ? threads : fastrnn_get_num_threads();
    if (n > most)
        n = most;
    if (n > fine_threads) {
        const int64_t limit = most_threads();
        n = n < limit ? n : limit > fine_threads ? limit : fine_threads;
    }
#ifdef _OPENMP
    if (n > omp_get_thread_limit())
        n = omp_get_thread_limit();
    return omp_in_parallel() ? 1 : n;
#else
    return 1;
#endif
}

int team_size(int threads, double flops, int64_t most)
{
    int64_t n = worth(flops, flops_to_meet, allowed_threads(threads, most));
#ifdef _OPENMP
    if (n > 1 && !is_worth_waking(flops))
        n = 1;
    if (n > 1) {
        pthread_once(&meeting_measured, measure_meeting);
        n = worth(flops, flops_to_meet, n);
    }
    if (n > 1)
        n = allowed_in_company((int)n);
    if (n > 1)
        n = workers_for((int)n);
#endif
    return n < 1 ? 1 : (int)n;
}

int team_size_in_any_company(void)
{
    const int n = (int)allowed_threads(0, INT64_MAX);
#ifdef _OPENMP
    return n > 1 ? workers_for(n) : 1;
#else
    return n;
#endif
}

int count_reaches(struct count *count, int64_t least, const struct team *team, const struct stop *stop)
{
    count_wait(count, least, meeting_awake);
    come_late(FASTRNN_AFTER_COUNT, team->id, least);
    return !stop_asked(stop);
}

/* How members agree. There is one kind of meeting: each member posts a number and waits for all, and then all of
 * them see the same n numbers. Whether a member goes on to the next meeting may depend on these and on what was the
 * same for all from the start, on nothing else that changes: else one leaves, and another waits for it for ever.
 *
 * Why all see the same. What member i posts at its k-th meeting lies in arrivals[i].posted[k % 2]. It is written before
 * reached becomes k (release), and read by others who have seen that (acquire). Member i writes there again at its
 * meeting k + 2; so it has left meeting k + 1; so everybody had reached that, and whoever reaches it has read what it
 * wanted of meeting k. However late a member reads, nobody has written since.
 *
 * A barrier of our own: the runtime's spins for milliseconds before it lets another program have the processor, and on
 * a busy machine the thread that is waited for may be the one that needs it. Each member has a cache line of its own:
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

/* What member i posted at this member's last meeting. */
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

static void run_member(struct team member, void (*work)(const struct team *, void *), void *job)
{
    const fp_mode old = fp_enter();
    member.mode = (uint64_t)old;
    work(&member, job);
    fp_leave(old);
}

#ifdef _OPENMP
struct team_job {
    void (*work)(const struct team *team, void *job);
    void *job;
    struct team common; /* what all members have */
};

static void run_one(int id, void *shared)
{
    const struct team_job *job = shared;
    struct team member = job->common;
    member.id = id;
    run_member(member, job->work, job->job);
}

static int run_together(int n, double flops, void (*work)(const struct team *team, void *job), void *job,
                        jmp_buf *way_out)
{
    /* In the time that this takes, asking the system what a member had is nothing. */
    static const double watched_from = 2e7;
    struct arrival arrivals[n];
    for (int i = 0; i < n; i++)
        arrivals[i].reached = (struct count){0};
    struct team_job each = {work, job, {.n = n, .arrivals = arrivals, .placed = flops_to_wake > 0, .way_out = way_out}};
    struct workers_job all = {.work = run_one, .job = &each, .watched = flops >= watched_from * n};
    if (workers_run(n, &all) != 0)
        return -1;
    const double end = now();
    atomic_store_explicit(&last_wish, end, memory_order_relaxed);
    tell_company(n, flops, &all, end);
    atomic_fetch_add_explicit(&teams_run, 1, memory_order_relaxed);
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
        run_member((struct team){.n = 1}, work, job);
        return 0;
    }
#ifdef _OPENMP
    return run_or_leave(n, flops, work, job);
#else
    return -1;
#endif
}

/* ---------------------------------------------------------------------------------------- stopping */

struct stop stop_for(const struct fastrnn_call *call)
{
    const double begun = call->interrupted ? now() : 0;
    return (struct stop){.interrupted = call->interrupted, .context = call->context, .last = begun};
}

int stop_status(const struct stop *stop, int status)
{
    return status != FASTRNN_OK                 ? status
           : atomic_load(&stop->asked) ? FASTRNN_INTERRUPTED
                                       : FASTRNN_OK;
}

void stop_poll(struct stop *stop, const struct team *team)
{
    if (team->id != 0 || team->deaf)
        return;
    const int64_t poll = ++stop->polls;
    if (come_late(FASTRNN_STOP, 0, poll))
        atomic_store(&stop->asked, 1);
    const int at_once = come_late(FASTRNN_POLL, 0, poll);
    if (!stop->interrupted)
        return;
    const double t = now();
    if (t - stop->last < 0.02 && !at_once)
        return;
    stop->last = t;
    /* The caller's function may run anything, and in the caller's mode. */
    const long before = atomic_load(&forks);
    fp_leave((fp_mode)team->mode);
#ifdef _OPENMP
    const struct workers_break taken = workers_take_a_break(); /* it may wait for the interpreter */
#endif
    const int asked = stop->interrupted(stop->context);
#ifdef _OPENMP
    workers_go_on(&taken);
#endif
    if (asked)
        atomic_store(&stop->asked, 1);
    if (team->way_out && atomic_load(&forks) != before)
        longjmp(*(jmp_buf *)team->way_out, 1);
    fp_enter();
}

int stop_asked(const struct stop *stop) { return atomic_load_explicit(&stop->asked, memory_order_relaxed); }

int stop_together(struct stop *stop, const struct team *team)
{
    stop_poll(stop, team);
    if (team->n == 1)
        return stop_asked(stop);
    /* Member 0 may have asked again before the others look. What counts is what it posts here. */
    meet(team, stop_asked(stop));
    return (int)posted(team, 0);
}

int team_job(int threads, double flops, int64_t most, uintptr_t (*layout)(void *job, int members, uintptr_t at),
             void (*work)(const struct team *team, void *job), void *job)
{
    for (int members = team_size(threads, flops, most);; members = 1) {
        void *const scratch = scratch_take(layout(job, members, 0));
        if (!scratch)
            return FASTRNN_NO_MEMORY;
        layout(job, members, (uintptr_t)scratch);
        const int missing = team_run(members, flops, work, job);
        scratch_give(scratch);
        if (!missing)
            return FASTRNN_OK;
    }
}

int fastrnn_workers_made(void)
{
#ifdef _OPENMP
    return workers_made();
#else
    return 0;
#endif
}

static _Thread_local struct fastrnn_plan last_plan;

void plan_made(const struct fastrnn_plan *plan) { last_plan = *plan; }

struct fastrnn_plan fastrnn_last_plan(void) { return last_plan; }
