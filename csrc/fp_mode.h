/* The floating-point mode of the kernels: round to nearest, subnormals flushed to zero; that of fp_enter_gradual is the
 * same with subnormals kept, as NumPy has it. */
#ifndef FASTRNN_FP_MODE_H
#define FASTRNN_FP_MODE_H
#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <stdint.h>
#endif

#if defined(__x86_64__)
typedef unsigned fp_mode;
/* MXCSR: every exception masked (0x1F80), round to nearest, FTZ (0x8000), DAZ (0x0040). */
static inline fp_mode fp_enter(void)
{
    const fp_mode old = _mm_getcsr();
    _mm_setcsr(0x1F80 | 0x8000 | 0x0040);
    return old;
}
static inline fp_mode fp_enter_gradual(void)
{
    const fp_mode old = _mm_getcsr();
    _mm_setcsr(0x1F80);
    return old;
}
static inline void fp_leave(fp_mode old) { _mm_setcsr(old); }
#elif defined(__aarch64__)
typedef uint64_t fp_mode;
/* FPCR: traps off, round to nearest, FZ (bit 24): subnormal inputs and results are zero. */
static inline fp_mode fp_enter(void)
{
    fp_mode old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"((fp_mode)1 << 24));
    return old;
}
static inline fp_mode fp_enter_gradual(void)
{
    fp_mode old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"((fp_mode)0));
    return old;
}
static inline void fp_leave(fp_mode old) { __asm__ volatile("msr fpcr, %0" : : "r"(old)); }
#else
typedef int fp_mode;
static inline fp_mode fp_enter(void) { return 0; }
static inline fp_mode fp_enter_gradual(void) { return 0; }
static inline void fp_leave(fp_mode old) { (void)old; }
#endif
#endif
