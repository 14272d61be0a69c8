# Included by _core.pyx: one step of one direction, from and to the caller's arrays.

cdef inline bint apart(cnp.ndarray out, object other):
    """Whether an argument shares no memory with a result; both are C-contiguous."""
    return other is None or not overlap(out, other)


cdef inline bint apart_from_weights(cnp.ndarray out, tuple arrays):
    _, _, _, w_ih, w_hh, b_ih, b_hh, extra = arrays
    for weight in <tuple>extra:
        if not apart(out, weight):
            return False
    return apart(out, w_ih) and apart(out, w_hh) and apart(out, b_ih) and apart(out, b_hh)


cdef inline object unwritten(object state, cnp.ndarray place, object other):
    """The state before, or a copy where a result is written over it: but it may be just where its successor goes."""
    if state is None or (apart(place, state) or data(place) == data(state)) and (other is None or apart(other, state)):
        return state
    return copied(state)


cdef inline bint is_one_number(object value):
    """Whether this is a Python number, NumPy's float64 too, that is finite in float32."""
    return (isinstance(value, float) or type(value) is int) and -3e38 < value < 3e38


cdef inline bint is_square(object w_hh, int type_number, int gates) noexcept:
    """Whether a cell without a projection has this matrix."""
    if not cnp.PyArray_CheckExact(w_hh) or cnp.PyArray_NDIM(<cnp.ndarray>w_hh) != 2:
        return False
    cdef cnp.ndarray a = w_hh
    return cnp.PyArray_TYPE(a) == type_number and cnp.PyArray_DIM(a, 0) == gates * cnp.PyArray_DIM(a, 1)


def step(int cell, tuple arrays not None, out, threads not None, bint small=True):
    """One step: h, or (h, c), which are `out` where that is given. None where an argument is not as the kernel takes it.

    `small`: and where no product of sizes has to be looked at.
    """
    cdef const fastrnn_cell *known = cell_numbered(cell)
    cdef fastrnn_direction[1] a
    cdef cnp.npy_intp B, P, H
    cdef cnp.npy_intp[2] shape
    cdef double flops
    x_t, h, c, w_ih, w_hh, b_ih, b_hh, extra = arrays
    if known == NULL or not cnp.PyArray_CheckExact(x_t):
        return None
    cdef bint two = has_two_states(known)
    cdef cnp.ndarray x = x_t
    cdef int number = cnp.PyArray_TYPE(x), rank = cnp.PyArray_NDIM(x)
    cdef bint whole = cnp.PyArray_ISCARRAY_RO(x)  # else rows far from each other, of which nothing is written over
    if not (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE) or not (rank == 1 or rank == 2):
        return None
    if not whole and (rank == 1 or out is not None or not walkable(x, 2)):
        return None
    if known.extras and is_one_number((<tuple>extra)[0]):
        if not is_square(w_hh, number, known.gates):
            return None
        extra = (of_units(float((<tuple>extra)[0]), w_hh), *(<tuple>extra)[1:])
        arrays = x_t, h, c, w_ih, w_hh, b_ih, b_hh, extra
    if not weights_fit(known, number, cnp.PyArray_DIM(x, rank - 1), w_ih, w_hh, b_ih, b_hh, extra):
        return None
    B = 1 if rank == 1 else cnp.PyArray_DIM(x, 0)
    P, H = cnp.PyArray_DIM(<cnp.ndarray>w_hh, 1), cnp.PyArray_DIM(<cnp.ndarray>w_hh, 0) // known.gates
    if small and <double>B * cnp.PyArray_DIM(<cnp.ndarray>w_hh, 0) > 1e15:
        return None
    if not (state_fits(h, number, rank + 1, B, P) and (c is None or two)):
        return None
    if not state_fits(c, number, rank + 1, B, H):
        return None

    h_out, c_out = out, None
    if out is None:
        shape[0], shape[1] = B, P
        h_out = cnp.PyArray_EMPTY(rank, shape + 2 - rank, number, 0)
        if two:
            shape[1] = H
            c_out = cnp.PyArray_EMPTY(rank, shape + 2 - rank, number, 0)
    else:
        if two:
            if not (type(out) is tuple or type(out) is list) or len(out) != 2:
                return None
            h_out, c_out = out
            if c_out is None or not (state_fits(c_out, number, rank + 1, B, H) and written(c_out)):
                return None
        if h_out is None or not (state_fits(h_out, number, rank + 1, B, P) and written(h_out)):
            return None
        if not apart_from_weights(h_out, arrays):
            return None
        if c_out is not None and not (apart(h_out, c_out) and apart_from_weights(c_out, arrays)):
            return None
        if not (apart(h_out, x) and (c_out is None or apart(c_out, x))):
            x = cnp.PyArray_NewCopy(x, cnp.NPY_CORDER)
        h = unwritten(h, h_out, c_out)
        if c_out is not None:
            c = unwritten(c, c_out, h_out)
    if B * P > 0:
        fill_weights(a, cell, w_ih, w_hh, b_ih, b_hh, extra)
        a.T, a.B = 1, B
        a.x = steps_of(x)
        point_states(a, data(h), data(c), &a.h_0, &a.c_0)
        point_states(a, data(h_out), data(c_out), <const void **>&a.h_n, <const void **>&a.c_n)
        output = h_out
        if known.c_alone:  # of which the output is a function that nobody asked for
            output = rows_of(B, P, number)
        a.output = steps_of(output)
        flops = work(a)
        call_directions(
            fastrnn_kernels_in_use().forward[number == cnp.NPY_DOUBLE], a, 1, flops,
            0 if flops < keep_gil_below else threads.get(), True,
        )
    return out if out is not None else (h_out, c_out) if two else h_out
