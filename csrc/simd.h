/* The vector vocabulary. No other file uses intrinsics or operators on vectors.
 *
 * Included (by typed.inc) once with REAL_BITS 32 and once with 64 (so: no include guard), in a file of
 * isa/ that has chosen one instruction set. A `vec` holds W lanes of `real`.
 *
 *   vzero() vset1(s)               all lanes +0, all lanes s
 *   vload(p) vstore(p, a)          W lanes, any alignment
 *   vload_n(p, n) vstore_n(p, a, n)  the first n lanes, 0 <= n <= W; the other lanes load as +0 and their
 *                                  memory is not touched
 *   vadd vsub vmul vdiv vsqrt(a)   correctly rounded
 *   vfma(a, b, c)                  a*b + c rounded once (`generic`: rounded twice)
 *   vfnma(a, b, c)                 c - a*b likewise
 *   vmin(a, b) vmax(a, b)          b where that is NaN; a is none
 *   vlt(a, b) vle(a, b)            lane masks, false where either is NaN
 *   vselect(m, a, b)               m ? a : b
 *   vabs(a) vcopysign(mag, sgn)
 *   vpow2(t)                       2^n from t = 1.5*2^MANTISSA + n: n lies in the low bits of t
 *   vzip_lo(a, b) vzip_hi(a, b)    a0 b0 a1 b1 ...: the lower, the upper W lanes of the interleaving
 *   vload_columns(p, ld, t)        t[k] = p[k] p[ld + k] p[2*ld + k] ... for k < COLUMNS: of each of W rows 16 bytes, with
 *                                AVX-512 32
 *
 * A `vhalf` holds HALF lanes, for the last columns of a matrix: W/2 where processors are in use that work on
 * half a vector in half the time (AVX-512 on Zen 4), else W.
 *
 *   hzero() hload(p) hstore(p, a)
 *   hfma(a, b, c)                  vfma of the first HALF lanes of a
 *
 * MR is the number of batch rows in a register tile: MR*4 accumulators, MR broadcasts and one weight
 * vector fit in the register file (32 registers: 6, 16 registers: 3).
 */

#ifndef FASTRNN_SIMD_NAMES
#define FASTRNN_SIMD_NAMES
#define FN_PASTE_(name, suffix) name##_##suffix
#define FN_PASTE(name, suffix) FN_PASTE_(name, suffix)
/* The suffixes are not f32 and f64 because arm_neon.h owns names such as vadd_f32. */
#define FN(name) FN_PASTE(name, REAL_SUFFIX)
#define ALWAYS_INLINE inline __attribute__((always_inline))

#define real FN(real)
#define vec FN(vec)
#define vmask FN(vmask)
#define vzero FN(vzero)
#define vset1 FN(vset1)
#define vload FN(vload)
#define vstore FN(vstore)
#define vload_n FN(vload_n)
#define vstore_n FN(vstore_n)
#define vadd FN(vadd)
#define vsub FN(vsub)
#define vmul FN(vmul)
#define vdiv FN(vdiv)
#define vsqrt FN(vsqrt)
#define vfma FN(vfma)
#define vfnma FN(vfnma)
#define vmin FN(vmin)
#define vmax FN(vmax)
#define vlt FN(vlt)
#define vle FN(vle)
#define vselect FN(vselect)
#define vabs FN(vabs)
#define vcopysign FN(vcopysign)
#define vpow2 FN(vpow2)
#define vzip_lo FN(vzip_lo)
#define vzip_hi FN(vzip_hi)
#define vload_columns FN(vload_columns)
#define vhalf FN(vhalf)
#define hzero FN(hzero)
#define hload FN(hload)
#define hstore FN(hstore)
#define hfma FN(hfma)
#endif

#undef REAL_SUFFIX
#undef MANTISSA
#undef W
#undef COLUMNS
#if REAL_BITS == 32
#define REAL_SUFFIX r32
#define MANTISSA 23
typedef float real;
#else
#define REAL_SUFFIX r64
#define MANTISSA 52
typedef double real;
#endif

#define OP static ALWAYS_INLINE

