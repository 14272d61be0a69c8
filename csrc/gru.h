/* The GRU cell. The reset gate is applied after the product with W_hn, or before it.
 *
 *   r = sigmoid(b_ir + b_hr + W_ir x_t + W_hr h_{t-1})       z likewise
 *   after:  a = b_hn + W_hn h_{t-1}           n = tanh(b_in + W_in x_t + r a)       r a is fused
 *   before:                                   n = tanh(b_in + b_hn + W_in x_t + W_hn (r h_{t-1}))
 *   h_t = n + z (h_{t-1} - n)                                                        z (...) is fused
 *
 *   dh = carry + d_output_t
 *   dn = dh (1 - z) (1 - n^2)                 dz = dh (h_{t-1} - n) z (1 - z)
 *   after:  dr = dn a r (1 - r)               da = dn r
 *           carry = dh z + W_hh^T [dr, dz, da]
 *   before: s = W_hn^T dn                     dr = s h_{t-1} r (1 - r)
 *           carry = dh z + s r + [W_hr; W_hz]^T [dr, dz]
 *
 * The tape holds r, z, n and fourth a, or r h_{t-1}. A row of the ring is dr, dz, dn, and where a has a
 * gradient of its own dr, dz, da after that.
 *
 * Pre-activations, after: groups of four vectors, n of the input part, r, z and a, so that the input part
 * (n, r, z) and the recurrence (r, z, a) each are three neighbouring ones. Before: groups of r and z, then n.
 */

enum { FN(gru_slots) = 4 };

static ALWAYS_INLINE void FN(gru_unit)(const struct FN(step) *s, int64_t row, int64_t unit, vec input, vec zr,
                                       vec zz, vec an)
{
    const struct fastrnn_layer *a = s->a;
    const int64_t H = a->H;
    const int k = FN(lanes)(unit, H);
    const vec before = vload(s->h_before[row] + unit);
    const vec r = FN(sigmoid)(zr), z = FN(sigmoid)(zz);
    const vec n = FN(tanh)(vfma(r, an, input)), h = vfma(z, vsub(before, n), n);
    vstore(s->h[row] + unit, h);
    FN(store_lanes)(s->output[row] + unit, h, k);
    if (a->gates) {
        real *gates = FN(tape_row)(a, a->gates, s->t, s->rows[row], 4 * H) + unit;
        FN(gates_soon)(gates, H, s->ahead.gates);
        FN(store_lanes)(gates, r, k);
        FN(store_lanes)(gates + H, z, k);
        FN(store_lanes)(gates + 2 * H, n, k);
        FN(store_lanes)(gates + 3 * H, an, k);
    }
}

static void FN(gru_finish)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    const int width = FN(group_width)(col / 3, s->a->H);
    for (int i = 0; i < rows; i++) {
        const real *t = tile + i * PANEL, *input = s->z + (row + i) * s->w->width + col / 3 * FN(gru_slots);
        FN(gru_unit)(s, row + i, col / 3, vload(input), vload(t), vload(t + width), vload(t + 2 * width));
    }
}

static ALWAYS_INLINE void FN(gru_finish_panel)(void *step, int64_t col, const vec *z)
{
    FN(gru_unit)(step, 0, col / 3, z[0], z[1], z[2], z[3]);
}

/* Reset first: r h_{t-1}, for the second product; z waits among the pre-activations. */
static void FN(gru_finish_reset)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    const struct fastrnn_layer *a = s->a;
    const int64_t H = a->H;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && (col + j) / 2 < H; j += 2 * W) {
            const int64_t unit = (col + j) / 2;
            const int k = FN(lanes)(unit, H), width = FN(group_width)(unit, H);
            const real *t = tile + i * PANEL + j;
            const vec r = FN(sigmoid)(vload(t)), z = FN(sigmoid)(vload(t + width));
            const vec rh = vmul(r, vload(s->h_before[row + i] + unit));
            vstore(s->between[row + i] + unit, rh);
            FN(store_counting)(s->z + (row + i) * s->w->width + col + j, z, width);
            if (a->gates) {
                real *gates = FN(tape_row)(a, a->gates, s->t, s->rows[row + i], 4 * H) + unit;
                FN(store_lanes)(gates, r, k);
                FN(store_lanes)(gates + H, z, k);
                FN(store_lanes)(gates + 3 * H, rh, k);
            }
        }
}

static void FN(gru_finish_reset_first)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    const struct fastrnn_layer *a = s->a;
    const int64_t H = a->H;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < H; j += W) {
            const int64_t unit = col + j;
            const int k = FN(lanes)(unit, H);
            const vec before = vload(s->h_before[row + i] + unit), n = FN(tanh)(vload(tile + i * PANEL + j));
            const vec z = vload(s->z + (row + i) * s->w->width + 2 * unit), h = vfma(z, vsub(before, n), n);
            vstore(s->h[row + i] + unit, h);
            FN(store_lanes)(s->output[row + i] + unit, h, k);
            if (a->gates)
                FN(store_lanes)(FN(tape_row)(a, a->gates, s->t, s->rows[row + i], 4 * H) + 2 * H + unit, n, k);
        }
}

