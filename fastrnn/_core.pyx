# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# The binding: fill the C struct, release the GIL, call, raise. Shapes and dtypes are checked before.
import platform
import warnings

from threading import main_thread

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset
cimport numpy as cnp

cnp.import_array()


cdef extern from "fastrnn.h" nogil:
    enum: FASTRNN_OK, FASTRNN_NO_MEMORY, FASTRNN_INTERRUPTED, FASTRNN_NOT_FINITE

    struct fastrnn_sequence:
        void *data
        int64_t step_t, step_b

    struct fastrnn_call:
        int threads
        int (*interrupted)(void *) noexcept
        void *context

    struct fastrnn_rnn:
        fastrnn_call call
        int64_t T, B, D, H
        int nonlinearity, reverse
        fastrnn_sequence x
        const void *h_0
        const void *w_ih
        const void *w_hh
        const void *b_ih
        const void *b_hh
        const int64_t *lengths
        const uint8_t *restart
        fastrnn_sequence output
        void *h_n
        fastrnn_sequence d_output
        const void *d_h_n
        fastrnn_sequence d_x
        void *d_h_0
        void *d_w_ih
        void *d_w_hh
        void *d_b

    struct fastrnn_linear:
        fastrnn_call call
        int64_t N, D, O
        const void *x
        int64_t step_x
        const void *weight
        const void *bias
        void *output
        const void *d_output
        int64_t step_d
        void *d_x
        void *d_weight
        void *d_bias

    struct fastrnn_embedding:
        fastrnn_call call
        int64_t N, D, V
        const int64_t *indices
        const void *d_output
        int64_t step_d
        void *d_weight

    struct fastrnn_cross_entropy:
        fastrnn_call call
        int64_t N, C
        const void *logits
        int64_t step
        const int64_t *target
        const uint8_t *counts
        double scale
        void *d_logits
        double *losses
        double *total

    struct fastrnn_generate:
        fastrnn_call call
        int64_t V, D, H
        int nonlinearity
        const void *embedding
        const void *w_ih
        const void *w_hh
        const void *b_ih
        const void *b_hh
        const void *w_out
        const void *b_out
        void *h
        const int64_t *prompt
        int64_t fed, length
        const double *uniform
        double temperature
        int64_t *indices

    ctypedef int fastrnn_kernel(const fastrnn_call *) noexcept nogil

    struct fastrnn_kernels:
        const char *name
        fastrnn_kernel *rnn_forward[2]
        fastrnn_kernel *rnn_backward[2]
        fastrnn_kernel *linear_forward[2]
        fastrnn_kernel *linear_backward[2]
        fastrnn_kernel *embedding_backward[2]
        fastrnn_kernel *cross_entropy[2]
        fastrnn_kernel *generate[2]
        double (*sum_of_squares[2])(const void *, int64_t) noexcept nogil
        void (*tanh[2])(const void *, void *, int64_t) noexcept nogil
        void (*exp[2])(const void *, void *, int64_t) noexcept nogil

    const fastrnn_kernels *fastrnn_built[]
    int fastrnn_runs_here(const fastrnn_kernels *)
    const fastrnn_kernels *fastrnn_kernels_in_use()
    int fastrnn_use(const char *)
    int fastrnn_has_openmp()
    int fastrnn_get_num_threads()
    void fastrnn_set_num_threads(int)
    void fastrnn_swap_team_policy(double *, double *)
    long fastrnn_teams_run()
    double fastrnn_multiply_add_rate(int, double)


cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()


cdef extern from *:
    """
    #if defined(__clang__)
    #define FASTRNN_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FASTRNN_COMPILER "gcc " __VERSION__
    #else
    #define FASTRNN_COMPILER "unknown"
    #endif
    """
    const char *FASTRNN_COMPILER


# ------------------------------------------------------------------------------------------- the calls

