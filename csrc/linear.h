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
    int by_columns;    /* each thread makes some columns of all rows of the result; else all of some rows */
    int64_t block;     /* forward: rows at once */
    uintptr_t scratch; /* of the threads, each of scratch_bytes */
    size_t scratch_bytes;
    struct FN(matrix) matrix; /* forward: the transpose; backward: as it is */
    real *bias;               /* forward: padded to whole vectors */
    const real **weight_rows; /* backward: (O,), while it is packed */
    real *chunk_x;            /* backward: packed (chunk, D) */
};

struct FN(linear_scratch) {
    const real **x, **d; /* rows of x and of d_output: of a block, of a chunk */
    real **out;          /* rows of output or of d_x */
    real *panel;         /* forward, where the weight is not packed before: room for one panel */
};

static uintptr_t FN(layout_linear_scratch)(struct FN(linear_scratch) *s, int64_t rows, int64_t panel, uintptr_t at)
{
    s->x = arena_take(&at, rows, sizeof *s->x);
    s->d = arena_take(&at, rows, sizeof *s->d);
    s->out = arena_take(&at, rows, sizeof *s->out);
    s->panel = arena_take(&at, panel, sizeof(real));
    return at;
}

/* Whether so many threads share `columns` of a result of n rows: in whole panels, of which each gets as many as the
 * others or nearly so. One thread has all. */
static int FN(share_columns)(int64_t n, int64_t columns, int threads)
{
    const int64_t panels = FN(pieces)(PANEL, columns);
    return n < threads || panels % threads == 0 || panels >= 2 * (int64_t)threads;
}

/* To read a weight once and to transpose it is most of the work where there are few rows, and takes about as long as
 * three operations a byte. Counted with half of that, two threads are called where they gain. */
static double FN(transposing_flops)(const struct fastrnn_linear *a)
{
    return 1.5 * (double)sizeof(real) * (double)a->D * (double)a->O;
}

/* For how many threads there is work. */
static int64_t FN(linear_shares)(int64_t n, int64_t columns)
{
    const int64_t panels = FN(pieces)(PANEL, columns);
    return n > panels ? n : panels;
}

/* ----------------------------------------------------------------------------------------- forward
 *
 * Few rows use the weight so little that to pack it before would take longer than the rest: whoever has all rows of a
 * panel packs that panel, and of one row nothing (gemm.h). Threads then share the outputs, so that each reads its part
 * of the weight only, and nobody waits. Many rows are shared, and the threads pack the weight together. */

static uintptr_t FN(layout_linear_weights)(const struct fastrnn_linear *a, uintptr_t at, struct FN(matrix) *m,
                                           real **bias)
{
    *m = FN(matrix)(arena_take(&at, FN(packed_size)(a->D, a->O), sizeof(real)), a->D, a->O);
    *bias = arena_take(&at, FN(stride)(a->O), sizeof(real));
    return at;
}

/* The biases of some outputs; behind the last one zeros. */
static void FN(pack_linear_bias)(const struct fastrnn_linear *a, real *bias, int64_t begin, int64_t end)
{
    const int64_t behind = end == a->O ? FN(stride)(a->O) : end;
    memset(bias + begin, 0, (size_t)(behind - begin) * sizeof(real));
    if (a->bias)
        memcpy(bias + begin, (const real *)a->bias + begin, (size_t)(end - begin) * sizeof(real));
}

static size_t FN(pack_linear)(const struct fastrnn_linear *a, void *packed)
{
    struct FN(matrix) m;
    real *bias;
    const uintptr_t begin = (uintptr_t)packed, end = FN(layout_linear_weights)(a, begin, &m, &bias);
    if (packed) {
        FN(pack_transposed)(a->weight, a->D, a->O, m.packed, 0, 1);
        FN(pack_linear_bias)(a, bias, 0, a->O);
    }
    return end - begin;
}

static void FN(store_panel_of_row)(void *context, int64_t col, const vec *sums)
{
    const struct FN(rows_out) *c = context;
    FN(store_panel)(c->rows[0], col, sums);
}

