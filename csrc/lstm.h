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
 * A row of the ring is dz and, with a projection, dh and m.
 */

/* c of a vector of units. */
static ALWAYS_INLINE vec FN(lstm_c)(const struct FN(step) *s, int64_t row, int64_t unit, vec zi, vec zf, vec zg,
                                    const int peepholes)
{
    const struct fastrnn_layer *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H);
    real *c = s->c + row * stride + unit;
    const vec before = vload(c);
    if (peepholes) {
        const real *p = s->w->peep + unit;
        zi = vfma(vload(p), before, zi);
        zf = vfma(vload(p + stride), before, zf);
    }
    const vec i = FN(sigmoid)(zi), f = FN(sigmoid)(zf), g = FN(tanh)(zg);
    const vec now = vfma(f, before, vmul(i, g));
    vstore(c, now);
    if (a->gates) {
        const int n = FN(lanes)(unit, H);
        real *gates = FN(tape_row)(a, a->gates, s->t, s->rows[row], 4 * H) + unit;
        FN(gates_soon)(gates, H, s->ahead.gates);
        FN(store_lanes)(gates, i, n);
        FN(store_lanes)(gates + H, f, n);
        FN(store_lanes)(gates + 2 * H, g, n);
        real *c_t = FN(tape_row)(a, a->c, s->t, s->rows[row], H) + unit;
        FN(soon)(c_t, s->ahead.c);
        FN(store_lanes)(c_t, now, n);
    }
    return now;
}

/* m, from c. */
static ALWAYS_INLINE void FN(lstm_m)(const struct FN(step) *s, int64_t row, int64_t unit, vec zo, vec now,
                                     const int peepholes)
{
    const struct fastrnn_layer *a = s->a;
    const int n = FN(lanes)(unit, a->H);
    if (peepholes)
        zo = vfma(vload(s->w->peep + 2 * FN(stride)(a->H) + unit), now, zo);
    const vec o = FN(sigmoid)(zo), m = vmul(o, FN(tanh)(now));
    if (a->w_hr)
        vstore(s->between[row] + unit, m);
    else {
        vstore(s->h[row] + unit, m);
        FN(store_lanes)(s->output[row] + unit, m, n);
    }
    if (a->gates)
        FN(store_lanes)(FN(tape_row)(a, a->gates, s->t, s->rows[row], 4 * a->H) + 3 * a->H + unit, o, n);
}

/* In two passes: each is short enough for the processor to work on several rows at once. */
static ALWAYS_INLINE void FN(lstm_units)(const struct FN(step) *s, int64_t row, int rows, int64_t col,
                                         const real *tile, const int peepholes)
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

static ALWAYS_INLINE void FN(lstm_finish_panel)(void *step, int64_t col, const vec *z)
{
    FN(lstm_m)(step, 0, col / 4, z[3], FN(lstm_c)(step, 0, col / 4, z[0], z[1], z[2], 0), 0);
}

static void FN(lstm_finish)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(lstm_units)(step, row, rows, col, tile, 0);
}

static void FN(lstm_finish_peepholes)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(lstm_units)(step, row, rows, col, tile, 1);
}

static void FN(lstm_finish_projection)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < s->a->P; j += W) {
            const vec h = vload(tile + i * PANEL + j);
            vstore(s->h[row + i] + col + j, h);
            FN(store_lanes)(s->output[row + i] + col + j, h, FN(lanes)(col + j, s->a->P));
        }
}

static void FN(lstm_step)(struct FN(step) *s)
{
    const struct FN(matrix) *m = &s->w->h[0];
    do {
        if (s->active == 1 && !s->a->w_peep)
            FN(row_step)(NV, s, FN(lstm_finish_panel), FN(lstm_finish));
        else
            FN(product)(s->h_before, s->active, m, s->downwards, s->z, s->w->width, NULL, 0,
                        s->a->w_peep ? FN(lstm_finish_peepholes) : FN(lstm_finish), s);
        if (s->a->w_hr)
            FN(product)((const real *const *)s->between, s->active, &s->w->w_hr, s->downwards, NULL, 0, NULL, 0,
                        FN(lstm_finish_projection), s);
    } while (FN(next_step)(s));
}

/* One row: dz and the new carry_c. d_m is dh without d_output, or dm (and d_output NULL). m is written
 * to where `m_out` is not NULL. */
