/* Schedules, for tests: see fastrnn.h. */
#define _GNU_SOURCE /* nanosleep */
#include "schedule.h"

#include <string.h>
#include <time.h>

static struct fastrnn_delay delays[16];
static atomic_int delays_begun, delays_ended;
atomic_int delays_set;

int fastrnn_set_delays(const struct fastrnn_delay *given, int count)
{
    if (count > (int)(sizeof delays / sizeof *delays))
        return -1;
    atomic_store(&delays_set, 0);
    if (count > 0)
        memcpy(delays, given, (size_t)count * sizeof *delays);
    atomic_store(&delays_begun, 0);
    atomic_store(&delays_ended, 0);
    atomic_store(&delays_set, count);
    return 0;
}

void fastrnn_delays(int *begun, int *ended)
{
    *begun = atomic_load(&delays_begun);
    *ended = atomic_load(&delays_ended);
}

int delayed(int count, enum fastrnn_place place, int thread, int64_t nth)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        const struct fastrnn_delay *d = &delays[i];
        if (d->place != (int)place || d->thread != thread || d->nth != nth)
            continue;
        const int64_t us = d->microseconds;
        atomic_fetch_add(&delays_begun, 1);
        if (us > 0)
            nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
        atomic_fetch_add(&delays_ended, 1);
        found = 1;
    }
    return found;
}
