/* The nonlinearities f of the Elman cells. Their derivative is taken from r = f(z), since z is not kept. A NaN passes
 * through all of them, forward and backward.
 *
 *                 f(z)                              f'(z)
 *   tanh          tanh z                            1 - r^2
 *   relu          z; 0 where z <= 0                 1; 0 where r <= 0
 *   sigmoid       1/(1 + exp(-z))                   r - r^2
 *   identity      z                                 1
 *   hard_sigmoid  min(max(z + 3, 0), 6)/6           1/6; 0 where r <= 0 or r >= 1
 */
#ifndef FASTRNN_NONLINEARITIES
/* For which rnn.h has code of its own, and the others. */
#define FASTRNN_OWN_NONLINEARITIES(X) X(tanh) X(relu)
#define FASTRNN_OTHER_NONLINEARITIES(X) X(sigmoid) X(identity) X(hard_sigmoid)
#define FASTRNN_NONLINEARITIES(X) FASTRNN_OWN_NONLINEARITIES(X) FASTRNN_OTHER_NONLINEARITIES(X)
#define FASTRNN_NUMBERED(f) NONLINEARITY_##f,
enum nonlinearity { FASTRNN_NONLINEARITIES(FASTRNN_NUMBERED) };
#endif

static ALWAYS_INLINE vec FN(relu)(vec z) { return vselect(vle(z, vzero()), vzero(), z); }

static ALWAYS_INLINE vec FN(identity)(vec z) { return z; }

/* z + 3 is exact near -3, and 6 (1/6) is 1: so r is 0 and 1 at -3 and 3, and inside but for a rounding of z + 3. */
static ALWAYS_INLINE vec FN(hard_sigmoid)(vec z)
{
    const vec six = vset1((real)6), clipped = vmin(six, vmax(vzero(), vadd(z, vset1((real)3))));
    return vmul(clipped, vset1((real)1 / 6));
}

/* dr f'(z), from r. */
static ALWAYS_INLINE vec FN(tanh_back)(vec r, vec dr) { return vmul(dr, vfnma(r, r, vset1((real)1))); }

static ALWAYS_INLINE vec FN(relu_back)(vec r, vec dr) { return vselect(vle(r, vzero()), vzero(), dr); }

static ALWAYS_INLINE vec FN(sigmoid_back)(vec r, vec dr) { return vmul(dr, vfnma(r, r, r)); }

static ALWAYS_INLINE vec FN(identity_back)(vec r, vec dr)
{
    (void)r;
    return dr;
}

static ALWAYS_INLINE vec FN(hard_sigmoid_back)(vec r, vec dr)
{
    const vec d = vmul(dr, vset1((real)1 / 6));
    return vselect(vle(r, vzero()), vzero(), vselect(vle(vset1((real)1), r), vzero(), d));
}

/* Whichever it is: for code that all of them share, as it has other things to do than to wait for this branch. */
static ALWAYS_INLINE vec FN(nonlinearity)(enum nonlinearity f, vec z)
{
#undef FASTRNN_CASE
#define FASTRNN_CASE(f)                                                                                                \
    case NONLINEARITY_##f: return FN(f)(z);
    switch (f) {
        FASTRNN_NONLINEARITIES(FASTRNN_CASE)
    }
    return z;
}

static ALWAYS_INLINE vec FN(nonlinearity_back)(enum nonlinearity f, vec r, vec dr)
{
#undef FASTRNN_CASE
#define FASTRNN_CASE(f)                                                                                                \
    case NONLINEARITY_##f: return FN(f##_back)(r, dr);
    switch (f) {
        FASTRNN_NONLINEARITIES(FASTRNN_CASE)
    }
    return dr;
}
