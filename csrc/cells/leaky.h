/* The leaky Elman cell, in two forms. a is the leak of each unit.
 *
 *   z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}
 *   rate:       r_t = f(z_t)        h_t = (1 - a) h_{t-1} + a r_t                    a r is fused
 *   potential:  v_t = (1 - a) v_{t-1} + a z_t        h_t = f(v_t)                    a z is fused
 *
 *   rate:       dh = carry + d_output_t        da += dh (r_t - h_{t-1})
 *               dz = (a dh) f'(z_t)            carry = (1 - a) dh + W_hh^T dz
 *   potential:  dv = carry + d_output_t f'(v_t)            da += dv (z_t - v_{t-1})
 *               dz = a dv                      carry = (1 - a) dv + (W_hh^T dz) f'(v_{t-1})
 *
 * Of the potential form the state is v alone: it is the c of the drivers, and h is made of it, also at a start. The tape
 * holds r_t, or z_t - v_{t-1}. A row of dz is dz and, behind it, what is added to the gradient of a.
 */

enum { FN(leaky_leak) }; /* the extra parameter */

static ALWAYS_INLINE const real *FN(leak_of)(const struct FN(weights) *w) { return w->extra[FN(leaky_leak)].packed; }

/* (1 - a) before + a now */
static ALWAYS_INLINE vec FN(leaked)(vec a, vec before, vec now)
{
    return vfma(a, now, vmul(vsub(vset1((real)1), a), before));
}

static void FN(leaky_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    const int64_t H = s->a->H, stride = FN(stride)(H);
    const int potential = s->cell->facts.c_alone;
    const enum nonlinearity f = s->cell->f;
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < H; j += W) {
            const int64_t unit = col + j;
            const int n = FN(lanes)(unit, H);
            const vec z = vload(tile + i * PANEL + j), a = vload(FN(leak_of)(s->w) + unit);
            vec h, kept;
            if (potential) {
                real *c = s->c + (row + i) * stride + unit;
                const vec before = vload(c), v = FN(leaked)(a, before, z);
                vstore(c, v);
                h = FN(nonlinearity)(f, v);
                kept = vsub(z, before);
                if (s->tape.gates)
                    FN(store_lanes)(FN(c_row)(&s->tape, s->t, s->rows[row + i]) + unit, v, n);
            } else {
                kept = FN(nonlinearity)(f, z);
                h = FN(leaked)(a, vload(s->h_before[row + i] + unit), kept);
            }
            vstore(s->h[row + i] + unit, h);
            FN(store_lanes)(s->output[row + i] + unit, h, n);
            if (s->tape.gates)
                FN(store_lanes)(FN(gates_row)(&s->tape, s->t, s->rows[row + i]) + unit, kept, n);
        }
}

static void FN(leaky_h_of_c)(const struct FN(cell) *cell, const real *c, real *h, int64_t n)
{
    for (int64_t j = 0; j < n; j += W)
        vstore(h + j, FN(nonlinearity)(cell->f, FN(load_lanes)(c + j, FN(lanes)(j, n))));
}

/* Where what is added to the gradient of a begins in a row of dz. */
static ALWAYS_INLINE int64_t FN(leaky_da_at)(const struct fastrnn_direction *a) { return FN(stride)(a->H); }

static void FN(leaky_rate_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_direction *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H);
    const vec one = vset1((real)1);
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const real *gates = FN(gates_row)(&s->tape, s->t, b), *before = FN(h_before)(a, &s->start, s->t, b);
        const real *d_output = FN(d_output)(a, s->t, b);
        real *carry = s->carry_h + i * stride, *dz = s->dz[i], *da = dz + FN(leaky_da_at)(a);
        for (int64_t j = s->share.begin; j < s->share.end; j += W) {
            const int n = FN(lanes)(j, H);
            const vec leak = vload(FN(leak_of)(s->w) + j), r = FN(load_lanes)(gates + j, n);
            const vec dh = FN(d_state)(carry, d_output, j, n);
            FN(prefetch)(gates + j, s->distance.gates);
            FN(prefetch)(before + j, s->distance.output);
            FN(prefetch)(d_output, j + s->distance.d_output);
            vstore(da + j, vmul(dh, vsub(r, FN(load_lanes)(before + j, n))));
            vstore(dz + j, FN(nonlinearity_back)(s->cell->f, r, vmul(leak, dh)));
            vstore(carry + j, vmul(vsub(one, leak), dh));
        }
    }
    FN(carry_back)(s, (const real *const *)s->dz, 1);
}

