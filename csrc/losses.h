/* Softmax, alone and with cross-entropy, and the sum of squares that clipping needs.
 *
 *   e_j = exp(x_j - max x),   S = sum of e_j
 *   softmax_j = e_j / S,   log_softmax_j = x_j - max x - log S
 *   loss = w (log S + max x - x_t)      t the target, w the weight of the row
 *   d_j = scale w e_j / S,   d_t = -scale w (S - e_t) / S
 *
 * and of a target that is a weight q_j for each class, with Q their sum:
 *
 *   loss = w (Q log S + sum of q_j (max x - x_j)),   d_j = scale w (e_j Q - q_j S) / S
 *
 * Sums are float64, in an order that no vector width enters: plain C, which the compiler vectorises. */

enum { FN(chains) = 16 }; /* at least W: a padded row is whole vectors everywhere */

/* e[j] = exp((x[j] - max) / temperature) for j < n, and 0 up to a multiple of `chains`; returns the sum: 16
 * chains of every 16th element, then added one after the other. A NaN in x makes the sum NaN. */
static ALWAYS_INLINE double FN(exponentials)(const real *x, int64_t n, real temperature, real *e, real *max)
{
    const int64_t padded = FN(round_up)(n, FN(chains));
    memcpy(e, x, (size_t)n * sizeof(real));
    for (int64_t j = n; j < padded; j++)
        e[j] = -INFINITY;
    real largest[FN(chains)];
    for (int c = 0; c < FN(chains); c++)
        largest[c] = e[c];
    for (int64_t j = FN(chains); j < padded; j += FN(chains))
        for (int c = 0; c < FN(chains); c++)
            largest[c] = e[j + c] > largest[c] ? e[j + c] : largest[c];
    *max = largest[0];
    for (int c = 1; c < FN(chains); c++)
        *max = largest[c] > *max ? largest[c] : *max;
    const vec top = vset1(*max), divisor = vset1(temperature);
    for (int64_t j = 0; j < padded; j += W) {
        const vec d = vsub(vload(e + j), top);
        vstore(e + j, FN(exp)(temperature == 1 ? d : vdiv(d, divisor)));
    }
    double sum[FN(chains)] = {0};
    for (int64_t j = 0; j < padded; j += FN(chains))
        for (int c = 0; c < FN(chains); c++)
            sum[c] += (double)e[j + c];
    for (int c = 1; c < FN(chains); c++)
        sum[0] += sum[c];
    return sum[0];
}

/* log x for x >= 1, infinity or NaN. x = 2^k m, sqrt(1/2) < m <= sqrt(2), and with s = (m-1)/(m+1)
 * log m = 2 atanh s = 2 (s + s^3/3 + s^5/5 + ...): s^2 <= 0.0295, so the term left out is below 2^-64. Our own,
 * because the C library's has other bits on other processors. */
static double FN(natural_log)(double x)
{
    if (!(x < INFINITY))
        return x;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    double k = (double)(int64_t)(bits >> 52) - 1023, m;
    bits = (bits & (((uint64_t)1 << 52) - 1)) | (uint64_t)1023 << 52;
    memcpy(&m, &bits, sizeof m);
    if (m > 0x1.6a09e667f3bcdp0) {
        m *= 0.5;
        k += 1;
    }
    const double s = (m - 1) / (m + 1), z = s * s;
    double p = 0;
    for (int i = 23; i >= 3; i -= 2)
        p = p * z + 1.0 / i;
    /* k times the first 37 bits of ln 2 is exact. */
    return k * 0x1.62e42fefap-1 + (2 * s + (2 * s * z * p + k * 0x1.cf79abc9e3b3ap-40));
}

static int64_t FN(class_stride)(int64_t C) { return FN(stride)(FN(round_up)(C, FN(chains))); }

/* out[j] = e[j] factor, j < C; e is padded. */
static ALWAYS_INLINE void FN(scale_row)(const real *e, double factor, int64_t C, real *out)
{
    const vec f = vset1((real)factor);
    for (int64_t j = 0; j < C; j += W) {
        const int left = C - j < W ? (int)(C - j) : W;
        vstore_n(out + j, vmul(vload(e + j), f), left);
    }
}