static void FN(gru_step)(struct FN(step) *s)
{
    const struct FN(matrix) *m = &s->w->h[0];
    do {
        if (s->active == 1)
            FN(row_step)(3, s, FN(gru_finish_panel), FN(gru_finish));
        else
            FN(product)(s->h_before, s->active, m, s->downwards, s->z, s->w->width, NULL, 0, FN(gru_finish), s);
    } while (FN(next_step)(s));
}

static void FN(gru_reset_first_step)(struct FN(step) *s)
{
    const struct FN(weights) *w = s->w;
    do {
        FN(product)(s->h_before, s->active, &w->h[0], s->downwards, s->z, w->width, NULL, 0, FN(gru_finish_reset), s);
        FN(product)((const real *const *)s->between, s->active, &w->h[1], s->downwards, s->z + w->x_at[1], w->width,
                    NULL, 0, FN(gru_finish_reset_first), s);
    } while (FN(next_step)(s));
}

/* Where dr, dz, da begin in a row of the ring. */
static ALWAYS_INLINE int64_t FN(gru_dh_at)(const struct fastrnn_layer *a) { return FN(stride)(3 * a->H); }

/* One row: dn, dz, and with the reset gate after the product dr and da (`second` is where dr, dz, da go).
 * carry becomes round(dh z). */
static ALWAYS_INLINE void FN(gru_backward_row)(const int reset_after, int64_t H, const real *gates,
                                               const real *h_before, const real *d_output, real *carry,
                                               real *dz, real *second, const struct FN(ahead) *ahead)
{
    const vec one = vset1((real)1);
    for (int64_t j = 0; j < H; j += W) {
        const int k = FN(lanes)(j, H);
        const vec z = FN(load_lanes)(gates + H + j, k), n = FN(load_lanes)(gates + 2 * H + j, k);
        const vec before = FN(load_lanes)(h_before + j, k), dh = FN(d_state)(carry, d_output, j, k);
        FN(gates_soon)(gates + j, H, ahead->gates);
        FN(soon)(h_before + j, ahead->output);
        FN(soon)(d_output, j + ahead->d_output);
        const vec dn = vmul(vmul(dh, vsub(one, z)), vfnma(n, n, one));
        const vec d_z = vmul(vmul(dh, vsub(before, n)), vfnma(z, z, z));
        vstore(carry + j, vmul(dh, z));
        FN(store_lanes)(dz + H + j, d_z, k);
        FN(store_lanes)(dz + 2 * H + j, dn, k);
        if (reset_after) {
            const vec r = FN(load_lanes)(gates + j, k), an = FN(load_lanes)(gates + 3 * H + j, k);
            const vec dr = vmul(vmul(dn, an), vfnma(r, r, r));
            FN(store_lanes)(dz + j, dr, k);
            FN(store_lanes)(second + j, dr, k);
            FN(store_lanes)(second + H + j, d_z, k);
            FN(store_lanes)(second + 2 * H + j, vmul(dn, r), k);
        }
    }
}

static void FN(gru_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_layer *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H);
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        real *second = s->ring[i] + FN(gru_dh_at)(a);
        FN(gru_backward_row)(1, H, FN(tape_row)(a, a->gates, s->t, b, 4 * H),
                             FN(h_before)(a, s->zeros, s->t, b), FN(d_output)(a, s->t, b),
                             s->carry_h + i * stride, s->ring[i], second, &s->ahead);
        s->factors[i] = second;
    }
    if (!s->last)
        FN(product)(s->factors, s->active, &s->w->h[0], s->downwards, s->carry_h, stride, s->carry_h, stride,
                    NULL, NULL);
}

static void FN(gru_reset_first_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_layer *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H);
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        FN(gru_backward_row)(0, H, FN(tape_row)(a, a->gates, s->t, b, 4 * H),
                             FN(h_before)(a, s->zeros, s->t, b), FN(d_output)(a, s->t, b),
                             s->carry_h + i * stride, s->ring[i], NULL, &s->ahead);
        s->factors[i] = s->ring[i] + 2 * H;
    }
    FN(product)(s->factors, s->active, &s->w->h[1], s->downwards, NULL, 0, s->between, stride, NULL, NULL);
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const real *gates = FN(tape_row)(a, a->gates, s->t, b, 4 * H), *before = FN(h_before)(a, s->zeros, s->t, b);
        const real *ds = s->between + i * stride;
        real *carry = s->carry_h + i * stride;
        for (int64_t j = 0; j < H; j += W) {
            const int k = FN(lanes)(j, H);
            const vec r = FN(load_lanes)(gates + j, k), d = vload(ds + j);
            const vec dr = vmul(vmul(d, FN(load_lanes)(before + j, k)), vfnma(r, r, r));
            FN(store_lanes)(s->ring[i] + j, dr, k);
            vstore(carry + j, vfma(d, r, vload(carry + j)));
        }
    }
    if (!s->last)
        FN(product)((const real *const *)s->ring, s->active, &s->w->h[0], s->downwards, s->carry_h, stride,
                    s->carry_h, stride, NULL, NULL);
}
