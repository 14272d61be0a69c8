/* The LSTM cell, with or without peepholes (p) and projection (W_hr).
 *
 *   z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}                        gates i, f, g, o
 *   i = sigmoid(z_i + p_i c_{t-1})    f = sigmoid(z_f + p_f c_{t-1})    g = tanh(z_g)
 *   c_t = f c_{t-1} + (i g)                                            i g is rounded, f c is fused
 *   o = sigmoid(z_o + p_o c_t)                                         p c is fused
 *   m_t = o tanh(c_t)        h_t = m_t, or W_hr m_t
 *
 *   dh = carry_h + d_output_t        dm = dh, or W_hr^T dh
 *   do = dm tanh(c_t) o (1 - o)
 *   dc = carry_c + dm o (1 - tanh(c_t)^2) + p_o do
 *   di = dc g i (1 - i)      df = dc c_{t-1} f (1 - f)      dg = dc i (1 - g^2)
 *   carry_c = dc f + p_i di + p_f df        carry_h = W_hh^T dz        dz = di, df, dg, do
 *
 * The tape holds the gates and c; tanh(c) is computed again, which costs less than memory for it.
 * A row of dz is dz and, with a projection, dh and m.
 */

enum { FN(lstm_w_hr), FN(lstm_w_peep) }; /* the extra parameters */

/* c of a vector of units. */
static ALWAYS_INLINE vec FN(lstm_c)(const struct FN(step) *s, int64_t row, int64_t unit, vec zi, vec zf, vec zg,
                                    const int peepholes)
{
    const int64_t H = s->a->H, stride = FN(stride)(H);
    real *c = s->c + row * stride + unit;
    const vec before = vload(c);
    if (peepholes) {
        const real *p = s->w->extra[FN(lstm_w_peep)].packed + unit;
        zi = vfma(vload(p), before, zi);
        zf = vfma(vload(p + stride), before, zf);
    }
    const vec i = FN(sigmoid)(zi), f = FN(sigmoid)(zf), g = FN(tanh)(zg);
    const vec now = vfma(f, before, vmul(i, g));
    vstore(c, now);
    if (s->tape.gates) {
        const int n = FN(lanes)(unit, H);
        real *gates = FN(gates_row)(&s->tape, s->t, s->rows[row]) + unit;
        FN(prefetch_gates)(gates, H, s->distance.gates);
        FN(store_lanes)(gates, i, n);
        FN(store_lanes)(gates + H, f, n);
        FN(store_lanes)(gates + 2 * H, g, n);
        real *c_t = FN(c_row)(&s->tape, s->t, s->rows[row]) + unit;
        FN(prefetch)(c_t, s->distance.c);
        FN(store_lanes)(c_t, now, n);
    }
    return now;
}

/* m, from c. */
static ALWAYS_INLINE void FN(lstm_m)(const struct FN(step) *s, int64_t row, int64_t unit, vec zo, vec now,
                                     const int peepholes)
{
    const struct fastrnn_direction *a = s->a;
    const int n = FN(lanes)(unit, a->H);
    if (peepholes)
        zo = vfma(vload(s->w->extra[FN(lstm_w_peep)].packed + 2 * FN(stride)(a->H) + unit), now, zo);
    const vec o = FN(sigmoid)(zo), m = vmul(o, FN(tanh)(now));
    if (a->extra[FN(lstm_w_hr)])
        vstore(s->intermediate[row] + unit, m);
    else {
        vstore(s->h[row] + unit, m);
        FN(store_lanes)(s->output[row] + unit, m, n);
    }
    if (s->tape.gates)
        FN(store_lanes)(FN(gates_row)(&s->tape, s->t, s->rows[row]) + 3 * a->H + unit, o, n);
}

/* In two passes: each is short enough for the processor to work on several rows at once. */
static ALWAYS_INLINE void FN(lstm_units)(const struct FN(step) *s, int64_t row, int rows, int64_t col, const real *tile,
                                         const int peepholes)
{
    const int64_t unit = col / 4;
    const int width = FN(group_width)(unit, s->a->H);
    for (int k = 0; k < rows; k++) {
        const real *z = tile + k * PANEL;
        FN(lstm_c)(s, row + k, unit, vload(z), vload(z + width), vload(z + 2 * width), peepholes);
    }
    for (int k = 0; k < rows; k++)
        FN(lstm_m)(s, row + k, unit, vload(tile + k * PANEL + 3 * width),
                   vload(s->c + (row + k) * FN(stride)(s->a->H) + unit), peepholes);
}

