# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# The binding: fill the C struct, release the GIL, call, raise. Shapes and dtypes are checked before.
import platform

from threading import main_thread

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
cimport numpy as cnp

cnp.import_array()


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
    cdef list caught = None
    a.threads = threads
    a.interrupted, a.context = NULL, NULL  # a stream's struct outlives the call that set them
    if flops < keep_gil_below:
        status = kernel(a)
    else:
        # Only the main thread handles signals: another one would wait for the GIL for nothing.
        if PyThread_get_thread_ident() == main_thread().ident:
            caught = []
            a.interrupted = interrupted
            a.context = <void *>caught
        with nogil:
            status = kernel(a)
    if status == FASTRNN_INTERRUPTED:
        raise caught[0] if caught else KeyboardInterrupt
    if status == FASTRNN_NO_MEMORY:
        raise MemoryError("no memory for the scratch of this call")
    if status == FASTRNN_NOT_FINITE:
        raise ValueError("the network's output is not finite: there is nothing to choose from")
    return 0


cdef inline int call_directions(
    fastrnn_kernel *kernel, const fastrnn_direction *directions, int count, double flops, int threads,
) except -1:
    cdef fastrnn_directions a
    a.directions, a.count = directions, count
    return call(kernel, &a.call, flops, threads)


cdef inline int is_double(cnp.ndarray x) noexcept:
    return cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE


cdef inline bint result(object array, int type_number):
    """Whether this is a C-contiguous array of that type that can be written to."""
    return (
        cnp.PyArray_CheckExact(array)
        and cnp.PyArray_TYPE(<cnp.ndarray>array) == type_number
        and cnp.PyArray_ISCARRAY(<cnp.ndarray>array)
    )


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


cdef inline cnp.npy_intp kept_steps(cnp.npy_intp T, int64_t checkpoint) noexcept:
    """At how many steps a tape has c: at all, or at every so many."""
    return T if checkpoint == 0 else (T - 1) // checkpoint if T > 0 else 0


def cells():
    """The cells of the C table: (name, gates, has_c, tape_gates, extras) each, extras (name, ((times, of), ...))."""
    found = []
    while get_cell(len(found)) != NULL:
        cell = get_cell(len(found))
        extras = []
        for i in range(cell.extras):
            shape = tuple((cell.extra[i].shape[k].times, chr(cell.extra[i].shape[k].of)) for k in range(cell.extra[i].rank))
            extras.append((cell.extra[i].name.decode(), shape))
        found.append((cell.name.decode(), cell.gates, bool(cell.has_c), cell.tape_gates, tuple(extras)))
    return tuple(found)


cdef int FASTRNN_LSTM = [cell[0] for cell in cells()].index("lstm"), FASTRNN_RNN_RELU = 1
cdef int FASTRNN_RNN_TANH = 0, FASTRNN_GRU_RESET_FIRST = len(cells()) - 1


cdef inline int gates_of(int kind) noexcept:
    return get_cell(kind).gates


cdef inline double work(const fastrnn_direction *a) noexcept:
    """The operations of forward; an activation takes as long as a feature's products with 16 gates."""
    return fastrnn_flops(a, 32)


cdef inline void fill_weights(
    fastrnn_direction *a, int kind, cnp.ndarray w_ih, cnp.ndarray w_hh, object b_ih, object b_hh,
    object w_hr, object w_peep,
) noexcept:
    """The cell, its weights and what they say of the sizes; everything else is absent."""
    memset(a, 0, sizeof(a[0]))  # an empty struct literal would not be zeroed
    a.cell = kind
    a.D = cnp.PyArray_DIM(w_ih, 1)
    a.H = cnp.PyArray_DIM(w_hh, 0) // gates_of(kind)
    a.P = cnp.PyArray_DIM(w_hh, 1)
    a.w_ih = data(w_ih)
    a.w_hh = data(w_hh)
    a.b_ih = data(b_ih)
    a.b_hh = data(b_hh)
    a.extra[0], a.extra[1] = data(w_hr), data(w_peep)


