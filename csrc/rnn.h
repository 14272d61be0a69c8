/* The Elman cell.
 *
 *   z_t = b_ih + b_hh + W_ih x_t + W_hh h_{t-1}        (the products: sequence.h)
 *   h_t = f(z_t)                                       f = tanh or relu
 *
 *   dz_t = (carry_t + d_output_t) f'(z_t)              1 - h_t^2, or 1 where h_t > 0, else 0
 *   carry_{t-1} = W_hh^T dz_t                          (the product: sequence.h)
 *
 * A NaN passes through both nonlinearities, forward and backward.
 */

static ALWAYS_INLINE vec FN(relu)(vec z) { return vselect(vle(z, vzero()), vzero(), z); }

struct FN(rnn_step) {
    int64_t H;
    real *const *state;  /* the rows of h_t in scratch, padded to whole vectors */
    real *const *output; /* the rows of output_t, H reals */
};

static ALWAYS_INLINE void FN(rnn_finish)(const struct FN(rnn_step) *s, int64_t row, int rows, int64_t col,
                                         const real *tile, const int nonlinearity)
{
    for (int i = 0; i < rows; i++) {
        real *state = s->state[row + i] + col, *output = s->output[row + i] + col;
        for (int64_t j = 0; j < PANEL && col + j < s->H; j += W) {
            const vec z = vload(tile + i * PANEL + j);
            const vec h = nonlinearity == FASTRNN_TANH ? FN(tanh)(z) : FN(relu)(z);
            const int64_t left = s->H - col - j;
            vstore(state + j, h);
            if (left >= W)
                vstore(output + j, h);
            else
                vstore_n(output + j, h, (int)left);
        }
    }
}

static void FN(rnn_finish_tanh)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(rnn_finish)(step, row, rows, col, tile, FASTRNN_TANH);
}

static void FN(rnn_finish_relu)(void *step, int64_t row, int rows, int64_t col, const real *tile)
{
    FN(rnn_finish)(step, row, rows, col, tile, FASTRNN_RELU);
}

/* dz = (carry + d_output) f'(h) for one row of H; d_output may be NULL (zeros). dz and carry are padded
 * to whole vectors. */
static ALWAYS_INLINE void FN(rnn_backward_as)(const int nonlinearity, int64_t H, const real *h,
                                              const real *d_output, const real *carry, real *dz)
{
    for (int64_t j = 0; j < H; j += W) {
        const int n = H - j < W ? (int)(H - j) : W;
        const vec hj = n == W ? vload(h + j) : vload_n(h + j, n);
        vec d = vzero();
        if (d_output)
            d = n == W ? vload(d_output + j) : vload_n(d_output + j, n);
        const vec dh = vadd(vload(carry + j), d);
        if (nonlinearity == FASTRNN_TANH)
            vstore(dz + j, vmul(dh, vfnma(hj, hj, vset1((real)1))));
        else
            vstore(dz + j, vselect(vle(hj, vzero()), vzero(), dh));
    }
}

static void FN(rnn_backward_row)(int nonlinearity, int64_t H, const real *h, const real *d_output,
                                 const real *carry, real *dz)
{
    if (nonlinearity == FASTRNN_TANH)
        FN(rnn_backward_as)(FASTRNN_TANH, H, h, d_output, carry, dz);
    else
        FN(rnn_backward_as)(FASTRNN_RELU, H, h, d_output, carry, dz);
}
