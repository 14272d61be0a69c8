/* Which instruction sets this processor and its operating system run, and which one is in use. */
#include "fastrnn.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* setup.py defines FASTRNN_HAS_<SET> for each set that it compiles. */
extern const struct fastrnn_kernels fastrnn_generic, fastrnn_avx2, fastrnn_avx512, fastrnn_neon;

const struct fastrnn_kernels *const fastrnn_built[] = {
#if defined(FASTRNN_HAS_AVX512)
    &fastrnn_avx512,
#endif
#if defined(FASTRNN_HAS_AVX2)
    &fastrnn_avx2,
#endif
#if defined(FASTRNN_HAS_NEON)
    &fastrnn_neon,
#endif
    &fastrnn_generic, NULL,
};

int fastrnn_runs_here(const struct fastrnn_kernels *k)
{
#if defined(FASTRNN_HAS_AVX2) || defined(FASTRNN_HAS_AVX512)
    /* The compiler's runtime reads cpuid and, for the state that the operating system must save
     * (ymm, zmm, masks), xgetbv. */
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(k->name, "avx2") == 0)
        return avx2;
    if (strcmp(k->name, "avx512") == 0)
        return avx2 && __builtin_cpu_supports("avx512f");
#endif
    (void)k; /* NEON belongs to aarch64, generic runs anywhere */
    return 1;
}

static _Atomic(const struct fastrnn_kernels *) in_use;

int fastrnn_use(const char *name)
{
    for (int i = 0; fastrnn_built[i]; i++)
        if (strcmp(fastrnn_built[i]->name, name) == 0 && fastrnn_runs_here(fastrnn_built[i])) {
            atomic_store(&in_use, fastrnn_built[i]);
            return 0;
        }
    return -1;
}

const struct fastrnn_kernels *fastrnn_kernels_in_use(void)
{
    const struct fastrnn_kernels *k = atomic_load(&in_use);
    if (k)
        return k;
    const char *name = getenv("FASTRNN_ISA");
    if (!name || fastrnn_use(name) != 0)
        for (int i = 0; !atomic_load(&in_use); i++)
            if (fastrnn_runs_here(fastrnn_built[i]))
                atomic_store(&in_use, fastrnn_built[i]);
    return atomic_load(&in_use);
}

const struct fastrnn_cell *fastrnn_cell(int number) { return fastrnn_kernels_in_use()->cell(number); }
