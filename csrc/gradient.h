/* Weight gradients. That of a matrix W (units, N) with z = W y is the sum over rows of dz y^T. The rows are taken in
 * chunks, each one chain of multiply-adds an element; the chunks are added in order. The threads of a team partition
 * the gradient by its own rows, never the sum. */
enum { FN(chunk) = 512 };

#ifndef FASTRNN_GRADIENT_COMMON
#define FASTRNN_GRADIENT_COMMON
enum { MAX_SOURCES = 5 }; /* of a cell */
/* What rows of dz are multiplied by; a cell says so, and the driver finds the rows. */
enum gradient_rows { OF_NONE, OF_X, OF_H_BEFORE, OF_INTERMEDIATE, OF_C_BEFORE, OF_C, GRADIENT_ROWS };
#endif

struct FN(gradient) {
    enum gradient_rows of;
    int64_t N;
    real *d_w;               /* (units, N), or NULL: not wanted */
    const real *const *rows; /* (K,) of y, N reals each */
    real *packed;            /* shared by the team: packed_size(chunk, N) */
};

/* Columns `at` ... at + units of the rows of dz, and what is made of them. */
struct FN(source) {
    int64_t at, units;
    real *d_sum[2]; /* (units,): their sum, maybe each row times one of `by_rows`; each or NULL */
    enum gradient_rows by;
    const real *const *by_rows;
    int count;
    struct FN(gradient) gradients[2];
};

static int FN(any_wanted)(const struct FN(source) *source)
{
    for (int i = 0; i < source->count; i++)
        if (source->gradients[i].d_w)
            return 1;
    return 0;
}

/* Of one thread. */
struct FN(gradient_scratch) {
    const real **columns; /* the rows of dz_t */
    real *dz_t;           /* its columns of dz, transposed */
};

static uintptr_t FN(layout_gradient)(struct FN(gradient_scratch) *s, const struct FN(source) *sources, int count,
                                     int threads, uintptr_t at)
{
    int64_t max = 0;
    for (int i = 0; i < count; i++)
        max += FN(any_wanted)(&sources[i]) ? sources[i].units / threads + 1 : 0;
    s->columns = arena_take(&at, max, sizeof *s->columns);
    s->dz_t = arena_take(&at, max * FN(stride)(FN(chunk)), sizeof(real));
    return at;
}

/* Rows of a product of so many operations each that take some milliseconds: between them signals are looked for. */
static int64_t FN(brief_rows)(double flops)
{
    const double rows = 1e9 / (flops + 1);
    return rows > 1 << 20 ? 1 << 20 : rows < 4 * MR ? 4 * MR : (int64_t)rows;
}

/* Rows of the gradient of a matrix: the sums of a chunk. */
struct FN(gradient_out) {
    real *d_w; /* the first of the rows that this product makes */
    int64_t N;
    int first_chunk;
};

/* Asks for the cache line of p + n, wherever that is, to write to it: as for prefetch, nobody else foresees the place. */
static ALWAYS_INLINE void FN(prefetch_write)(real *p, int64_t n)
{
    __builtin_prefetch((char *)((uintptr_t)p + (uintptr_t)n * sizeof(real)), 1, 2);
}

static void FN(add_rows)(void *context, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(gradient_out) *c = context;
    const int64_t left = c->N - col;
    real *const out = c->d_w + row * c->N + col;
    if (left < PANEL) {
        for (int i = 0; i < rows; i++)
            for (int64_t j = 0; j < left; j += W) {
                const int n = left - j < W ? (int)(left - j) : W;
                real *const to = out + i * c->N + j;
                const vec sum = vload(tile + i * PANEL + j);
                vstore_n(to, c->first_chunk ? sum : vadd(vload_n(to, n), sum), n);
            }
        return;
    }
    for (int i = 0; i < rows; i++) {
        real *const to = out + i * c->N;
        const real *const sum = tile + i * PANEL;
        UNROLL for (int j = 0; j < PANEL; j += LINE) FN(prefetch_write)(to + j, rows * c->N);
        UNROLL for (int j = 0; j < PANEL; j += W)
            vstore(to + j, c->first_chunk ? vload(sum + j) : vadd(vload(to + j), vload(sum + j)));
    }
}

/* out[j] (+)= the sum over k of rows[k][at + j], or of that times by[k][j], begin <= j < end: one chain from +0
 * a column, k ascending. Four chains run at once to hide the latency of the addition. */
static ALWAYS_INLINE void FN(sum_columns)(const real *const *rows, int64_t at, const real *const *by, int64_t K,
                                          int64_t begin, int64_t end, real *out, int first_chunk)
{
    for (int64_t col = begin; col < end; col += PANEL) {
        vec sum[NV];
        int n[NV]; /* columns of each vector */
        UNROLL for (int v = 0; v < NV; v++)
        {
            const int64_t left = end - col - v * W;
            n[v] = left < 0 ? 0 : left < W ? (int)left : W;
            sum[v] = vzero();
        }
        const int whole = n[NV - 1] == W;
        for (int64_t k = 0; k < K; k++)
            UNROLL for (int v = 0; v < NV; v++)
            {
                const real *p = rows[k] + at + col + v * W;
                const vec a = whole ? vload(p) : vload_n(p, n[v]);
                if (by) {
                    const real *q = by[k] + col + v * W;
                    sum[v] = vfma(a, whole ? vload(q) : vload_n(q, n[v]), sum[v]);
                } else
                    sum[v] = vadd(sum[v], a);
            }
        for (int v = 0; v < NV; v++) {
            real *to = out + col + v * W;
            vstore_n(to, first_chunk ? sum[v] : vadd(vload_n(to, n[v]), sum[v]), n[v]);
        }
    }
}