/* Some rows times the panels of m. */
static void FN(linear_rows)(struct FN(linear_job) *job, const struct team *team, const struct FN(linear_scratch) *s,
                            int64_t rows, struct FN(matrix) m)
{
    struct FN(rows_out) out = {s->out, job->a->O};
    const int64_t end = m.end, strip = FN(brief_rows)(2.0 * (double)rows * (double)m.K) / PANEL * PANEL;
    for (; m.begin < end && !stop_asked(&job->stop); m.begin = m.end) {
        m.end = end - m.begin < strip + PANEL ? end : m.begin + strip + PANEL;
        if (rows == 1 && !m.source.w)
            FN(gemv)(NV, NV, (struct FN(operand)){NULL, NULL}, (struct FN(operand)){s->x[0], &m}, 0, job->bias,
                     FN(store_panel_of_row), FN(store_rows), &out);
        else
            FN(gemm)(s->x, rows, &m, 0, job->bias, 0, NULL, 0, FN(store_rows), &out);
        stop_poll(&job->stop, team);
    }
}

static void FN(linear_forward_thread)(const struct team *team, void *shared)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    struct FN(linear_scratch) s;
    FN(layout_linear_scratch)(&s, job->block, job->by_columns ? a->D * PANEL : 0,
                              job->scratch + (size_t)team->id * job->scratch_bytes);
    struct FN(matrix) m = job->matrix;
    const int order = 0;
    int64_t begin = 0, end = a->N;
    if (job->by_columns) {
        m = FN(share_of_columns)(m, team->id, team->n);
    } else {
        begin = a->N * team->id / team->n;
        end = a->N * (team->id + 1) / team->n;
    }
    if (!a->packed && job->by_columns) {
        m.packed = s.panel;
        m.source = (struct FN(gates)){a->weight, &order, a->O};
        FN(pack_linear_bias)(a, job->bias, m.begin, m.end);
    } else if (!a->packed) {
        FN(pack_transposed)(a->weight, a->D, a->O, m.packed, team->id, team->n);
        if (team->id == 0)
            FN(pack_linear_bias)(a, job->bias, 0, a->O);
        team_barrier(team);
    }
    for (int64_t first = begin; first < end && !stop_asked(&job->stop); first += job->block) {
        const int64_t rows = end - first < job->block ? end - first : job->block;
        for (int64_t i = 0; i < rows; i++) {
            s.x[i] = (const real *)a->x + (first + i) * a->step_x;
            s.out[i] = (real *)a->output + (first + i) * a->O;
        }
        FN(linear_rows)(job, team, &s, rows, m);
    }
}

/* Rows that stay in the second-level cache while all panels use them. */
static int64_t FN(linear_block)(const struct fastrnn_linear *a)
{
    const int64_t fit = ((int64_t)1 << 17) / ((a->D + 1) * (int64_t)sizeof(real));
    return fit < 4 * MR ? 4 * MR : fit > 1024 ? 1024 : fit;
}

static uintptr_t FN(layout_linear_forward)(void *shared, int threads, uintptr_t at)
{
    struct FN(linear_job) *job = shared;
    const struct fastrnn_linear *a = job->a;
    struct FN(linear_scratch) s;
    job->block = FN(linear_block)(a);
    job->by_columns = a->N <= job->block && FN(share_columns)(a->N, a->O, threads);
    if (a->packed)
        FN(layout_linear_weights)(a, (uintptr_t)a->packed, &job->matrix, &job->bias);
    else if (job->by_columns) {
        job->matrix = FN(matrix)(NULL, a->D, a->O);
        job->bias = arena_take(&at, FN(stride)(a->O), sizeof(real));
    } else
        at = FN(layout_linear_weights)(a, at, &job->matrix, &job->bias);
    job->scratch = at;
    job->scratch_bytes = FN(layout_linear_scratch)(&s, job->block, job->by_columns ? a->D * PANEL : 0, at) - at;
    return at + (size_t)threads * job->scratch_bytes;
}

static int FN(linear_forward)(const struct fastrnn_call *call)
{
    const struct fastrnn_linear *a = (const void *)call;
    struct FN(linear_job) job = {.a = a, .stop = stop_for(&a->call)};
    const double flops = fastrnn_linear_flops(a) + (a->packed ? 0 : FN(transposing_flops)(a));
    return stop_status(&job.stop, team_job(a->call.threads, flops, FN(linear_shares)(a->N, a->O),
                                           FN(layout_linear_forward), FN(linear_forward_thread), &job));
}