cdef inline void fill_layer(
    fastrnn_direction *a, cnp.ndarray x, object h_0, object c_0, object lengths, object restart,
    cnp.ndarray output, object c, object gates, bint reverse, int64_t checkpoint,
) noexcept:
    """What forward and backward have in common, beside the weights."""
    a.T = cnp.PyArray_DIM(x, 0)
    a.B = cnp.PyArray_DIM(x, 1)
    a.reverse = reverse
    a.x = sequence(x)
    a.h_0 = data(h_0)
    a.c_0 = data(c_0)
    a.lengths = <const int64_t *>data(lengths)
    a.restart = <const uint8_t *>data(restart)
    a.output = sequence(output)
    a.c = data(c)
    a.gates = data(gates)
    a.checkpoint = min(checkpoint, a.T)


cdef class Together:
    """Up to two calls of layers, both forward or both backward, that `run` makes, at the same time if that pays.

    Whoever wants one passes it to layer_forward or layer_backward, whose results are then not there before `run`.
    """
    cdef fastrnn_direction[2] layers
    cdef list arrays  # what the calls read and write
    cdef fastrnn_kernel *kernel
    cdef double flops
    cdef int count, threads

    def __cinit__(self):
        self.arrays = []

    cdef int add(self, fastrnn_kernel *kernel, fastrnn_direction *a, double flops, int threads, tuple arrays) except -1:
        if self.count == 2 or (self.count and kernel != self.kernel):
            raise RuntimeError("two calls of one kind can be made together")
        self.layers[self.count] = a[0]
        self.arrays.append(arrays)
        self.kernel, self.threads = kernel, threads
        self.flops += flops
        self.count += 1
        return 0

    def run(self):
        cdef int count = self.count
        self.count = 0
        if count:
            call_directions(self.kernel, self.layers, count, self.flops, self.threads)


cdef inline int call_layer(
    fastrnn_kernel *kernel, fastrnn_direction *a, double flops, int threads, Together together, tuple arrays,
) except -1:
    if together is None:
        return call_directions(kernel, a, 1, flops, threads)
    return together.add(kernel, a, flops, threads, arrays)


cdef inline cnp.ndarray rows_of(cnp.npy_intp rows, cnp.npy_intp n, int type_number):
    cdef cnp.npy_intp *shape = [rows, n]
    return cnp.PyArray_EMPTY(2, shape, type_number, 0)


cdef inline void copy_or_zero(cnp.ndarray to, object of) noexcept:
    if of is None:
        memset(data(to), 0, cnp.PyArray_NBYTES(to))
    else:
        memcpy(data(to), data(of), cnp.PyArray_NBYTES(to))


def layer_forward(
    int kind, cnp.ndarray x not None, h_0, c_0, cnp.ndarray w_ih not None, cnp.ndarray w_hh not None,
    b_ih, b_hh, w_hr, w_peep, lengths, restart, bint reverse, bint record, int64_t checkpoint,
    bint batch_major, output, Together together, int threads,
):
    cdef fastrnn_direction a
    cdef int number = cnp.PyArray_TYPE(x)
    cdef cnp.ndarray h_n
    cdef object c_n = None, c = None, gates = None
    expect(
        kind_fits(kind, w_hr, w_peep)
        and cell_fits(gates_of(kind), x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, False) == 3
    )
    cdef cnp.npy_intp T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1)
    expect(options_fit(lengths, restart, T, B))
    fill_weights(&a, kind, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep)
    h_n = rows_of(B, a.P, number)
    if kind == FASTRNN_LSTM:
        c_n = rows_of(B, a.H, number)
    if record and kind > FASTRNN_RNN_RELU:
        if checkpoint == 0:
            gates = empty_sequence(T, B, 4 * a.H, number, False)
        if kind == FASTRNN_LSTM:
            c = empty_sequence(kept_steps(T, checkpoint), B, a.H, number, False)
    if output is None:
        output = empty_sequence(T, B, a.P, number, batch_major)
    if cnp.PyArray_SIZE(<cnp.ndarray>output) == 0:  # no step is made
        copy_or_zero(h_n, h_0)
        if c_n is not None:
            copy_or_zero(c_n, c_0)
        return output, h_n, c_n, c, gates
    expect(tape_sequence(output, number, T, B, a.P, True) and written(output))
    fill_layer(&a, x, h_0, c_0, lengths, restart, output, c, gates, reverse, checkpoint)
    a.h_n = data(h_n)
    a.c_n = data(c_n)
    cdef double flops = work(&a)
    call_layer(
        fastrnn_kernels_in_use().forward[is_double(x)], &a, flops, threads, together,
        None if together is None else (x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, lengths, restart,
                                       output, h_n, c_n, c, gates),
    )
    return output, h_n, c_n, c, gates


