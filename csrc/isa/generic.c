/* Any processor: four floats or two doubles of the compiler's vector extension; multiply, then add. */
#define FASTRNN_GENERIC
#define FASTRNN_KERNELS fastrnn_generic
#define FASTRNN_ISA_NAME "generic"
#include "../kernels.inc"