/* ---------------------------------------------------------------------------------------- backward */

enum {
    FN(few_rows) = 4 * MR,  /* so many rows are not worth packing the weight */
    FN(rows_in_place) = 16, /* rows of a weight that is not packed, after which sums are put down */
};

/* out[m][j] = (0, or what is there) + sum over k of d[m][k] * w[k][j], for mr rows and nv vectors of columns; rows of w
 * are ld apart. `masked`: of the last vector only some lanes count. The chains are those of tile. */
static ALWAYS_INLINE void FN(tile_in_place)(const int mr, const int nv, const int masked, int64_t K,
                                            const real *const *d, int64_t at, const real *w, int64_t ld, int lanes,
                                            real *const *out, int64_t col)
{
    const int last = masked ? nv - 1 : nv; /* the vector of which some lanes count */
    vec acc[MR][2 * NV];
    const real *row[MR];
    UNROLL for (int m = 0; m < mr; m++)
    {
        const real *from = out[m] + col;
        row[m] = d[m] + at;
        UNROLL for (int v = 0; v < nv; v++) acc[m][v] = !at        ? vzero()
                                                        : v < last ? vload(from + v * W)
                                                                   : vload_n(from + v * W, lanes);
    }
    for (int64_t k = 0; k < K; k++) {
        vec dm[MR];
        UNROLL for (int m = 0; m < mr; m++) dm[m] = vset1(row[m][k]);
        UNROLL for (int v = 0; v < nv; v++)
        {
            const vec b = v < last ? vload(w + v * W) : vload_n(w + v * W, lanes);
            UNROLL for (int m = 0; m < mr; m++) acc[m][v] = vfma(dm[m], b, acc[m][v]);
        }
        w += ld;
    }
    UNROLL for (int m = 0; m < mr; m++)
    {
        UNROLL for (int v = 0; v < last; v++) vstore(out[m] + col + v * W, acc[m][v]);
        if (masked)
            vstore_n(out[m] + col + last * W, acc[m][last], lanes);
    }
}

/* The columns behind the last full panel. Not inlined: so many loops are enough once. */
static NOINLINE void FN(rest_in_place)(int mr, int64_t K, const real *const *d, int64_t at, const real *w, int64_t ld,
                                       int left, real *const *out, int64_t col)
{
#define FASTRNN_REST(nv)                                                                                               \
    for (int m = 0; m < mr; m += 2) {                                                                                  \
        if (m + 1 < mr)                                                                                                \
            FN(tile_in_place)(2, nv, 1, K, d + m, at, w, ld, left - (nv - 1) * W, out + m, col);                       \
        else                                                                                                           \
            FN(tile_in_place)(1, nv, 1, K, d + m, at, w, ld, left - (nv - 1) * W, out + m, col);                       \
    }
    switch ((left + W - 1) / W) {
    case 4: FASTRNN_REST(4) break;
    case 3: FASTRNN_REST(3) break;
    case 2: FASTRNN_REST(2) break;
    default: FASTRNN_REST(1) break;
    }
#undef FASTRNN_REST
}

static ALWAYS_INLINE void FN(columns_in_place)(const int mr, int64_t K, const real *const *d, int64_t at, const real *w,
                                               int64_t ld, int64_t begin, int64_t end, real *const *out)
{
    int64_t col = begin;
    /* One row alone has too few chains to hide the latency of the multiply-add. */
    for (; mr == 1 && col + 2 * PANEL <= end; col += 2 * PANEL)
        FN(tile_in_place)(1, 2 * NV, 0, K, d, at, w + col, ld, 0, out, col);
    for (; col + PANEL <= end; col += PANEL)
        FN(tile_in_place)(mr, NV, 0, K, d, at, w + col, ld, 0, out, col);
    if (col < end)
        FN(rest_in_place)(mr, K, d, at, w + col, ld, (int)(end - col), out, col);
}

/* Columns of d_x, of n rows, by the weight as it lies: some of its rows at a time, which the cache keeps while all use
 * them. */
