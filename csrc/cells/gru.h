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
 * The tape holds r, z, n and fourth a, or r h_{t-1}. A row of dz is dr, dz, dn, and where a has a
 * gradient of its own dr, dz, da after that.
 *
 * Pre-activations, after: groups of four vectors, n of the input projection, r, z and a, so that the input projection
 * (n, r, z) and the recurrence (r, z, a) each are three neighbouring ones. Before: groups of r and z, then n.
 */

static ALWAYS_INLINE void FN(gru_unit)(const struct FN(step) *s, int64_t row, int64_t unit, vec input, vec zr, vec zz,
                                       vec an)
{
    const int64_t H = s->a->H;
    const int k = FN(lanes)(unit, H);
    const vec before = vload(s->h_before[row] + unit);
    const vec r = FN(sigmoid)(zr), z = FN(sigmoid)(zz);
    const vec n = FN(tanh)(vfma(r, an, input)), h = vfma(z, vsub(before, n), n);
    vstore(s->h[row] + unit, h);
    FN(store_lanes)(s->output[row] + unit, h, k);
    if (s->tape.gates) {
        real *gates = FN(gates_row)(&s->tape, s->t, s->rows[row]) + unit;
        FN(prefetch_gates)(gates, H, s->distance.gates);
        FN(store_lanes)(gates, r, k);
        FN(store_lanes)(gates + H, z, k);
        FN(store_lanes)(gates + 2 * H, n, k);
        FN(store_lanes)(gates + 3 * H, an, k);
    }
}

static void FN(gru_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    const int width = FN(group_width)(col / 3, s->a->H);
    for (int i = 0; i < rows; i++) {
        const real *t = tile + i * PANEL, *input = s->z + (row + i) * s->w->width + col / 3 * 4;
        FN(gru_unit)(s, row + i, col / 3, vload(input), vload(t), vload(t + width), vload(t + 2 * width));
    }
}

static ALWAYS_INLINE void FN(gru_panel_epilogue)(void *step, int64_t col, const vec *z)
{
    FN(gru_unit)(step, 0, col / 3, z[0], z[1], z[2], z[3]);
}

static void FN(gru_step)(struct FN(step) *s)
{
    do {
        if (s->active == 1)
            FN(step_of_row)(3, 4, s, FN(gru_panel_epilogue), FN(gru_epilogue));
        else
            FN(step_of_rows)(0, s, s->h_before, FN(gru_epilogue));
    } while (FN(next_step)(s));
}

/* r h_{t-1}, for the second product; z waits among the pre-activations. */
static void FN(gru_reset_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    const int64_t H = s->a->H;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && (col + j) / 2 < H; j += 2 * W) {
            const int64_t unit = (col + j) / 2;
            const int k = FN(lanes)(unit, H), width = FN(group_width)(unit, H);
            const real *t = tile + i * PANEL + j;
            const vec r = FN(sigmoid)(vload(t)), z = FN(sigmoid)(vload(t + width));
            const vec rh = vmul(r, vload(s->h_before[row + i] + unit));
            vstore(s->intermediate[row + i] + unit, rh);
            FN(store_counting)(s->z + (row + i) * s->w->width + col + j, z, width);
            if (s->tape.gates) {
                real *gates = FN(gates_row)(&s->tape, s->t, s->rows[row + i]) + unit;
                FN(store_lanes)(gates, r, k);
                FN(store_lanes)(gates + H, z, k);
                FN(store_lanes)(gates + 3 * H, rh, k);
            }
        }
}

static void FN(gru_reset_first_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    const int64_t H = s->a->H;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < H; j += W) {
            const int64_t unit = col + j;
            const int k = FN(lanes)(unit, H);
            const vec before = vload(s->h_before[row + i] + unit), n = FN(tanh)(vload(tile + i * PANEL + j));
            const vec z = vload(s->z + (row + i) * s->w->width + 2 * unit), h = vfma(z, vsub(before, n), n);
            vstore(s->h[row + i] + unit, h);
            FN(store_lanes)(s->output[row + i] + unit, h, k);
            if (s->tape.gates)
                FN(store_lanes)(FN(gates_row)(&s->tape, s->t, s->rows[row + i]) + 2 * H + unit, n, k);
        }
}

static void FN(gru_reset_first_step)(struct FN(step) *s)
{
    do {
        FN(step_of_rows)(0, s, s->h_before, FN(gru_reset_epilogue));
        FN(await_units)(s->others);
        FN(step_of_rows)(1, s, (const real *const *)s->intermediate, FN(gru_reset_first_epilogue));
    } while (FN(next_step)(s));
}

/* Where dr, dz, da begin in a row of dz. */
static ALWAYS_INLINE int64_t FN(gru_dh_at)(const struct fastrnn_direction *a) { return FN(stride)(3 * a->H); }

/* One row: dn, dz, and with the reset gate after the product dr and da, which with dz go behind. carry becomes
 * round(dh z). */
