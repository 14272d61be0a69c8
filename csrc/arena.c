/* Arenas: scratch memory of calls, from a small cache that the process has. */
#define _GNU_SOURCE /* posix_memalign */
#include "team.h"
#include "schedule.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A child has the cache as it is at the fork, but not the thread that may be at it: so nobody is then. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(before_fork, after_fork, after_fork); }

/* A block carries its size in a header of one cache line. Fresh pages cost as much as packing the
 * weights, so the last blocks are kept, up to max_kept bytes in all; the oldest make room. */
struct block {
    size_t bytes;
    struct block *next; /* of those kept, the one given back before */
};
enum { header = 64, kept_blocks = 32 };
static const size_t max_kept = (size_t)256 << 20;
static struct block *kept; /* the newest */

/* The smallest block that is kept and has `bytes`, but not more than `most`; or a new one. */
static void *take(size_t bytes, size_t most)
{
    pthread_mutex_lock(&lock);
    come_late(FASTRNN_IN_SCRATCH, 0, 0);
    struct block **best = NULL;
    for (struct block **at = &kept; *at; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (*at)->bytes <= most && (!best || (*at)->bytes < (*best)->bytes))
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

void *scratch_take(size_t bytes) { return take(bytes, SIZE_MAX); }

/* Results may live for long: what they take hardly exceeds what they need. */
void *fastrnn_result_malloc(void *context, size_t bytes)
{
    (void)context;
    return take(bytes, bytes + bytes / 8);
}

void fastrnn_result_free(void *context, void *p, size_t bytes)
{
    (void)context;
    (void)bytes;
    if (p)
        scratch_give(p);
}

void *fastrnn_result_calloc(void *context, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    void *const p = fastrnn_result_malloc(context, count * size);
    return p ? memset(p, 0, count * size) : NULL;
}

void *fastrnn_result_realloc(void *context, void *p, size_t bytes)
{
    void *const to = fastrnn_result_malloc(context, bytes);
    if (!to || !p)
        return to;
    const size_t had = ((const struct block *)((char *)p - header))->bytes;
    memcpy(to, p, had < bytes ? had : bytes);
    scratch_give(p);
    return to;
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