static void FN(d_x_in_place)(struct FN(linear_job) *job, const struct team *team, const struct FN(linear_scratch) *s,
                             int64_t n, int64_t begin, int64_t end)
{
    const struct fastrnn_linear *a = job->a;
    const int64_t blocks = (n + MR - 1) / MR, each = blocks ? n / blocks : 0, left = n - each * blocks;
    const int64_t fit = L1D / 2 / ((end - begin + 1) * (int64_t)sizeof(real));
    const int64_t some = fit < FN(rows_in_place) ? FN(rows_in_place) : fit;
    for (int64_t at = 0; (at < a->O || !at) && !stop_asked(&job->stop); at += some) {
        const int64_t K = a->O - at < some ? a->O - at : some;
        const real *w = (const real *)a->weight + at * a->D;
        for (int64_t row = 0, i = 0; i < blocks; i++) {
            const int rows = (int)(each + (i < left));
#define FASTRNN_ROWS(mr) FN(columns_in_place)(mr, K, s->d + row, at, w, a->D, begin, end, s->out + row)
            switch (rows) {
#if MR == 6
            case 6: FASTRNN_ROWS(6); break;
            case 5: FASTRNN_ROWS(5); break;
            case 4: FASTRNN_ROWS(4); break;
#endif
            case 3: FASTRNN_ROWS(3); break;
            case 2: FASTRNN_ROWS(2); break;
            default: FASTRNN_ROWS(1); break;
            }
#undef FASTRNN_ROWS
            row += rows;
        }
        stop_poll(&job->stop, team);
    }
}

/* What a thread makes of d_x of a chunk of K rows. */
static void FN(linear_d_x)(const struct team *team, struct FN(linear_job) *job, const struct FN(linear_scratch) *s,
                           int64_t first, int64_t K)
{
    const struct fastrnn_linear *a = job->a;
    const int64_t share = job->by_columns ? 0 : K * team->id / team->n;
    const int64_t share_end = job->by_columns ? K : K * (team->id + 1) / team->n;
    const int64_t max = FN(brief_rows)(2.0 * (double)a->D * (double)a->O);
    for (int64_t k = share; k < share_end; k++)
        s->out[k] = (real *)a->d_x + (first + k) * a->D;
    if (job->by_columns) {
        FN(d_x_in_place)(job, team, s, K, FN(first_unit)(PANEL, a->D, team->id, team->n),
                         FN(first_unit)(PANEL, a->D, team->id + 1, team->n));
        return;
    }
    for (int64_t k = share; k < share_end && !stop_asked(&job->stop); k += max) {
        const int64_t rows = share_end - k < max ? share_end - k : max;
        struct FN(rows_out) out = {s->out + k, a->D};
        FN(gemm)(s->d + k, rows, &job->matrix, 0, NULL, 0, NULL, 0, FN(store_rows), &out);
        stop_poll(&job->stop, team);
    }
}

/* The weight's gradient of few rows is as that of many: no weight is read, and the time is that of writing it. */
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
    const uintptr_t at = FN(layout_linear_scratch)(&s, FN(chunk), 0,
                                                   job->scratch + (size_t)team->id * job->scratch_bytes);
    const struct FN(source) source = FN(linear_source)(job, &s);
    FN(layout_gradient)(&g, &source, 1, team->n, at);
    if (a->d_x && !job->by_columns) {
        const int64_t share = a->O * team->id / team->n, share_end = a->O * (team->id + 1) / team->n;
        for (int64_t k = share; k < share_end; k++)
            job->weight_rows[k] = (const real *)a->weight + k * a->D;
        FN(pack_rows)(job->weight_rows, share, share_end, a->O, a->D, job->matrix.packed);
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
    job->by_columns = FN(share_columns)(a->N, a->D, threads) && a->N <= FN(few_rows);
    if (a->d_x && !job->by_columns) {
        job->matrix = FN(matrix)(arena_take(&at, FN(packed_size)(a->O, a->D), sizeof(real)), a->O, a->D);
        job->weight_rows = arena_take(&at, a->O, sizeof *job->weight_rows);
    }
    if (a->d_weight)
        job->chunk_x = arena_take(&at, FN(packed_size)(FN(chunk), a->D), sizeof(real));
    job->scratch = at;
    at = FN(layout_linear_scratch)(&s, FN(chunk), 0, at);
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
