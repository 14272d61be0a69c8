/* How many threads a call has: as many as are allowed, have work, and are worth calling together. */
#include "policy.h"
#include "company.h"
#include "fastrnn.h"
#include "team.h"
#include "workers.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* ------------------------------------------------------------------------------- as many as allowed */

/* The OpenMP runtime ends the process where it cannot make the threads that it is asked for. So many
 * are always fine; above that, four a processor are, but counting processors is a system call. */
static const int64_t fine_threads = 64;

static atomic_int num_threads;  /* 0: nobody has said */
static int processors_paid_for; /* what the control groups allow */
static pthread_once_t started = PTHREAD_ONCE_INIT;
static void start_again(void) { started = (pthread_once_t)PTHREAD_ONCE_INIT; } /* the thread at it may not be there */
__attribute__((constructor)) static void watch_start(void) { pthread_atfork(NULL, NULL, start_again); }

static void start(void) { processors_paid_for = getenv("OMP_NUM_THREADS") ? 0 : fastrnn_cpu_quota(""); }

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
    const int max = omp_get_max_threads();
    return processors_paid_for && processors_paid_for < max ? processors_paid_for : max;
#else
    return 1;
#endif
}

void fastrnn_set_num_threads(int n)
{
    pthread_once(&started, start);
    atomic_store(&num_threads, n);
}

static int64_t safe_threads(void)
{
#ifdef _OPENMP
    return 4 * (int64_t)omp_get_num_procs();
#else
    return 1;
#endif
}

