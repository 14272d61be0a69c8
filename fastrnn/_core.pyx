# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# The binding: fill the C struct, release the GIL, call, raise. Shapes and dtypes are checked before.
import platform

from threading import main_thread

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strcpy
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


cdef int call(fastrnn_kernel *kernel, fastrnn_call *a, double flops, int threads, bint whole=False) except -1:
    """Run a kernel on its struct, which begins with a fastrnn_call; if `whole`, signals wait for its end."""
    cdef int status
    cdef list caught = None
    a.threads = threads
    a.interrupted, a.context = NULL, NULL  # a stream's struct outlives the call that set them
    if flops < keep_gil_below:
        status = kernel(a)
    else:
        # Only the main thread handles signals: another one would wait for the GIL for nothing.
        if not whole and PyThread_get_thread_ident() == main_thread().ident:
            caught = []
            a.interrupted = interrupted
            a.context = <void *>caught
        with nogil:
            status = kernel(a)
    if status == FASTRNN_INTERRUPTED:
        raise caught[0] if caught else KeyboardInterrupt
    if status == FASTRNN_NO_MEMORY:
        raise MemoryError("no memory for the scratch of this call")
    return 0


cdef inline int call_directions(
    fastrnn_kernel *kernel, const fastrnn_direction *directions, int count, double flops, int threads,
    bint whole=False,
) except -1:
    cdef fastrnn_directions a
    a.directions, a.count = directions, count
    return call(kernel, &a.call, flops, threads, whole)


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


# Results from this size on are in memory that is used again, which NumPy asks for through its own interface (NEP 49): so
# they are arrays like others, which own their data. glibc gives smaller ones back to the system seldom.
LARGE_RESULT = 1 << 20
cdef size_t large_result = LARGE_RESULT
cdef PyDataMem_Handler results_handler
strcpy(results_handler.name, "fastrnn_results")
results_handler.version = 1
results_handler.allocator = PyDataMemAllocator(
    NULL, fastrnn_result_malloc, fastrnn_result_calloc, fastrnn_result_realloc, fastrnn_result_free
)
cdef object results = PyCapsule_New(&results_handler, "mem_handler", NULL)


cdef cnp.ndarray empty_result(int rank, cnp.npy_intp *shape, int type_number):
    """An uninitialised array that may be large."""
    cdef size_t bytes_ = 8 if type_number == cnp.NPY_DOUBLE else 4
    cdef int i
    for i in range(rank):
        bytes_ *= shape[i]
    if bytes_ < large_result:
        return cnp.PyArray_EMPTY(rank, shape, type_number, 0)
    before = PyDataMem_SetHandler(results)
    try:
        return cnp.PyArray_EMPTY(rank, shape, type_number, 0)
    finally:
        PyDataMem_SetHandler(before)


def empty_flat(cnp.npy_intp n, int type_number):
    """An uninitialised (n,) array; a large one starts on a cache line."""
    return empty_result(1, &n, type_number)


cpdef cnp.ndarray empty_sequence(
    cnp.npy_intp T, cnp.npy_intp B, cnp.npy_intp n, int type_number, bint batch_major
):
    """An uninitialised (T, B, n) array, which lies in memory as (B, T, n) if `batch_major`."""
    cdef cnp.npy_intp *shape = [T, B, n]
    if not batch_major:
        return empty_result(3, shape, type_number)
    shape[0], shape[1] = B, T
    return cnp.PyArray_SwapAxes(empty_result(3, shape, type_number), 0, 1)


