/* aarch64: 4 floats, 2 doubles, 32 registers. */
#if !defined(__aarch64__)
#error "compile this file for aarch64"
#endif
#include <arm_neon.h>
#define FASTRNN_NEON
#define FASTRNN_KERNELS fastrnn_neon
#define FASTRNN_ISA_NAME "neon"
#include "../kernels.inc"
