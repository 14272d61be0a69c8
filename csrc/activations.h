/* Activation functions on vectors of W reals. Included after simd.h, once for each type.
 *
 * Range reduction (Cody and Waite 1980): k x = n ln 2 + k r, n the nearest integer, so |k r| <= ln2/2 and
 *     exp(k x) = s (1 + k h(r)),   s = 2^n,   h(r) = expm1(k r)/k = r + r^2 q(r).
 * k = 1, -1 or 2 is a literal. C_i k^(i-1) is exact, so exp(x), exp(-x) and exp(2x) share the coefficients of
 * expm1(y) = y + y^2 (C2 + C3 y + ...), and no operation is spent on forming 2x or -x.
 *
 * Coefficients: Remez exchange in mpmath for the relative error of expm1(y), |y| <= ln2/2; then refitted (Lawson's
 * weighted least squares) to the error of tanh in ulps, with the rounded ln 2 that tanh uses (for double also with
 * the rounding errors of each x), and rounded to the type one after the other by a beam search over the last bits.
 * "exp": error of s (1 + k h) by the rounded polynomial; "minimax": the Remez optimum, relative to expm1. */
#if REAL_BITS == 32
/* exp 2^-27.4, minimax 2^-26.2. tanh: at most 1.636 ulp, at 0x1.014206p-3 (every normal float);
 * exp: at most 1.046 ulp, at 0x1.4cba28p+2; sigmoid: at most 1.666 ulp, at -0x1.1aaaa6p+0 (every float whose result
 * is normal; `generic`: sigmoid 1.695 at -0x1.1acc9ep+0). */
#define ACT_MAGIC 0x1.8p23f
#define ACT_LOG2E 0x1.715476p0f
#define ACT_LN2 0x1.62e43p-1f
#define ACT_C2 0x1.000002p-1f
#define ACT_C3 0x1.555498p-3f
#define ACT_C4 0x1.55547ap-5f
#define ACT_C5 0x1.12346ep-7f
#define ACT_C6 0x1.6c97c6p-10f
#define SIGMOID_C2 ACT_C2
#define EXP_LN2 0x1.62e4p-1f
#define EXP_LN2_LOW 0x1.7f7d1cp-20f
#define EXP_LEAST -0x1.5d589ep6f
#define SIGMOID_LEAST -88
#define EXP_MOST 89
#else
/* exp 2^-54.1, minimax 2^-55.6. tanh: largest error found 1.744 ulp, at 0x1.f78d756a70906p-5 (104 million points
 * against 113-bit and 420 million against 64-bit references); summing the worst roundings gives about 1.86.
 * exp: largest error found 1.331 ulp, at -0x1.078d40223e1fdp+9 (1.67 billion points against a 64-bit reference).
 * sigmoid: largest error found 1.757 ulp, at -0x1.f22d6bb620d81p+0 (2.2 billion points against a 64-bit reference;
 * `generic`: 1.778 at -0x1.194f304679172p+0); summing the worst roundings gives about 1.89. */
#define ACT_MAGIC 0x1.8p52
#define ACT_LOG2E 0x1.71547652b82fep0
#define ACT_LN2 0x1.62e42fefa39efp-1
#define ACT_C2 0x1.0000000000005p-1
#define ACT_C3 0x1.5555555555617p-3
#define ACT_C4 0x1.55555555506c5p-5
#define ACT_C5 0x1.11111110eda7bp-7
#define ACT_C6 0x1.6c16c186bcaebp-10
#define ACT_C7 0x1.a01a024b6c46cp-13
#define ACT_C8 0x1.a0198ef88f1e7p-16
#define ACT_C9 0x1.71dcb3b5cd2d2p-19
#define ACT_C10 0x1.28ba57b401f26p-22
#define ACT_C11 0x1.b156387a15f79p-26
#define SIGMOID_C2 0x1.0000000000008p-1
#define EXP_LN2 0x1.62e42fefap-1
#define EXP_LN2_LOW 0x1.cf79abc9e3b3ap-40
#define EXP_LEAST -0x1.6232bdd7abcd2p9
#define SIGMOID_LEAST -709
#define EXP_MOST 710
#endif

/* q(r): Horner in r^2 over pairs, the operation count of Horner in r at about half its latency. c2 is C2. */
static ALWAYS_INLINE vec FN(expm1_q)(vec r, vec r2, real k, real c2)
{
    const real k2 = k * k, k3 = k * k2;
#define ACT_PAIR(c, d, p) vfma(r, vset1((d) * k * (p)), vset1((c) * (p)))
#if REAL_BITS == 32
    vec q = vfma(r2, vset1(ACT_C6 * k2 * k3), ACT_PAIR(ACT_C4, ACT_C5, k3));
#else
    vec q = vfma(r2, ACT_PAIR(ACT_C10, ACT_C11, k3 * k3 * k3), ACT_PAIR(ACT_C8, ACT_C9, k2 * k2 * k3));
    q = vfma(r2, q, ACT_PAIR(ACT_C6, ACT_C7, k2 * k3));
    q = vfma(r2, q, ACT_PAIR(ACT_C4, ACT_C5, k3));
#endif
    return vfma(r2, q, ACT_PAIR(c2, ACT_C3, k));
#undef ACT_PAIR
}