def lend(tensor, dtype, int type_number, bint whole=False):
    """A torch tensor's own memory as an array that is not written to.

    whole: a copy where it is not C-contiguous and aligned.
    """
    cdef tuple shape = <tuple>tensor.shape, strides = <tuple>tensor.stride()  # torch.Size is a subclass
    cdef int rank = len(shape), i
    cdef cnp.npy_intp[4] dims, steps
    cdef cnp.npy_intp size = 8 if type_number == cnp.NPY_DOUBLE else 4
    cdef size_t address = 0
    expect(rank <= 4 and type_number in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE))
    if tensor.dtype is not dtype or not tensor.is_cpu:
        raise TypeError(f"a tensor is {tensor.dtype} on {tensor.device}, the others are {dtype} on the CPU")
    try:
        address = tensor.data_ptr()
    except RuntimeError as error:  # one that stands for another
        raise TypeError(f"a tensor has no memory of its own: {error}") from None
    for i in range(rank):
        dims[i] = shape[i]
        steps[i] = size * <cnp.npy_intp>strides[i]
    if address == 0:
        if tensor.numel():
            raise TypeError("the memory of a tensor was taken away")
        return cnp.PyArray_ZEROS(rank, dims, type_number, 0)
    cdef cnp.ndarray array = cnp.PyArray_New(cnp.ndarray, rank, dims, type_number, steps, <void *>address, 0, 0, None)
    cnp.set_array_base(array, tensor)
    return cnp.PyArray_NewCopy(array, cnp.NPY_CORDER) if whole and not cnp.PyArray_ISCARRAY_RO(array) else array


cdef inline cnp.npy_intp kept_steps(cnp.npy_intp T, int64_t checkpoint) noexcept:
    """At how many steps a tape has c: at all, or at every so many."""
    return T if checkpoint == 0 else (T - 1) // checkpoint if T > 0 else 0


# ------------------------------------------------------------------------------------------ the cells

cdef tuple cells_of_c():
    """What C says of its cells, by their numbers: (name, gates, tape_gates, has_c, c_alone, extra weights)."""
    cdef const fastrnn_cell *cell
    cdef list found = [], extras
    cdef int e, i
    while get_cell(len(found)) != NULL:
        cell = get_cell(len(found))
        extras = []
        for e in range(cell.extras):
            axes = [(cell.extra[e].shape[i].times, chr(cell.extra[e].shape[i].of)) for i in range(cell.extra[e].rank)]
            axes = tuple(of if times == 1 else f"{times}·{of}" for times, of in axes)
            extras.append((cell.extra[e].name.decode(), axes, bool(cell.extra[e].required)))
        found.append(
            (cell.name.decode(), cell.gates, cell.tape_gates, bool(cell.has_c), bool(cell.c_alone), tuple(extras))
        )
    return tuple(found)


CELLS = cells_of_c()
cdef list extra_names = [tuple(name for name, _, _ in cell[5]) for cell in CELLS]


cdef inline bint has_two_states(const fastrnn_cell *cell) noexcept:
    """Whether the state is h and c; else it is one array, which callers call h."""
    return cell.has_c and not cell.c_alone


cdef inline const fastrnn_cell *cell_numbered(int number) noexcept:
    if number < 0:
        return NULL
    return get_cell(number)


cdef inline double work(const fastrnn_direction *a) noexcept:
    """The operations of forward; an activation takes as long as a feature's products with 16 gates."""
    return fastrnn_flops(get_cell(a.cell), a, 32)


cdef inline void fill_weights(
    fastrnn_direction *a, int cell, object w_ih, cnp.ndarray w_hh, object b_ih, object b_hh, tuple extra,
) noexcept:
    """The cell, its weights and what they say of the sizes; everything else is absent.

    Without w_ih, x is the pre-activations.
    """
    cdef int e
    memset(a, 0, sizeof(a[0]))  # an empty struct literal would not be zeroed
    a.cell = cell
    a.given = w_ih is None
    a.D = features_of(w_ih, w_hh)
    a.H = cnp.PyArray_DIM(w_hh, 0) // get_cell(cell).gates
    a.P = cnp.PyArray_DIM(w_hh, 1)
    a.w_ih = data(w_ih)
    a.w_hh = data(w_hh)
    a.b_ih = data(b_ih)
    a.b_hh = data(b_hh)
    for e in range(get_cell(cell).extras):
        a.extra[e] = data(extra[e])


cdef inline void point_states(
    const fastrnn_direction *a, const void *h, const void *c, const void **of_h, const void **of_c,
) noexcept:
    """Where C finds what callers call h and c: both, h alone, or c alone under the name of h."""
    if get_cell(a.cell).c_alone:
        of_h[0], of_c[0] = NULL, h
    else:
        of_h[0], of_c[0] = h, c