static int64_t allowed_threads(int threads, int64_t max)
{
    int64_t n = threads ? threads : fastrnn_get_num_threads();
    if (n > max)
        n = max;
    if (n > fine_threads) {
        const int64_t limit = safe_threads();
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

/* --------------------------------------------------------------------------------- as many as pay */

/* Fork and join cost more the more threads there are: n of them take flops/n + n c, which is smallest at
 * n^2 = flops/c. c is the cost of one thread in operations, and is measured, see measure_fork_join; until then it is
 * that of the machine on which the limits were found. */
static const double usual_fork_join = 1.5e5;
static _Atomic double fork_join_flops = usual_fork_join;

static int64_t worthwhile_size(double flops, double c, int64_t max)
{
    return (double)max * (double)max * c <= flops ? max : (int64_t)sqrt(flops / c);
}

/* At the end of a step they only wait for each other: two processors do so in about 0.3 microseconds, where
 * calling them takes some. */
int team_size_in_step(double flops, int64_t max)
{
    const int64_t n = worthwhile_size(flops, fork_join_flops / 12, max < fine_threads ? max : fine_threads);
    return n < 1 ? 1 : (int)n;
}

/* A second-level cache has 0.25 to 2 MiB, of which a part is for other things. Where the matrix fits, or nearly so, to
 * split its units gains little: measured at 1 MiB on a processor with 1 MiB. */
static const double usual_far = 2 << 20;
static _Atomic double far_bytes = usual_far;

int is_far(double bytes) { return bytes >= far_bytes; }

double fastrnn_swap_far(double bytes) { return atomic_exchange(&far_bytes, bytes); }

/* Workers who sleep have to be woken, which takes some tens of microseconds on a processor that is idle, and some
 * hundred after a long rest, on the virtual machine where this was measured. So a call of fewer operations than this,
 * or than five times this, has a team only where workers were active recently, within workers_stay_awake. */
static const double usual_wake = 2e7;
static _Atomic double wake_flops = usual_wake;
static atomic_long teams_run;

void fastrnn_swap_team_policy(double *fork_join, double *wake)
{
    *fork_join = atomic_exchange(&fork_join_flops, *fork_join);
    *wake = atomic_exchange(&wake_flops, *wake);
}

long fastrnn_teams_run(void) { return atomic_load(&teams_run); }

#ifdef _OPENMP
/* The last time that a call wanted a team, or had one. */
static _Atomic double last_active;

static int is_worth_waking(double flops)
{
    static const double short_rest = 0.03; /* seconds */
    const double t = now(), rest = t - atomic_exchange_explicit(&last_active, t, memory_order_relaxed);
    return rest < workers_stay_awake || flops >= wake_flops * (rest < short_rest ? 1 : 5);
}

/* What processors others have. */
static struct company company;
static pthread_mutex_t company_lock = PTHREAD_MUTEX_INITIALIZER;
static void before_fork(void) { pthread_mutex_lock(&company_lock); }
static void after_fork(void) { pthread_mutex_unlock(&company_lock); }
static pthread_once_t fork_join_measured = PTHREAD_ONCE_INIT;
static void after_fork_in_child(void)
{
    after_fork();
    fork_join_measured = (pthread_once_t)PTHREAD_ONCE_INIT; /* the thread that measures may not be there */
}
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* Tests that have a team for any work have one in any company, and say nothing of it: their threads are late on
 * purpose. */
static int is_forced(void) { return fork_join_flops <= 0; }

static int allowed_in_company(int n)
{
    if (is_forced())
        return n;
    pthread_mutex_lock(&company_lock);
    n = company_allows(&company, n, now());
    pthread_mutex_unlock(&company_lock);
    return n;
}

void policy_saw(int n, double flops, const struct workers_job *job)
{
    const double end = now();
    atomic_store_explicit(&last_active, end, memory_order_relaxed);
    atomic_fetch_add_explicit(&teams_run, 1, memory_order_relaxed);
    if (is_forced() || flops == 0)
        return;
    pthread_mutex_lock(&company_lock);
    company_saw(&company, n, job->wall, job->lost, end);
    pthread_mutex_unlock(&company_lock);
}

int policy_looks_where(void) { return wake_flops > 0; }

/* Once a process, when it first has work for several threads: how long fork and join take, and how many
 * operations a thread could have done meanwhile. The shortest of some times is what the machine can do; the
 * bounds keep a process that had a bad moment from being stuck with it. What is lost in a team besides (caches that
 * are cold, lines that are shared, a thread that comes late) is about twice as much again: so 3 times. Waking a worker
 * is not measured, for first it would have to fall asleep: it is worth it for work of this length where a virtual
 * machine's idle processor has to be called back. */
static const double seconds_to_wake = 2.5e-4;

static void nothing(const struct team *team, void *job)
{
    (void)team;
    (void)job;
}

static void measure_fork_join(void)
{
    /* Not more than processors: what threads that take turns cost is another question. */
    const int asked = fastrnn_get_num_threads(), processors = omp_get_num_procs();
    const int max = processors < fine_threads ? processors : (int)fine_threads, n = asked < max ? asked : max;
    double fork_join = usual_fork_join, wake = usual_wake, shortest = 1, rate = 0;
    if (n < 2 || atomic_load(&fork_join_flops) != fork_join || workers_for(n) < n)
        return;
    for (int i = 0; i < 12; i++) {
        const double begin = now();
        if (team_run(n, 0, nothing, NULL) != 0)
            return;
        const double joined = now();
        const double flops = fastrnn_kernels_in_use()->multiply_adds[0](500);
        const double calculated = now();
        shortest = joined - begin < shortest ? joined - begin : shortest;
        rate = flops > rate * (calculated - joined) ? flops / (calculated - joined) : rate;
    }
    double c = 3 * shortest / n * rate;
    c = c < fork_join / 3 ? fork_join / 3 : c > fork_join * 3 ? fork_join * 3 : c;
    atomic_compare_exchange_strong(&fork_join_flops, &fork_join, c);
    atomic_compare_exchange_strong(&wake_flops, &wake, seconds_to_wake * rate);
}
#endif

int team_size(int threads, double flops, int64_t max)
{
    int64_t n = worthwhile_size(flops, fork_join_flops, allowed_threads(threads, max));
#ifdef _OPENMP
    if (n > 1 && !is_worth_waking(flops))
        n = 1;
    if (n > 1) {
        pthread_once(&fork_join_measured, measure_fork_join);
        n = worthwhile_size(flops, fork_join_flops, n);
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
