/* Which instruction sets this processor and its operating system run, and which one is in use. */
#include "fastrnn.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

extern const struct fastrnn_kernels fastrnn_generic;
#if defined(__x86_64__)
extern const struct fastrnn_kernels fastrnn_avx2, fastrnn_avx512;
#elif defined(__aarch64__)
extern const struct fastrnn_kernels fastrnn_neon;
#endif

const struct fastrnn_kernels *const fastrnn_built[] = {
#if defined(__x86_64__)
    &fastrnn_avx512,
    &fastrnn_avx2,
#elif defined(__aarch64__)
    &fastrnn_neon,
#endif
    &fastrnn_generic,
    NULL,
};

int fastrnn_runs_here(const struct fastrnn_kernels *k)
{
#if defined(__x86_64__)
    /* The compiler's runtime reads cpuid and, for the state that the operating system must save
     * (ymm, zmm, masks), xgetbv. */
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (k == &fastrnn_avx2)
        return avx2;
    if (k == &fastrnn_avx512)
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
