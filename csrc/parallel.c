/* Threads: the only file that knows OpenMP. Also the floating-point mode that each thread needs. Without OpenMP at
 * compile time every team has one member. */
#define _GNU_SOURCE /* sched_getcpu */
#include "parallel.h"
#include "fastrnn.h"
#include "schedule.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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
static atomic_int team_at_work;  /* a team of several threads is running */
static atomic_long forks;        /* from the first process to this one: the OpenMP runtime's threads survived none */
static pthread_once_t started = PTHREAD_ONCE_INIT;

static void after_fork(void)
{
    atomic_fetch_add(&forks, 1);
    atomic_store(&team_at_work, 0);
}

static void start(void)
{
    processors_paid_for = getenv("OMP_NUM_THREADS") ? 0 : fastrnn_cpu_quota("");
}

/* When the module is loaded, not at the first call: another user of the same OpenMP runtime may make
 * its threads, and fork, before that. */
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork);
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

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
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

/* The runtime's idle threads spin for some milliseconds and then sleep. Waking them takes 100 microseconds
 * and more (measured on a virtual machine of two processors: 1.8 ms in a call of 0.2 ms, the woken thread
 * having been put on the caller's processor). So a call of fewer operations than this has a team only
 * where it follows closely on another. */
static _Atomic double flops_to_wake = 1e8;
static atomic_long teams_run;

void fastrnn_swap_team_policy(double *to_meet, double *to_wake)
{
    *to_meet = atomic_exchange(&flops_to_meet, *to_meet);
    *to_wake = atomic_exchange(&flops_to_wake, *to_wake);
}

long fastrnn_teams_run(void) { return atomic_load(&teams_run); }

#ifdef _OPENMP
static const double closely = 0.01; /* seconds */
static _Atomic double last_wish;
static int follows_closely(void)
{
    const double t = now();
    return t - atomic_exchange_explicit(&last_wish, t, memory_order_relaxed) < closely;
}
#endif

#ifdef _OPENMP
/* Once a process, when it first has work for several threads: how long it takes to call the members together, and
 * how many operations one could have done meanwhile. The shortest of some times is what the machine can do; the
 * bounds keep a process that had a bad moment from being stuck with it. What is lost in a team besides (caches that
 * are cold, lines that are shared, a member that comes late) is about twice as much again: so 3 times. */
static pthread_once_t meeting_measured = PTHREAD_ONCE_INIT;

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
    double usual = usual_meeting, meeting = 1, rate = 0;
    if (n < 2 || atomic_load(&flops_to_meet) != usual)
        return;
    for (int i = 0; i < 12; i++) {
        const double begin = now();
        if (team_run(n, nothing, NULL) != 0)
            return;
        const double met = now();
        const double flops = fastrnn_kernels_in_use()->multiply_adds[0](500);
        const double calculated = now();
        meeting = met - begin < meeting ? met - begin : meeting;
        rate = flops > rate * (calculated - met) ? flops / (calculated - met) : rate;
    }
    double c = 3 * meeting / n * rate;
    c = c < usual / 3 ? usual / 3 : c > usual * 3 ? usual * 3 : c;
    atomic_compare_exchange_strong(&flops_to_meet, &usual, c);
}
#endif

int team_size(int threads, double flops, int64_t most)
{
    int64_t n = threads ? threads : fastrnn_get_num_threads();
    if (n > most)
        n = most;
    if (n > fine_threads) {
        const int64_t limit = most_threads();
        n = n < limit ? n : limit > fine_threads ? limit : fine_threads;
    }
    n = worth(flops, flops_to_meet, n);
    if (n < 1 || !fastrnn_has_openmp() || atomic_load(&forks))
        n = 1;
#ifdef _OPENMP
    if (n > omp_get_thread_limit())
        n = omp_get_thread_limit();
    if (n > 1 && (omp_in_parallel() || (!follows_closely() && flops < flops_to_wake)))
        n = 1;
    if (n > 1) {
        pthread_once(&meeting_measured, measure_meeting);
        n = worth(flops, flops_to_meet, n);
    }
#endif
    return n < 1 ? 1 : (int)n;
}

/* About five microseconds. Members that differ by more lose little by asking the system once in a while, and where
 * two have come to one processor, all of this is lost at every wait. */
static const int spins = 250;