static ALWAYS_INLINE void FN(lstm_panel_epilogue)(void *step, int64_t col, const vec *z)
{
    FN(lstm_m)(step, 0, col / 4, z[3], FN(lstm_c)(step, 0, col / 4, z[0], z[1], z[2], 0), 0);
}

static void FN(lstm_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(lstm_units)(step, row, rows, col, tile, 0);
}

static void FN(lstm_peephole_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(lstm_units)(step, row, rows, col, tile, 1);
}

static void FN(lstm_projection_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < s->a->P; j += W) {
            const vec h = vload(tile + i * PANEL + j);
            vstore(s->h[row + i] + col + j, h);
            FN(store_lanes)(s->output[row + i] + col + j, h, FN(lanes)(col + j, s->a->P));
        }
}

static int FN(lstm_takes_x)(const struct fastrnn_direction *a) { return !a->extra[FN(lstm_w_peep)]; }

static void FN(lstm_step)(struct FN(step) *s)
{
    const int peepholes = s->a->extra[FN(lstm_w_peep)] != NULL;
    do {
        if (s->active == 1 && !peepholes)
            FN(step_of_row)(NV, NV, s, FN(lstm_panel_epilogue), FN(lstm_epilogue));
        else
            FN(step_of_rows)(0, s, s->h_before, peepholes ? FN(lstm_peephole_epilogue) : FN(lstm_epilogue));
        if (s->a->extra[FN(lstm_w_hr)]) {
            FN(await_units)(s->others);
            FN(gemm)((const real *const *)s->intermediate, s->active, &s->w->extra[FN(lstm_w_hr)], s->reversed, NULL, 0,
                     NULL, 0, FN(lstm_projection_epilogue), s);
        }
    } while (FN(next_step)(s));
}

/* What a row of a step back reads and writes. */
struct FN(lstm_row) {
    const real *gates, *c, *c_before;
    const real *d_m, *d_output; /* d_m is dh without d_output; or dm, and d_output NULL */
    const real *p;              /* the peepholes */
    real *carry_c, *dz, *m;     /* m: NULL, or where m is written to */
};

/* dz and the new carry_c. */
static ALWAYS_INLINE void FN(lstm_back_row)(const int peepholes, const struct FN(back_step) *s,
                                            const struct FN(lstm_row) row)
{
    const int64_t H = s->a->H, stride = FN(stride)(H);
    const struct FN(distance) *const distance = &s->distance;
    const vec one = vset1((real)1);
    for (int64_t j = s->share.c_begin; j < s->share.c_end; j += W) {
        const int n = FN(lanes)(j, H);
        const real *const gates = row.gates + j, *const p = peepholes ? row.p + j : NULL;
        real *const dz = row.dz + j;
        const vec i = FN(load_lanes)(gates, n), f = FN(load_lanes)(gates + H, n);
        const vec g = FN(load_lanes)(gates + 2 * H, n), o = FN(load_lanes)(gates + 3 * H, n);
        const vec tc = FN(tanh)(FN(load_lanes)(row.c + j, n)), before = FN(load_lanes)(row.c_before + j, n);
        const vec dm = FN(d_state)(row.d_m, row.d_output, j, n);
        FN(prefetch_gates)(gates, H, distance->gates);
        FN(prefetch)(row.c_before + j, distance->c);
        FN(prefetch)(row.d_output, j + distance->d_output);
        const vec d_o = vmul(vmul(dm, tc), vfnma(o, o, o));
        vec dc = vfma(vmul(dm, o), vfnma(tc, tc, one), vload(row.carry_c + j));
        if (peepholes)
            dc = vfma(vload(p + 2 * stride), d_o, dc);
        const vec di = vmul(vmul(dc, g), vfnma(i, i, i)), df = vmul(vmul(dc, before), vfnma(f, f, f));
        vec carry = vmul(dc, f);
        if (peepholes)
            carry = vfma(vload(p + stride), df, vfma(vload(p), di, carry));
        vstore(row.carry_c + j, carry);
        FN(store_lanes)(dz, di, n);
        FN(store_lanes)(dz + H, df, n);
        FN(store_lanes)(dz + 2 * H, vmul(vmul(dc, i), vfnma(g, g, one)), n);
        FN(store_lanes)(dz + 3 * H, d_o, n);
        if (row.m)
            vstore(row.m + j, vmul(o, tc));
    }
}

