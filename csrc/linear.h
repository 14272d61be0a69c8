/* The output layer: N rows of D features to rows of O.
 *
 *   y = b + W x                            W (O, D)
 *   d_x = W^T d_y,   d_W = sum over rows of d_y x^T,   d_b = sum over rows of d_y
 *
 * The sums run as those of a recurrent layer: forward from b, k ascending; d_x from +0 over the rows of W;
 * weight gradients in chunks of 512 rows (gradient.h).
 */

struct FN(linear_job) {
    const struct fastrnn_linear *a;
    struct stop stop;
    int64_t block;     /* forward: rows between looks at the caller's signals */
    uintptr_t scratch; /* of the threads, each of scratch_bytes */
    size_t scratch_bytes;
    real *weight;             /* packed, forward: the transpose; backward: as it is */
    real *bias;               /* forward: padded to whole vectors */
    const real **weight_rows; /* backward: (O,), while it is packed */
    real *chunk_x;            /* backward: packed (chunk, D) */
};

struct FN(linear_scratch) {
    const real **x, **d; /* rows of x and of d_output: of a block, of a chunk */
    real **out;          /* rows of output or of d_x */
};

static uintptr_t FN(layout_linear_scratch)(struct FN(linear_scratch) *s, int64_t rows, uintptr_t at)
{
    s->x = arena_take(&at, rows, sizeof *s->x);
    s->d = arena_take(&at, rows, sizeof *s->d);
    s->out = arena_take(&at, rows, sizeof *s->out);
    return at;
}

/* ----------------------------------------------------------------------------------------- forward */

static void FN(linear_forward_thread)(const struct team *team, void *shared)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    FN(pack_transposed)(a->weight, a->D, a->O, job->weight, team->id, team->n);
    if (team->id == 0 && a->bias) {
        memset(job->bias, 0, (size_t)FN(stride)(a->O) * sizeof(real));
        memcpy(job->bias, a->bias, (size_t)a->O * sizeof(real));
    }
    team_barrier(team);

    const struct FN(matrix) weight = FN(matrix)(job->weight, a->D, a->O);
    struct FN(linear_scratch) s;
    FN(layout_linear_scratch)(&s, job->block, job->scratch + (size_t)team->id * job->scratch_bytes);
    const int64_t begin = a->N * team->id / team->n, end = a->N * (team->id + 1) / team->n;
    for (int64_t first = begin; first < end; first += job->block) {
        const int64_t rows = end - first < job->block ? end - first : job->block;
        for (int64_t i = 0; i < rows; i++) {
            s.x[i] = (const real *)a->x + (first + i) * a->step_x;
            s.out[i] = (real *)a->output + (first + i) * a->O;
        }
        struct FN(rows_out) out = {s.out, a->O};
        FN(gemm)(s.x, rows, &weight, 0, a->bias ? job->bias : NULL, 0, NULL, 0, FN(store_rows), &out);
        stop_poll(&job->stop, team);
        if (stop_asked(&job->stop))
            return;
    }
}

static uintptr_t FN(layout_linear_forward)(void *shared, int threads, uintptr_t at)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    struct FN(linear_scratch) s;
    /* Rows that stay in the second-level cache while all panels use them; of large matrices few enough to
     * take milliseconds. */
    const int64_t fit = ((int64_t)1 << 17) / ((a->D + 1) * (int64_t)sizeof(real));
    const int64_t brief = FN(brief_rows)(2.0 * (double)a->D * (double)a->O);
    job->block = fit < 4 * MR ? 4 * MR : fit > 1024 ? 1024 : fit;
    if (job->block > brief)
        job->block = brief;
    job->weight = arena_take(&at, FN(packed_size)(a->D, a->O), sizeof(real));
    job->bias = arena_take(&at, FN(stride)(a->O), sizeof(real));
    job->scratch = at;
    job->scratch_bytes = FN(layout_linear_scratch)(&s, job->block, at) - at;
    return at + (size_t)threads * job->scratch_bytes;
}

static int FN(linear_forward)(const struct fastrnn_call *call)
{
    const struct fastrnn_linear *a = (const void *)call;
    struct FN(linear_job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(a->call.threads, fastrnn_linear_flops(a), a->N, FN(layout_linear_forward),
                                           FN(linear_forward_thread), &job));
}

/* ---------------------------------------------------------------------------------------- backward */