cdef inline void *data(object array) noexcept:
    """Where an array's memory begins, NULL for None."""
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline fastrnn_sequence sequence(object array) noexcept:
    """A (T, B, n) array and its strides, in elements."""
    cdef fastrnn_sequence s
    cdef cnp.npy_intp *strides
    cdef int64_t size
    s.data = data(array)
    s.step_t = s.step_b = 0
    if array is not None:
        strides = cnp.PyArray_STRIDES(<cnp.ndarray>array)
        size = cnp.PyArray_ITEMSIZE(<cnp.ndarray>array)
        s.step_t = strides[0] // size
        s.step_b = strides[1] // size
    return s


cdef int interrupted(void *caught) noexcept with gil:
    """Let Python handle its signals; keep what they raise (Ctrl-C) for the caller."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<list>caught).append(error)
        return 1
    return 0


# A call of this many operations takes a few microseconds: less than handing over the GIL is worth.
cdef double keep_gil_below = 2e5


cdef int call(fastrnn_kernel *kernel, fastrnn_call *a, double flops, int threads) except -1:
    """Run a kernel on its struct, which begins with a fastrnn_call."""
    cdef int status
    cdef list caught
    a.threads = threads
    if flops < keep_gil_below:
        status = kernel(a)
    else:
        caught = []
        # Only the main thread handles signals: another one would wait for the GIL for nothing.
        if PyThread_get_thread_ident() == main_thread().ident:
            a.interrupted = interrupted
            a.context = <void *>caught
        with nogil:
            status = kernel(a)
        if status == FASTRNN_INTERRUPTED:
            raise caught[0]
    if status == FASTRNN_NO_MEMORY:
        raise MemoryError("no memory for the scratch of this call")
    if status == FASTRNN_NOT_FINITE:
        raise ValueError("the network's output is not finite: there is nothing to choose from")
    return 0


cdef inline double rnn_flops(const fastrnn_rnn *a) noexcept:
    return 2.0 * a.T * a.B * a.H * (a.D + a.H)


cdef inline void fill(
    fastrnn_rnn *a, cnp.ndarray x, object h_0, cnp.ndarray w_ih, cnp.ndarray w_hh,
    object lengths, object restart, cnp.ndarray output, int nonlinearity, bint reverse,
) noexcept:
    """What forward and backward have in common; everything else is absent."""
    memset(a, 0, sizeof(a[0]))  # an empty struct literal would not be zeroed
    a.T = cnp.PyArray_DIM(x, 0)
    a.B = cnp.PyArray_DIM(x, 1)
    a.D = cnp.PyArray_DIM(x, 2)
    a.H = cnp.PyArray_DIM(w_hh, 0)
    a.nonlinearity = nonlinearity
    a.reverse = reverse
    a.x = sequence(x)
    a.h_0 = data(h_0)
    a.w_ih = data(w_ih)
    a.w_hh = data(w_hh)
    a.lengths = <const int64_t *>data(lengths)
    a.restart = <const uint8_t *>data(restart)
    a.output = sequence(output)


cdef inline int is_double(cnp.ndarray x) noexcept:
    return cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE


cdef inline int64_t row_step(cnp.ndarray rows) noexcept:
    """The stride of the first of two axes, in elements."""
    return cnp.PyArray_STRIDE(rows, 0) // cnp.PyArray_ITEMSIZE(rows)


cpdef cnp.ndarray empty_sequence(
    cnp.npy_intp T, cnp.npy_intp B, cnp.npy_intp n, int type_number, bint batch_major
):
    """An uninitialised (T, B, n) array, which lies in memory as (B, T, n) if `batch_major`."""
    cdef cnp.npy_intp *shape = [T, B, n]
    if not batch_major:
        return cnp.PyArray_EMPTY(3, shape, type_number, 0)
    shape[0], shape[1] = B, T
    return cnp.PyArray_SwapAxes(cnp.PyArray_EMPTY(3, shape, type_number, 0), 0, 1)


def rnn_forward(
    cnp.ndarray x not None, h_0, cnp.ndarray w_ih not None, cnp.ndarray w_hh not None, b_ih, b_hh,
    lengths, restart, int nonlinearity, bint reverse, bint batch_major, int threads,
):
    cdef fastrnn_rnn a
    cdef int number = cnp.PyArray_TYPE(x)
    cdef cnp.npy_intp *shape = [cnp.PyArray_DIM(x, 1), cnp.PyArray_DIM(w_hh, 0)]
    cdef cnp.ndarray h_n = cnp.PyArray_EMPTY(2, shape, number, 0)
    cdef cnp.ndarray output = empty_sequence(
        cnp.PyArray_DIM(x, 0), shape[0], shape[1], number, batch_major
    )
    if cnp.PyArray_SIZE(output) == 0:  # no step is made
        if h_0 is None:
            memset(data(h_n), 0, cnp.PyArray_NBYTES(h_n))
        else:
            memcpy(data(h_n), data(h_0), cnp.PyArray_NBYTES(h_n))
        return output, h_n
    fill(&a, x, h_0, w_ih, w_hh, lengths, restart, output, nonlinearity, reverse)
    a.b_ih = data(b_ih)
    a.b_hh = data(b_hh)
    a.h_n = data(h_n)
    call(fastrnn_kernels_in_use().rnn_forward[is_double(x)], &a.call, rnn_flops(&a), threads)
    return output, h_n


def rnn_backward(
    cnp.ndarray x not None, h_0, cnp.ndarray w_ih not None, cnp.ndarray w_hh not None,
    cnp.ndarray output not None, lengths, restart, d_output, d_h_n,
    d_x, d_h_0, d_w_ih, d_w_hh, d_b, int nonlinearity, bint reverse, int threads,
):
    cdef fastrnn_rnn a
    fill(&a, x, h_0, w_ih, w_hh, lengths, restart, output, nonlinearity, reverse)
    a.d_output = sequence(d_output)
    a.d_h_n = data(d_h_n)
    a.d_x = sequence(d_x)
    a.d_h_0 = data(d_h_0)
    a.d_w_ih = data(d_w_ih)
    a.d_w_hh = data(d_w_hh)
    a.d_b = data(d_b)
    call(fastrnn_kernels_in_use().rnn_backward[is_double(x)], &a.call, rnn_flops(&a), threads)


cdef inline void fill_linear(
    fastrnn_linear *a, cnp.ndarray x, cnp.ndarray weight,
) noexcept:
    """What forward and backward have in common; everything else is absent."""
    memset(a, 0, sizeof(a[0]))
    a.N = cnp.PyArray_DIM(x, 0)
    a.D = cnp.PyArray_DIM(x, 1)
    a.O = cnp.PyArray_DIM(weight, 0)
    a.x = data(x)
    a.step_x = row_step(x)
    a.weight = data(weight)


def linear_forward(
    cnp.ndarray x not None, cnp.ndarray weight not None, bias, cnp.ndarray output not None, int threads,
):
    cdef fastrnn_linear a
    fill_linear(&a, x, weight)
    a.bias = data(bias)
    a.output = data(output)
    cdef double flops = 2.0 * a.N * a.D * a.O
    call(fastrnn_kernels_in_use().linear_forward[is_double(x)], &a.call, flops, threads)


def linear_backward(
    cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray d_output not None,
    d_x, d_weight, d_bias, int threads,
):
    cdef fastrnn_linear a
    fill_linear(&a, x, weight)
    a.d_output = data(d_output)
    a.step_d = row_step(d_output)
    a.d_x = data(d_x)
    a.d_weight = data(d_weight)
    a.d_bias = data(d_bias)
    cdef double flops = 4.0 * a.N * a.D * a.O
    call(fastrnn_kernels_in_use().linear_backward[is_double(x)], &a.call, flops, threads)


def embedding_backward(
    cnp.ndarray indices not None, cnp.ndarray d_output not None, cnp.ndarray d_weight not None,
    int threads,
):
    cdef fastrnn_embedding a
    memset(&a, 0, sizeof(a))
    a.N, a.D, a.V = cnp.PyArray_SIZE(indices), cnp.PyArray_DIM(d_weight, 1), cnp.PyArray_DIM(d_weight, 0)
    a.indices = <const int64_t *>data(indices)
    a.d_output = data(d_output)
    a.step_d = row_step(d_output)
    a.d_weight = data(d_weight)
    cdef double flops = 20.0 * (a.N + a.V) * a.D
    call(fastrnn_kernels_in_use().embedding_backward[is_double(d_weight)], &a.call, flops, threads)


def cross_entropy(
    cnp.ndarray logits not None, cnp.ndarray target not None, counts, double scale,
    cnp.ndarray d_logits not None, cnp.ndarray losses not None, int threads,
):
    cdef fastrnn_cross_entropy a
    memset(&a, 0, sizeof(a))
    a.N, a.C = cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)
    a.logits = data(logits)
    a.step = row_step(logits)
    a.target = <const int64_t *>data(target)
    a.counts = <const uint8_t *>data(counts)
    a.scale = scale
    a.d_logits = data(d_logits)
    a.losses = <double *>data(losses)
    cdef double total
    a.total = &total
    cdef double flops = 40.0 * a.N * a.C
    call(fastrnn_kernels_in_use().cross_entropy[is_double(logits)], &a.call, flops, threads)
    return total


def generate(
    cnp.ndarray embedding not None, cnp.ndarray w_ih not None, cnp.ndarray w_hh not None, b_ih, b_hh,
    cnp.ndarray w_out not None, b_out, cnp.ndarray h not None, cnp.ndarray prompt not None, uniform,
    double temperature, cnp.ndarray indices not None, int nonlinearity,
):
    cdef fastrnn_generate a
    memset(&a, 0, sizeof(a))
    a.V, a.D = cnp.PyArray_DIM(embedding, 0), cnp.PyArray_DIM(embedding, 1)
    a.H = cnp.PyArray_DIM(w_hh, 0)
    a.nonlinearity = nonlinearity
    a.embedding = data(embedding)
    a.w_ih = data(w_ih)
    a.w_hh = data(w_hh)
    a.b_ih = data(b_ih)
    a.b_hh = data(b_hh)
    a.w_out = data(w_out)
    a.b_out = data(b_out)
    a.h = data(h)
    a.prompt = <const int64_t *>data(prompt)
    a.fed, a.length = cnp.PyArray_SIZE(prompt), cnp.PyArray_SIZE(indices)
    a.uniform = <const double *>data(uniform)
    a.temperature = temperature
    a.indices = <int64_t *>data(indices)
    cdef double flops = 2.0 * (a.fed + a.length) * a.H * (a.D + a.H + a.V)
    call(fastrnn_kernels_in_use().generate[is_double(embedding)], &a.call, flops, 1)


def sum_of_squares(cnp.ndarray x not None):
    cdef int64_t size = cnp.PyArray_SIZE(x)
    cdef int number = is_double(x)
    cdef void *elements = data(x)
    cdef double total
    if size < keep_gil_below:
        return fastrnn_kernels_in_use().sum_of_squares[number](elements, size)
    with nogil:
        total = fastrnn_kernels_in_use().sum_of_squares[number](elements, size)
    return total


# ------------------------------------------------------------------------------------------- the checks

cdef inline bint plain(object value, int type_number, int rank, cnp.npy_intp rows, cnp.npy_intp columns):
    """Whether this is a C-contiguous array of that type and shape; rows are the last axis of rank 1."""
    if not cnp.PyArray_CheckExact(value):
        return False
    cdef cnp.ndarray a = value
    return (
        cnp.PyArray_TYPE(a) == type_number
        and cnp.PyArray_ISCARRAY_RO(a)
        and cnp.PyArray_NDIM(a) == rank
        and cnp.PyArray_DIM(a, 0) == rows
        and (rank == 1 or cnp.PyArray_DIM(a, 1) == columns)
    )


def rnn_fits(x, h_0, w_ih, w_hh, b_ih, b_hh):
    """The rank of x where rnn_forward can take these as they are, (T, D) with an axis added; else 0."""
    if not (cnp.PyArray_CheckExact(x) and cnp.PyArray_CheckExact(w_hh)):
        return 0
    cdef cnp.ndarray a = x
    cdef int number = cnp.PyArray_TYPE(a), rank = cnp.PyArray_NDIM(a)
    if (
        not (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE)
        or not (rank == 2 or rank == 3)
        or not (cnp.PyArray_ISALIGNED(a) and cnp.PyArray_ISNOTSWAPPED(a))
        or cnp.PyArray_NDIM(<cnp.ndarray>w_hh) != 2
    ):
        return 0
    cdef cnp.npy_intp D = cnp.PyArray_DIM(a, rank - 1), H = cnp.PyArray_DIM(<cnp.ndarray>w_hh, 0)
    cdef cnp.npy_intp B = 1 if rank == 2 else cnp.PyArray_DIM(a, 1)
    cdef cnp.npy_intp size = cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(a)
    if (
        (strides[rank - 1] != size and D > 1 and cnp.PyArray_SIZE(a) > 0)
        or strides[0] % size != 0
        or strides[rank - 2] % size != 0
        # The careful way finds the sizes whose product is too large to count.
        or <double>cnp.PyArray_DIM(a, 0) * B * H > 1e15
    ):
        return 0
    if (
        plain(w_hh, number, 2, H, H)
        and plain(w_ih, number, 2, H, D)
        and (h_0 is None or (plain(h_0, number, 1, H, 0) if rank == 2 else plain(h_0, number, 2, B, H)))
        and (b_ih is None or plain(b_ih, number, 1, H, 0))
        and (b_hh is None or plain(b_hh, number, 1, H, 0))
    ):
        return rank
    return 0


# ------------------------------------------------------------------------------------------ the process

def set_num_threads(int n):
    fastrnn_set_num_threads(n)


def get_num_threads():
    return fastrnn_get_num_threads()


cdef tuple built(bint only_here):
    names = []
    cdef int i = 0
    while fastrnn_built[i] != NULL:
        if not only_here or fastrnn_runs_here(fastrnn_built[i]):
            names.append(fastrnn_built[i].name.decode())
        i += 1
    return tuple(names)


def available_isas():
    return built(True)


def get_isa():
    return fastrnn_kernels_in_use().name.decode()


def set_isa(str name not None):
    if fastrnn_use(name.encode()) != 0:
        raise ValueError(f"name: expected one of {available_isas()} on this machine, got {name!r}")


def build_info():
    return {
        "compiler": FASTRNN_COMPILER.decode(),
        "machine": platform.machine(),
        "openmp": bool(fastrnn_has_openmp()),
        "isas_built": built(False),
    }


# ---------------------------------------------------------------------- private: for tests and benchmarks

def tanh(cnp.ndarray x not None, cnp.ndarray out not None):
    fastrnn_kernels_in_use().tanh[is_double(x)](data(x), data(out), cnp.PyArray_SIZE(x))


def exp(cnp.ndarray x not None, cnp.ndarray out not None):
    fastrnn_kernels_in_use().exp[is_double(x)](data(x), data(out), cnp.PyArray_SIZE(x))


def swap_team_policy(double per_member, double to_wake):
    fastrnn_swap_team_policy(&per_member, &to_wake)
    return per_member, to_wake


def teams_run():
    return fastrnn_teams_run()


def fma_peak(double seconds, bint dtype_is_double):
    cdef double rate
    with nogil:
        rate = fastrnn_multiply_add_rate(dtype_is_double, seconds)
    return rate / 1e9


def _warn_of_unknown_isa():
    import os

    wanted = os.environ.get("FASTRNN_ISA")
    if wanted and wanted != get_isa():
        warnings.warn(
            f"FASTRNN_ISA={wanted!r} is not one of {available_isas()}; {get_isa()!r} is used",
            RuntimeWarning, stacklevel=2,
        )


_warn_of_unknown_isa()