cdef inline bint layer_state_fits(object state, int type_number, cnp.npy_intp B, cnp.npy_intp units):
    if state is None:
        return True
    if not cnp.PyArray_CheckExact(state):
        return False
    cdef cnp.ndarray a = state
    return (
        cnp.PyArray_TYPE(a) == type_number
        and cnp.PyArray_ISCARRAY_RO(a)
        and cnp.PyArray_NDIM(a) == 3
        and cnp.PyArray_DIM(a, 0) == 1
        and cnp.PyArray_DIM(a, 1) == B
        and cnp.PyArray_DIM(a, 2) == units
    )


def layer_at_once(int kind, tuple weights not None, x, h_0, c_0, bint batch_first, threads not None):
    cdef fastrnn_direction a
    cdef cnp.npy_intp T, B
    cdef int number
    cdef cnp.ndarray output, h_n
    cdef object c_n = None
    cdef double flops
    if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray>x) != 3 or cnp.PyArray_SIZE(<cnp.ndarray>x) == 0:
        return None
    w_ih, w_hh, b_ih, b_hh, w_hr, w_peep = weights
    if batch_first:
        x = cnp.PyArray_SwapAxes(x, 0, 1)
    if cell_fits(gates_of(kind), x, None, None, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep) != 3:
        return None
    fill_weights(&a, kind, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep)
    number = cnp.PyArray_TYPE(<cnp.ndarray>x)
    T, B = cnp.PyArray_DIM(<cnp.ndarray>x, 0), cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    if not (layer_state_fits(h_0, number, B, a.P) and layer_state_fits(c_0, number, B, a.H)):
        return None
    h_n = empty_sequence(1, B, a.P, number, False)
    if kind == FASTRNN_LSTM:
        c_n = empty_sequence(1, B, a.H, number, False)
    output = empty_sequence(B if batch_first else T, T if batch_first else B, a.P, number, False)
    fill_layer(&a, x, h_0, c_0, None, None, output, None, None, False, 0)
    if batch_first:
        a.output.step_t, a.output.step_b = a.output.step_b, a.output.step_t
    a.h_n = data(h_n)
    a.c_n = data(c_n)
    flops = work(&a)
    call_directions(
        fastrnn_kernels_in_use().forward[number == cnp.NPY_DOUBLE], &a, 1, flops,
        0 if flops < keep_gil_below else threads.get(),
    )
    return output, h_n, c_n


cdef inline object gradient(str name, object argument, frozenset wanted, dict into, bint batch_major):
    """Where the gradient of an argument goes: None, given, or an array of the argument's shape."""
    if argument is None or name not in wanted:
        return None
    if name in into:
        return into[name]
    cdef cnp.ndarray a = argument
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(a)
    if cnp.PyArray_NDIM(a) == 3:
        return empty_sequence(shape[0], shape[1], shape[2], cnp.PyArray_TYPE(a), batch_major)
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), shape, cnp.PyArray_TYPE(a), 0)


