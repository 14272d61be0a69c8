/* Matrix products, with or without a recurrence: rows of reals times a packed matrix. */

/* What is done with a finished tile, or with some of them: `rows` rows from row `row` on, columns from `col` on, at
 * tile[i*PANEL + j]. */
typedef void FN(epilogue)(void *context, int64_t row, int rows, int64_t col, const real *tile);
/* The same with the sums of a full panel of one row, one of each slot, which are still in registers: where there is one
 * row, to store them and to load them again would take as long as a small product. */
typedef void FN(panel_epilogue)(void *context, int64_t col, const vec *sums);

/* A row and what it is multiplied by; row NULL: there is no such product. */
struct FN(operand) {
    const real *row;
    const struct FN(matrix) *m;
};

/* Columns from `col` on of one row: a panel of nv vectors, or two neighbouring ones at once. Of the `slots` sums of a
 * panel the first nv take up the product of `first`, if there is one, and the last nv that of `second`. */
static ALWAYS_INLINE void FN(gemv_panels)(const int count, const int nv, const int slots, struct FN(operand) first,
                                          struct FN(operand) second, int64_t col, const real *init,
                                          FN(panel_epilogue) *epilogue, void *context)
{
    const struct FN(operand) operands[2] = {first, second};
    vec acc[2 * NV];
    UNROLL for (int v = 0; v < count * slots; v++) acc[v] = init ? vload(init + col / nv * slots + v * W) : vzero();
    UNROLL for (int i = 0; i < 2; i++)
    {
        const real *const a = operands[i].row;
        const int64_t K = a ? operands[i].m->K : 0;
        const real *panel = a ? operands[i].m->packed + col * K : NULL, *next = a ? panel + K * nv * W : NULL;
        vec *const one = acc + i * (slots - nv), *const two = one + slots;
        for (int64_t k = 0; k < K; k++) {
            const vec ak = vset1(a[k]);
            UNROLL for (int v = 0; v < nv; v++) one[v] = vfma(ak, vload(panel + v * W), one[v]);
            UNROLL for (int v = 0; v < (count - 1) * nv; v++) two[v] = vfma(ak, vload(next + v * W), two[v]);
            panel += nv * W;
            next += nv * W;
        }
    }
    UNROLL for (int i = 0; i < count; i++) epilogue(context, col + i * nv * W, acc + i * slots);
}

/* The `width` columns from `col` on, behind the full panels. */
static ALWAYS_INLINE void FN(gemv_rest)(struct FN(operand) x, int64_t col, int width, const real *init,
                                        FN(epilogue) *epilogue, void *context)
{
    real tile[PANEL] __attribute__((aligned(64)));
    const int64_t K = x.m->K, place = FN(place)(x.m, col, width);
    FN(tile_of)(1, width, 0, K, &x.row, x.m->packed + col * K, init ? init + place : NULL, 0,
                epilogue ? tile : (real *)context + place, 0);
    if (epilogue)
        epilogue(context, 0, 1, col, tile);
}

/* One full panel of NV vectors and the `width` columns behind it, at once. */
static ALWAYS_INLINE void FN(gemv_pair)(struct FN(operand) x, int width, const real *init, FN(epilogue) *epilogue,
                                        void *context)
{
    real tile[2 * PANEL] __attribute__((aligned(64)));
    const int64_t K = x.m->K, col = x.m->begin;
    FN(tile_pair_of)(width, K, x.row, x.m->packed + col * K, init ? init + col : NULL,
                     epilogue ? tile : (real *)context + col);
    if (epilogue) {
        epilogue(context, 0, 1, col, tile);
        epilogue(context, 0, 1, col + PANEL, tile + PANEL);
    }
}

/* The product of one row, as below, with panels of nv vectors, of which `slots` lie in a row of starts; where all of
 * them are full, maybe after that of `before`. What is left behind the full panels goes to `epilogue`, or where that is
 * NULL to `context`, a row of results. A panel alone has too few accumulators to hide the latency of the multiply-add,
 * so from L1D two are taken at once; from further away one stream is faster. */