static ALWAYS_INLINE void FN(gru_back_row)(const int reset_after, const struct FN(back_step) *s, int64_t i)
{
    const struct fastrnn_direction *a = s->a;
    const int64_t H = a->H, b = s->rows[i];
    const real *gates = FN(gates_row)(&s->tape, s->t, b), *h_before = FN(h_before)(a, &s->start, s->t, b);
    const real *d_output = FN(d_output)(a, s->t, b);
    real *carry = s->carry_h + i * FN(stride)(H), *dz = s->dz[i];
    real *const behind = reset_after ? dz + FN(gru_dh_at)(a) : NULL;
    const struct FN(distance) distance = s->distance;
    const vec one = vset1((real)1);
    for (int64_t j = s->share.begin; j < s->share.end; j += W) {
        const int k = FN(lanes)(j, H);
        const vec z = FN(load_lanes)(gates + H + j, k), n = FN(load_lanes)(gates + 2 * H + j, k);
        const vec before = FN(load_lanes)(h_before + j, k), dh = FN(d_state)(carry, d_output, j, k);
        FN(prefetch_gates)(gates + j, H, distance.gates);
        FN(prefetch)(h_before + j, distance.output);
        FN(prefetch)(d_output, j + distance.d_output);
        const vec dn = vmul(vmul(dh, vsub(one, z)), vfnma(n, n, one));
        const vec d_z = vmul(vmul(dh, vsub(before, n)), vfnma(z, z, z));
        vstore(carry + j, vmul(dh, z));
        FN(store_lanes)(dz + H + j, d_z, k);
        FN(store_lanes)(dz + 2 * H + j, dn, k);
        if (reset_after) {
            const vec r = FN(load_lanes)(gates + j, k), an = FN(load_lanes)(gates + 3 * H + j, k);
            const vec dr = vmul(vmul(dn, an), vfnma(r, r, r));
            FN(store_lanes)(dz + j, dr, k);
            FN(store_lanes)(behind + j, dr, k);
            FN(store_lanes)(behind + H + j, d_z, k);
            FN(store_lanes)(behind + 2 * H + j, vmul(dn, r), k);
        }
    }
}

static void FN(gru_back_step)(const struct FN(back_step) *s)
{
    for (int64_t i = 0; i < s->active; i++) {
        FN(gru_back_row)(1, s, i);
        s->operands[i] = s->dz[i] + FN(gru_dh_at)(s->a);
    }
    FN(carry_back)(s, s->operands, 1);
}

static void FN(gru_reset_first_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_direction *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H);
    for (int64_t i = 0; i < s->active; i++) {
        FN(gru_back_row)(0, s, i);
        s->operands[i] = s->dz[i] + 2 * H;
    }
    FN(await_units)(s->others);
    FN(gemm)(s->operands, s->active, &s->w->h[1], s->reversed, NULL, 0, s->intermediate, stride, NULL, NULL);
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const real *gates = FN(gates_row)(&s->tape, s->t, b), *before = FN(h_before)(a, &s->start, s->t, b);
        const real *ds = s->intermediate + i * stride;
        real *carry = s->carry_h + i * stride;
        for (int64_t j = s->share.begin; j < s->share.end; j += W) {
            const int k = FN(lanes)(j, H);
            const vec r = FN(load_lanes)(gates + j, k), d = vload(ds + j);
            const vec dr = vmul(vmul(d, FN(load_lanes)(before + j, k)), vfnma(r, r, r));
            FN(store_lanes)(s->dz[i] + j, dr, k);
            vstore(carry + j, vfma(d, r, vload(carry + j)));
        }
    }
    FN(carry_back)(s, (const real *const *)s->dz, 1);
}

static int64_t FN(gru_dz_stride)(const struct fastrnn_direction *a) { return 2 * FN(gru_dh_at)(a); }

static int64_t FN(gru_reset_first_dz_stride)(const struct fastrnn_direction *a) { return FN(gru_dh_at)(a); }

/* Each matrix has a dz of its own, and so has each bias. */
static int FN(gru_sources)(const struct fastrnn_direction *a, struct FN(source) *sources)
{
    struct FN(source) x = FN(source_of_both)(a, 3 * a->H), h = x;
    x.count = h.count = 1;
    h.gradients[0] = x.gradients[1];
    h.at = FN(gru_dh_at)(a);
    x.d_sum[1] = NULL;
    h.d_sum[0] = NULL;
    sources[0] = x;
    sources[1] = h;
    return 2;
}

/* W_hn multiplies r h instead of h. */
static int FN(gru_reset_first_sources)(const struct fastrnn_direction *a, struct FN(source) *sources)
{
    const int64_t H = a->H;
    real *const d_w_hh = a->d_w_hh;
    struct FN(source) x = FN(source_of_both)(a, 3 * H), h = {.units = 2 * H, .count = 1}, n = {.units = H, .count = 1};
    x.count = 1;
    h.gradients[0] = x.gradients[1];
    n.at = 2 * H;
    n.gradients[0] = (struct FN(gradient)){.of = OF_INTERMEDIATE, .N = H, .d_w = d_w_hh ? d_w_hh + 2 * H * H : NULL};
    sources[0] = x;
    sources[1] = h;
    sources[2] = n;
    return 3;
}

static int64_t FN(gru_rh_at)(const struct fastrnn_direction *a) { return 3 * a->H; }

static const struct FN(cell) FN(gru) = {
    .facts = {.name = "gru", .gates = 3, .tape_gates = 4},
    .products = 1,
    .layout = {{4, 3, 3, {2, 0, 1}, {0, 1, 2}}},
    .takes_x = FN(always),
    .step = FN(gru_step),
    .back_step = FN(gru_back_step),
    .dz_stride = FN(gru_dz_stride),
    .sources = FN(gru_sources),
};

static const struct FN(cell) FN(gru_reset_first) = {
    .facts = {.name = "gru_reset_first", .gates = 3, .tape_gates = 4},
    .products = 2,
    .layout = {{2, 2, 2, {0, 1}, {0, 1}}, {1, 1, 1, {2}, {2}}},
    .overwrites = 1,
    .step = FN(gru_reset_first_step),
    .back_step = FN(gru_reset_first_back_step),
    .dz_stride = FN(gru_reset_first_dz_stride),
    .intermediate_at = FN(gru_rh_at),
    .intermediate_on_tape = 1,
    .sources = FN(gru_reset_first_sources),
};