static inline void relax(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* For a wait's i-th look: spins first, then lets another program have the processor. */
static inline void between_looks(int *looks)
{
    if (*looks < spins) {
        ++*looks;
        relax();
    } else
        sched_yield();
}

void count_set(struct count *count, int64_t value)
{
    atomic_store_explicit(&count->value, value, memory_order_release);
}

int count_reaches(const struct count *count, int64_t least, const struct team *team, const struct stop *stop)
{
    int looks = 0;
    while (atomic_load_explicit(&count->value, memory_order_acquire) < least) {
        if (stop_asked(stop))
            return 0;
        between_looks(&looks);
    }
    come_late(FASTRNN_AFTER_COUNT, team->id, least);
    return 1;
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
    _Alignas(64) _Atomic int64_t reached; /* meetings */
    int64_t posted[2];
};

static void meet(const struct team *team, int64_t post)
{
    struct arrival *mine = &team->arrivals[team->id];
    const int64_t round = atomic_load_explicit(&mine->reached, memory_order_relaxed) + 1;
    come_late(FASTRNN_BEFORE_MEETING, team->id, round);
    mine->posted[round % 2] = post;
    atomic_store_explicit(&mine->reached, round, memory_order_release);
    for (int i = 0; i < team->n; i++) {
        int looks = 0;
        while (atomic_load_explicit(&team->arrivals[i].reached, memory_order_acquire) < round)
            between_looks(&looks);
    }
    come_late(FASTRNN_AFTER_MEETING, team->id, round);
}

/* What member i posted at this member's last meeting. */
static int64_t posted(const struct team *team, int i)
{
    const int64_t round = atomic_load_explicit(&team->arrivals[team->id].reached, memory_order_relaxed);
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
/* The runtime ends the process where it cannot make a thread (no address space for its stack, too many processes). So
 * as many as it is about to make are made here first, all at once, and given up again. Somebody else may take the
 * place meanwhile, and the runtime also ends the process where it has no memory for its own notes: both are left. */
static size_t stack_bytes(void)
{
    const char *const names[] = {"OMP_STACKSIZE", "GOMP_STACKSIZE"}, *const units = "BKMG";
    for (int i = 0; i < 2; i++) { /* a number and, maybe, B, K, M or G: without it K */
        const char *const text = getenv(names[i]);
        char *end;
        errno = 0;
        const unsigned long long n = text ? strtoull(text, &end, 10) : 0;
        if (!n || errno != 0 || strchr(text, '-'))
            continue;
        while (isspace((unsigned char)*end))
            end++;
        const char *const unit = *end ? strchr(units, toupper((unsigned char)*end++)) : units + 1;
        while (unit && unit != units + 1 && isspace((unsigned char)*end))
            end++;
        if (unit && *end == '\0' && n <= SIZE_MAX >> 10 * (unit - units))
            return (size_t)n << 10 * (unit - units);
    }
    return 0; /* the system's */
}

/* Read when the module is loaded, as the runtime does. */
static size_t stack;
__attribute__((constructor)) static void read_stack(void) { stack = stack_bytes(); }

static void *wait_at(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

static int can_make(int count)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t threads[count];
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    if (stack)
        pthread_attr_setstacksize(&attributes, stack); /* too small a one is not taken, nor by the runtime */
    int made = 0;
    pthread_mutex_lock(&gate);
    while (made < count && pthread_create(&threads[made], &attributes, wait_at, &gate) == 0)
        made++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < made; i++)
        pthread_join(threads[i], NULL);
    pthread_attr_destroy(&attributes);
    return made == count;
}

/* How many the runtime keeps for this thread: as many as its last team had. */
static _Thread_local int kept_threads = 1;

static int run_region(int n, void (*work)(const struct team *team, void *job), void *job, jmp_buf *way_out)
{
    struct arrival arrivals[n];
    const int placed = flops_to_wake > 0;
    int missing = -1, came = 1;
    if (n > kept_threads && !can_make(n - kept_threads))
        return -1;
    for (int i = 0; i < n; i++)
        atomic_init(&arrivals[i].reached, 0);
#pragma omp parallel num_threads(n)
    {
#pragma omp master
        came = omp_get_num_threads();
        if (omp_get_num_threads() == n) {
            const int id = omp_get_thread_num();
            run_member((struct team){.id = id, .n = n, .arrivals = arrivals, .placed = placed, .way_out = way_out}, work,
                       job);
#pragma omp master
            missing = 0;
        }
    }
    if (came > 1) /* a team of one leaves the others where they are */
        kept_threads = came;
    return missing;
}

/* A signal handler may fork in the middle of a call. Its child has this thread and no other, and would wait for the
 * rest of the team for ever, in a meeting or at the end of the region. So it jumps out (stop_poll), and the call
 * is made again from its arguments, which nobody has changed, by one thread. */
static int run_or_leave(int n, void (*work)(const struct team *team, void *job), void *job)
{
    jmp_buf here;
    if (setjmp(here) != 0)
        return -1;
    return run_region(n, work, job, &here);
}
#endif

int team_run(int n, void (*work)(const struct team *team, void *job), void *job)
{
    if (n <= 1) {
        run_member((struct team){.n = 1}, work, job);
        return 0;
    }
    int missing = -1;
#ifdef _OPENMP
    /* One team at a time: two callers with a team each would wait for each other's processors. */
    int idle = 0;
    if (!atomic_compare_exchange_strong(&team_at_work, &idle, 1))
        return -1;
    missing = run_or_leave(n, work, job);
    if (missing == 0)
        atomic_fetch_add_explicit(&teams_run, 1, memory_order_relaxed);
    atomic_store(&team_at_work, 0);
#endif
    return missing;
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
    const int asked = stop->interrupted(stop->context);
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

int team_job(int members, uintptr_t (*lay_out)(void *job, int members, uintptr_t at),
             void (*work)(const struct team *team, void *job), void *job)
{
    for (;;) {
        void *const scratch = scratch_take(lay_out(job, members, 0));
        if (!scratch)
            return FASTRNN_NO_MEMORY;
        lay_out(job, members, (uintptr_t)scratch);
        const int missing = team_run(members, work, job);
        scratch_give(scratch);
        if (!missing)
            return FASTRNN_OK;
        members = 1;
    }
}