/* r = x - n ln 2, and t, whose low bits are n. Of the two parts of ln 2 the first has 15 (double: 37) bits and n
 * has 8 (11): the first step is exact whether or not the multiply-add rounds twice. */
static ALWAYS_INLINE vec FN(ln2_reduce)(vec x, vec *t)
{
    *t = vfma(x, vset1(ACT_LOG2E), vset1(ACT_MAGIC));
    const vec n = vsub(*t, vset1(ACT_MAGIC));
    return vfnma(n, vset1(EXP_LN2_LOW), vfnma(n, vset1(EXP_LN2), x));
}

/* exp x = s (1 + p), p = expm1(r): the rounding of the sum, and half of that of p. 2^128 (double: 2^1024) is no
 * number, so for x > 0 s is 2^(n-1), and the result is doubled. Below EXP_LEAST the result would be subnormal: it
 * is 0. */
static ALWAYS_INLINE vec FN(exp)(vec x)
{
    const vec zero = vzero(), one = vset1(1);
    vec t;
    const vec r = FN(ln2_reduce)(x, &t), r2 = vmul(r, r);
    const vec p = vfma(r2, FN(expm1_q)(r, r2, 1, ACT_C2), r);
    const vec halved = vselect(vlt(zero, x), one, zero), s = vpow2(vsub(t, halved));
    const vec e = vmul(vmul(s, vadd(one, p)), vadd(one, halved));
    return vselect(vlt(x, vset1(EXP_LEAST)), zero, vselect(vlt(vset1(EXP_MOST), x), vset1(INFINITY), e));
}

/* sigmoid x = s/(s + exp(-r)) = s/((1 + s) - h), with k = -1 only in h(r): exp(-r) = 1 - h.
 * - Where the denominator is just above a power of two and the quotient just below one, the rounding of the first
 *   costs 1 ulp, that of the second 0.5; the rest comes from r and h. Near -ln 3 (s = 1/4, r = 0.29) the polynomial
 *   would add 0.25 in double: SIGMOID_C2 is the C2 with the smallest error there and near -ln 7.
 * - 1 + s is exact for |n| <= 23 (52). Below that it loses s, which is taken off h: without that 2.44 ulp. Above, it
 *   loses the 1, and s/s is near enough. The denominator is never less than s, nor the quotient more than 1.
 * - At 40 the result is 1. At SIGMOID_LEAST n is -127 (-1023), for which s is 0. Between that and EXP_LEAST the
 *   result is subnormal, so flushed to 0. */
static ALWAYS_INLINE vec FN(sigmoid)(vec x)
{
    const vec one = vset1(1);
    vec t;
    const vec r = FN(ln2_reduce)(vmin(vset1(40), vmax(vset1(SIGMOID_LEAST), x)), &t), r2 = vmul(r, r);
    const vec q = FN(expm1_q)(r, r2, -1, SIGMOID_C2);
    const vec s = vpow2(t), sum = vadd(one, s), lost = vsub(s, vsub(sum, one));
    return vdiv(s, vsub(sum, vfma(r2, q, vsub(r, lost))));
}

/* tanh z = E/(1 + E), z = |x|, E = expm1(2z)/2 = s h + (s - 1)/2.
 * - n LN2 is taken off in one step: LN2 - ln 2 is 1.9e-9 (float), -2.3e-17 (double), and n is small until tanh is 1.
 * - E is (s r + (s - 1)/2) + s r^2 q: for n <= 2 (where E has to be good to its last bit) r and the bracket are exact.
 * - E/(1 + E) itself is off by up to 2.6 ulp: where tanh is just below and E, 1 + E just above a power of two, the
 *   roundings of E and 1 + E cost nearly 1 ulp each. C - C (C/(1 + E)) is tanh for both roots C of
 *   (C - E)(C - 1) = 0; with C = min(E, 1) (E = 1 at z = 0.549) the subtracted term, and its error, is the smaller.
 * - From 20 on tanh is 1 in both types: z stops there.
 * - The sign goes on last: -0 - (-0)(0) would be +0. */
static ALWAYS_INLINE vec FN(tanh)(vec x)
{
    const vec z = vmin(vset1(20), vabs(x)), one = vset1(1);
    const vec t = vfma(z, vset1(2 * ACT_LOG2E), vset1(ACT_MAGIC)), n = vsub(t, vset1(ACT_MAGIC)), s = vpow2(t);
    const vec r = vfnma(n, vset1(ACT_LN2 / 2), z), r2 = vmul(r, r), q = FN(expm1_q)(r, r2, 2, ACT_C2);
    const vec u = vfma(s, r, vfma(s, vset1((real)0.5), vset1((real)-0.5)));
    const vec e = vfma(vmul(s, r2), q, u);
    const vec c = vmin(one, e);
    return vcopysign(vfnma(c, vdiv(c, vadd(one, e)), c), x);
}

#undef ACT_MAGIC
#undef ACT_LOG2E
#undef ACT_LN2
#undef ACT_C2
#undef ACT_C3
#undef ACT_C4
#undef ACT_C5
#undef ACT_C6
#undef SIGMOID_C2
#undef EXP_LN2
#undef EXP_LN2_LOW
#undef EXP_LEAST
#undef SIGMOID_LEAST
#undef EXP_MOST
#if REAL_BITS == 64
#undef ACT_C7
#undef ACT_C8
#undef ACT_C9
#undef ACT_C10
#undef ACT_C11
#endif