def layer_backward(
    int kind, cnp.ndarray x not None, h_0, c_0, cnp.ndarray w_ih not None, cnp.ndarray w_hh not None,
    b_ih, b_hh, w_hr, w_peep, lengths, restart, bint reverse, cnp.ndarray output not None, c, gates,
    int64_t checkpoint, d_output, d_h_n, d_c_n, frozenset wanted not None, dict into not None, bint batch_major, norms,
    Together together, int threads,
):
    cdef fastrnn_direction a
    expect(
        kind_fits(kind, w_hr, w_peep)
        and tape_fits(
            gates_of(kind), x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, output, c, gates, checkpoint,
            lengths, restart,
        )
    )
    fill_weights(&a, kind, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep)
    cdef int number = cnp.PyArray_TYPE(x)
    cdef cnp.npy_intp T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1)
    d_x = gradient("x", x, wanted, into, batch_major)
    d_h_0 = gradient("h_0", h_0, wanted, into, False)
    d_c_0 = gradient("c_0", c_0, wanted, into, False)
    d_w_ih = gradient("w_ih", w_ih, wanted, into, False)
    d_w_hh = gradient("w_hh", w_hh, wanted, into, False)
    d_b_ih = gradient("b_ih", b_ih, wanted, into, False)
    d_b_hh = gradient("b_hh", b_hh, wanted, into, False)
    d_w_hr = gradient("w_hr", w_hr, wanted, into, False)
    d_w_peep = gradient("w_peep", w_peep, wanted, into, False)
    results = d_x, d_h_0, d_c_0, d_w_ih, d_w_hh, d_b_ih, d_b_hh, d_w_hr, d_w_peep
    expect(
        (d_output is None or tape_sequence(d_output, number, T, B, a.P, True))
        and (d_h_n is None or plain(d_h_n, number, 2, B, a.P))
        and (d_c_n is None or plain(d_c_n, number, 2, B, a.H))
        and (norms is None or plain(norms, cnp.NPY_DOUBLE, 2, T, B) and written(norms))
        and like(d_x, x) and like(d_h_0, h_0) and like(d_c_0, c_0) and like(d_w_ih, w_ih) and like(d_w_hh, w_hh)
        and like(d_b_ih, b_ih) and like(d_b_hh, b_hh) and like(d_w_hr, w_hr) and like(d_w_peep, w_peep)
    )
    if cnp.PyArray_SIZE(output) == 0:  # no step was made: sums of nothing, and the state went through
        for result in (*results, norms):
            if result is not None:
                result[...] = 0
        if d_h_0 is not None and d_h_n is not None:
            d_h_0[...] = d_h_n
        if d_c_0 is not None and d_c_n is not None:
            d_c_0[...] = d_c_n
        return results
    fill_layer(&a, x, h_0, c_0, lengths, restart, output, c, gates, reverse, checkpoint)
    a.d_output = sequence(d_output)
    a.d_h_n = data(d_h_n)
    a.d_c_n = data(d_c_n)
    a.d_x = sequence(d_x)
    a.d_h_0 = data(d_h_0)
    a.d_c_0 = data(d_c_0)
    a.d_w_ih = data(d_w_ih)
    a.d_w_hh = data(d_w_hh)
    a.d_b_ih = data(d_b_ih)
    a.d_b_hh = data(d_b_hh)
    a.d_extra[0], a.d_extra[1] = data(d_w_hr), data(d_w_peep)
    a.norms = <double *>data(norms)
    cdef double flops = work(&a)
    call_layer(
        fastrnn_kernels_in_use().backward[is_double(x)], &a, flops, threads, together,
        None if together is None else (x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, lengths, restart,
                                       output, c, gates, d_output, d_h_n, d_c_n, norms, results),
    )
    return results


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


