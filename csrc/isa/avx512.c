/* x86-64 with AVX-512F: 16 floats, 8 doubles, 32 registers. */
#if !defined(__AVX512F__) || !defined(__FMA__)
#error "compile this file with -mavx512f -mfma"
#endif
#include <immintrin.h>
#define FASTRNN_AVX512
#define FASTRNN_KERNELS fastrnn_avx512
#define FASTRNN_ISA_NAME "avx512"
#include "../kernels.inc"