/* ------------------------------------------------------------------------------------------ x86-64 */
#undef W
#undef HALF
#undef MR
#if defined(FASTRNN_AVX512) || defined(FASTRNN_AVX2)
#undef MM
#undef SI
#undef PS
#undef EPI
#if defined(FASTRNN_AVX512)
#define MR 6
#define W (512 / REAL_BITS)
#define HALF (W / 2)
#define COLUMNS HALF
#define SI __m512i
#define MM(name, type) _mm512_##name##_##type
#else
#define MR 3
#define W (256 / REAL_BITS)
#define COLUMNS (W / 2)
#define SI __m256i
#define MM(name, type) _mm256_##name##_##type
#endif
#if REAL_BITS == 32
#define PS(name) MM(name, ps)
#define EPI(name) MM(name, epi32)
#else
#define PS(name) MM(name, pd)
#define EPI(name) MM(name, epi64)
#endif

#if defined(FASTRNN_AVX512) && REAL_BITS == 32
typedef __m512 vec;
typedef __mmask16 vmask;
typedef __m256 vhalf;
OP vhalf hzero(void) { return _mm256_setzero_ps(); }
OP vhalf hload(const real *p) { return _mm256_loadu_ps(p); }
OP void hstore(real *p, vhalf a) { _mm256_storeu_ps(p, a); }
OP vhalf hfma(vec a, vhalf b, vhalf c) { return _mm256_fmadd_ps(_mm512_castps512_ps256(a), b, c); }
OP SI FN(bits)(vec a) { return _mm512_castps_si512(a); }
OP vec FN(real_of)(SI a) { return _mm512_castsi512_ps(a); }
OP vmask vlt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
OP vmask vle(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
OP vec vzip_lo(vec a, vec b)
{
    const SI i = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, i, b);
}
OP vec vzip_hi(vec a, vec b)
{
    const SI i = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, i, b);
}
#elif defined(FASTRNN_AVX512)
typedef __m512d vec;
typedef __mmask8 vmask;
typedef __m256d vhalf;
OP vhalf hzero(void) { return _mm256_setzero_pd(); }
OP vhalf hload(const real *p) { return _mm256_loadu_pd(p); }
OP void hstore(real *p, vhalf a) { _mm256_storeu_pd(p, a); }
OP vhalf hfma(vec a, vhalf b, vhalf c) { return _mm256_fmadd_pd(_mm512_castpd512_pd256(a), b, c); }
OP SI FN(bits)(vec a) { return _mm512_castpd_si512(a); }
OP vec FN(real_of)(SI a) { return _mm512_castsi512_pd(a); }
OP vmask vlt(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
OP vmask vle(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
OP vec vzip_lo(vec a, vec b) { return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b); }
OP vec vzip_hi(vec a, vec b) { return _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b); }
#elif REAL_BITS == 32
typedef __m256 vec;
typedef __m256 vmask;
OP SI FN(bits)(vec a) { return _mm256_castps_si256(a); }
OP vec FN(real_of)(SI a) { return _mm256_castsi256_ps(a); }
#else
typedef __m256d vec;
typedef __m256d vmask;
OP SI FN(bits)(vec a) { return _mm256_castpd_si256(a); }
OP vec FN(real_of)(SI a) { return _mm256_castsi256_pd(a); }
#endif

/* What puts rows in place takes its turn with the multiply-adds: so part of it is done by loads, which insert 32 bytes of
 * one row (AVX2: 16) behind those of another. */
OP vec FN(load_pair)(const real *p, const real *q)
{
#if defined(FASTRNN_AVX512)
    const __m512i a = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)p));
    return FN(real_of)(_mm512_inserti64x4(a, _mm256_loadu_si256((const __m256i *)q), 1));
#else
    const __m256i a = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
    return FN(real_of)(_mm256_inserti128_si256(a, _mm_loadu_si128((const __m128i *)q), 1));