/* dv of unit j and on. */
static ALWAYS_INLINE vec FN(leaky_dv)(const struct FN(back_step) *s, const real *carry, const real *output,
                                      const real *d_output, int64_t j, int n)
{
    if (!d_output)
        return vload(carry + j);
    const vec h = FN(load_lanes)(output + j, n), d = FN(load_lanes)(d_output + j, n);
    return vadd(vload(carry + j), FN(nonlinearity_back)(s->cell->f, h, d));
}

static void FN(leaky_d_c)(const struct FN(back_step) *s, int64_t i, real *d_c)
{
    const int64_t H = s->a->H;
    const real *output = FN(row_at)(s->a, &s->a->output, s->t, s->rows[i]),
               *d_output = FN(d_output)(s->a, s->t, s->rows[i]);
    for (int64_t j = 0; j < H; j += W)
        vstore(d_c + j, FN(leaky_dv)(s, s->carry_c + i * FN(stride)(H), output, d_output, j, FN(lanes)(j, H)));
}

static void FN(leaky_potential_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_direction *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H);
    const vec one = vset1((real)1);
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const real *gates = FN(gates_row)(&s->tape, s->t, b), *output = FN(row_at)(a, &a->output, s->t, b);
        const real *d_output = FN(d_output)(a, s->t, b);
        real *carry = s->carry_c + i * stride, *dz = s->dz[i], *da = dz + FN(leaky_da_at)(a);
        for (int64_t j = s->share.begin; j < s->share.end; j += W) {
            const int n = FN(lanes)(j, H);
            const vec leak = vload(FN(leak_of)(s->w) + j), dv = FN(leaky_dv)(s, carry, output, d_output, j, n);
            FN(prefetch)(gates + j, s->distance.gates);
            FN(prefetch)(output + j, s->distance.output);
            FN(prefetch)(d_output, j + s->distance.d_output);
            vstore(da + j, vmul(dv, FN(load_lanes)(gates + j, n)));
            vstore(dz + j, vmul(leak, dv));
            vstore(carry + j, vmul(vsub(one, leak), dv));
        }
    }
    FN(carry_back)(s, (const real *const *)s->dz, 0);
    if (s->last)
        return;
    for (int64_t i = 0; i < s->active; i++) {
        const real *before = FN(h_before)(a, &s->start, s->t, s->rows[i]), *dh = s->carry_h + i * stride;
        real *carry = s->carry_c + i * stride;
        for (int64_t j = s->share.begin; j < s->share.end; j += W) {
            const vec h = FN(load_lanes)(before + j, FN(lanes)(j, H));
            vstore(carry + j, vadd(vload(carry + j), FN(nonlinearity_back)(s->cell->f, h, vload(dh + j))));
        }
    }
}

static int64_t FN(leaky_dz_stride)(const struct fastrnn_direction *a) { return 2 * FN(leaky_da_at)(a); }

static int FN(leaky_sources)(const struct fastrnn_direction *a, struct FN(source) *sources)
{
    sources[0] = FN(source_of_both)(a, a->H);
    sources[1] = (struct FN(source)){.at = FN(leaky_da_at)(a), .units = a->H, .d_sum = {a->d_extra[FN(leaky_leak)]}};
    return 2;
}

#undef LEAKY_CELL
#define LEAKY_CELL(form, f_, alone, h_of_c_, d_c_)                                                                     \
    static const struct FN(cell) FN(leaky_##form##_##f_) = {                                                           \
        .facts = {.name = "leaky_" #form "_" #f_,                                                                      \
                  .gates = 1,                                                                                          \
                  .tape_gates = 1,                                                                                     \
                  .has_c = alone,                                                                                      \
                  .c_alone = alone,                                                                                    \
                  .extras = 1,                                                                                         \
                  .extra = {{"leak", 1, {{1, 'H'}}, 1}}},                                                              \
        .products = 1,                                                                                                 \
        .layout = {{1, 1, 1, {0}, {0}}},                                                                               \
        .takes_x = FN(single_step),                                                                                    \
        .step = FN(plain_step),                                                                                        \
        .back_step = FN(leaky_##form##_back_step),                                                                     \
        .f = NONLINEARITY_##f_,                                                                                        \
        .epilogue = FN(leaky_epilogue),                                                                                \
        .h_of_c = h_of_c_,                                                                                             \
        .d_c = d_c_,                                                                                                   \
        .dz_stride = FN(leaky_dz_stride),                                                                              \
        .sources = FN(leaky_sources),                                                                                  \
    };
#undef LEAKY_CELLS
#define LEAKY_CELLS(f)                                                                                                 \
    LEAKY_CELL(rate, f, 0, NULL, NULL)                                                                                 \
    LEAKY_CELL(potential, f, 1, FN(leaky_h_of_c), FN(leaky_d_c))

FASTRNN_NONLINEARITIES(LEAKY_CELLS)
