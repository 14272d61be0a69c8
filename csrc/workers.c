/* Worker threads: the only file that opens a parallel region of OpenMP. They are the threads of one long region, which
 * a thread of our own enters, the opener; they take their jobs not from the runtime but from a count each, as it wakes
 * them. Why not a region for each call: the runtime keeps a set of threads for every thread that has opened one, its
 * idle threads spin for milliseconds, and a child that was forked has none of them but believes it has.
 *
 * The opener does no work: where OMP_PROC_BIND binds threads, it has a place that threads who call have (with gcc's
 * runtime the first). It also makes the region again where more threads are wanted. Fewer are never made: who is not
 * wanted sleeps. All have the priority of the thread whose call first made some. */
#define _GNU_SOURCE /* cpu sets, RUSAGE_THREAD, gettid */
#include "workers.h"
#include "count.h"
#include "fastrnn.h"
#include "schedule.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef _OPENMP
#include <omp.h>

/* One of the workers. Counts have cache lines of their own: who sets one has no other's in the way. */
struct worker {
    _Alignas(64) struct count given; /* jobs */
    _Alignas(64) struct count done;
    double given_at, lost; /* the last job: when; what it lost in it */
#ifdef __linux__
    pid_t thread;
    int kept_off; /* the processor that it may not be woken on; negative: none */
    cpu_set_t allowed; /* those of the thread that woke it last */
#endif
};

static struct pool {
    atomic_int busy; /* somebody has them */
    atomic_int size; /* workers; written by the opener, while they have no job */
    struct worker *workers;
    int has_opener, steered;
    int wanted; /* threads of the next region */
    int kept; /* threads that the runtime has for the opener */
    double again; /* when more are tried, where there was no room */
    double pause; /* for how long, the next time */
    struct count regions, opened;
    struct workers_job *job; /* NULL: leave the region */
    double awake, begun; /* how long workers wait after this job before they sleep; when it began */
    double ended; /* the last one */
    double longest; /* of the last ones: it shrinks by a tenth at each */
    long caller; /* the last one */
} pool;

/* ------------------------------------------------------------------------- what a thread has had */

static double processor_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* How often another thread has got this one's processor, also where it was let by; and how often this one waited for
 * something else than a count: the disk, or memory. */
struct switches {
    long lost, given;
};

static struct switches switches(void)
{
#ifdef RUSAGE_THREAD
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage); /* its times are not used: they are up to a clock tick old */
    return (struct switches){usage.ru_nivcsw, usage.ru_nvcsw - sleeps()};
#else
    return (struct switches){0, 0};
#endif
}

/* What the system said to this thread last, and when that was. */
static _Thread_local struct switches told;
static _Thread_local double asked;

/* What most jobs that are not watched take less than. The next ones after a longer one are watched. */
static const double short_job = 0.001;
/* Who starts later than this did not only have to be woken. */
static const double starts_within = 0.0005;

/* Runs a thread's part, and returns for how long it wanted a processor and had none: how late it came, and what it lost
 * at work; this is 0 where the system says that the thread has lost its processor to no other, or that it waited for
 * something else. So what the host of a virtual machine takes counts little. */
static double run_part(int id, double given_at, struct workers_job *job)
{
    const int watched = job->watched;
    const double begin = now(), unwanted_before = unwanted();
    const double late = begin - given_at - starts_within, had_before = watched ? processor_time() : 0;
    if (watched || asked == 0) {
        told = switches();
        asked = begin;
    }
    const struct switches before = told;
    job->work(id, job->job);
    const double end = now();
    double lost = end - begin - (unwanted() - unwanted_before);
    lost -= watched ? processor_time() - had_before : short_job;
    if (watched || lost > 0 || end - asked > short_job) {
        told = switches();
        asked = end;
        lost = told.lost > before.lost && told.given <= before.given ? lost : 0;
    }
    return (lost > 0 ? lost : 0) + (late > 0 ? late : 0);
}

struct workers_break workers_take_a_break(void)
{
    return (struct workers_break){now(), processor_time(), switches().given};
}