#endif
}
/* Transposes every square of 16 bytes of SQUARE rows. */
#if REAL_BITS == 32
#define SQUARE 4
OP void FN(turn_squares)(const vec *a, vec *t)
{
    const vec p = PS(unpacklo)(a[0], a[1]), q = PS(unpacklo)(a[2], a[3]);
    const vec r = PS(unpackhi)(a[0], a[1]), s = PS(unpackhi)(a[2], a[3]);
    t[0] = PS(shuffle)(p, q, 0x44);
    t[1] = PS(shuffle)(p, q, 0xEE);
    t[2] = PS(shuffle)(r, s, 0x44);
    t[3] = PS(shuffle)(r, s, 0xEE);
}
#else
#define SQUARE 2
OP void FN(turn_squares)(const vec *a, vec *t)
{
    t[0] = PS(unpacklo)(a[0], a[1]);
    t[1] = PS(unpackhi)(a[0], a[1]);
}
#endif
OP void vload_columns(const real *p, int64_t ld, vec *t)
{
    vec a[SQUARE];
    for (int i = 0; i < SQUARE; i++)
        a[i] = FN(load_pair)(p + i * ld, p + (SQUARE + i) * ld);
#if defined(FASTRNN_AVX512)
    vec b[SQUARE], u[SQUARE], v[SQUARE];
    for (int i = 0; i < SQUARE; i++)
        b[i] = FN(load_pair)(p + (2 * SQUARE + i) * ld, p + (3 * SQUARE + i) * ld);
    FN(turn_squares)(a, u);
    FN(turn_squares)(b, v);
    for (int i = 0; i < SQUARE; i++) {
        t[i] = FN(real_of)(_mm512_shuffle_i64x2(FN(bits)(u[i]), FN(bits)(v[i]), 0x88));
        t[SQUARE + i] = FN(real_of)(_mm512_shuffle_i64x2(FN(bits)(u[i]), FN(bits)(v[i]), 0xDD));
    }
#else
    FN(turn_squares)(a, t);
#endif
}
#undef SQUARE
OP vec vset1(real a) { return PS(set1)(a); }
OP vec vload(const real *p) { return PS(loadu)(p); }
OP void vstore(real *p, vec a) { PS(storeu)(p, a); }
OP vec vadd(vec a, vec b) { return PS(add)(a, b); }
OP vec vsub(vec a, vec b) { return PS(sub)(a, b); }
OP vec vmul(vec a, vec b) { return PS(mul)(a, b); }
OP vec vdiv(vec a, vec b) { return PS(div)(a, b); }
OP vec vsqrt(vec a) { return PS(sqrt)(a); }
OP vec vfma(vec a, vec b, vec c) { return PS(fmadd)(a, b, c); }
OP vec vfnma(vec a, vec b, vec c) { return PS(fnmadd)(a, b, c); }
OP vec vmin(vec a, vec b) { return PS(min)(a, b); }
OP vec vmax(vec a, vec b) { return PS(max)(a, b); }
OP vec vpow2(vec t) { return FN(real_of)(EPI(add)(EPI(slli)(FN(bits)(t), MANTISSA), FN(bits)(vset1((real)1)))); }

#if defined(FASTRNN_AVX512)
OP vmask FN(first)(int n) { return (vmask)((1u << n) - 1u); }
OP vec vload_n(const real *p, int n) { return PS(maskz_loadu)(FN(first)(n), p); }
OP void vstore_n(real *p, vec a, int n) { PS(mask_storeu)(p, FN(first)(n), a); }
OP vec vselect(vmask m, vec a, vec b) { return PS(mask_blend)(m, b, a); }
OP vec vabs(vec a) { return PS(abs)(a); }
OP vec vcopysign(vec mag, vec sgn)
{
    /* 0xCA is the truth table of: first operand ? second : third, bit by bit. */
    const SI sign = FN(bits)(vset1((real)-0.0));
    return FN(real_of)(EPI(ternarylogic)(sign, FN(bits)(sgn), FN(bits)(mag), 0xCA));
}
#else
OP SI FN(first)(int n)
{
    static const int32_t on_off[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(on_off + 8 - n * (REAL_BITS / 32)));
}
OP vec vload_n(const real *p, int n) { return PS(maskload)(p, FN(first)(n)); }
OP void vstore_n(real *p, vec a, int n) { PS(maskstore)(p, FN(first)(n), a); }
OP vmask vlt(vec a, vec b) { return PS(cmp)(a, b, _CMP_LT_OQ); }
OP vmask vle(vec a, vec b) { return PS(cmp)(a, b, _CMP_LE_OQ); }
OP vec vselect(vmask m, vec a, vec b) { return PS(blendv)(b, a, m); }
OP vec vabs(vec a) { return PS(andnot)(vset1((real)-0.0), a); }
OP vec vcopysign(vec mag, vec sgn)
{
    const vec sign = vset1((real)-0.0);
    return PS(or)(PS(andnot)(sign, mag), PS(and)(sign, sgn));
}
/* unpack interleaves within 128-bit halves; permute2f128 puts the halves in order. */
OP vec vzip_lo(vec a, vec b) { return PS(permute2f128)(PS(unpacklo)(a, b), PS(unpackhi)(a, b), 0x20); }
OP vec vzip_hi(vec a, vec b) { return PS(permute2f128)(PS(unpacklo)(a, b), PS(unpackhi)(a, b), 0x31); }
#endif