static ALWAYS_INLINE void FN(gemv)(const int nv, const int slots, struct FN(operand) before, struct FN(operand) x,
                                   int reversed, const real *init, FN(panel_epilogue) *panel_epilogue,
                                   FN(epilogue) *epilogue, void *context)
{
    const struct FN(matrix) *m = x.m;
    const int64_t first = m->begin, panel = nv * W, full = (m->end - first) / panel * panel, rest = first + full;
    const int width = m->end > rest ? FN(panel_width)(rest, m->N, (int)panel) : 0;
    const int near = FN(packed_size)(m->K, m->end - first) * (int64_t)sizeof(real) <= L1D;
    if (near && nv == NV && full == panel && width) {
        FN(gemv_pair)(x, width, init, epilogue, context);
        return;
    }
    if (reversed && width)
        FN(gemv_rest)(x, rest, width, init, epilogue, context);
    for (int64_t done = 0; done < full;) {
        const int64_t columns = near && full - done > panel ? 2 * panel : panel;
        const int64_t col = reversed ? rest - done - columns : first + done;
        if (columns > panel)
            FN(gemv_panels)(2, nv, slots, before, x, col, init, panel_epilogue, context);
        else
            FN(gemv_panels)(1, nv, slots, before, x, col, init, panel_epilogue, context);
        done += columns;
    }
    if (!reversed && width)
        FN(gemv_rest)(x, rest, width, init, epilogue, context);
}

/* Plus the products with columns first <= q < last of the COLUMNS from w on of W rows, `ld` apart, that are not
 * packed. */
static ALWAYS_INLINE vec FN(add_columns)(vec sum, const real *a, const real *w, int64_t ld, int64_t first, int64_t last)
{
    vec t[COLUMNS];
    vload_columns(w, ld, t);
    UNROLL for (int q = 0; q < COLUMNS; q++) if (first <= q && q < last) sum = vfma(vset1(a[q]), t[q], sum);
    return sum;
}

/* The same with all K columns, where these are too few to load. */
static NOINLINE vec FN(add_few_columns)(vec sum, const real *a, const real *w, int64_t K)
{
    for (int64_t k = 0; k < K; k++) {
        real column[W];
        for (int j = 0; j < W; j++)
            column[j] = w[j * K + k];
        sum = vfma(vset1(a[k]), vload(column), sum);
    }
    return sum;
}

/* Sums of `count` vectors of W units, in the order of tile, from rows of K reals that are not packed; those of vector i
 * lie at w[i]. One chain of multiply-adds is bound by its latency, so there are several; and a cache line of each row
 * at a time: where all begin in the same place of a line, and come from far away, whole ones. */
static ALWAYS_INLINE void FN(sums_of_rows)(const int count, const real *const *w, int64_t K, const real *a, vec *sums)
{
    const int64_t far = 32 * LINE, bytes = K * (int64_t)sizeof(real); /* shorter rows lose more at their ends */
    const int64_t behind = (int64_t)((uintptr_t)w[0] % 64 / sizeof(real));
    const int64_t begin = behind && K >= far && bytes % 64 == 0 ? LINE - behind : 0;
    vec own[NV]; /* in registers */
    UNROLL for (int i = 0; i < count; i++) own[i] = sums[i];
    for (int64_t k = 0; k < begin; k += COLUMNS)
        UNROLL for (int i = 0; i < count; i++) own[i] = FN(add_columns)(own[i], a + k, w[i] + k, K, 0, begin - k);
    int64_t k = begin;
    for (; k + LINE <= K; k += LINE)
        UNROLL for (int i = 0; i < count; i++) UNROLL for (int j = 0; j < LINE; j += COLUMNS)
            own[i] = FN(add_columns)(own[i], a + k + j, w[i] + k + j, K, 0, COLUMNS);
    for (; k + COLUMNS <= K; k += COLUMNS)
        UNROLL for (int i = 0; i < count; i++) own[i] = FN(add_columns)(own[i], a + k, w[i] + k, K, 0, COLUMNS);
    if (k < K) { /* with some before them again */
        const int64_t at = K - COLUMNS;
        UNROLL for (int i = 0; i < count; i++) own[i] = FN(add_columns)(own[i], a + at, w[i] + at, K, k - at, COLUMNS);
    }
    UNROLL for (int i = 0; i < count; i++) sums[i] = own[i];
}

/* A vector of units on its way: its rows, and how many of them belong to the units before. */
struct FN(reading) {
    struct FN(units) units;
    const real *rows;
    int before;
};

