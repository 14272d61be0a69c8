/* Losses that are sums over elements. Of an element x, its target t and its weight w the loss is w l(x) and the
 * gradient scale w l'(x):
 *
 *   squared    l = d^2                                    l' = 2 d                  d = x - t, rounded
 *   absolute   l = |d|                                    l' = sign d, 0 at 0
 *   Huber      l = d^2/2, or delta (|d| - delta/2)        l' = d, or delta sign d   beyond |d| = delta
 *   binary     l = a softplus(-x) + b softplus(x)         l' = b sigmoid(x) - a sigmoid(-x)
 *
 * with a = p t, p the weight of the positive part, and b = 1 - t. By u = exp(-|x|), from which nothing overflows and
 * nothing cancels, softplus(-|x|) = log(1 + u), softplus(|x|) = |x| + log(1 + u), and sigmoid(|x|) = 1/(1 + u).
 *
 * Everything but d and u is float64; sums are 16 chains of every 16th element, then added one after the other, on one
 * thread: plain C, which the compiler vectorises. */

enum { FN(together) = 128 }; /* elements at once: whole chains, and few enough to stay in L1D */

/* Each of these makes n losses, at most `together`, and their derivatives: of the squared loss half of them. */
static void FN(squared_losses)(const real *x, const real *t, int n, double *loss, double *slope)
{
    for (int i = 0; i < n; i++) {
        const double d = (double)(real)(x[i] - t[i]);
        slope[i] = d;
        loss[i] = d * d;
    }
}

static void FN(absolute_losses)(const real *x, const real *t, int n, double *loss, double *slope)
{
    for (int i = 0; i < n; i++) {
        const double d = (double)(real)(x[i] - t[i]);
        slope[i] = d > 0 ? 1 : d < 0 ? -1 : d; /* NaN stays */
        loss[i] = fabs(d);
    }
}

static void FN(huber_losses)(const real *x, const real *t, double delta, int n, double *loss, double *slope)
{
    for (int i = 0; i < n; i++) {
        const double d = (double)(real)(x[i] - t[i]), size = fabs(d);
        slope[i] = d > delta ? delta : d < -delta ? -delta : d;
        loss[i] = size <= delta ? d * d * 0.5 : delta * (size - 0.5 * delta);
    }
}

/* log(1 + u), 0 <= u <= 1: 2 atanh s = 2 (s + s^3/3 + s^5/5 + ...), s = u/(2 + u) <= 1/3. The first term left out is
 * less than 2^-58 of the sum. */
static ALWAYS_INLINE double FN(log1p)(double u)
{
    const double s = u / (2 + u), z = s * s;
    double p = 0;
    for (int i = 33; i >= 3; i -= 2)
        p = p * z + 1.0 / i;
    return 2 * (s + s * z * p);
}

/* positive may be NULL. */
static void FN(binary_losses)(const real *x, const real *t, const double *positive, int n, double *loss, double *slope)
{
    real e[FN(together)] = {0};
    double on[FN(together)];
    memcpy(e, x, (size_t)n * sizeof(real));
    for (int i = 0; i < n; i += W)
        vstore(e + i, FN(exp)(vsub(vzero(), vabs(vload(e + i)))));
    for (int i = 0; i < n; i++)
        on[i] = positive ? positive[i] * (double)t[i] : (double)t[i];
    for (int i = 0; i < n; i++) {
        const double z = (double)x[i], u = (double)e[i], off = 1 - (double)t[i];
        const double linear = z > 0 ? off : on[i], far = linear * fabs(z);
        loss[i] = (on[i] + off) * FN(log1p)(u) + (linear != 0 ? far : 0); /* if it is 0, an infinite x adds nothing */
        slope[i] = (z > 0 ? off - on[i] * u : off * u - on[i]) / (1 + u);
    }
}

/* The weighted losses of n elements from `from` on, and their gradients. What does not count is selected away. */
static void FN(some_elements)(const struct fastrnn_elements *a, int64_t from, int n, double *loss)
{
    const real *const x = (const real *)a->input + from, *const t = (const real *)a->target + from;
    const double *const w = a->weights ? a->weights + from : NULL;
    const uint8_t *const counts = a->counts ? a->counts + from : NULL;
    double slope[FN(together)];
    switch (a->loss) {
    case FASTRNN_SQUARED: FN(squared_losses)(x, t, n, loss, slope); break;
    case FASTRNN_ABSOLUTE: FN(absolute_losses)(x, t, n, loss, slope); break;
    case FASTRNN_HUBER: FN(huber_losses)(x, t, a->delta, n, loss, slope); break;
    default: FN(binary_losses)(x, t, a->positive ? a->positive + from : NULL, n, loss, slope);
    }
    const double scale = a->loss == FASTRNN_SQUARED ? 2 * a->scale : a->scale;
    if (w)
        for (int i = 0; i < n; i++) {
            const double weighted = loss[i] * w[i], steep = slope[i] * (double)(real)(scale * w[i]);
            loss[i] = w[i] > 0 ? weighted : 0;
            slope[i] = w[i] > 0 ? steep : 0;
        }
    else
        for (int i = 0; i < n; i++)
            slope[i] *= (double)(real)scale;
    if (counts)
        for (int i = 0; i < n; i++) {
            loss[i] = counts[i] ? loss[i] : 0;
            slope[i] = counts[i] ? slope[i] : 0;
        }
    real *const d = (real *)a->d_input + from;
    for (int i = 0; i < n; i++)
        d[i] = (real)slope[i];
}

static double FN(element_losses_here)(const struct fastrnn_elements *a)
{
    double sum[FN(chains)] = {0}, loss[FN(together)];
    for (int64_t from = 0; from < a->n; from += FN(together)) {
        const int n = a->n - from < FN(together) ? (int)(a->n - from) : FN(together);
        FN(some_elements)(a, from, n, loss);
        int i = 0;
        for (; i + FN(chains) <= n; i += FN(chains))
            for (int c = 0; c < FN(chains); c++)
                sum[c] += loss[i + c];
        for (int c = 0; i < n; c++, i++)
            sum[c] += loss[i];
        if (a->losses)
            memcpy(a->losses + from, loss, (size_t)n * sizeof(double));
    }
    for (int c = 1; c < FN(chains); c++)
        sum[0] += sum[c];
    return sum[0];
}

struct FN(elements_job) {
    const struct fastrnn_elements *a;
    double total;
};

static void FN(elements_thread)(const struct team *team, void *shared)
{
    struct FN(elements_job) *job = shared;
    (void)team;
    job->total = FN(element_losses_here)(job->a);
}

static double FN(element_losses)(const struct fastrnn_elements *a)
{
    struct FN(elements_job) job = {a, 0};
    team_run(1, 0, FN(elements_thread), &job); /* in the floating-point mode of the kernels */
    return job.total;
}