/* The chunk being added: K rows of dz, and what all threads make of them. */
struct FN(gradient_chunk) {
    const real *const *dz;
    int64_t K;
    int first;
    const struct FN(source) *sources;
    int count;
};

/* The units of a source that a thread makes. */
static int64_t FN(unit_from)(const struct FN(source) *source, int thread, int threads)
{
    return source->units * thread / threads;
}

/* The sums of columns [begin, end) of a source; what enters two results is made once. */
static void FN(gradient_sums)(const struct FN(source) *source, const struct FN(gradient_chunk) *c, int64_t begin,
                              int64_t end)
{
    real *const sum = source->d_sum[0] ? source->d_sum[0] : source->d_sum[1];
    if (!sum)
        return;
    if (source->by == OF_NONE)
        FN(sum_columns)(c->dz, source->at, NULL, c->K, begin, end, sum, c->first);
    else
        FN(sum_columns)(c->dz, source->at, source->by_rows, c->K, begin, end, sum, c->first);
    if (source->d_sum[1] && sum != source->d_sum[1])
        memcpy(source->d_sum[1] + begin, sum + begin, (size_t)(end - begin) * sizeof(real));
}

/* Packs the rows that dz is multiplied by, a thread's share of them; transposes its columns of dz; and adds up what is
 * no product of matrices. */
static void FN(gradient_operands)(const struct team *team, const struct FN(gradient_scratch) *s,
                                  const struct FN(gradient_chunk) *c)
{
    const int64_t ld = FN(stride)(FN(chunk)), K = c->K;
    const int64_t share = K * team->id / team->n, share_end = K * (team->id + 1) / team->n;
    int64_t used = 0; /* rows of dz_t */
    for (const struct FN(source) *source = c->sources; source < c->sources + c->count; source++) {
        const int64_t begin = FN(unit_from)(source, team->id, team->n);
        const int64_t end = FN(unit_from)(source, team->id + 1, team->n);
        for (int j = 0; j < source->count; j++) {
            const struct FN(gradient) *g = &source->gradients[j];
            if (g->d_w)
                FN(pack_rows)(g->rows, share, share_end, K, g->N, g->packed);
        }
        if (FN(any_wanted)(source)) {
            for (int64_t k = 0; k < K; k += W)
                FN(transpose)(c->dz + k, K - k < W ? (int)(K - k) : W, source->at + begin, end - begin,
                              s->dz_t + used * ld + k, ld);
            used += end - begin;
        }
        FN(gradient_sums)(source, c, begin, end);
    }
    for (int64_t j = 0; j < used; j++)
        s->columns[j] = s->dz_t + j * ld;
}

/* Multiplies them: a thread's rows of every gradient. */
static void FN(gradient_products)(const struct team *team, struct stop *stop, const struct FN(gradient_scratch) *s,
                                  const struct FN(gradient_chunk) *c)
{
    const real **columns = s->columns;
    for (const struct FN(source) *source = c->sources; source < c->sources + c->count; source++) {
        const int64_t begin = FN(unit_from)(source, team->id, team->n);
        const int64_t end = FN(unit_from)(source, team->id + 1, team->n);
        for (int j = 0; j < source->count; j++) {
            const struct FN(gradient) *g = &source->gradients[j];
            if (!g->d_w)
                continue;
            const struct FN(matrix) y = FN(matrix)(g->packed, c->K, g->N);
            const int64_t max = FN(brief_rows)(2.0 * (double)c->K * (double)g->N);
            for (int64_t unit = begin; unit < end && !stop_asked(stop); unit += max) {
                const int64_t rows = end - unit < max ? end - unit : max;
                struct FN(gradient_out) out = {g->d_w + unit * g->N, g->N, c->first};
                FN(gemm)(columns + (unit - begin), rows, &y, 0, NULL, 0, NULL, 0, FN(add_rows), &out);
                stop_poll(stop, team);
            }
        }
        if (FN(any_wanted)(source))
            columns += end - begin;
    }
}

/* Adds a chunk to the gradients. Where somebody asked to stop, work is left out but no barrier. */
static void FN(add_chunk)(const struct team *team, struct stop *stop, const struct FN(gradient_scratch) *s,
                          const struct FN(gradient_chunk) *c)
{
    team_barrier(team); /* dz of all threads is there, and the last chunk's packed rows are done with */
    FN(gradient_operands)(team, s, c);
    team_barrier(team); /* the rows are packed, and dz is free */
    FN(gradient_products)(team, stop, s, c);
}