/* ------------------------------------------------------------------------------ aarch64 and generic */
#else
#define W (128 / REAL_BITS)
#define COLUMNS W
#if defined(FASTRNN_NEON)
#define MR 6
#undef NEON
#undef NEON_BITS
#if REAL_BITS == 32
#define NEON(name) name##_f32
#define NEON_BITS(name) name##_u32
typedef float32x4_t vec;
typedef uint32x4_t vmask;
OP vmask FN(bits)(vec a) { return vreinterpretq_u32_f32(a); }
OP vec FN(real_of)(vmask a) { return vreinterpretq_f32_u32(a); }
#else
#define NEON(name) name##_f64
#define NEON_BITS(name) name##_u64
typedef float64x2_t vec;
typedef uint64x2_t vmask;
OP vmask FN(bits)(vec a) { return vreinterpretq_u64_f64(a); }
OP vec FN(real_of)(vmask a) { return vreinterpretq_f64_u64(a); }
#endif
OP vec vset1(real a) { return NEON(vdupq_n)(a); }
OP vec vload(const real *p) { return NEON(vld1q)(p); }
OP void vstore(real *p, vec a) { NEON(vst1q)(p, a); }
OP vec vadd(vec a, vec b) { return NEON(vaddq)(a, b); }
OP vec vsub(vec a, vec b) { return NEON(vsubq)(a, b); }
OP vec vmul(vec a, vec b) { return NEON(vmulq)(a, b); }
OP vec vdiv(vec a, vec b) { return NEON(vdivq)(a, b); }
OP vec vsqrt(vec a) { return NEON(vsqrtq)(a); }
OP vec vfma(vec a, vec b, vec c) { return NEON(vfmaq)(c, a, b); }
OP vec vfnma(vec a, vec b, vec c) { return NEON(vfmsq)(c, a, b); }
OP vec vmin(vec a, vec b) { return NEON(vminq)(a, b); }
OP vec vmax(vec a, vec b) { return NEON(vmaxq)(a, b); }
OP vmask vlt(vec a, vec b) { return NEON(vcltq)(a, b); }
OP vmask vle(vec a, vec b) { return NEON(vcleq)(a, b); }
OP vec vselect(vmask m, vec a, vec b) { return NEON(vbslq)(m, a, b); }
OP vec vabs(vec a) { return NEON(vabsq)(a); }
OP vec vcopysign(vec mag, vec sgn) { return NEON(vbslq)(FN(bits)(vset1((real)-0.0)), sgn, mag); }
OP vec vpow2(vec t)
{
    return FN(real_of)(NEON_BITS(vaddq)(NEON_BITS(vshlq_n)(FN(bits)(t), MANTISSA), FN(bits)(vset1((real)1))));
}
OP vec vzip_lo(vec a, vec b) { return NEON(vzip1q)(a, b); }
OP vec vzip_hi(vec a, vec b) { return NEON(vzip2q)(a, b); }