struct FN(softmax_job) {
    const struct fastrnn_softmax *a;
    struct stop stop;
    uintptr_t scratch; /* of the threads, a row each */
};

static void FN(softmax_thread)(const struct team *team, void *shared)
{
    struct FN(softmax_job) *job = shared;
    const struct fastrnn_softmax *a = job->a;
    real *const e = (real *)job->scratch + team->id * FN(class_stride)(a->C);
    const int64_t begin = a->N * team->id / team->n, end = a->N * (team->id + 1) / team->n;
    for (int64_t n = begin; n < end && !stop_asked(&job->stop); n++) {
        if (n % 64 == 0)
            stop_poll(&job->stop, team);
        const real *x = (const real *)a->logits + n * a->step;
        real *out = (real *)a->output + n * a->C, max;
        const double sum = FN(exponentials)(x, a->C, 1, e, &max);
        if (!a->logarithm) {
            FN(scale_row)(e, 1 / sum, a->C, out);
            continue;
        }
        const double log_sum = FN(natural_log)(sum);
        for (int64_t j = 0; j < a->C; j++)
            out[j] = (real)((double)x[j] - (double)max - log_sum);
    }
}

static uintptr_t FN(layout_softmax)(void *shared, int threads, uintptr_t at)
{
    struct FN(softmax_job) *job = shared;
    job->scratch = at;
    return at + (size_t)threads * (size_t)FN(class_stride)(job->a->C) * sizeof(real);
}

static int FN(softmax)(const struct fastrnn_call *call)
{
    const struct fastrnn_softmax *a = (const void *)call;
    struct FN(softmax_job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(a->call.threads, fastrnn_softmax_flops(a->N, a->C), a->N, FN(layout_softmax),
                                           FN(softmax_thread), &job));
}

struct FN(cross_entropy_job) {
    const struct fastrnn_cross_entropy *a;
    struct stop stop;
    uintptr_t scratch; /* of the threads, each a row of e and, where they have one, of q */
};

static int FN(has_weights)(const struct fastrnn_cross_entropy *a) { return a->soft || a->smoothing > 0; }

static size_t FN(cross_entropy_bytes)(const struct fastrnn_cross_entropy *a)
{
    const size_t row = (size_t)FN(class_stride)(a->C);
    return row * sizeof(real) + (FN(has_weights)(a) ? row * sizeof(double) : 0);
}

/* q of row n: the target, smoothed, times the weights of the classes. */
static void FN(target_weights)(const struct fastrnn_cross_entropy *a, int64_t n, double *q)
{
    for (int64_t j = 0; j < a->C; j++)
        q[j] = a->soft ? (double)((const real *)a->soft)[n * a->step_soft + j] : 0;
    if (!a->soft)
        q[a->target[n]] = 1;
    if (a->smoothing > 0) {
        const double kept = 1 - a->smoothing, added = a->smoothing / (double)a->C;
        for (int64_t j = 0; j < a->C; j++)
            q[j] = q[j] * kept + added;
    }
    if (a->class_weight)
        for (int64_t j = 0; j < a->C; j++)
            q[j] *= a->class_weight[j];
}

/* The loss of a row by its q, and its gradient. A class whose q is 0 adds nothing, though its x be -infinity. */
static double FN(weighted_row)(const struct fastrnn_cross_entropy *a, const real *x, const double *q, double scale,
                               const real *e, double sum, real max, real *d)
{
    double Q[FN(chains)] = {0}, below[FN(chains)] = {0};
    for (int64_t j = 0; j < a->C; j += FN(chains)) {
        const int left = a->C - j < FN(chains) ? (int)(a->C - j) : FN(chains);
        for (int c = 0; c < left; c++) {
            Q[c] += q[j + c];
            below[c] += q[j + c] != 0 ? q[j + c] * ((double)max - (double)x[j + c]) : 0;
        }
    }
    for (int c = 1; c < FN(chains); c++) {
        Q[0] += Q[c];
        below[0] += below[c];
    }
    const double factor = scale / sum;
    for (int64_t j = 0; j < a->C; j++)
        d[j] = (real)(((double)e[j] * Q[0] - q[j] * sum) * factor);
    return Q[0] * FN(natural_log)(sum) + below[0];
}