cdef tuple count_steps(fastrnn_direction *a, cnp.ndarray mask):
    """Say which steps count: the struct's lengths, and times, behind which the others follow. Returns what they lie in.

    It comes last: meanwhile another thread may change arrays, so from here on only the struct says what they are.
    """
    cdef cnp.npy_intp *shape = [a.T, a.B]
    cdef cnp.ndarray lengths = cnp.PyArray_ZEROS(1, shape + 1, cnp.NPY_INT64, 0)
    cdef cnp.ndarray times = cnp.PyArray_EMPTY(2, shape, cnp.NPY_INT64, 0)
    cdef const uint8_t *counts = <const uint8_t *>data(mask)
    cdef int64_t *so_far = <int64_t *>data(lengths)
    cdef int64_t *place = <int64_t *>data(times)
    cdef int64_t T = a.T, B = a.B, t, b, i, on
    with nogil:
        for t in range(T):
            for b in range(B):
                on = counts[t * B + b] != 0
                i = so_far[b]
                so_far[b] = i + on
                place[(i + (1 - on) * (T - 1 - t)) * B + b] = t  # no branch, which gaps would make slow
    a.lengths, a.times = so_far, place
    return lengths, times


cdef inline void fill_direction(
    fastrnn_direction *a, cnp.ndarray x, object h_0, object c_0, object lengths, object restart,
    cnp.ndarray output, object c, object gates, bint reverse, int64_t checkpoint,
) noexcept:
    """What forward and backward have in common, but for the weights."""
    a.T = cnp.PyArray_DIM(x, 0)
    a.B = cnp.PyArray_DIM(x, 1)
    a.reverse = reverse
    a.x = sequence(x)
    point_states(a, data(h_0), data(c_0), &a.h_0, &a.c_0)
    a.lengths = <const int64_t *>data(lengths)
    a.restart = <const uint8_t *>data(restart)
    a.output = sequence(output)
    a.c = data(c)
    a.gates = data(gates)
    a.checkpoint = min(checkpoint, a.T)


include "_packed.pxi"


cdef inline cnp.ndarray rows_of(cnp.npy_intp rows, cnp.npy_intp n, int type_number):
    cdef cnp.npy_intp *shape = [rows, n]
    return cnp.PyArray_EMPTY(2, shape, type_number, 0)


cdef inline void copy_or_zero(cnp.ndarray to, object of) noexcept:
    if of is None:
        memset(data(to), 0, cnp.PyArray_NBYTES(to))
    else:
        memcpy(data(to), data(of), cnp.PyArray_NBYTES(to))


cdef object new_tuple = tuple.__new__


cdef inline object copied(object array):
    return None if array is None else cnp.PyArray_NewCopy(<cnp.ndarray>array, cnp.NPY_CORDER)


cdef tape_of(const fastrnn_cell *cell, tuple direction, output, c, gates):
    """The tape: the arguments, what forward keeps for backward, and how it was called."""
    _, arrays, lengths, mask, restart, reverse, record, checkpoint, batch_major, _, _ = direction
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra = arrays
    kind, options, unbatched = record
    # The tape has its own initial state: callers carry it on, and clear rows of it in place.
    states = (copied(h_0), copied(c_0)) if has_two_states(cell) else (copied(h_0),)
    cdef int places = len(<tuple>kind._kept)
    kept = (c, gates) if places == 2 else (gates,) if places == 1 else ()
    short = (checkpoint,) if cell.tape_gates else ()
    fields = (
        x, *states, w_ih, w_hh, b_ih, b_hh, *extra, output, *kept, lengths, mask, restart, *options,
        reverse, unbatched, batch_major, None, *short,
    )
    return new_tuple(kind, fields)


def make_tape(int cell, tuple direction not None, output, c, gates):
    """The tape of a call that was made before, from the parts that it had."""
    expect(cell_numbered(cell) != NULL and len(direction) == 11)
    return tape_of(get_cell(cell), direction, output, c, gates)