/* The rows of d_x of a chunk that a thread makes. */
static void FN(linear_d_x)(const struct team *team, struct FN(linear_job) *job, const struct FN(linear_scratch) *s,
                           int64_t first, int64_t K)
{
    const struct fastrnn_linear *a = job->a;
    const struct FN(matrix) weight = FN(matrix)(job->weight, a->O, a->D);
    const int64_t share = K * team->id / team->n, share_end = K * (team->id + 1) / team->n;
    const int64_t max = FN(brief_rows)(2.0 * (double)a->D * (double)a->O);
    for (int64_t k = share; k < share_end; k++)
        s->out[k] = (real *)a->d_x + (first + k) * a->D;
    for (int64_t k = share; k < share_end && !stop_asked(&job->stop); k += max) {
        const int64_t rows = share_end - k < max ? share_end - k : max;
        struct FN(rows_out) out = {s->out + k, a->D};
        FN(gemm)(s->d + k, rows, &weight, 0, NULL, 0, NULL, 0, FN(store_rows), &out);
        stop_poll(&job->stop, team);
    }
}

static struct FN(source) FN(linear_source)(const struct FN(linear_job) *job, const struct FN(linear_scratch) *s)
{
    const struct fastrnn_linear *a = job->a;
    return (struct FN(source)){
        .units = a->O,
        .d_sum = {a->d_bias},
        .count = 1,
        .gradients = {{.N = a->D, .d_w = a->d_weight, .rows = s->x, .packed = job->chunk_x}},
    };
}

static void FN(linear_backward_thread)(const struct team *team, void *shared)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    struct FN(linear_scratch) s;
    struct FN(gradient_scratch) g;
    const uintptr_t at = FN(layout_linear_scratch)(&s, FN(chunk), job->scratch + (size_t)team->id * job->scratch_bytes);
    const struct FN(source) source = FN(linear_source)(job, &s);
    FN(layout_gradient)(&g, &source, 1, team->n, at);
    if (a->d_x) {
        const int64_t share = a->O * team->id / team->n, share_end = a->O * (team->id + 1) / team->n;
        for (int64_t k = share; k < share_end; k++)
            job->weight_rows[k] = (const real *)a->weight + k * a->D;
        FN(pack_rows)(job->weight_rows, share, share_end, a->O, a->D, job->weight);
        team_barrier(team);
    }
    int64_t first = 0;
    do { /* once even where there are no rows: the sum of nothing is written */
        const int64_t K = a->N - first < FN(chunk) ? a->N - first : FN(chunk);
        for (int64_t k = 0; k < K; k++) {
            s.x[k] = (const real *)a->x + (first + k) * a->step_x;
            s.d[k] = (const real *)a->d_output + (first + k) * a->step_d;
        }
        if (a->d_x)
            FN(linear_d_x)(team, job, &s, first, K);
        if (a->d_weight || a->d_bias)
            FN(add_chunk)(team, &job->stop, &g, &(struct FN(gradient_chunk)){s.d, K, first == 0, &source, 1});
        first += FN(chunk);
    } while (first < a->N && !stop_together(&job->stop, team));
}

static uintptr_t FN(layout_linear_backward)(void *shared, int threads, uintptr_t at)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    struct FN(linear_scratch) s;
    struct FN(gradient_scratch) g;
    if (a->d_x) {
        job->weight = arena_take(&at, FN(packed_size)(a->O, a->D), sizeof(real));
        job->weight_rows = arena_take(&at, a->O, sizeof *job->weight_rows);
    }
    if (a->d_weight)
        job->chunk_x = arena_take(&at, FN(packed_size)(FN(chunk), a->D), sizeof(real));
    job->scratch = at;
    at = FN(layout_linear_scratch)(&s, FN(chunk), at);
    const struct FN(source) source = FN(linear_source)(job, &s);
    job->scratch_bytes = FN(layout_gradient)(&g, &source, 1, threads, at) - job->scratch;
    return job->scratch + (size_t)threads * job->scratch_bytes;
}

static int FN(linear_backward)(const struct fastrnn_call *call)
{
    const struct fastrnn_linear *a = (const void *)call;
    struct FN(linear_job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(a->call.threads, 2 * fastrnn_linear_flops(a), a->N > a->O ? a->N : a->O,
                                           FN(layout_linear_backward), FN(linear_backward_thread), &job));
}
