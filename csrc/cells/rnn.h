/* The Elman cell.
 *
 *   z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}
 *   h_t = f(z_t)                                       f: see nonlinearities.h
 *
 *   dz_t = (carry_t + d_output_t) f'(z_t)
 *   carry_{t-1} = W_hh^T dz_t
 */

static ALWAYS_INLINE void FN(rnn_unit)(const struct FN(step) *s, int64_t row, int64_t unit, vec h)
{
    vstore(s->h[row] + unit, h);
    FN(store_lanes)(s->output[row] + unit, h, FN(lanes)(unit, s->a->H));
}

static ALWAYS_INLINE void FN(rnn_units)(const struct FN(step) *s, int64_t row, int rows, int64_t col, const real *tile,
                                        enum nonlinearity f)
{
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < s->a->H; j += W)
            FN(rnn_unit)(s, row + i, col + j, FN(nonlinearity)(f, vload(tile + i * PANEL + j)));
}

static ALWAYS_INLINE void FN(rnn_step)(struct FN(step) *s, FN(panel_epilogue) *panel_epilogue, FN(epilogue) *epilogue)
{
    do {
        if (s->active == 1)
            FN(step_of_row)(NV, NV, s, panel_epilogue, epilogue);
        else
            FN(step_of_rows)(0, s, s->h_before, epilogue);
    } while (FN(next_step)(s));
}

static ALWAYS_INLINE void FN(rnn_back)(const struct FN(back_step) *s, enum nonlinearity f)
{
    const struct fastrnn_direction *a = s->a;
    const int64_t H = a->H, stride = FN(stride)(H);
    for (int64_t i = 0; i < s->active; i++) {
        const real *h = FN(row_at)(a, &a->output, s->t, s->rows[i]), *d_output = FN(d_output)(a, s->t, s->rows[i]);
        const real *carry = s->carry_h + i * stride;
        for (int64_t j = s->share.begin; j < s->share.end; j += W) {
            const int n = FN(lanes)(j, H);
            FN(prefetch)(h + j, s->distance.output);
            FN(prefetch)(d_output, j + s->distance.d_output);
            const vec dh = FN(d_state)(carry, d_output, j, n);
            vstore(s->dz[i] + j, FN(nonlinearity_back)(f, FN(load_lanes)(h + j, n), dh));
        }
    }
    FN(carry_back)(s, (const real *const *)s->dz, 0);
}

static int64_t FN(rnn_dz_stride)(const struct fastrnn_direction *a) { return FN(stride)(a->H); }

static int FN(rnn_sources)(const struct fastrnn_direction *a, struct FN(source) *sources)
{
    sources[0] = FN(source_of_both)(a, a->H);
    return 1;
}

/* For whatever nonlinearity. */
static inline void FN(rnn_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    const struct FN(step) *s = step;
    FN(rnn_units)(s, row, rows, col, tile, s->cell->f);
}

static inline void FN(rnn_back_step)(const struct FN(back_step) *s) { FN(rnn_back)(s, s->cell->f); }

#undef RNN_CELL
#define RNN_CELL(f_, step_, back_step_)                                                                                \
    static const struct FN(cell) FN(rnn_##f_) = {                                                                      \
        .facts = {.name = "rnn_" #f_, .gates = 1},                                                                     \
        .products = 1,                                                                                                 \
        .layout = {{1, 1, 1, {0}, {0}}},                                                                               \
        .takes_x = FN(single_step),                                                                                    \
        .f = NONLINEARITY_##f_,                                                                                        \
        .epilogue = FN(rnn_epilogue),                                                                                  \
        .step = FN(step_),                                                                                             \
        .back_step = FN(back_step_),                                                                                   \
        .dz_stride = FN(rnn_dz_stride),                                                                                \
        .sources = FN(rnn_sources),                                                                                    \
    };

/* With code of its own, which finishes one row in the registers. */
#undef RNN_OWN_CELL
#define RNN_OWN_CELL(f)                                                                                                \
    static void FN(rnn_##f##_epilogue)(void *step, int64_t row, int rows, int64_t col, const real *tile)               \
    {                                                                                                                  \
        FN(rnn_units)(step, row, rows, col, tile, NONLINEARITY_##f);                                                   \
    }                                                                                                                  \
    static ALWAYS_INLINE void FN(rnn_##f##_panel_epilogue)(void *step, int64_t col, const vec *z)                      \
    {                                                                                                                  \
        UNROLL for (int v = 0; v < NV; v++) FN(rnn_unit)(step, 0, col + v * W, FN(f)(z[v]));                           \
    }                                                                                                                  \
    static void FN(rnn_##f##_step)(struct FN(step) *s)                                                                 \
    {                                                                                                                  \
        FN(rnn_step)(s, FN(rnn_##f##_panel_epilogue), FN(rnn_##f##_epilogue));                                         \
    }                                                                                                                  \
    static void FN(rnn_##f##_back_step)(const struct FN(back_step) *s) { FN(rnn_back)(s, NONLINEARITY_##f); }          \
    RNN_CELL(f, rnn_##f##_step, rnn_##f##_back_step)
#undef RNN_OTHER_CELL
#define RNN_OTHER_CELL(f) RNN_CELL(f, plain_step, rnn_back_step)

FASTRNN_OWN_NONLINEARITIES(RNN_OWN_CELL)
FASTRNN_OTHER_NONLINEARITIES(RNN_OTHER_CELL)