cdef tuple prepare_forward(fastrnn_direction *a, tuple direction, bint fit, list used):
    """Fill the struct for one direction of a layer: (output, h_n, c_n, tape), which the call fills.

    `used` keeps what it needs besides.
    """
    expect(len(direction) == 11)
    cdef int cell = direction[0]
    cdef tuple arrays = direction[1]
    lengths, mask, restart = direction[2], direction[3], direction[4]
    cdef bint reverse = direction[5]
    cdef tuple record = direction[6]
    cdef int64_t checkpoint = direction[7]
    cdef bint batch_major = direction[8]
    output = direction[9]
    cdef Packed packed = direction[10]
    expect(fit or arrays_fit(cell, arrays, False) == 3)
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra = arrays
    cdef const fastrnn_cell *known = get_cell(cell)
    cdef int number = cnp.PyArray_TYPE(<cnp.ndarray>x)
    cdef object c_n = None, c = None, gates = None, tape = None
    cdef cnp.npy_intp T = cnp.PyArray_DIM(<cnp.ndarray>x, 0), B = cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    expect(options_fit(lengths, mask, restart, T, B))
    fill_weights(a, cell, w_ih, w_hh, b_ih, b_hh, extra)
    if packed is not None:
        packed.lend(a, number)
    cdef cnp.ndarray h_n = rows_of(B, a.P, number)
    if has_two_states(known):
        c_n = rows_of(B, a.H, number)
    if record is not None and known.tape_gates:
        if checkpoint == 0:
            gates = empty_sequence(T, B, known.tape_gates * a.H, number, False)
        if known.has_c:
            c = empty_sequence(kept_steps(T, checkpoint), B, a.H, number, False)
    if output is None:
        output = empty_sequence(T, B, a.P, number, batch_major)
    if record is not None:
        tape = tape_of(known, direction, output, c, gates)
    if T * B * a.P == 0:  # no step is made
        copy_or_zero(h_n, h_0)
        if c_n is not None:
            copy_or_zero(c_n, c_0)
        return output, h_n, c_n, tape
    expect(tape_sequence(output, number, T, B, a.P, True) and written(output))
    fill_direction(a, x, h_0, c_0, lengths, restart, output, c, gates, reverse, checkpoint)
    point_states(a, data(h_n), data(c_n), <const void **>&a.h_n, <const void **>&a.c_n)
    if mask is not None:
        used.append(count_steps(a, mask))
    return output, h_n, c_n, tape


def forward(list directions not None, int threads, bint ask=False):
    cdef fastrnn_direction[2] a
    cdef int count = 0, number = -1
    cdef int rank
    cdef double flops = 0
    cdef const fastrnn_kernels *kernels = NULL
    cdef list results = [], used = []
    cdef tuple result
    expect(1 <= len(directions) <= (1 if ask else 2))
    for direction in directions:
        if ask:
            rank = arrays_fit((<tuple>direction)[0], (<tuple>direction)[1])
            if rank != 3:
                return rank
        result = prepare_forward(&a[count], direction, ask, used)
        results.append(result)
        kernels = kernels_of((<tuple>direction)[10], kernels)
        expect(number in (-1, cnp.PyArray_TYPE(<cnp.ndarray>result[0])))
        number = cnp.PyArray_TYPE(<cnp.ndarray>result[0])
        if cnp.PyArray_SIZE(<cnp.ndarray>result[0]):
            flops += work(&a[count])
            count += 1
    expect(count < 2 or (a[0].T == a[1].T and a[0].B == a[1].B))
    if count:
        call_directions(kernels.forward[number == cnp.NPY_DOUBLE], a, count, flops, threads)
    return results


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


