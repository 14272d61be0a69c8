/* The output layer: N rows of D features to rows of O.
 *
 *   y = b + W x                            W (O, D)
 *   d_x = W^T d_y,   d_W = sum over rows of d_y x^T,   d_b = sum over rows of d_y
 *
 * The sums run as those of a recurrent layer: forward from b, k ascending; d_x from +0 over the rows of W;
 * weight gradients in chunks of 512 rows (product.h).
 */

struct FN(linear_job) {
    const struct fastrnn_linear *a;
    struct stop stop;
    int64_t block;     /* forward: rows between looks at the caller's signals */
    uintptr_t members; /* their scratch, each of member_bytes */
    size_t member_bytes;
    real *weight;             /* packed, forward: the transpose; backward: as it is */
    real *bias;               /* forward: padded to whole vectors */
    const real **weight_rows; /* backward: (O,), while it is packed */
    real *chunk_x;            /* backward: packed (chunk, D) */
};

static double FN(linear_flops)(const struct fastrnn_linear *a)
{
    return 2.0 * (double)a->N * (double)a->D * (double)a->O;
}

struct FN(linear_scratch) {
    const real **x, **d; /* rows of x and of d_output: of a block, of a chunk */
    real **out;          /* rows of output or of d_x */
};

static uintptr_t FN(carve_linear)(struct FN(linear_scratch) *s, int64_t rows, uintptr_t at)
{
    s->x = carve(&at, rows, sizeof *s->x);
    s->d = carve(&at, rows, sizeof *s->d);
    s->out = carve(&at, rows, sizeof *s->out);
    return at;
}

/* ----------------------------------------------------------------------------------------- forward */

static void FN(linear_forward_member)(const struct team *team, void *shared)
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
    FN(carve_linear)(&s, job->block, job->members + (size_t)team->id * job->member_bytes);
    const int64_t begin = a->N * team->id / team->n, end = a->N * (team->id + 1) / team->n;
    for (int64_t first = begin; first < end; first += job->block) {
        const int64_t rows = end - first < job->block ? end - first : job->block;
        for (int64_t i = 0; i < rows; i++) {
            s.x[i] = (const real *)a->x + (first + i) * a->step_x;
            s.out[i] = (real *)a->output + (first + i) * a->O;
        }
        struct FN(rows_out) out = {s.out, a->O};
        FN(product)(s.x, rows, &weight, 0, a->bias ? job->bias : NULL, 0, NULL, 0, FN(finish_rows), &out);
        stop_poll(&job->stop, team);
        if (stop_asked(&job->stop))
            return;
    }
}

static uintptr_t FN(lay_out_linear_forward)(void *shared, int members, uintptr_t at)
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
    job->weight = carve(&at, FN(packed_size)(a->D, a->O), sizeof(real));
    job->bias = carve(&at, FN(stride)(a->O), sizeof(real));
    job->members = at;
    job->member_bytes = FN(carve_linear)(&s, job->block, at) - at;
    return at + (size_t)members * job->member_bytes;
}

static int FN(linear_forward)(const struct fastrnn_call *call)
{
    const struct fastrnn_linear *a = (const void *)call;
    struct FN(linear_job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(a->call.threads, FN(linear_flops)(a), a->N, FN(lay_out_linear_forward),
                                           FN(linear_forward_member), &job));
}

/* ---------------------------------------------------------------------------------------- backward */

static void FN(linear_backward_member)(const struct team *team, void *shared)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    struct FN(linear_scratch) s;
    struct FN(gradient_scratch) g;
    const struct FN(matrix) weight = FN(matrix)(job->weight, a->O, a->D);
    FN(carve_gradient)(&g, a->d_weight ? a->O : 0, 1, team->n,
                       FN(carve_linear)(&s, FN(chunk), job->members + (size_t)team->id * job->member_bytes));
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
        if (a->d_x) {
            const int64_t share = K * team->id / team->n, share_end = K * (team->id + 1) / team->n;
            for (int64_t k = share; k < share_end; k++)
                s.out[k] = (real *)a->d_x + (first + k) * a->D;
            const int64_t most = FN(brief_rows)(2.0 * (double)a->D * (double)a->O);
            for (int64_t k = share; k < share_end && !stop_asked(&job->stop); k += most) {
                const int64_t rows = share_end - k < most ? share_end - k : most;
                struct FN(rows_out) out = {s.out + k, a->D};
                FN(product)(s.d + k, rows, &weight, 0, NULL, 0, NULL, 0, FN(finish_rows), &out);
                stop_poll(&job->stop, team);
            }
        }
        if (a->d_weight || a->d_bias) {
            const struct FN(source) source = {
                0, a->O, a->d_bias, 1, {{s.x, a->D, job->chunk_x, a->d_weight}}};
            FN(gradient_chunk)(team, &job->stop, &g, s.d, K, first == 0, &source, 1);
        }
        first += FN(chunk);
    } while (first < a->N && !stop_together(&job->stop, team));
}

static uintptr_t FN(lay_out_linear_backward)(void *shared, int members, uintptr_t at)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    struct FN(linear_scratch) s;
    struct FN(gradient_scratch) g;
    if (a->d_x) {
        job->weight = carve(&at, FN(packed_size)(a->O, a->D), sizeof(real));
        job->weight_rows = carve(&at, a->O, sizeof *job->weight_rows);
    }
    if (a->d_weight)
        job->chunk_x = carve(&at, FN(packed_size)(FN(chunk), a->D), sizeof(real));
    job->members = at;
    const int64_t units = a->d_weight ? a->O : 0;
    job->member_bytes = FN(carve_gradient)(&g, units, 1, members, FN(carve_linear)(&s, FN(chunk), at)) - at;
    return at + (size_t)members * job->member_bytes;
}

static int FN(linear_backward)(const struct fastrnn_call *call)
{
    const struct fastrnn_linear *a = (const void *)call;
    struct FN(linear_job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(a->call.threads, 2 * FN(linear_flops)(a), a->N > a->O ? a->N : a->O,
                                           FN(lay_out_linear_backward), FN(linear_backward_member), &job));
}
