# Part of _core.pyx: weights that are packed once and used by many calls.

cdef inline void *aligned(cnp.ndarray memory) noexcept:
    """The first whole cache line."""
    return <void *>((<size_t>data(memory) + 63) & ~<size_t>63)


cdef cnp.ndarray packed_weights(const fastrnn_kernels *kernels, const fastrnn_direction *a, int type_number):
    """Memory that holds the packed weights of a direction from its first whole cache line on."""
    cdef int double_ = type_number == cnp.NPY_DOUBLE
    cdef cnp.npy_intp size = kernels.pack[double_](a, NULL) + 64
    cdef cnp.ndarray memory = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
    kernels.pack[double_](a, aligned(memory))
    return memory


cdef class Packed:
    """The weights of one direction, packed for an instruction set; they may change or go away then.

    A call that is given them runs on that instruction set, whichever is in use. Parameters: the cell's number, and
    (w_ih or None, w_hh, b_ih, b_hh, extra). It never changes, so threads may share it.
    """

    cdef const fastrnn_kernels *kernels
    cdef fastrnn_direction sizes  # and which of the extra weights there are
    cdef int number
    cdef cnp.ndarray memory

    def __init__(self, int cell, tuple weights not None):
        self.fill(fastrnn_kernels_in_use(), cell, weights)

    cdef int fill(self, const fastrnn_kernels *kernels, int cell, tuple weights) except -1:
        cdef int e
        w_ih, w_hh, b_ih, b_hh, extra = weights
        expect(is_matrix(w_hh) and (w_ih is None or is_matrix(w_ih)) and self.memory is None)
        cdef int number = cnp.PyArray_TYPE(<cnp.ndarray>w_hh)
        expect(number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE)
        expect(weights_fit(cell_numbered(cell), number, features_of(w_ih, w_hh), w_ih, w_hh, b_ih, b_hh, extra))
        fill_weights(&self.sizes, cell, w_ih, w_hh, b_ih, b_hh, extra)
        self.kernels, self.number = kernels, number
        self.memory = packed_weights(kernels, &self.sizes, number)
        # Of these only whether they are there is looked at, and the arrays may go away.
        self.sizes.w_ih = self.sizes.w_hh = self.sizes.b_ih = self.sizes.b_hh = NULL
        for e in range(FASTRNN_MAX_EXTRA):
            if self.sizes.extra[e] != NULL:
                self.sizes.extra[e] = data(self.memory)
        return 0

    def current(self):
        """Whether it is for the instruction set in use."""
        return self.kernels == fastrnn_kernels_in_use()

    @property
    def nbytes(self):
        return 0 if self.memory is None else cnp.PyArray_NBYTES(self.memory)

    cdef int lend(self, fastrnn_direction *a, int type_number) except -1:
        """Let a call that has the same weights use these."""
        cdef int e
        cdef bint same = (
            self.memory is not None and self.number == type_number
            and self.sizes.cell == a.cell and self.sizes.D == a.D and self.sizes.given == a.given
            and self.sizes.H == a.H and self.sizes.P == a.P
        )
        for e in range(FASTRNN_MAX_EXTRA):
            same = same and (self.sizes.extra[e] == NULL) == (a.extra[e] == NULL)
        expect(same)
        a.packed = aligned(self.memory)
        return 0


cdef const fastrnn_kernels *kernels_of(object packed, const fastrnn_kernels *others) except NULL:
    """The kernels for weights that may be packed, or None; `others` those of the directions before, or NULL."""
    cdef const fastrnn_kernels *own
    if packed is None:
        return others if others != NULL else fastrnn_kernels_in_use()
    own = (<Packed?>packed).kernels
    expect(own != NULL and (others == NULL or own == others))
    return own


def pack(int cell, list directions not None):
    """The weights of each direction, packed, all for one instruction set, also where a thread sets another meanwhile."""
    cdef const fastrnn_kernels *kernels = fastrnn_kernels_in_use()
    cdef list made = []
    cdef Packed one
    for weights in directions:
        if type(weights) is not tuple:
            raise TypeError("the weights of a direction are no tuple")
        one = Packed.__new__(Packed)
        one.fill(kernels, cell, weights)
        made.append(one)
    return tuple(made)
