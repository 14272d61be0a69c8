# Part of _core.pyx: whether arrays are such as the kernels take, as they are.

cdef inline bint typed(cnp.ndarray a, int type_number) noexcept:
    """Whether the array has that type; C's long and long long are both NumPy's int64."""
    return cnp.PyArray_TYPE(a) == type_number or (
        type_number == cnp.NPY_INT64 and cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(a), type_number)
    )


cdef inline bint plain(object value, int type_number, int rank, cnp.npy_intp rows, cnp.npy_intp columns) noexcept:
    """Whether this is a C-contiguous array of that type and shape; rows are the last axis of rank 1."""
    if not cnp.PyArray_CheckExact(value):
        return False
    cdef cnp.ndarray a = value
    return (
        typed(a, type_number)
        and cnp.PyArray_ISCARRAY_RO(a)
        and cnp.PyArray_NDIM(a) == rank
        and cnp.PyArray_DIM(a, 0) == rows
        and (rank == 1 or cnp.PyArray_DIM(a, 1) == columns)
    )


cdef inline bint walkable(object value, int rank) noexcept:
    """Whether this is a sequence, (T, B, n) or (T, n), that `sequence` can describe."""
    if not cnp.PyArray_CheckExact(value):
        return False
    cdef cnp.ndarray a = value
    if cnp.PyArray_NDIM(a) != rank or not (cnp.PyArray_ISALIGNED(a) and cnp.PyArray_ISNOTSWAPPED(a)):
        return False
    cdef cnp.npy_intp size = cnp.PyArray_ITEMSIZE(a)
    cdef cnp.npy_intp *strides = cnp.PyArray_STRIDES(a)
    return (
        (strides[rank - 1] == size or cnp.PyArray_DIM(a, rank - 1) <= 1 or cnp.PyArray_SIZE(a) == 0)
        and strides[0] % size == 0
        and strides[rank - 2] % size == 0
    )


cdef inline bint state_fits(object state, int type_number, int rank, cnp.npy_intp B, cnp.npy_intp units) noexcept:
    """Whether this is the state of a layer whose x has this rank, or None."""
    return state is None or plain(state, type_number, rank - 1, units if rank == 2 else B, units)


cdef inline cnp.npy_intp extent(const fastrnn_size *size, cnp.npy_intp H, cnp.npy_intp P) noexcept:
    return size.times * (P if size.of == b"P" else H)


cdef inline bint weights_fit(
    const fastrnn_cell *cell, int number, cnp.npy_intp D, object w_ih, object w_hh, object b_ih, object b_hh, object extra,
) noexcept:
    """Whether these are the weights of a cell with D features; `extra` as the cell says, each or None.

    Without w_ih the features are the pre-activations.
    """
    if cell == NULL or type(extra) is not tuple or len(<tuple>extra) != cell.extras:
        return False
    if not is_matrix(w_hh):
        return False
    cdef cnp.npy_intp rows = cnp.PyArray_DIM(<cnp.ndarray>w_hh, 0), H = rows // cell.gates
    cdef cnp.npy_intp P = cnp.PyArray_DIM(<cnp.ndarray>w_hh, 1)
    cdef const fastrnn_size *shape
    cdef bint projected = False
    cdef int e
    for e in range(cell.extras):
        if (<tuple>extra)[e] is None:
            if cell.extra[e].required:
                return False
        else:
            shape = &cell.extra[e].shape[0]
            if not plain((<tuple>extra)[e], number, cell.extra[e].rank, extent(shape, H, P), extent(shape + 1, H, P)):
                return False
            projected = projected or shape.of == b"P"
    return (
        plain(w_hh, number, 2, cell.gates * H, P)
        and (D == rows if w_ih is None else plain(w_ih, number, 2, rows, D))
        and (b_ih is None or plain(b_ih, number, 1, rows, 0))
        and (b_hh is None or plain(b_hh, number, 1, rows, 0))
        and (0 < P < H if projected else P == H)
    )


cdef inline bint is_matrix(object a) noexcept:
    return cnp.PyArray_CheckExact(a) and cnp.PyArray_NDIM(<cnp.ndarray>a) == 2


cdef inline cnp.npy_intp features_of(object w_ih, cnp.ndarray w_hh) noexcept:
    """How many features x has, by two matrices; without w_ih as many as there are pre-activations."""
    return cnp.PyArray_DIM(w_hh, 0) if w_ih is None else cnp.PyArray_DIM(<cnp.ndarray>w_ih, 1)