cdef int expect_linear(cnp.ndarray x, cnp.ndarray weight) except -1:
    expect(cnp.PyArray_NDIM(x) == 2 and cnp.PyArray_NDIM(weight) == 2)
    return expect(
        (cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT or is_double(x))
        and rows_fit(x, cnp.PyArray_TYPE(x), cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1))
        and plain(weight, cnp.PyArray_TYPE(x), 2, cnp.PyArray_DIM(weight, 0), cnp.PyArray_DIM(x, 1))
    )


def linear_forward(
    cnp.ndarray x not None, cnp.ndarray weight not None, bias, cnp.ndarray output not None, int threads,
):
    cdef fastrnn_linear a
    expect_linear(x, weight)
    fill_linear(&a, x, weight)
    expect(
        (bias is None or plain(bias, cnp.PyArray_TYPE(x), 1, a.O, 0))
        and plain(output, cnp.PyArray_TYPE(x), 2, a.N, a.O) and written(output)
    )
    a.bias = data(bias)
    a.output = data(output)
    call(fastrnn_kernels_in_use().linear_forward[is_double(x)], &a.call, fastrnn_linear_flops(&a), threads)


def linear_backward(
    cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray d_output not None,
    d_x, d_weight, d_bias, int threads,
):
    cdef fastrnn_linear a
    expect_linear(x, weight)
    fill_linear(&a, x, weight)
    cdef int number = cnp.PyArray_TYPE(x)
    expect(
        rows_fit(d_output, number, a.N, a.O)
        and (d_x is None or cnp.PyArray_SIZE(<cnp.ndarray>d_x) == a.N * a.D and result(d_x, number))
        and like(d_weight, weight)
        and (d_bias is None or plain(d_bias, number, 1, a.O, 0) and written(d_bias))
    )
    a.d_output = data(d_output)
    a.step_d = row_step(d_output)
    a.d_x = data(d_x)
    a.d_weight = data(d_weight)
    a.d_bias = data(d_bias)
    call(fastrnn_kernels_in_use().linear_backward[is_double(x)], &a.call, 2 * fastrnn_linear_flops(&a), threads)


def embedding_backward(
    cnp.ndarray indices not None, cnp.ndarray d_output not None, cnp.ndarray d_weight not None,
    int threads,
):
    cdef fastrnn_embedding a
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(d_weight)
    cdef int number = cnp.PyArray_TYPE(d_weight)
    expect(cnp.PyArray_NDIM(d_weight) == 2 and (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE))
    expect(
        result(d_weight, number)
        and typed(indices, cnp.NPY_INT64) and cnp.PyArray_ISCARRAY_RO(indices)
        and rows_fit(d_output, number, cnp.PyArray_SIZE(indices), shape[1])
    )
    memset(&a, 0, sizeof(a))
    a.N, a.D, a.V = cnp.PyArray_SIZE(indices), cnp.PyArray_DIM(d_weight, 1), cnp.PyArray_DIM(d_weight, 0)
    a.indices = <const int64_t *>data(indices)
    a.d_output = data(d_output)
    a.step_d = row_step(d_output)
    a.d_weight = data(d_weight)
    call(
        fastrnn_kernels_in_use().embedding_backward[is_double(d_weight)], &a.call, fastrnn_embedding_flops(&a), threads,
    )


def cross_entropy(
    cnp.ndarray logits not None, cnp.ndarray target not None, counts, double scale,
    cnp.ndarray d_logits not None, cnp.ndarray losses not None, int threads,
):
    cdef fastrnn_cross_entropy a
    cdef int number = cnp.PyArray_TYPE(logits)
    expect(cnp.PyArray_NDIM(logits) == 2 and (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE))
    cdef cnp.npy_intp N = cnp.PyArray_DIM(logits, 0), C = cnp.PyArray_DIM(logits, 1)
    expect(
        rows_fit(logits, number, N, C)
        and plain(target, cnp.NPY_INT64, 1, N, 0)
        and (counts is None or plain(counts, cnp.NPY_BOOL, 1, N, 0))
        and plain(d_logits, number, 2, N, C) and written(d_logits)
        and plain(losses, cnp.NPY_DOUBLE, 1, N, 0) and written(losses)
        and indices_fit(target, counts, N, C)
    )
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
    call(
        fastrnn_kernels_in_use().cross_entropy[is_double(logits)], &a.call, fastrnn_cross_entropy_flops(&a), threads,
    )
    return total