/* W rows, though there are fewer units: the last ones of the gate; where it has fewer, copies. */
static ALWAYS_INLINE struct FN(reading) FN(reading)(const struct FN(matrix) *m, int64_t unit, int gate, real *copies)
{
    const struct FN(units) units = FN(units)(m, m->source, unit, gate);
    struct FN(reading) r = {units, units.w, 0};
    if (units.n == W)
        return r;
    if (unit > 0) {
        r.before = W - units.n;
        r.rows -= r.before * m->K;
    } else {
        memset(copies, 0, (size_t)(W * m->K) * sizeof(real));
        r.rows = memcpy(copies, units.w, (size_t)(units.n * m->K) * sizeof(real));
    }
    return r;
}

/* The lanes moved up by so many (0 <= n <= W), or down; zeros come in. */
static ALWAYS_INLINE vec FN(moved)(vec a, int up, int down)
{
    real lanes[3 * W] = {0};
    vstore(lanes + W, a);
    return vload(lanes + W - up + down);
}

static NOINLINE void FN(sums_of_units)(const int count, const struct FN(reading) *r, int64_t K, const real *a,
                                       const real *init, real *out)
{
    const real *rows[NV];
    vec sums[NV];
    for (int i = 0; i < count; i++) {
        rows[i] = r[i].rows;
        sums[i] = init ? vload(init + r[i].units.column) : vzero();
        if (r[i].before)
            sums[i] = FN(moved)(sums[i], r[i].before, 0);
    }
    if (K < COLUMNS)
        for (int i = 0; i < count; i++)
            sums[i] = FN(add_few_columns)(sums[i], a, rows[i], K);
    else if (count == 1)
        FN(sums_of_rows)(1, rows, K, a, sums);
    else if (count == 2)
        FN(sums_of_rows)(2, rows, K, a, sums);
    else if (count == 3)
        FN(sums_of_rows)(3, rows, K, a, sums);
    else if (NV <= ROWS / W)
        FN(sums_of_rows)(NV, rows, K, a, sums);
    for (int i = 0; i < count; i++) {
        if (r[i].before)
            sums[i] = FN(moved)(sums[i], 0, r[i].before);
        FN(store_counting)(out + r[i].units.column, sums[i], r[i].units.width);
    }
}

/* One row times the panel from column `col` on of a matrix that is not packed. */
static void FN(panel_of_units)(const struct FN(matrix) *m, int64_t col, const real *a, const real *init, real *out)
{
    const int64_t first = col / m->slots, H = m->source.H;
    const int64_t end = first + m->panel / m->slots, last = end < H ? end : H;
    int left = (int)((last - first + W - 1) / W) * m->slots, count = 0;
    /* Where rows lie in one set of the cache, fewer of them drive out each other's lines. */
    const int one_set = m->K * (int64_t)sizeof(real) % 4096 == 0, at_once = one_set ? 1 : left <= ROWS / W ? left : 2;
    struct FN(reading) r[NV];
    for (int64_t unit = first; unit < last; unit += W)
        for (int gate = 0; gate < m->slots; gate++) {
            r[count] = FN(reading)(m, unit, gate, m->packed + count * W * m->K);
            r[count].units.column -= col;
            count++;
            if (count == at_once || count == left) {
                FN(sums_of_units)(count, r, m->K, a, init, out);
                left -= count;
                count = 0;
            }
        }
}

static ALWAYS_INLINE void FN(store_panel)(void *row, int64_t col, const vec *sums)
{
    UNROLL for (int v = 0; v < NV; v++) vstore((real *)row + col + v * W, sums[v]);
}

/* Bytes of a panel, or of a part of one, that stay in a second-level cache beside all else that is in use. */
static const int64_t FN(near_panel) = 1 << 18;

/* A panel of K rows that has more than twice as many: it is read a part at a time, by some tiles of `a`, whose sums
 * wait in `out`, or where that is NULL here, for the next part. The chains of multiply-adds are cut and go on: the bits
 * are the same. An epilogue gets all rows of these tiles at once. */
