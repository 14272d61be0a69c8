/* The worker threads of this process: one set, whoever calls. */
#ifndef FASTRNN_WORKERS_H
#define FASTRNN_WORKERS_H

/* Runs work(id, job) for each id < n, n >= 2, id 0 in the thread that calls; returns 0 when all have come back. Or -1
 * without having run anything: another call has the workers, or so many cannot be made.
 *
 * `watched`: the work takes so long that asking the system for the processor time of each thread costs nothing. */
struct workers_job {
    void (*work)(int id, void *job);
    void *job;
    int watched;
    double wall, lost; /* results: seconds; what company_saw wants */
};
int workers_run(int n, struct workers_job *job);

/* Seconds. Where a job comes so soon after the one before, workers wait so long for the next one before they sleep;
 * else some microseconds. */
static const double workers_stay_awake = 0.002;

/* How many threads a job of at most n, n >= 2, may have: makes workers where there are fewer than n - 1. A thread that
 * cannot be made means one less. */
int workers_for(int n);

/* Around what a thread does that is not its work, and may wait for others: to have no processor then says nothing. */
struct workers_break {
    double begin, processor;
    long given;
};
struct workers_break workers_take_a_break(void);
void workers_go_on(const struct workers_break *taken);

/* How many there are. With the thread that keeps them, the process has one thread more. */
int workers_made(void);
#endif
