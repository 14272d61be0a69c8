/* Waiting: see count.h. */
#define _GNU_SOURCE /* syscall, sched_yield */
#include "count.h"
#include "schedule.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <time.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

double now(void) { return 1e-9 * (double)nanoseconds(); }

static inline void relax(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps while the bell has rung so often; may also return early, and at once: then the result is 0. */
#ifdef __linux__
static int sleep_on(_Atomic uint32_t *bell, uint32_t heard)
{
    return syscall(SYS_futex, (uint32_t *)bell, FUTEX_WAIT_PRIVATE, heard, NULL, NULL, 0) == 0 || errno != EAGAIN;
}
static void wake(_Atomic uint32_t *bell)
{
    syscall(SYS_futex, (uint32_t *)bell, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
#else
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t rung = PTHREAD_COND_INITIALIZER;
static int sleep_on(_Atomic uint32_t *bell, uint32_t heard)
{
    int has_slept = 0;
    pthread_mutex_lock(&lock);
    for (; atomic_load(bell) == heard; has_slept = 1)
        pthread_cond_wait(&rung, &lock);
    pthread_mutex_unlock(&lock);
    return has_slept;
}
static void wake(_Atomic uint32_t *bell)
{
    (void)bell;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&rung);
    pthread_mutex_unlock(&lock);
}
/* In a child nobody else is there to hold the lock or to sleep. */
static void after_fork(void)
{
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    rung = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
}
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork); }
#endif

static _Thread_local int64_t unwanted_ns;
static _Thread_local long slept;
double unwanted(void) { return 1e-9 * (double)unwanted_ns; }
long sleeps(void) { return slept; }
void did_not_want(double seconds, long times)
{
    unwanted_ns += (int64_t)(1e9 * seconds);
    slept += times;
}

int64_t count_now(const struct count *count) { return atomic_load_explicit(&count->value, memory_order_acquire); }

int count_is_slept_on(const struct count *count) { return atomic_load(&count->sleepers) != 0; }

/* Who goes to sleep adds itself to sleepers, listens to the bell, and then looks at value; who sets value looks at
 * sleepers after that, and rings. In the one order of all these (sequentially consistent) either the sleeper sees the
 * value, or it is seen; and the bell then rings after it listened, so that it does not sleep on. */
void count_set(struct count *count, int64_t value)
{
    atomic_store(&count->value, value);
    if (atomic_load(&count->sleepers)) {
        atomic_store_explicit(&count->rung, nanoseconds(), memory_order_relaxed);
        atomic_fetch_add(&count->bell, 1);
        wake(&count->bell);
    }
}

/* About five microseconds on most processors: what two threads need that do the same amount of work. */
static const int spins = 250;
/* A processor that is idle runs a thread within this, also that of a virtual machine, which has to be called back. */
static const int64_t wakes_within = 500000;

void count_wait(struct count *count, int64_t target, double awake)
{
    for (int i = 0; i < spins; i++) {
        if (count_now(count) >= target)
            return;
        relax();
    }
    const int64_t begin = nanoseconds(), until = begin + (int64_t)(1e9 * awake);
    while (nanoseconds() < until) {
        sched_yield();
        if (count_now(count) >= target)
            return;
    }
    const int64_t asleep = nanoseconds();
    atomic_fetch_add(&count->sleepers, 1);
    for (;;) {
        const uint32_t heard = atomic_load(&count->bell);
        if (atomic_load(&count->value) >= target)
            break;
        come_late(FASTRNN_BEFORE_SLEEP, 0, 0);
        slept += sleep_on(&count->bell, heard);
    }
    atomic_fetch_sub(&count->sleepers, 1);
    const int64_t end = nanoseconds(), woken = atomic_load_explicit(&count->rung, memory_order_relaxed);
    const int64_t ready = woken < asleep ? end : woken + wakes_within;
    unwanted_ns += (ready < end ? ready : end) - asleep;
}