def generate(
    cnp.ndarray embedding not None, tuple layers not None, cnp.ndarray w_out not None, b_out,
    cnp.ndarray prompt not None, uniform, double temperature, cnp.ndarray indices not None,
):
    cdef fastrnn_generate a
    cdef fastrnn_direction *each = <fastrnn_direction *>calloc(len(layers), sizeof(fastrnn_direction))
    cdef int64_t k
    if each == NULL:
        raise MemoryError("no memory for the layers of this call")
    cdef int number = cnp.PyArray_TYPE(embedding)
    cdef cnp.npy_intp below
    try:
        expect(cnp.PyArray_NDIM(embedding) == 2 and (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE))
        below = cnp.PyArray_DIM(embedding, 1)
        expect(
            plain(embedding, number, 2, cnp.PyArray_DIM(embedding, 0), below)
            and cnp.PyArray_NDIM(prompt) == 1 and cnp.PyArray_SIZE(prompt) > 0
            and plain(prompt, cnp.NPY_INT64, 1, cnp.PyArray_SIZE(prompt), 0)
            and indices_fit(prompt, None, cnp.PyArray_SIZE(prompt), cnp.PyArray_DIM(embedding, 0))
            and plain(indices, cnp.NPY_INT64, 1, cnp.PyArray_SIZE(indices), 0) and written(indices)
            and (uniform is None or plain(uniform, cnp.NPY_DOUBLE, 1, cnp.PyArray_SIZE(indices), 0))
        )
        memset(&a, 0, sizeof(a))
        a.V = cnp.PyArray_DIM(embedding, 0)
        a.embedding = data(embedding)
        a.layers, a.count = each, len(layers)
        for k in range(a.count):
            kind, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep, h, c = layers[k]
            expect(kind_fits(kind, w_hr, w_peep) and (c is None) == (kind != FASTRNN_LSTM))
            expect(weights_fit(gates_of(kind), number, below, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep))
            fill_weights(&each[k], kind, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep)
            each[k].T = each[k].B = 1
            below = each[k].P
            expect(plain(h, number, 1, below, 0) and written(h))
            expect(c is None or plain(c, number, 1, each[k].H, 0) and written(c))
            each[k].h_n = data(h)
            each[k].c_n = data(c)
        expect(plain(w_out, number, 2, a.V, below) and (b_out is None or plain(b_out, number, 1, a.V, 0)))
        a.w_out = data(w_out)
        a.b_out = data(b_out)
        a.prompt = <const int64_t *>data(prompt)
        a.prompted, a.length = cnp.PyArray_SIZE(prompt), cnp.PyArray_SIZE(indices)
        a.uniform = <const double *>data(uniform)
        a.temperature = temperature
        a.indices = <int64_t *>data(indices)
        call(fastrnn_kernels_in_use().generate[is_double(embedding)], &a.call, fastrnn_generate_flops(&a), 1)
    finally:
        free(each)


def sum_of_squares(cnp.ndarray x not None):
    expect((cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT or is_double(x)) and cnp.PyArray_ISCARRAY_RO(x))
    cdef int64_t size = cnp.PyArray_SIZE(x)
    cdef int number = is_double(x)
    cdef void *elements = data(x)
    cdef double total
    if size < keep_gil_below:
        return fastrnn_kernels_in_use().sum_of_squares[number](elements, size)
    with nogil:
        total = fastrnn_kernels_in_use().sum_of_squares[number](elements, size)
    return total


include "_core_checks.pxi"


include "_stream.pxi"


include "_process.pxi"
