/* Packing into panels, and the register tile that reads them.
 *
 * A matrix P of K rows and N columns is packed into panels of PANEL = 4*W neighbouring columns. A panel
 * is contiguous: for k = 0 ... K-1 its `width` columns of row k. The width is PANEL, in the last panel the
 * smallest multiple of HALF that will do; columns past N are zero. A tile is mr rows by the columns of one
 * panel, kept in registers over k.
 */
#ifndef FASTRNN_TILE_COMMON
#define FASTRNN_TILE_COMMON
#define NV 4
#define PANEL (NV * W)
#define LINE ((int64_t)(64 / sizeof(real))) /* reals in a cache line */
#define NOINLINE __attribute__((noinline))
#define L1D 32768 /* bytes: the smallest first-level data cache in use */
#define ROWS 48   /* rows, not packed, that are read at once: lines of more would drive out each other */
#define UNROLL _Pragma("GCC unroll 16")
#endif

static ALWAYS_INLINE int64_t FN(round_up)(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Stride of a scratch row of n reals: whole vectors fit, and one more cache line keeps strides off the
 * powers of two that would put every row into one set of the cache. */
static ALWAYS_INLINE int64_t FN(stride)(int64_t n) { return FN(round_up)(n, LINE) + LINE; }

static ALWAYS_INLINE int64_t FN(packed_size)(int64_t K, int64_t N) { return K * FN(round_up)(N, HALF); }

/* Columns of the panel that begins at column `col` of N, of panels of `panel` columns. */
static ALWAYS_INLINE int FN(panel_width)(int64_t col, int64_t N, int panel)
{
    return N - col >= panel ? panel : (int)FN(round_up)(N - col, HALF);
}

/* Stores all of a vector, or its first HALF lanes where these hold the n that count. */
static ALWAYS_INLINE void FN(store_counting)(real *p, vec a, int n)
{
    if (n > HALF || HALF == W)
        vstore(p, a);
    else
        vstore_n(p, a, HALF);
}

/* dst[k*ld + i] = src[i][first + k] for k < K and i < n; 0 from n to W, or to HALF where n <= HALF. n <= W.
 * The interleaving of the first half of W rows with the second rotates the bits of an element's address
 * (row, column) by one place; log2(W) of them exchange row and column. */
static void FN(transpose)(const real *const *src, int n, int64_t first, int64_t K, real *dst, int64_t ld)
{
    for (int64_t k = 0; k < K; k += W) {
        const int width = K - k < W ? (int)(K - k) : W;
        vec a[W], b[W];
        if (n == W && width == W) {
            UNROLL for (int i = 0; i < W; i++) a[i] = vload(src[i] + first + k);
        } else {
            for (int i = 0; i < W; i++)
                a[i] = i < n ? vload_n(src[i] + first + k, width) : vzero();
        }
        UNROLL for (int half = 1; half < W; half *= 2)
        {
            UNROLL for (int i = 0; i < W / 2; i++)
            {
                b[2 * i] = vzip_lo(a[i], a[i + W / 2]);
                b[2 * i + 1] = vzip_hi(a[i], a[i + W / 2]);
            }
            UNROLL for (int i = 0; i < W; i++) a[i] = b[i];
        }
        if (n == W && width == W) {
            UNROLL for (int i = 0; i < W; i++) vstore(dst + (k + i) * ld, a[i]);
        } else {
            for (int i = 0; i < width; i++)
                FN(store_counting)(dst + (k + i) * ld, a[i], n);
        }
    }
}

/* The matrices that a packed one is made of: row-major (H, K) each, of gate i at (order[i]*H, 0). */
struct FN(gates) {
    const real *w;
    const int *order;
    int64_t H;
};

/* A packed matrix of K rows and N columns, and which columns of a row of starts or results are its panels'. Or one
 * that is multiplied once, and not packed before: then `packed` has room for one panel. */
struct FN(matrix) {
    real *packed;
    int64_t K, N;
    int panel; /* columns of a panel but the last */
    int spread, slot, slots;
    int64_t begin, end; /* the columns that are asked for: whole panels */
    struct FN(gates) source; /* w NULL: it is packed */
};

/* Where the panel of `width` columns from `col` on begins in a row of starts or results. */
static ALWAYS_INLINE int64_t FN(place)(const struct FN(matrix) *m, int64_t col, int width)
{
    return col / m->panel * m->spread + m->slot * (width / m->slots);
}

static ALWAYS_INLINE struct FN(matrix) FN(matrix)(real *packed, int64_t K, int64_t N)
{
    return (struct FN(matrix)){packed, K, N, PANEL, PANEL, 0, 1, 0, N, {NULL, NULL, 0}};
}

/* Columns of `gates` interleaved matrices of H columns: W neighbouring columns of each, in turn, at the end
 * HALF of each where these will do. Panels hold whole groups of such columns, so that a finished tile has all
 * gates of its units. */
static ALWAYS_INLINE int64_t FN(columns)(int gates, int64_t H) { return gates * FN(round_up)(H, HALF); }

static ALWAYS_INLINE int FN(group_width)(int64_t unit, int64_t H) { return H - unit > HALF ? W : HALF; }

/* The column of a unit of gate `gate`. */
static ALWAYS_INLINE int64_t FN(column)(int gates, int gate, int64_t unit, int64_t H)
{
    const int64_t first = unit / W * W;
    return first * gates + gate * FN(group_width)(first, H) + (unit - first);
}

/* Groups of columns in a panel: NV / gates, without a division. */
static ALWAYS_INLINE int FN(groups)(int gates) { return gates == 1 ? NV : gates == 2 ? NV / 2 : 1; }

static ALWAYS_INLINE struct FN(matrix) FN(gate_matrix)(real *packed, int64_t K, int gates, int64_t H)
{
    const int panel = gates * FN(groups)(gates) * W;
    const int64_t N = FN(columns)(gates, H);
    return (struct FN(matrix)){packed, K, N, panel, panel, 0, gates, 0, N, {NULL, NULL, 0}};
}

/* Units are split over threads in pieces of whole panels that are whole cache lines of states. Those of a matrix of
 * one gate, which are its panels, are pieces for every other. */
static ALWAYS_INLINE int64_t FN(piece)(int gates)
{
    const int64_t panel = FN(groups)(gates) * W;
    return panel > LINE ? panel : LINE;
}

static ALWAYS_INLINE int64_t FN(pieces)(int64_t piece, int64_t H)
{
    return (H + piece - 1) >> __builtin_ctzll((uint64_t)piece); /* it is a power of two */
}

/* The first unit of thread `id` of `threads`; H for id = threads. */
static ALWAYS_INLINE int64_t FN(first_unit)(int64_t piece, int64_t H, int id, int threads)
{
    const int64_t first = FN(pieces)(piece, H) * id / threads * piece;
    return first < H ? first : H;
}

/* The part of a matrix that makes units [begin, end) of H. */
static ALWAYS_INLINE struct FN(matrix) FN(of_units)(struct FN(matrix) m, int64_t begin, int64_t end, int64_t H)
{
    m.begin = begin * m.slots;
    m.end = end < H ? end * m.slots : m.N;
    return m;
}

/* A thread's share of the columns of a plain matrix. */
static struct FN(matrix) FN(share_of_columns)(struct FN(matrix) m, int id, int threads)
{
    const int64_t piece = FN(piece)(1);
    return FN(of_units)(m, FN(first_unit)(piece, m.N, id, threads), FN(first_unit)(piece, m.N, id + 1, threads), m.N);
}

/* A vector of its columns: W units of one gate from `unit` on, a multiple of W, or the n that are left. */
struct FN(units) {
    const real *w; /* n rows of K */
    int n, width;  /* in `width` columns */
    int64_t column;
};

static ALWAYS_INLINE struct FN(units)
    FN(units)(const struct FN(matrix) *m, struct FN(gates) from, int64_t unit, int gate)
{
    return (struct FN(units)){
        .w = from.w + (from.order[gate] * from.H + unit) * m->K,
        .n = from.H - unit < W ? (int)(from.H - unit) : W,
        .width = FN(group_width)(unit, from.H),
        .column = FN(column)(m->slots, gate, unit, from.H),
    };
}

/* Packs vectors first <= v < last into panels; that of column `origin` lies at `packed`. */
static void FN(pack_vectors)(const struct FN(matrix) *m, struct FN(gates) from, int64_t first, int64_t last,
                             real *packed, int64_t origin)
{
    for (int64_t v = first; v < last; v++) {
        const struct FN(units) units = FN(units)(m, from, v / m->slots * W, (int)(v % m->slots));
        const int64_t begin = units.column / m->panel * m->panel;
        const int64_t left = FN(columns)(m->slots, from.H) - begin;
        const real *rows[W];
        for (int i = 0; i < W; i++)
            rows[i] = units.w + (i < units.n ? i : 0) * m->K;
        real *const to = packed + (begin - origin) * m->K + units.column - begin;
        const int64_t ld = left < m->panel ? left : m->panel;
        int64_t k = 0;
        if (units.n == W)
            for (; k + LINE <= m->K; k += LINE)
                UNROLL for (int j = 0; j < 64 / (int)sizeof(real); j += COLUMNS)
                {
                    vec t[COLUMNS];
                    vload_columns(units.w + k + j, m->K, t);
                    UNROLL for (int q = 0; q < COLUMNS; q++) vstore(to + (k + j + q) * ld, t[q]);
                }
        FN(transpose)(rows, units.n, k, m->K - k, to + k * ld, ld);
    }
}

static ALWAYS_INLINE int64_t FN(vectors)(const struct FN(matrix) *m, int64_t H) { return (H + W - 1) / W * m->slots; }

/* Packs P[k][column of unit j and gate i] = w[(order[i]*H + j)*K + k], the transposes of the row-major (H, K) matrices
 * that w is made of: thread `id` of `threads` packs its share of the columns. */
static void FN(pack_gates)(const real *w, const int *order, const struct FN(matrix) *m, int64_t H, int id, int threads)
{
    const int64_t vectors = FN(vectors)(m, H);
    FN(pack_vectors)(m, (struct FN(gates)){w, order, H}, vectors * id / threads, vectors * (id + 1) / threads,
                     m->packed, 0);
}

/* Packs the panel from column `col` on, alone. */
static void FN(pack_panel)(const struct FN(matrix) *m, int64_t col)
{
    const int64_t end = (col + m->panel) / W, vectors = FN(vectors)(m, m->source.H);
    FN(pack_vectors)(m, m->source, col / W, end < vectors ? end : vectors, m->packed, col);
}

static void FN(pack_transposed)(const real *w, int64_t K, int64_t N, real *packed, int id, int threads)
{
    const struct FN(matrix) m = FN(matrix)(packed, K, N);
    FN(pack_gates)(w, &(int){0}, &m, N, id, threads);
}

/* Packs P[k][j] = rows[k][j] for begin <= k < end of K. */
static void FN(pack_rows)(const real *const *rows, int64_t begin, int64_t end, int64_t K, int64_t N, real *packed)
{
    for (int64_t col = 0; col < N; col += PANEL) {
        const int width = FN(panel_width)(col, N, PANEL), last = (width - 1) / W * W;
        const int tail = N - col >= PANEL ? W : (int)(N - col) - last;
        for (int64_t k = begin; k < end; k++) {
            const real *src = rows[k] + col;
            real *dst = packed + col * K + k * width;
            for (int j = 0; j < last; j += W)
                vstore(dst + j, vload(src + j));
            FN(store_counting)(dst + last, vload_n(src + last, tail), tail);
        }
    }
}

/* call(width) with the width as a constant. */
#undef FASTRNN_BY_WIDTH
#if HALF < W
#define FASTRNN_BY_WIDTH(width, call)                                                                                  \
    switch (width) {                                                                                                   \
    case 8 * HALF: call(8 * HALF); break;                                                                              \
    case 7 * HALF: call(7 * HALF); break;                                                                              \
    case 6 * HALF: call(6 * HALF); break;                                                                              \
    case 5 * HALF: call(5 * HALF); break;                                                                              \
    case 4 * HALF: call(4 * HALF); break;                                                                              \
    case 3 * HALF: call(3 * HALF); break;                                                                              \
    case 2 * HALF: call(2 * HALF); break;                                                                              \
    default: call(HALF); break;                                                                                        \
    }
#else
#define FASTRNN_BY_WIDTH(width, call)                                                                                  \
    switch (width) {                                                                                                   \
    case 4 * W: call(4 * W); break;                                                                                    \
    case 3 * W: call(3 * W); break;                                                                                    \
    case 2 * W: call(2 * W); break;                                                                                    \
    default: call(W); break;                                                                                           \
    }
#endif

/* out[m][j] = init[m][j] + sum over k of a[m][first + k] * panel[k][j], k < K, for mr rows and `width` columns.
 * One chain of multiply-adds an element, k ascending: the order is part of the result. init == NULL
 * stands for zeros, init_ld = 0 gives every row the same start. */
static ALWAYS_INLINE void FN(tile)(const int mr, const int width, int64_t first, int64_t K, const real *const *a,
                                   const real *panel, const real *init, int64_t init_ld, real *out, int64_t out_ld)
{
    const int nv = width / W, half = width % W != 0;
    vec acc[MR][NV];
    vhalf tail[MR];
    const real *row[MR];
    UNROLL for (int m = 0; m < mr; m++)
    {
        row[m] = a[m] + first;
        UNROLL for (int v = 0; v < nv; v++) acc[m][v] = init ? vload(init + m * init_ld + v * W) : vzero();
        if (half)
            tail[m] = init ? hload(init + m * init_ld + nv * W) : hzero();
    }
    for (int64_t k = 0; k < K; k++) {
        vec am[MR];
        UNROLL for (int m = 0; m < mr; m++) am[m] = vset1(row[m][k]);
        UNROLL for (int v = 0; v < nv; v++)
        {
            const vec w = vload(panel + v * W);
            UNROLL for (int m = 0; m < mr; m++) acc[m][v] = vfma(am[m], w, acc[m][v]);
        }
        if (half) {
            const vhalf w = hload(panel + nv * W);
            UNROLL for (int m = 0; m < mr; m++) tail[m] = hfma(am[m], w, tail[m]);
        }
        panel += width;
    }
    UNROLL for (int m = 0; m < mr; m++)
    {
        UNROLL for (int v = 0; v < nv; v++) vstore(out + m * out_ld + v * W, acc[m][v]);
        if (half)
            hstore(out + m * out_ld + nv * W, tail[m]);
    }
}

static ALWAYS_INLINE void FN(tile_of_rows)(const int mr, int width, int64_t first, int64_t K, const real *const *a,
                                           const real *panel, const real *init, int64_t init_ld, real *out,
                                           int64_t out_ld)
{
#define FASTRNN_TILE(w) FN(tile)(mr, w, first, K, a, panel, init, init_ld, out, out_ld)
    FASTRNN_BY_WIDTH(width, FASTRNN_TILE)
#undef FASTRNN_TILE
}

/* The tile for any 1 <= mr <= MR and any width of a panel. Not inlined: so many loops are enough once. */
static NOINLINE void FN(tile_of)(int mr, int width, int64_t first, int64_t K, const real *const *a, const real *panel,
                                 const real *init, int64_t init_ld, real *out, int64_t out_ld)
{
    switch (mr) {
#if MR == 6
    case 6: FN(tile_of_rows)(6, width, first, K, a, panel, init, init_ld, out, out_ld); break;
    case 5: FN(tile_of_rows)(5, width, first, K, a, panel, init, init_ld, out, out_ld); break;
    case 4: FN(tile_of_rows)(4, width, first, K, a, panel, init, init_ld, out, out_ld); break;
#endif
    case 3: FN(tile_of_rows)(3, width, first, K, a, panel, init, init_ld, out, out_ld); break;
    case 2: FN(tile_of_rows)(2, width, first, K, a, panel, init, init_ld, out, out_ld); break;
    default: FN(tile_of_rows)(1, width, first, K, a, panel, init, init_ld, out, out_ld); break;
    }
}

/* One row alone has too few accumulators to hide the latency of the multiply-add: two panels at once,
 * the first one full and `width` columns of the next. */
static ALWAYS_INLINE void FN(tile_pair)(const int width, int64_t K, const real *a, const real *panel, const real *init,
                                        real *out)
{
    const int nv = width / W, half = width % W != 0;
    vec acc[2 * NV];
    vhalf tail = hzero();
    const real *next = panel + K * PANEL;
    UNROLL for (int v = 0; v < NV + nv; v++) acc[v] = init ? vload(init + v * W) : vzero();
    if (half && init)
        tail = hload(init + (NV + nv) * W);
    for (int64_t k = 0; k < K; k++) {
        const vec ak = vset1(a[k]);
        UNROLL for (int v = 0; v < NV; v++) acc[v] = vfma(ak, vload(panel + v * W), acc[v]);
        UNROLL for (int v = 0; v < nv; v++) acc[NV + v] = vfma(ak, vload(next + v * W), acc[NV + v]);
        if (half)
            tail = hfma(ak, hload(next + nv * W), tail);
        panel += PANEL;
        next += width;
    }
    UNROLL for (int v = 0; v < NV + nv; v++) vstore(out + v * W, acc[v]);
    if (half)
        hstore(out + (NV + nv) * W, tail);
}

static NOINLINE void FN(tile_pair_of)(int width, int64_t K, const real *a, const real *panel, const real *init,
                                      real *out)
{
#define FASTRNN_TILE(w) FN(tile_pair)(w, K, a, panel, init, out)
    FASTRNN_BY_WIDTH(width, FASTRNN_TILE)
#undef FASTRNN_TILE
}