static void FN(cross_entropy_thread)(const struct team *team, void *shared)
{
    struct FN(cross_entropy_job) *job = shared;
    const struct fastrnn_cross_entropy *a = job->a;
    real *const e = (real *)(job->scratch + (size_t)team->id * FN(cross_entropy_bytes)(a));
    double *const q = (double *)(e + FN(class_stride)(a->C));
    const int64_t begin = a->N * team->id / team->n, end = a->N * (team->id + 1) / team->n;
    for (int64_t n = begin; n < end && !stop_asked(&job->stop); n++) {
        if (n % 64 == 0)
            stop_poll(&job->stop, team);
        const real *x = (const real *)a->logits + n * a->step;
        real *d = (real *)a->d_logits + n * a->C;
        if (a->counts && !a->counts[n]) {
            memset(d, 0, (size_t)a->C * sizeof(real));
            a->losses[n] = 0;
            continue;
        }
        real max;
        const double sum = FN(exponentials)(x, a->C, 1, e, &max);
        const double scale = a->weights ? a->scale * a->weights[n] : a->scale;
        if (FN(has_weights)(a)) {
            FN(target_weights)(a, n, q);
            a->losses[n] = FN(weighted_row)(a, x, q, scale, e, sum, max, d);
        } else {
            const int64_t t = a->target[n];
            FN(scale_row)(e, scale / sum, a->C, d);
            d[t] = (real)(-(sum - (double)e[t]) / sum * scale);
            a->losses[n] = FN(natural_log)(sum) + ((double)max - (double)x[t]);
        }
        if (a->weights)
            a->losses[n] *= a->weights[n];
    }
    team_barrier(team);
    if (team->id > 0)
        return;
    double total = 0;
    for (int64_t n = 0; n < a->N; n++)
        total += a->losses[n];
    *a->total = total;
}

static uintptr_t FN(layout_cross_entropy)(void *shared, int threads, uintptr_t at)
{
    struct FN(cross_entropy_job) *job = shared;
    job->scratch = at;
    return at + (size_t)threads * FN(cross_entropy_bytes)(job->a);
}

static int FN(cross_entropy)(const struct fastrnn_call *call)
{
    const struct fastrnn_cross_entropy *a = (const void *)call;
    struct FN(cross_entropy_job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(a->call.threads, fastrnn_softmax_flops(a->N, a->C), a->N,
                                           FN(layout_cross_entropy), FN(cross_entropy_thread), &job));
}

/* The sum of x[i]^2: 16 chains of every 16th element, then added one after the other. */
static double FN(squares)(const real *x, int64_t n)
{
    double sum[FN(chains)] = {0};
    int64_t i = 0;
    for (; i + FN(chains) <= n; i += FN(chains))
        for (int c = 0; c < FN(chains); c++)
            sum[c] += (double)x[i + c] * (double)x[i + c];
    for (int c = 0; i < n; c++, i++)
        sum[c] += (double)x[i] * (double)x[i];
    for (int c = 1; c < FN(chains); c++)
        sum[0] += sum[c];
    return sum[0];
}

struct FN(squares_job) {
    const real *x;
    int64_t n;
    double total;
};

static void FN(squares_thread)(const struct team *team, void *shared)
{
    struct FN(squares_job) *job = shared;
    (void)team;
    job->total = FN(squares)(job->x, job->n);
}

static double FN(sum_of_squares)(const void *x, int64_t n)
{
    struct FN(squares_job) job = {x, n, 0};
    team_run(1, 0, FN(squares_thread), &job); /* in the floating-point mode of the kernels */
    return job.total;
}