def fast_forward(
    int cell, tuple weights not None, x, h_0, c_0, bint batch_first, threads not None, Packed packed=None,
):
    cdef const fastrnn_kernels *kernels = fastrnn_kernels_in_use()
    cdef fastrnn_direction a
    cdef cnp.npy_intp T, B
    cdef int number
    cdef cnp.ndarray output, h_n
    cdef object c_n = None
    cdef double flops
    if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray>x) != 3 or cnp.PyArray_SIZE(<cnp.ndarray>x) == 0:
        return None
    if packed is not None and packed.kernels != kernels:
        return None  # they are to be packed again
    w_ih, w_hh, b_ih, b_hh, extra = weights
    if batch_first:
        x = cnp.PyArray_SwapAxes(x, 0, 1)
    if direction_fits(cell_numbered(cell), x, None, None, w_ih, w_hh, b_ih, b_hh, extra, True) != 3:
        return None
    fill_weights(&a, cell, w_ih, w_hh, b_ih, b_hh, extra)
    number = cnp.PyArray_TYPE(<cnp.ndarray>x)
    T, B = cnp.PyArray_DIM(<cnp.ndarray>x, 0), cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    if not (layer_state_fits(h_0, number, B, a.P) and layer_state_fits(c_0, number, B, a.H)):
        return None
    if packed is not None:
        packed.lend(&a, number)
    h_n = empty_sequence(1, B, a.P, number, False)
    if has_two_states(get_cell(cell)):
        c_n = empty_sequence(1, B, a.H, number, False)
    output = empty_sequence(B if batch_first else T, T if batch_first else B, a.P, number, False)
    fill_direction(&a, x, h_0, c_0, None, None, output, None, None, False, 0)
    if batch_first:
        a.output.step_t, a.output.step_b = a.output.step_b, a.output.step_t
    point_states(&a, data(h_n), data(c_n), <const void **>&a.h_n, <const void **>&a.c_n)
    flops = work(&a)
    call_directions(
        kernels.forward[number == cnp.NPY_DOUBLE], &a, 1, flops,
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
    return empty_result(cnp.PyArray_NDIM(a), shape, cnp.PyArray_TYPE(a))


cdef object of_units(object value, object w_hh):
    """An extra weight as an array; a number is the same for each of the units, which are w_hh's columns."""
    if type(value) is not float or not cnp.PyArray_CheckExact(w_hh) or cnp.PyArray_NDIM(<cnp.ndarray>w_hh) != 2:
        return value
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(<cnp.ndarray>w_hh)
    cdef cnp.ndarray array = cnp.PyArray_EMPTY(1, shape + 1, cnp.PyArray_TYPE(<cnp.ndarray>w_hh), 0)
    cnp.PyArray_FillWithScalar(array, value)
    return array


cdef tuple parts_of(int cell, tape):
    """What a tape holds, each field read once.

    Arrays, lengths, mask, restart, reverse, output, c, gates, checkpoint.
    """
    cdef const fastrnn_cell *known = cell_numbered(cell)
    expect(known != NULL)
    c_0 = c = gates = None
    checkpoint = 0
    if has_two_states(known):
        c_0 = tape.c_0
    if known.has_c:
        c = tape.c
    if known.tape_gates:
        gates, checkpoint = tape.gates, tape.checkpoint
    x, w_hh = tape.x, tape.w_hh
    extra = tuple([of_units(getattr(tape, name), w_hh) for name in extra_names[cell]])
    arrays = x, tape.h_0, c_0, tape.w_ih, w_hh, tape.b_ih, tape.b_hh, extra
    return arrays, tape.lengths, tape.mask, tape.restart, tape.reverse, tape.output, c, gates, checkpoint


cdef list prepare_backward(fastrnn_direction *a, tuple direction, list used):
    """Fill the struct for one direction of a layer: the gradients, which the call fills; `used` keeps its arrays."""
    expect(len(direction) == 8)
    cdef int cell = direction[0], e
    tape, d_output, d_h_n, d_c_n = direction[1:5]
    cdef frozenset wanted = direction[5]
    cdef dict into = direction[6]
    norms = direction[7]
    cdef tuple parts = parts_of(cell, tape)
    expect(parts_fit(cell, parts))
    used.append(parts)
    arrays, lengths, mask, restart, reverse, output, c, gates, checkpoint = parts
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra = arrays
    fill_weights(a, cell, w_ih, w_hh, b_ih, b_hh, extra)
    cdef int number = cnp.PyArray_TYPE(<cnp.ndarray>x)
    cdef cnp.npy_intp T = cnp.PyArray_DIM(<cnp.ndarray>x, 0), B = cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    cdef bint has_c = has_two_states(get_cell(cell))
    cdef tuple names = extra_names[cell]
    d_x = gradient("x", x, wanted, into, tape.batch_major)
    d_h_0 = gradient("h_0", h_0, wanted, into, False)
    d_c_0 = gradient("c_0", c_0, wanted, into, False)
    d_w_ih = gradient("w_ih", w_ih, wanted, into, False)
    d_w_hh = gradient("w_hh", w_hh, wanted, into, False)
    d_b_ih = gradient("b_ih", b_ih, wanted, into, False)
    d_b_hh = gradient("b_hh", b_hh, wanted, into, False)
    cdef list d_extra = []
    expect(
        (d_output is None or tape_sequence(d_output, number, T, B, a.P, True))
        and (d_h_n is None or plain(d_h_n, number, 2, B, a.P))
        and (d_c_n is None or has_c and plain(d_c_n, number, 2, B, a.H))
        and (norms is None or plain(norms, cnp.NPY_DOUBLE, 2, T, B) and written(norms))
        and like(d_x, x) and like(d_h_0, h_0) and like(d_c_0, c_0) and like(d_w_ih, w_ih) and like(d_w_hh, w_hh)
        and like(d_b_ih, b_ih) and like(d_b_hh, b_hh)
    )
    for e in range(len(names)):
        d = gradient(names[e], extra[e], wanted, into, False)
        expect(like(d, extra[e]))
        d_extra.append(d)
        a.d_extra[e] = data(d)
    cdef list results = [d_x, d_h_0, d_w_ih, d_w_hh, d_b_ih, d_b_hh]
    if has_c:
        results.insert(2, d_c_0)
    results += d_extra
    if T * B * a.P == 0:  # no step was made: sums of nothing, and the state went through
        for result in (*results, norms):
            if result is not None:
                result[...] = 0
        if d_h_0 is not None and d_h_n is not None:
            d_h_0[...] = d_h_n
        if d_c_0 is not None and d_c_n is not None:
            d_c_0[...] = d_c_n
        return results
    fill_direction(a, x, h_0, c_0, lengths, restart, output, c, gates, reverse, checkpoint)
    a.d_output = sequence(d_output)
    point_states(a, data(d_h_n), data(d_c_n), &a.d_h_n, &a.d_c_n)
    a.d_x = sequence(d_x)
    point_states(a, data(d_h_0), data(d_c_0), <const void **>&a.d_h_0, <const void **>&a.d_c_0)
    a.d_w_ih = data(d_w_ih)
    a.d_w_hh = data(d_w_hh)
    a.d_b_ih = data(d_b_ih)
    a.d_b_hh = data(d_b_hh)
    a.norms = <double *>data(norms)
    if mask is not None:
        used[len(used) - 1] += count_steps(a, mask)
    return results


def backward(list directions not None, int threads):
    cdef fastrnn_direction[2] a
    cdef int count = 0, number = -1
    cdef double flops = 0
    cdef list results = [], used = []
    expect(1 <= len(directions) <= 2)
    for direction in directions:
        results.append(prepare_backward(&a[count], direction, used))
        output = used[len(used) - 1][5]
        expect(number in (-1, cnp.PyArray_TYPE(<cnp.ndarray>output)))
        number = cnp.PyArray_TYPE(<cnp.ndarray>output)
        if cnp.PyArray_SIZE(<cnp.ndarray>output):
            flops += work(&a[count])
            count += 1
    expect(count < 2 or (a[0].T == a[1].T and a[0].B == a[1].B))
    if count:
        call_directions(fastrnn_kernels_in_use().backward[number == cnp.NPY_DOUBLE], a, count, flops, threads)
    return results


include "_other_kernels.pxi"


include "_core_checks.pxi"


include "_stream.pxi"
include "_generate.pxi"
include "_step.pxi"


include "_process.pxi"