void workers_go_on(const struct workers_break *taken)
{
    const double wall = now() - taken->begin, processor = processor_time() - taken->processor;
    did_not_want(wall > processor ? wall - processor : 0, switches().given - taken->given);
}

/* In a child the threads are not there. What they had in memory is left where it is. */
static void after_fork(void)
{
    memset(&pool, 0, sizeof pool);
    asked = 0;
}
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork); }

/* ------------------------------------------------------------------------------------- the region */

/* OpenMP's runtime ends the process where it cannot make a thread (no address space for its stack, too many processes).
 * So as many as it is about to make are made here first, all at once, and given up again. Somebody else may take the
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

/* How many of `count` threads there is room for. */
static int can_make(int count)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *const threads = malloc((size_t)count * sizeof *threads);
    pthread_attr_t attributes;
    int made = 0;
    if (!threads || pthread_attr_init(&attributes) != 0) {
        free(threads);
        return 0;
    }
    if (stack)
        pthread_attr_setstacksize(&attributes, stack); /* too small a one is not taken, nor by the runtime */
    pthread_mutex_lock(&gate);
    while (made < count && pthread_create(&threads[made], &attributes, wait_at, &gate) == 0)
        made++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < made; i++)
        pthread_join(threads[i], NULL);
    pthread_attr_destroy(&attributes);
    free(threads);
    return made;
}

static void serve(struct worker *worker, int id)
{
#ifdef __linux__
    worker->thread = (pid_t)syscall(SYS_gettid);
    worker->kept_off = -1;
#endif
    count_set(&worker->done, 1);
    double awake = 0;
    for (int64_t nth = 1;; nth++) {
        count_wait(&worker->given, nth, awake);
        struct workers_job *const job = pool.job;
        if (!job)
            return;
        come_late(FASTRNN_BEFORE_JOB, id, 0);
        awake = pool.awake;
        worker->lost = run_part(id, worker->given_at, job);
        come_late(FASTRNN_AFTER_JOB, id, 0);
        count_set(&worker->done, nth + 1); /* from here on the job may be gone */
    }
}

static void region(int64_t nth)
{
    const int more = pool.wanted - 1 - pool.kept;
    const int n = more > 0 ? pool.kept + can_make(more) + 1 : pool.wanted;
    struct worker *workers = NULL;
    if (n < 2 || posix_memalign((void **)&workers, 64, (size_t)(n - 1) * sizeof *workers) != 0) {
        count_set(&pool.opened, nth);
        return;
    }
    memset(workers, 0, (size_t)(n - 1) * sizeof *workers);
    pool.workers = workers;
#pragma omp parallel num_threads(n)
    {
        const int id = omp_get_thread_num(), came = omp_get_num_threads();
        if (id > 0)
            serve(&workers[id - 1], id);
        else {
            for (int i = 0; i < came - 1; i++)
                count_wait(&workers[i].done, 1, 0);
            pool.steered = omp_get_proc_bind() == omp_proc_bind_false;
            if (came > 1) /* a region of one leaves the others where they are */
                pool.kept = came - 1;
            atomic_store(&pool.size, came - 1);
            count_set(&pool.opened, nth);
            count_wait(&pool.regions, nth + 1, 0); /* until others are wanted */
        }
    }
    free(workers);
}

static void *open_regions(void *nothing)
{
    omp_set_dynamic(0); /* company.c sees to it that there are fewer */
    for (int64_t nth = 1;; nth++) {
        count_wait(&pool.regions, nth, 0);
        region(nth);
    }
    return nothing;
}

