/* The rates that benchmarks are compared with: multiply-adds and reads, over the threads of a team. */
#include "fastrnn.h"
#include "team.h"

#include <stdatomic.h>
#include <string.h>

struct rate {
    const struct fastrnn_kernels *kernels;
    int is_double;
    double seconds;
    const char *x; /* what is read; NULL: multiply-adds are counted */
    int64_t bytes; /* by each thread */
    _Atomic double rate;
};

static void measure(const struct team *team, void *job)
{
    struct rate *r = job;
    const int d = r->is_double;
    const int64_t n = r->bytes / (d ? 8 : 4);
    double done = 0, elapsed;
    team_barrier(team);
    const double begin = now();
    do {
        if (r->x)
            done += r->kernels->reads[d](r->x + team->id * r->bytes, n, 1 + (1 << 20) / r->bytes);
        else
            done += r->kernels->multiply_adds[d](100000);
        elapsed = now() - begin;
    } while (elapsed < r->seconds);
    double sum = atomic_load(&r->rate);
    while (!atomic_compare_exchange_weak(&r->rate, &sum, sum + done / elapsed))
        ;
}

double fastrnn_multiply_add_rate(int is_double, double seconds)
{
    struct rate r = {fastrnn_kernels_in_use(), is_double ? 1 : 0, seconds, NULL, 0, 0};
    if (team_run(team_size_in_any_company(), 1e30, measure, &r) != 0)
        team_run(1, 1e30, measure, &r);
    return atomic_load(&r.rate);
}

double fastrnn_read_rate(int is_double, double seconds, int64_t bytes)
{
    int n = team_size_in_any_company();
    struct rate r = {fastrnn_kernels_in_use(), is_double ? 1 : 0, seconds, NULL, 0, 0};
    for (;;) {
        r.bytes = ((bytes - 1) / n / 1024 + 1) * 1024;
        void *const x = scratch_take((size_t)(n * r.bytes));
        if (!x)
            return 0;
        r.x = memset(x, 0, (size_t)(n * r.bytes));
        const int missing = team_run(n, 1e30, measure, &r);
        scratch_give(x);
        if (!missing)
            return atomic_load(&r.rate);
        n = 1;
    }
}
