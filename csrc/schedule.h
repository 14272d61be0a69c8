/* Which thread is late is chance; for tests a schedule makes one late where it matters. */
#ifndef FASTRNN_SCHEDULE_H
#define FASTRNN_SCHEDULE_H
#include "fastrnn.h"

#include <stdatomic.h>

extern atomic_int delays_set; /* how many; 0 but in tests */
int delayed(int count, enum fastrnn_place place, int thread, int64_t nth);

/* Whether the schedule names this place; a thread that is to come late does so here. */
static inline int come_late(enum fastrnn_place place, int thread, int64_t nth)
{
    const int count = atomic_load_explicit(&delays_set, memory_order_acquire);
    return count ? delayed(count, place, thread, nth) : 0;
}
#endif