cdef inline int direction_fits(
    const fastrnn_cell *cell, object x, object h_0, object c_0, object w_ih, object w_hh, object b_ih, object b_hh,
    object extra, bint small,
) noexcept:
    """`arrays_fit` of arrays one by one."""
    if not cnp.PyArray_CheckExact(x):
        return 0
    cdef cnp.ndarray a = x
    cdef int number = cnp.PyArray_TYPE(a), rank = cnp.PyArray_NDIM(a)
    if (
        not (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE)
        or not (rank == 2 or rank == 3)
        or not walkable(a, rank)
    ):
        return 0
    cdef cnp.npy_intp D = cnp.PyArray_DIM(a, rank - 1), B = 1 if rank == 2 else cnp.PyArray_DIM(a, 1)
    if not weights_fit(cell, number, D, w_ih, w_hh, b_ih, b_hh, extra):
        return 0
    cdef cnp.npy_intp rows = cnp.PyArray_DIM(<cnp.ndarray>w_hh, 0), P = cnp.PyArray_DIM(<cnp.ndarray>w_hh, 1)
    # The careful way finds the sizes whose product is too large to count.
    if small and <double>cnp.PyArray_DIM(a, 0) * B * rows > 1e15:
        return 0
    if state_fits(h_0, number, rank, B, P) and state_fits(c_0, number, rank, B, rows // cell.gates):
        return rank
    return 0


cpdef int arrays_fit(int cell, tuple arrays, bint small=True) except -1:
    """The rank of x where `forward` can take these as they are, (T, D) with an axis added; else 0.

    `small`: and their sizes are so small that no product of them has to be looked at.
    """
    x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra = arrays
    return direction_fits(cell_numbered(cell), x, h_0, c_0, w_ih, w_hh, b_ih, b_hh, extra, small)


cdef inline bint tape_sequence(
    object value, int type_number, cnp.npy_intp T, cnp.npy_intp B, cnp.npy_intp n, bint strided
):
    """Whether this is a (T, B, n) array of that type."""
    if not walkable(value, 3):
        return False
    cdef cnp.ndarray a = value
    return (
        cnp.PyArray_TYPE(a) == type_number
        and cnp.PyArray_DIM(a, 0) == T
        and cnp.PyArray_DIM(a, 1) == B
        and cnp.PyArray_DIM(a, 2) == n
        and (strided or cnp.PyArray_IS_C_CONTIGUOUS(a))
    )


cdef inline bint lengths_fit(object lengths, cnp.npy_intp T, cnp.npy_intp B) noexcept:
    if not plain(lengths, cnp.NPY_INT64, 1, B, 0):
        return False
    cdef const int64_t *length = <const int64_t *>data(lengths)
    cdef cnp.npy_intp b
    for b in range(B):
        if not 0 <= length[b] <= T:
            return False
    return True


cdef inline bint indices_fit(cnp.ndarray indices, object counts, cnp.npy_intp N, cnp.npy_intp count) noexcept:
    """Whether each of N indices is one of so many, where it counts."""
    cdef const int64_t *index = <const int64_t *>data(indices)
    cdef const uint8_t *counted = <const uint8_t *>data(counts)
    cdef cnp.npy_intp n
    for n in range(N):
        if (counted == NULL or counted[n]) and not 0 <= index[n] < count:
            return False
    return True


cdef inline bint options_fit(object lengths, object mask, object restart, cnp.npy_intp T, cnp.npy_intp B):
    return (
        (lengths is None or mask is None and lengths_fit(lengths, T, B))
        and (mask is None or plain(mask, cnp.NPY_BOOL, 2, T, B))
        and (restart is None or plain(restart, cnp.NPY_BOOL, 2, T, B))
    )


cdef bint parts_fit(int cell, tuple parts) except -1:
    """Whether `backward` can take what a tape holds, x with its batch axis."""
    arrays, lengths, mask, restart, _, output, c, gates, checkpoint = parts
    if type(checkpoint) is not int or checkpoint < 0 or arrays_fit(cell, arrays) != 3:
        return False
    cdef const fastrnn_cell *known = get_cell(cell)
    cdef cnp.ndarray x = (<tuple>arrays)[0], w_hh = (<tuple>arrays)[4]
    cdef int number = cnp.PyArray_TYPE(x)
    cdef cnp.npy_intp T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1)
    cdef cnp.npy_intp H = cnp.PyArray_DIM(w_hh, 0) // known.gates
    return (
        tape_sequence(output, number, T, B, cnp.PyArray_DIM(w_hh, 1), True)
        and (not known.has_c or tape_sequence(c, number, kept_steps(T, checkpoint), B, H, False))
        and (
            not known.tape_gates
            or (gates is None if checkpoint else tape_sequence(gates, number, T, B, known.tape_gates * H, False))
        )
        and options_fit(lengths, mask, restart, T, B)
    )


def tape_fits(int cell, tape):
    """Whether `backward` can take this tape."""
    return parts_fit(cell, parts_of(cell, tape))


cdef inline bint written(object array):
    return cnp.PyArray_ISWRITEABLE(<cnp.ndarray>array)


cdef inline bint rows_fit(object value, int type_number, cnp.npy_intp rows, cnp.npy_intp columns):
    """Whether this is an array of so many rows, each contiguous."""
    if not cnp.PyArray_CheckExact(value) or cnp.PyArray_NDIM(<cnp.ndarray>value) != 2:
        return False
    cdef cnp.ndarray a = value
    return (
        cnp.PyArray_TYPE(a) == type_number
        and cnp.PyArray_ISALIGNED(a)
        and cnp.PyArray_ISNOTSWAPPED(a)
        and cnp.PyArray_DIM(a, 0) == rows
        and cnp.PyArray_DIM(a, 1) == columns
        and (cnp.PyArray_STRIDE(a, 1) == cnp.PyArray_ITEMSIZE(a) or columns <= 1 or cnp.PyArray_SIZE(a) == 0)
        and cnp.PyArray_STRIDE(a, 0) % cnp.PyArray_ITEMSIZE(a) == 0
    )


cdef inline bint like(object result, object argument):
    """Whether a gradient can be written where that is asked for: None, or of its argument's type and shape."""
    if result is None:
        return True
    if argument is None or not (cnp.PyArray_CheckExact(result) and cnp.PyArray_CheckExact(argument)):
        return False
    cdef cnp.ndarray a = argument
    cdef int number = cnp.PyArray_TYPE(a), rank = cnp.PyArray_NDIM(a)
    if not written(result) or not 1 <= rank <= 3:
        return False
    if rank == 3:
        return tape_sequence(
            result, number, cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1), cnp.PyArray_DIM(a, 2), True
        )
    return plain(result, number, rank, cnp.PyArray_DIM(a, 0), cnp.PyArray_DIM(a, 1) if rank == 2 else 0)


cdef int expect(bint fits) except -1:
    """What C is handed was checked in Python; between there and here another thread, or a property, may change it."""
    if not fits:
        raise ValueError("an array was given another shape or dtype while it was in use: pass a copy")
    return 0
