/* The Elman cell.
 *
 *   z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}
 *   h_t = f(z_t)                                       f = tanh or relu
 *
 *   dz_t = (carry_t + d_output_t) f'(z_t)              1 - h_t^2, or 1 where h_t > 0, else 0
 *   carry_{t-1} = W_hh^T dz_t
 *
 * A NaN passes through both nonlinearities, forward and backward.
 */

static ALWAYS_INLINE vec FN(relu)(vec z) { return vselect(vle(z, vzero()), vzero(), z); }

static ALWAYS_INLINE void FN(rnn_unit)(const struct FN(step) *s, int64_t row, int64_t unit, vec z, const int cell)
{
    const vec h = cell == FASTRNN_RNN_TANH ? FN(tanh)(z) : FN(relu)(z);
    vstore(s->h[row] + unit, h);
    FN(store_lanes)(s->output[row] + unit, h, FN(lanes)(unit, s->a->H));
}

static ALWAYS_INLINE void FN(rnn_finish)(const struct FN(step) *s, int64_t row, int rows, int64_t col,
                                         const real *tile, const int cell)
{
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < PANEL && col + j < s->a->H; j += W)
            FN(rnn_unit)(s, row + i, col + j, vload(tile + i * PANEL + j), cell);
}

static void FN(rnn_finish_tanh)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(rnn_finish)(step, row, rows, col, tile, FASTRNN_RNN_TANH);
}

static void FN(rnn_finish_relu)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(rnn_finish)(step, row, rows, col, tile, FASTRNN_RNN_RELU);
}

static ALWAYS_INLINE void FN(rnn_finish_panel)(void *step, int64_t col, const vec *z)
{
    UNROLL for (int v = 0; v < NV; v++) FN(rnn_unit)(step, 0, col + v * W, z[v], FASTRNN_RNN_TANH);
}

static void FN(rnn_step)(struct FN(step) *s)
{
    const struct FN(matrix) *m = &s->w->h[0];
    do {
        if (s->active == 1 && s->a->cell == FASTRNN_RNN_TANH)
            FN(row_step)(NV, s, FN(rnn_finish_panel), FN(rnn_finish_tanh));
        else
            FN(product)(s->h_before, s->active, m, s->downwards, s->z, s->w->width, NULL, 0,
                        s->a->cell == FASTRNN_RNN_TANH ? FN(rnn_finish_tanh) : FN(rnn_finish_relu), s);
    } while (FN(next_step)(s));
}

/* dz = (carry + d_output) f'(h) for one row. */
static ALWAYS_INLINE void FN(rnn_backward_row)(const int cell, int64_t H, const real *h, const real *d_output,
                                               const real *carry, real *dz, const struct FN(ahead) *ahead)
{
    for (int64_t j = 0; j < H; j += W) {
        const int n = FN(lanes)(j, H);
        const vec hj = FN(load_lanes)(h + j, n), dh = FN(d_state)(carry, d_output, j, n);
        FN(soon)(h + j, ahead->output);
        FN(soon)(d_output, j + ahead->d_output);
        if (cell == FASTRNN_RNN_TANH)
            vstore(dz + j, vmul(dh, vfnma(hj, hj, vset1((real)1))));
        else
            vstore(dz + j, vselect(vle(hj, vzero()), vzero(), dh));
    }
}

static void FN(rnn_back_step)(const struct FN(back_step) *s)
{
    const struct fastrnn_layer *a = s->a;
    const int64_t stride = FN(stride)(a->H);
    for (int64_t i = 0; i < s->active; i++) {
        const real *h = FN(at)(&a->output, s->t, s->rows[i]), *d = FN(d_output)(a, s->t, s->rows[i]);
        if (a->cell == FASTRNN_RNN_TANH)
            FN(rnn_backward_row)(FASTRNN_RNN_TANH, a->H, h, d, s->carry_h + i * stride, s->ring[i], &s->ahead);
        else
            FN(rnn_backward_row)(FASTRNN_RNN_RELU, a->H, h, d, s->carry_h + i * stride, s->ring[i], &s->ahead);
    }
    if (!s->last)
        FN(product)((const real *const *)s->ring, s->active, &s->w->h[0], s->downwards, NULL, 0, s->carry_h,
                    stride, NULL, NULL);
}
