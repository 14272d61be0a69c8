/* x86-64 with AVX2 and FMA: 8 floats, 4 doubles, 16 registers. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile this file with -mavx2 -mfma"
#endif
#include <immintrin.h>
#define FASTRNN_AVX2
#define FASTRNN_KERNELS fastrnn_avx2
#define FASTRNN_ISA_NAME "avx2"
#include "../kernels.inc"
