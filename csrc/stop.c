/* Cancellation: whether a call should end early, which its first thread asks the caller now and then. */
#include "fastrnn.h"
#include "fp_mode.h"
#include "schedule.h"
#include "team.h"
#include "workers.h"

#include <pthread.h>
#include <setjmp.h>

/* From the first process to this one. */
static atomic_long forks;
static void count_fork(void) { atomic_fetch_add(&forks, 1); }
__attribute__((constructor)) static void count_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

struct stop stop_for(const struct fastrnn_call *call)
{
    const double begun = call->interrupted ? now() : 0;
    return (struct stop){.interrupted = call->interrupted, .context = call->context, .last = begun};
}

int stop_status(const struct stop *stop, int status)
{
    return status != FASTRNN_OK ? status : atomic_load(&stop->asked) ? FASTRNN_INTERRUPTED : FASTRNN_OK;
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
    /* Thread 0 may have asked again before the others look. What counts is what it says here. */
    return (int)team_broadcast(team, stop_asked(stop));
}
