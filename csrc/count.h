/* A number that one thread raises and others wait for: they spin, and then sleep. */
#ifndef FASTRNN_COUNT_H
#define FASTRNN_COUNT_H
#include <stdatomic.h>
#include <stdint.h>

struct count {
    _Atomic int64_t value;
    _Atomic uint32_t sleepers; /* how many sleep, or are about to */
    _Atomic uint32_t bell;     /* how often they were woken */
    _Atomic int64_t rung;      /* when that was last, in nanoseconds */
};

/* What was written before a count was set is there for who has seen it. The count may be gone as soon as others have
 * seen it only if they then wait for the thread that set it. */
void count_set(struct count *count, int64_t value);
int64_t count_now(const struct count *count);
/* Until it is at least `target`. Spins, then lets others have the processor for `awake` seconds, then sleeps. */
void count_wait(struct count *count, int64_t target, double awake);
/* For waits in the middle of a job, where the others are at work too. */
static const double meeting_awake = 5e-5;
/* Whether somebody has to be woken at the next count_set. */
int count_is_slept_on(const struct count *count);

/* Seconds for which this thread wanted no processor: in count_wait from when it fell asleep until it was woken, with
 * the most that waking takes where a processor is idle, and as did_not_want says. What goes by after that until it runs
 * is not in it: it has no processor. */
double unwanted(void);
/* How often it has given its processor away so. */
long sleeps(void);
void did_not_want(double seconds, long times);

/* Seconds, from some moment on. */
double now(void);
#endif