/* Where dh and m begin in a row of dz. */
static ALWAYS_INLINE int64_t FN(lstm_dh_at)(const struct fastrnn_direction *a) { return FN(stride)(4 * a->H); }

static int64_t FN(lstm_m_at)(const struct fastrnn_direction *a) { return FN(lstm_dh_at)(a) + FN(stride)(a->P); }

static int64_t FN(lstm_dz_stride)(const struct fastrnn_direction *a)
{
    return a->extra[FN(lstm_w_hr)] ? FN(lstm_m_at)(a) + FN(stride)(a->H) : FN(stride)(4 * a->H);
}

/* With a projection: dh to the rows of dz, and dm from it. */
static void FN(lstm_unproject)(const struct FN(back_step) *s)
{
    const struct fastrnn_direction *a = s->a;
    const int64_t P = a->P;
    for (int64_t i = 0; i < s->active; i++) {
        const real *carry = s->carry_h + i * FN(stride)(P), *d_output = FN(d_output)(a, s->t, s->rows[i]);
        real *dh = s->dz[i] + FN(lstm_dh_at)(a);
        for (int64_t j = s->share.begin; j < s->share.end; j += W)
            vstore(dh + j, FN(d_state)(carry, d_output, j, FN(lanes)(j, P)));
        s->operands[i] = dh;
    }
    FN(await_units)(s->others);
    FN(gemm)(s->operands, s->active, &s->w->extra[FN(lstm_w_hr)], s->reversed, NULL, 0, s->intermediate,
             FN(stride)(a->H), NULL, NULL);
}

static void FN(lstm_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_direction *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H), h_stride = FN(stride)(a->P);
    const int projects = a->extra[FN(lstm_w_hr)] != NULL;
    if (projects)
        FN(lstm_unproject)(s);
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const struct FN(lstm_row) row = {
            .gates = FN(gates_row)(&s->tape, s->t, b),
            .c = FN(c_row)(&s->tape, s->t, b),
            .c_before = FN(c_before)(a, &s->tape, &s->start, s->t, b),
            .d_m = projects ? s->intermediate + i * stride : s->carry_h + i * h_stride,
            .d_output = projects ? NULL : FN(d_output)(a, s->t, b),
            .p = s->w->extra[FN(lstm_w_peep)].packed,
            .carry_c = s->carry_c + i * stride,
            .dz = s->dz[i],
            .m = projects ? s->dz[i] + FN(lstm_m_at)(a) : NULL,
        };
        if (a->extra[FN(lstm_w_peep)])
            FN(lstm_back_row)(1, s, row);
        else
            FN(lstm_back_row)(0, s, row);
    }
    FN(carry_back)(s, (const real *const *)s->dz, 0);
}

static int FN(lstm_sources)(const struct fastrnn_direction *a, struct FN(source) *sources)
{
    const int64_t H = a->H;
    real *const d_p = a->d_extra[FN(lstm_w_peep)];
    int n = 0;
    sources[n++] = FN(source_of_both)(a, 4 * H);
    if (a->extra[FN(lstm_w_hr)])
        sources[n++] = (struct FN(source)){
            .at = FN(lstm_dh_at)(a),
            .units = a->P,
            .count = 1,
            .gradients = {{.of = OF_INTERMEDIATE, .N = H, .d_w = a->d_extra[FN(lstm_w_hr)]}},
        };
    if (d_p) {
        sources[n++] = (struct FN(source)){.units = H, .d_sum = {d_p}, .by = OF_C_BEFORE};
        sources[n++] = (struct FN(source)){.at = H, .units = H, .d_sum = {d_p + H}, .by = OF_C_BEFORE};
        sources[n++] = (struct FN(source)){.at = 3 * H, .units = H, .d_sum = {d_p + 2 * H}, .by = OF_C};
    }
    return n;
}

static const struct FN(cell) FN(lstm) = {
    .facts = {.name = "lstm",
              .gates = 4,
              .tape_gates = 4,
              .has_c = 1,
              .extras = 2,
              .extra = {{"w_hr", 2, {{1, 'P'}, {1, 'H'}}}, {"w_peep", 1, {{3, 'H'}}}}},
    .products = 1,
    .layout = {{4, 4, 4, {0, 1, 2, 3}, {0, 1, 2, 3}}},
    .takes_x = FN(lstm_takes_x),
    .step = FN(lstm_step),
    .back_step = FN(lstm_back_step),
    .dz_stride = FN(lstm_dz_stride),
    .intermediate_at = FN(lstm_m_at),
    .sources = FN(lstm_sources),
};
