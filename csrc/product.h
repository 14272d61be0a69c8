/* Every product, with or without a recurrence, is rows of reals times a packed matrix. */

/* What is done with a finished tile: `rows` rows from row `row` on, columns from `col` on, at
 * tile[i*PANEL + j]. */
typedef void FN(finish)(void *context, int64_t row, int rows, int64_t col, const real *tile);
/* The same with the NV sums of a full panel of one row, which are still in registers: where there is one row, to store
 * them and to load them again would take as long as a small product. */
typedef void FN(finish_panel)(void *context, int64_t col, const vec *sums);

/* A row and what it is multiplied by; NULL: there is no such product. */
struct FN(factor) {
    const real *row;
    const struct FN(matrix) *m;
};

/* Columns from `col` on of one row: a panel of nv vectors, or two neighbouring ones at once. Of the NV sums of a panel
 * the first nv take up the product of `before`, if there is one, and the last nv that of `f`. */
static ALWAYS_INLINE void FN(row_panels)(const int count, const int nv, struct FN(factor) before, struct FN(factor) f,
                                         int64_t col, const real *init, FN(finish_panel) *finish, void *context)
{
    const struct FN(factor) factors[2] = {before, f};
    vec acc[2 * NV];
    UNROLL for (int v = 0; v < count * NV; v++) acc[v] = init ? vload(init + col / nv * NV + v * W) : vzero();
    UNROLL for (int i = 0; i < 2; i++)
    {
        const real *const a = factors[i].row;
        const int64_t K = a ? factors[i].m->K : 0;
        const real *panel = a ? factors[i].m->packed + col * K : NULL, *next = a ? panel + K * nv * W : NULL;
        vec *const one = acc + i * (NV - nv), *const two = one + NV;
        for (int64_t k = 0; k < K; k++) {
            const vec ak = vset1(a[k]);
            UNROLL for (int v = 0; v < nv; v++) one[v] = vfma(ak, vload(panel + v * W), one[v]);
            UNROLL for (int v = 0; v < (count - 1) * nv; v++) two[v] = vfma(ak, vload(next + v * W), two[v]);
            panel += nv * W;
            next += nv * W;
        }
    }
    UNROLL for (int i = 0; i < count; i++) finish(context, col + i * nv * W, acc + i * NV);
}

/* The product of one row, as below, with panels of nv vectors; where all of them are full, maybe after that of
 * `before`. What is left after the full panels goes to `finish`, or where that is NULL to `context`, a row of results.
 * A panel alone has too few accumulators to hide the latency of the multiply-add, so from the first cache two are taken
 * at once; from further away one stream is faster. */
static ALWAYS_INLINE void FN(row_product)(const int nv, struct FN(factor) before, struct FN(factor) f, int downwards,
                                          const real *init, FN(finish_panel) *finish_panel, FN(finish) *finish,
                                          void *context)
{
    real tile[2 * PANEL] __attribute__((aligned(64)));
    const struct FN(matrix) *m = f.m;
    const int64_t K = m->K, first = m->begin, panel = nv * W, full = (m->end - first) / panel * panel;
    const int64_t last = first + full;
    const int left = m->end > last ? FN(panel_width)(last, m->N, (int)panel) : 0;
    const int near = FN(packed_size)(K, m->end - first) * (int64_t)sizeof(real) <= FIRST_CACHE;
    if (near && nv == NV && full == panel && left) {
        FN(tile_pair_of)(left, K, f.row, m->packed + first * K, init ? init + first : NULL,
                         finish ? tile : (real *)context + first);
        if (finish) {
            finish(context, 0, 1, first, tile);
            finish(context, 0, 1, last, tile + PANEL);
        }
        return;
    }
    for (int turn = 0; turn < 2; turn++) {
        if (left && turn != downwards) {
            const int64_t place = FN(place)(m, last, left);
            FN(tile_of)(1, left, K, &f.row, m->packed + last * K, init ? init + place : NULL, 0,
                        finish ? tile : (real *)context + place, 0);
            if (finish)
                finish(context, 0, 1, last, tile);
        }
        for (int64_t done = 0; turn == downwards && done < full;) {
            const int64_t columns = near && full - done > panel ? 2 * panel : panel;
            const int64_t col = downwards ? last - done - columns : first + done;
            if (columns > panel)
                FN(row_panels)(2, nv, before, f, col, init, finish_panel, context);
            else
                FN(row_panels)(1, nv, before, f, col, init, finish_panel, context);
            done += columns;
        }
    }
}