static ALWAYS_INLINE void FN(lstm_backward_row)(const int peepholes, int64_t H, const real *gates,
                                                const real *c, const real *c_before, const real *d_m,
                                                const real *d_output, const real *p, real *carry_c,
                                                real *dz, real *m_out, const struct FN(ahead) *ahead)
{
    const int64_t stride = FN(stride)(H);
    const vec one = vset1((real)1);
    for (int64_t j = 0; j < H; j += W) {
        const int n = FN(lanes)(j, H);
        const vec i = FN(load_lanes)(gates + j, n), f = FN(load_lanes)(gates + H + j, n);
        const vec g = FN(load_lanes)(gates + 2 * H + j, n), o = FN(load_lanes)(gates + 3 * H + j, n);
        const vec tc = FN(tanh)(FN(load_lanes)(c + j, n)), before = FN(load_lanes)(c_before + j, n);
        const vec dm = FN(d_state)(d_m, d_output, j, n);
        FN(gates_soon)(gates + j, H, ahead->gates);
        FN(soon)(c_before + j, ahead->c);
        FN(soon)(d_output, j + ahead->d_output);
        const vec d_o = vmul(vmul(dm, tc), vfnma(o, o, o));
        vec dc = vfma(vmul(dm, o), vfnma(tc, tc, one), vload(carry_c + j));
        if (peepholes)
            dc = vfma(vload(p + 2 * stride + j), d_o, dc);
        const vec di = vmul(vmul(dc, g), vfnma(i, i, i)), df = vmul(vmul(dc, before), vfnma(f, f, f));
        vec carry = vmul(dc, f);
        if (peepholes)
            carry = vfma(vload(p + stride + j), df, vfma(vload(p + j), di, carry));
        vstore(carry_c + j, carry);
        FN(store_lanes)(dz + j, di, n);
        FN(store_lanes)(dz + H + j, df, n);
        FN(store_lanes)(dz + 2 * H + j, vmul(vmul(dc, i), vfnma(g, g, one)), n);
        FN(store_lanes)(dz + 3 * H + j, d_o, n);
        if (m_out)
            vstore(m_out + j, vmul(o, tc));
    }
}

/* Where dh and m begin in a row of the ring. */
static ALWAYS_INLINE int64_t FN(lstm_dh_at)(const struct fastrnn_layer *a) { return FN(stride)(4 * a->H); }

static ALWAYS_INLINE int64_t FN(lstm_m_at)(const struct fastrnn_layer *a)
{
    return FN(lstm_dh_at)(a) + FN(stride)(a->P);
}

static void FN(lstm_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_layer *a = s->a;
    const int64_t H = a->H, P = a->P, stride = FN(stride)(H), h_stride = FN(stride)(P);
    if (a->w_hr) {
        for (int64_t i = 0; i < s->active; i++) {
            const real *d_output = FN(d_output)(a, s->t, s->rows[i]);
            real *dh = s->ring[i] + FN(lstm_dh_at)(a);
            for (int64_t j = 0; j < P; j += W)
                vstore(dh + j, FN(d_state)(s->carry_h + i * h_stride, d_output, j, FN(lanes)(j, P)));
            s->factors[i] = dh;
        }
        FN(product)(s->factors, s->active, &s->w->w_hr, s->downwards, NULL, 0, s->between, stride, NULL, NULL);
    }
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const real *gates = FN(tape_row)(a, a->gates, s->t, b, 4 * H), *c = FN(tape_row)(a, a->c, s->t, b, H);
        const real *c_before = FN(c_before)(a, s->zeros, s->t, b);
        const real *d_m = a->w_hr ? s->between + i * stride : s->carry_h + i * h_stride;
        const real *d_output = a->w_hr ? NULL : FN(d_output)(a, s->t, b);
        real *carry_c = s->carry_c + i * stride, *m = a->w_hr ? s->ring[i] + FN(lstm_m_at)(a) : NULL;
        if (a->w_peep)
            FN(lstm_backward_row)(1, H, gates, c, c_before, d_m, d_output, s->w->peep, carry_c, s->ring[i],
                                  m, &s->ahead);
        else
            FN(lstm_backward_row)(0, H, gates, c, c_before, d_m, d_output, NULL, carry_c, s->ring[i], m,
                                  &s->ahead);
    }
    if (!s->last)
        FN(product)((const real *const *)s->ring, s->active, &s->w->h[0], s->downwards, NULL, 0, s->carry_h,
                    h_stride, NULL, NULL);
}
