/* Arenas: scratch memory of calls, from a small cache that the process has. */
#define _GNU_SOURCE /* posix_memalign */
#include "team.h"
#include "schedule.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A child has the cache as it is at the fork, but not the thread that may be at it: so nobody is then. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(before_fork, after_fork, after_fork); }

/* A block carries its size in a header of one cache line. Fresh pages cost as much as packing the
 * weights, so the last few blocks are kept, up to max_kept bytes in all; the oldest make room. */
struct block {
    size_t bytes;
    struct block *next; /* of those kept, the one given back before */
};
enum { header = 64, kept_blocks = 8 };
static const size_t max_kept = (size_t)256 << 20;
static struct block *kept; /* the newest */

void *scratch_take(size_t bytes)
{
    pthread_mutex_lock(&lock);
    come_late(FASTRNN_IN_SCRATCH, 0, 0);
    struct block **best = NULL;
    for (struct block **at = &kept; *at; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (!best || (*at)->bytes < (*best)->bytes))
            best = at;
    struct block *found = best ? *best : NULL;
    if (found)
        *best = found->next;
    pthread_mutex_unlock(&lock);
    if (!found) {
        void *p;
        if (bytes > SIZE_MAX - header || posix_memalign(&p, header, bytes + header) != 0)
            return NULL;
        found = p;
        found->bytes = bytes;
    }
    return (char *)found + header;
}

void scratch_give(void *p)
{
    struct block *given = (struct block *)((char *)p - header);
    pthread_mutex_lock(&lock);
    given->next = kept;
    kept = given;
    struct block **at = &kept;
    size_t bytes = 0;
    for (int i = 0; *at && i < kept_blocks && bytes + (*at)->bytes <= max_kept; i++) {
        bytes += (*at)->bytes;
        at = &(*at)->next;
    }
    struct block *old = *at; /* this one and those before it */
    *at = NULL;
    pthread_mutex_unlock(&lock);
    while (old) {
        struct block *next = old->next;
        free(old);
        old = next;
    }
}