static ALWAYS_INLINE void FN(store_panel)(void *row, int64_t col, const vec *sums)
{
    UNROLL for (int v = 0; v < NV; v++) vstore((real *)row + col + v * W, sums[v]);
}

/* Row i of the result, i < n, is init + a[i] (K reals) times the packed matrix. init is NULL (zeros) or rows
 * of stride init_ld (0: the same for all), padded to whole vectors. Finished tiles go to `finish`, or where
 * that is NULL to `out`, rows of stride out_ld padded to whole vectors; out may be init.
 * The panel is the outer loop: it stays in the caches while all rows use it. Who multiplies by the same
 * matrix again and again takes the panels `downwards` every other time: what was used last is used first,
 * while it is still in the cache. */
static void FN(product)(const real *const *a, int64_t n, const struct FN(matrix) *m, int downwards,
                        const real *init, int64_t init_ld, real *out, int64_t out_ld, FN(finish) *finish,
                        void *context)
{
    real tile[(MR + 1) * PANEL] __attribute__((aligned(64)));
    const int64_t K = m->K, N = m->N, first = m->begin;
    const int panel = m->panel;
    /* Blocks of rows, balanced: 16 are 6, 5, 5 and not 6, 6, 4. */
    const int64_t blocks = (n + MR - 1) / MR;
    const int64_t each = blocks > 1 ? n / blocks : n, left = n - each * blocks;
    if (n == 1 && !finish && panel == PANEL) {
        FN(row_product)(NV, (struct FN(factor)){NULL, NULL}, (struct FN(factor)){a[0], m}, downwards, init,
                        FN(store_panel), NULL, out);
        return;
    }
    const int64_t last = m->end > first ? (m->end - 1) / panel * panel : first - 1;
    for (int64_t at = first; at <= last; at += panel) {
        const int64_t col = downwards ? last - (at - first) : at;
        const int width = FN(panel_width)(col, N, panel);
        const int64_t place = FN(place)(m, col, width);
        for (int64_t row = 0, i = 0; i < blocks; i++) {
            const int rows = (int)(each + (i < left));
            FN(tile_of)(rows, width, K, a + row, m->packed + col * K, init ? init + row * init_ld + place : NULL,
                        init_ld, finish ? tile : out + row * out_ld + place, finish ? PANEL : out_ld);
            if (finish)
                finish(context, row, rows, col, tile);
            row += rows;
        }
    }
}

/* Destination of a product whose rows the user owns: exactly N columns are written. */
struct FN(rows_out) {
    real *const *rows;
    int64_t N;
};

static void FN(finish_rows)(void *context, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(rows_out) *c = context;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < c->N; j += W) {
            const int64_t left = c->N - col - j;
            vstore_n(c->rows[row + i] + col + j, vload(tile + i * PANEL + j), left < W ? (int)left : W);
        }
}

/* Gradient of a weight matrix (rows of N): the sums of the chunks are added in order. */
struct FN(gradient_out) {
    real *d_w; /* the first of the rows that this product makes */
    int64_t N;
    int first_chunk;
};

static void FN(finish_gradient)(void *context, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(gradient_out) *c = context;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < c->N; j += W) {
            const int64_t left = c->N - col - j;
            const int n = left < W ? (int)left : W;
            real *out = c->d_w + (row + i) * c->N + col + j;
            const vec sum = vload(tile + i * PANEL + j);
            vstore_n(out, c->first_chunk ? sum : vadd(vload_n(out, n), sum), n);
        }
}

/* out[j] (+)= the sum over k of rows[k][at + j], or of that times by[k][j], begin <= j < end: one chain from +0
 * a column, k ascending. Four chains run at once to hide the latency of the addition. */
static ALWAYS_INLINE void FN(columns_summed)(const real *const *rows, int64_t at, const real *const *by,
                                             int64_t K, int64_t begin, int64_t end, real *out,
                                             int first_chunk)
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

static void FN(column_sums)(const real *const *rows, int64_t at, int64_t K, int64_t begin, int64_t end,
                            real *out, int first_chunk)
{
    FN(columns_summed)(rows, at, NULL, K, begin, end, out, first_chunk);
}

/* ------------------------------------------------------------------------------- weight gradients
 *
 * The gradient of a matrix W (units, N) with z = W y is the sum over rows of dz y^T. The rows are taken in
 * chunks, each one chain of multiply-adds an element; the chunks are added in order. The members of a team
 * split the gradient by its own rows, never the sum. */