#elif defined(FASTRNN_GENERIC)
/* The vector extension of gcc and clang: any processor, and two roundings in vfma. */
#define MR 3
#if REAL_BITS == 32
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vmask __attribute__((vector_size(16)));
typedef uint32_t FN(vbits) __attribute__((vector_size(16)));
#else
typedef double vec __attribute__((vector_size(16)));
typedef int64_t vmask __attribute__((vector_size(16)));
typedef uint64_t FN(vbits) __attribute__((vector_size(16)));
#endif
OP vec vload(const real *p)
{
    vec a;
    memcpy(&a, p, sizeof a);
    return a;
}
OP void vstore(real *p, vec a) { memcpy(p, &a, sizeof a); }
OP vec vset1(real a) { return a - (vec){0}; }
OP vec vadd(vec a, vec b) { return a + b; }
OP vec vsub(vec a, vec b) { return a - b; }
OP vec vmul(vec a, vec b) { return a * b; }
OP vec vdiv(vec a, vec b) { return a / b; }
OP vec vsqrt(vec a)
{
    for (int i = 0; i < W; i++)
        a[i] = REAL_BITS == 32 ? (real)sqrtf((float)a[i]) : (real)sqrt((double)a[i]);
    return a;
}
OP vec vfma(vec a, vec b, vec c) { return a * b + c; }
OP vec vfnma(vec a, vec b, vec c) { return c - a * b; }
OP vmask vlt(vec a, vec b) { return a < b; }
OP vmask vle(vec a, vec b) { return a <= b; }
OP vec vselect(vmask m, vec a, vec b) { return (vec)((m & (vmask)a) | (~m & (vmask)b)); }
OP vec vmin(vec a, vec b) { return vselect(vlt(a, b), a, b); }
OP vec vmax(vec a, vec b) { return vselect(vlt(b, a), a, b); }
OP vec vabs(vec a) { return (vec)((vmask)a & ~(vmask)vset1((real)-0.0)); }
OP vec vcopysign(vec mag, vec sgn) { return vselect((vmask)vset1((real)-0.0), sgn, mag); }
OP vec vpow2(vec t)
{
    return (vec)(((FN(vbits))t << MANTISSA) + (FN(vbits))vset1((real)1)); /* unsigned: it may wrap */
}
#if defined(__clang__) && REAL_BITS == 32
OP vec vzip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
OP vec vzip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
#elif defined(__clang__)
OP vec vzip_lo(vec a, vec b) { return __builtin_shufflevector(a, b, 0, 2); }
OP vec vzip_hi(vec a, vec b) { return __builtin_shufflevector(a, b, 1, 3); }
#elif REAL_BITS == 32
OP vec vzip_lo(vec a, vec b) { return __builtin_shuffle(a, b, (vmask){0, 4, 1, 5}); }
OP vec vzip_hi(vec a, vec b) { return __builtin_shuffle(a, b, (vmask){2, 6, 3, 7}); }
#else
OP vec vzip_lo(vec a, vec b) { return __builtin_shuffle(a, b, (vmask){0, 2}); }
OP vec vzip_hi(vec a, vec b) { return __builtin_shuffle(a, b, (vmask){1, 3}); }
#endif
#else
#error "choose an instruction set: include this file through a file of isa/"
#endif

OP void vload_columns(const real *p, int64_t ld, vec *t)
{
#if REAL_BITS == 32
    const vec a = vload(p), b = vload(p + ld), c = vload(p + 2 * ld), d = vload(p + 3 * ld);
    const vec ac = vzip_lo(a, c), bd = vzip_lo(b, d), ac2 = vzip_hi(a, c), bd2 = vzip_hi(b, d);
    t[0] = vzip_lo(ac, bd);
    t[1] = vzip_hi(ac, bd);
    t[2] = vzip_lo(ac2, bd2);
    t[3] = vzip_hi(ac2, bd2);
#else
    const vec a = vload(p), b = vload(p + ld);
    t[0] = vzip_lo(a, b);
    t[1] = vzip_hi(a, b);
#endif
}
OP vec vload_n(const real *p, int n)
{
    real lane[W] = {0};
    for (int i = 0; i < n; i++)
        lane[i] = p[i];
    return vload(lane);
}
OP void vstore_n(real *p, vec a, int n)
{
    real lane[W];
    vstore(lane, a);
    for (int i = 0; i < n; i++)
        p[i] = lane[i];
}
#endif

OP vec vzero(void) { return vset1((real)0); }
#ifndef HALF
#define HALF W
typedef vec vhalf;
OP vhalf hzero(void) { return vzero(); }
OP vhalf hload(const real *p) { return vload(p); }
OP void hstore(real *p, vhalf a) { vstore(p, a); }
OP vhalf hfma(vec a, vhalf b, vhalf c) { return vfma(a, b, c); }
#endif
#undef OP