static NOINLINE void FN(deep_panel)(const real *const *a, int64_t n, int64_t K, int width, int64_t col,
                                    const real *columns, const real *init, int64_t init_ld, real *out, int64_t out_ld,
                                    FN(epilogue) *epilogue, void *context)
{
    enum { most = 16 * MR };
    real sums[most * PANEL] __attribute__((aligned(64)));
    const int64_t depth = FN(near_panel) / (width * (int64_t)sizeof(real));
    for (int64_t row = 0; row < n; row += most) {
        const int64_t rows = n - row < most ? n - row : most, ld = out ? out_ld : PANEL;
        const int64_t blocks = (rows + MR - 1) / MR, each = rows / blocks, left = rows - each * blocks;
        real *const to = out ? out + row * out_ld : sums;
        const real *start = init ? init + row * init_ld : NULL;
        int64_t start_ld = init_ld;
        for (int64_t k = 0; k < K; k += depth) {
            for (int64_t i = 0, at = 0; i < blocks; at += each + (i++ < left))
                FN(tile_of)((int)(each + (i < left)), width, k, K - k < depth ? K - k : depth, a + row + at,
                            columns + k * width, start ? start + at * start_ld : NULL, start_ld, to + at * ld, ld);
            start = to;
            start_ld = ld;
        }
        if (epilogue)
            epilogue(context, row, (int)rows, col, sums);
    }
}

/* Row i of the result, i < n, is init + a[i] (K reals) times the packed matrix. init is NULL (zeros) or rows
 * of stride init_ld (0: the same for all), padded to whole vectors. Finished tiles go to `epilogue`, or where
 * that is NULL to `out`, rows of stride out_ld padded to whole vectors; out may be init.
 * The panel is the outer loop: it stays in the caches while all rows use it, or where it is too large for that and
 * there are rows for several tiles, a part of it does (deep_panel). Of a matrix that is not packed, each is packed just
 * then; one row reads it as it is. Who multiplies by the same matrix again and again reverses the order of the panels
 * every other time (serpentine order): what was used last is used first, while it is still in the cache. */
static void FN(gemm)(const real *const *a, int64_t n, const struct FN(matrix) *m, int reversed, const real *init,
                     int64_t init_ld, real *out, int64_t out_ld, FN(epilogue) *epilogue, void *context)
{
    real tile[(MR + 1) * PANEL] __attribute__((aligned(64)));
    const int64_t K = m->K, N = m->N, first = m->begin;
    const int panel = m->panel;
    /* Blocks of rows, balanced: 16 are 6, 5, 5 and not 6, 6, 4. */
    const int64_t blocks = (n + MR - 1) / MR;
    const int64_t each = blocks > 1 ? n / blocks : n, left = n - each * blocks;
    const int packed = !m->source.w;
    if (n == 1 && !epilogue && packed && panel == PANEL) {
        FN(gemv)(NV, NV, (struct FN(operand)){NULL, NULL}, (struct FN(operand)){a[0], m}, reversed, init,
                 FN(store_panel), NULL, out);
        return;
    }
    const int64_t last = m->end > first ? (m->end - 1) / panel * panel : first - 1;
    for (int64_t at = first; at <= last; at += panel) {
        const int64_t col = reversed ? last - (at - first) : at;
        const int width = FN(panel_width)(col, N, panel);
        const int64_t place = FN(place)(m, col, width);
        if (!packed && n == 1) {
            FN(panel_of_units)(m, col, a[0], init ? init + place : NULL, epilogue ? tile : out + place);
            if (epilogue)
                epilogue(context, 0, 1, col, tile);
            continue;
        }
        if (!packed)
            FN(pack_panel)(m, col);
        const real *const columns = m->packed + (packed ? col * K : 0);
        if (n > MR && K * width * (int64_t)sizeof(real) > 2 * FN(near_panel)) {
            FN(deep_panel)(a, n, K, width, col, columns, init ? init + place : NULL, init_ld,
                           epilogue ? NULL : out + place, out_ld, epilogue, context);
            continue;
        }
        for (int64_t row = 0, i = 0; i < blocks; i++) {
            const int rows = (int)(each + (i < left));
            FN(tile_of)(rows, width, 0, K, a + row, columns, init ? init + row * init_ld + place : NULL, init_ld,
                        epilogue ? tile : out + row * out_ld + place, epilogue ? PANEL : out_ld);
            if (epilogue)
                epilogue(context, row, rows, col, tile);
            row += rows;
        }
    }
}

/* Destination of a product whose rows the user owns: exactly N columns are written. */
struct FN(rows_out) {
    real *const *rows;
    int64_t N;
};

static void FN(store_rows)(void *context, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(rows_out) *c = context;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < c->N; j += W) {
            const int64_t left = c->N - col - j;
            vstore_n(c->rows[row + i] + col + j, vload(tile + i * PANEL + j), left < W ? (int)left : W);
        }
}
