/* What tests and benchmarks look at from outside: the activations alone, and the rates of multiply-adds and of
 * reading. */

struct FN(activation_job) {
    vec (*function)(vec);
    const real *x;
    real *out;
    int64_t n;
};

static void FN(activation_thread)(const struct team *team, void *shared)
{
    const struct FN(activation_job) *job = shared;
    (void)team;
    for (int64_t i = 0; i < job->n; i += W) {
        const int n = job->n - i < W ? (int)(job->n - i) : W;
        vstore_n(job->out + i, job->function(vload_n(job->x + i, n)), n);
    }
}

/* On a team, though of one: in the floating-point mode of the kernels. */
static void FN(tanh_array)(const void *x, void *out, int64_t n)
{
    team_run(1, 0, FN(activation_thread), &(struct FN(activation_job)){FN(tanh), x, out, n});
}

static void FN(sigmoid_array)(const void *x, void *out, int64_t n)
{
    team_run(1, 0, FN(activation_thread), &(struct FN(activation_job)){FN(sigmoid), x, out, n});
}

static void FN(exp_array)(const void *x, void *out, int64_t n)
{
    team_run(1, 0, FN(activation_thread), &(struct FN(activation_job)){FN(exp), x, out, n});
}

/* Multiply-adds that wait for nothing but each other: the rate that no product can exceed. */
static double FN(multiply_adds)(int64_t rounds)
{
    enum { chains = 12 };
    vec acc[chains];
    const vec a = vset1((real)0.5), b = vset1((real)1);
    for (int i = 0; i < chains; i++)
        acc[i] = vset1((real)i);
    for (int64_t r = 0; r < rounds; r++)
        UNROLL for (int i = 0; i < chains; i++) acc[i] = vfma(acc[i], a, b);
    vec sum = vzero();
    for (int i = 0; i < chains; i++)
        sum = vadd(sum, acc[i]);
    real lanes[W];
    vstore(lanes, sum);
    /* The sum must be used, or the loop would be removed; it is at most 12*12. */
    return 2.0 * W * chains * (double)rounds + (lanes[0] > 1000 ? 1 : 0);
}

/* Reads that wait for nothing: the rate at which no product can read its weights. They are added up, because
 * nobody may leave out an addition: it rounds. */
static double FN(reads)(const void *x, int64_t n, int64_t rounds)
{
    enum { chains = 8 };
    const real *const p = x;
    vec acc[chains];
    for (int i = 0; i < chains; i++)
        acc[i] = vzero();
    for (int64_t r = 0; r < rounds; r++)
        for (int64_t at = 0; at < n; at += chains * W)
            UNROLL for (int i = 0; i < chains; i++) acc[i] = vadd(acc[i], vload(p + at + i * W));
    vec sum = vzero();
    for (int i = 0; i < chains; i++)
        sum = vadd(sum, acc[i]);
    real lanes[W];
    vstore(lanes, sum);
    return (double)sizeof(real) * (double)n * (double)rounds + (lanes[0] > 1000 ? 1 : 0);
}