enum { FN(chunk) = 512 };

struct FN(gradient) {
    const real *const *rows; /* (K,) of y, N reals each */
    int64_t N;
    real *packed; /* shared by the team: packed_size(chunk, N) */
    real *d_w;    /* (units, N), or NULL: not wanted */
};

/* Columns `at` ... at + units of the rows of dz, and what they are a factor of. */
struct FN(source) {
    int64_t at, units;
    real *d_b; /* (units,): the gradient of a bias, or NULL */
    int count;
    struct FN(gradient) gradients[2];
};

/* One member's. */
struct FN(gradient_scratch) {
    const real **columns; /* the rows of dz_t */
    real *dz_t;           /* its columns of dz, transposed */
};

/* `units` of all sources that have a matrix; `sources` is how many these are. */
static uintptr_t FN(carve_gradient)(struct FN(gradient_scratch) *s, int64_t units, int sources, int members,
                                    uintptr_t at)
{
    const int64_t most = units / members + 2 * sources;
    s->columns = carve(&at, most, sizeof *s->columns);
    s->dz_t = carve(&at, most * FN(stride)(FN(chunk)), sizeof(real));
    return at;
}

/* Rows of a product of so many operations each that take some milliseconds: between them signals are
 * looked for. */
static int64_t FN(brief_rows)(double flops)
{
    const double rows = 1e9 / (flops + 1);
    return rows > 1 << 20 ? 1 << 20 : rows < 4 * MR ? 4 * MR : (int64_t)rows;
}

static int FN(any_wanted)(const struct FN(source) *source)
{
    for (int i = 0; i < source->count; i++)
        if (source->gradients[i].d_w)
            return 1;
    return 0;
}

/* Adds a chunk of K rows of dz to the gradients of `count` sources. Where somebody asked to stop, work is
 * left out but no barrier. */
static void FN(gradient_chunk)(const struct team *team, struct stop *stop,
                               const struct FN(gradient_scratch) *s, const real *const *dz, int64_t K,
                               int first_chunk, const struct FN(source) *sources, int count)
{
    const int64_t ld = FN(stride)(FN(chunk));
    const int64_t share = K * team->id / team->n, share_end = K * (team->id + 1) / team->n;
    int64_t at = 0; /* rows of dz_t in use */

    team_barrier(team); /* dz of all members is there, and the last chunk's packed rows are done with */
    for (int i = 0; i < count; i++) {
        const struct FN(source) *source = &sources[i];
        const int64_t begin = source->units * team->id / team->n;
        const int64_t end = source->units * (team->id + 1) / team->n;
        for (int j = 0; j < source->count; j++) {
            const struct FN(gradient) *g = &source->gradients[j];
            if (g->d_w)
                FN(pack_rows)(g->rows, share, share_end, K, g->N, g->packed);
        }
        if (FN(any_wanted)(source)) {
            for (int64_t k = 0; k < K; k += W)
                FN(transpose)(dz + k, K - k < W ? (int)(K - k) : W, source->at + begin, end - begin,
                              s->dz_t + at * ld + k, ld);
            at += end - begin;
        }
        if (source->d_b)
            FN(column_sums)(dz, source->at, K, begin, end, source->d_b, first_chunk);
    }
    team_barrier(team); /* the rows are packed, and dz is free */

    for (int64_t j = 0; j < at; j++)
        s->columns[j] = s->dz_t + j * ld;
    at = 0;
    for (int i = 0; i < count; i++) {
        const struct FN(source) *source = &sources[i];
        const int64_t begin = source->units * team->id / team->n;
        const int64_t end = source->units * (team->id + 1) / team->n;
        for (int j = 0; j < source->count; j++) {
            const struct FN(gradient) *g = &source->gradients[j];
            if (!g->d_w)
                continue;
            const struct FN(matrix) y = FN(matrix)(g->packed, K, g->N);
            const int64_t most = FN(brief_rows)(2.0 * (double)K * (double)g->N);
            for (int64_t unit = begin; unit < end && !stop_asked(stop); unit += most) {
                const int64_t rows = end - unit < most ? end - unit : most;
                struct FN(gradient_out) out = {g->d_w + unit * g->N, g->N, first_chunk};
                FN(product)(s->columns + at + (unit - begin), rows, &y, 0, NULL, 0, NULL, 0,
                            FN(finish_gradient), &out);
                stop_poll(stop, team);
            }
        }
        if (FN(any_wanted)(source))
            at += end - begin;
    }
}