/* Signals are for the threads of the program, but those that a thread sends itself by what it does. */
static int make_opener(void)
{
    sigset_t all, before;
    pthread_t opener;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int made = pthread_create(&opener, &attributes, open_regions, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return made;
}

/* Has a region of n threads opened, or as many as there is room for, instead of the one that is open. */
static void open_region(int n)
{
    if (!pool.has_opener && !(pool.has_opener = make_opener()))
        return;
    const int size = atomic_load(&pool.size);
    atomic_store(&pool.size, 0);
    pool.job = NULL;
    for (int i = 0; i < size; i++)
        count_set(&pool.workers[i].given, count_now(&pool.workers[i].given) + 1);
    const int64_t nth = count_now(&pool.regions) + 1;
    pool.wanted = n;
    count_set(&pool.regions, nth);
    count_wait(&pool.opened, nth, 0);
}

static int take(void)
{
    int idle = 0;
    return atomic_compare_exchange_strong(&pool.busy, &idle, 1);
}

static void give(void) { atomic_store(&pool.busy, 0); }

int workers_for(int n)
{
    static const double shortest_pause = 1, longest_pause = 64; /* seconds */
    if (n - 1 > atomic_load(&pool.size) && take()) {
        if (n - 1 > atomic_load(&pool.size) && now() >= pool.again) {
            open_region(n);
            if (n - 1 <= atomic_load(&pool.size))
                pool.pause = 0;
            else {
                pool.pause = pool.pause > 0 ? 2 * pool.pause : shortest_pause;
                pool.pause = pool.pause < longest_pause ? pool.pause : longest_pause;
                pool.again = now() + pool.pause;
            }
        }
        give();
    }
    const int threads = atomic_load(&pool.size) + 1;
    return n < threads ? n : threads;
}

/* The system is likely to wake a thread on the processor of the thread that wakes it: there it would wait until that
 * one waits for it. So it may have the processors of the thread that calls, but not the one that this is on. Workers
 * who are awake are looked at only where another thread calls than before: it costs half a microsecond. */
static void place_workers(int count)
{
#ifdef __linux__
    static atomic_long callers;
    static _Thread_local long self; /* pthread_self() may be that of a thread that has ended */
    if (!self)
        self = atomic_fetch_add(&callers, 1) + 1;
    const int processor = sched_getcpu(), another = pool.caller != self;
    cpu_set_t allowed;
    int read = 0;
    pool.caller = self;
    for (int i = 0; i < count; i++) {
        struct worker *const worker = &pool.workers[i];
        const int asleep = count_is_slept_on(&worker->given);
        if (!asleep && !another)
            continue;
        if (!read && (processor < 0 || processor >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0))
            return;
        read = 1;
        if ((worker->kept_off == processor || !asleep) && CPU_EQUAL(&worker->allowed, &allowed))
            continue;
        cpu_set_t others = allowed;
        CPU_CLR(processor, &others);
        if (sched_setaffinity(worker->thread, sizeof others, CPU_COUNT(&others) ? &others : &allowed) == 0) {
            worker->kept_off = processor;
            worker->allowed = allowed;
        }
    }
#else
    (void)count;
#endif
}

int workers_run(int n, struct workers_job *job)
{
    if (!take())
        return -1;
    if (n - 1 > atomic_load(&pool.size)) {
        give();
        return -1;
    }
    pool.job = job;
    pool.begun = now();
    job->watched = job->watched || pool.longest > short_job / 2;
    pool.awake = pool.begun - pool.ended < workers_stay_awake ? workers_stay_awake : 0;
    if (pool.steered)
        place_workers(n - 1);
    for (int i = 0; i < n - 1; i++) {
        struct worker *const worker = &pool.workers[i];
        worker->given_at = now();
        count_set(&worker->given, count_now(&worker->given) + 1);
    }
    double lost = run_part(0, now(), job);
    for (int i = 0; i < n - 1; i++) {
        struct worker *const worker = &pool.workers[i];
        count_wait(&worker->done, count_now(&worker->given) + 1, meeting_awake);
        lost += worker->lost;
    }
    pool.ended = now();
    job->wall = pool.ended - pool.begun;
    pool.longest = job->wall > 0.9 * pool.longest ? job->wall : 0.9 * pool.longest;
    job->lost = lost;
    give();
    return 0;
}

int workers_made(void) { return atomic_load(&pool.size); }
#endif
