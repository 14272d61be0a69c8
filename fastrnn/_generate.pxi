# Part of _core.pyx: autoregressive generation.

cdef class Network:
    """An embedding, recurrent layers and an output layer, with their states; and how an index is chosen."""

    cdef fastrnn_generate a
    cdef const fastrnn_kernels *kernels  # those for which some of the weights are packed; else those in use when it was made
    cdef fastrnn_direction *layers
    cdef int number  # the arrays' type number
    cdef bint draws  # else the most probable index is taken
    cdef tuple arrays  # those that the struct points to

    def __dealloc__(self):
        free(self.layers)

    def __init__(
        self, cnp.ndarray embedding not None, tuple layers not None, cnp.ndarray w_out not None, b_out,
        PackedLinear packed_out, double temperature, int64_t top_k, double top_p, stop,
    ):
        cdef int number = cnp.PyArray_TYPE(embedding)
        cdef cnp.npy_intp below, B
        cdef int64_t k
        if self.layers != NULL or not layers:
            raise RuntimeError("a network is made once, of one layer or more")
        expect(cnp.PyArray_NDIM(embedding) == 2 and (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE))
        self.layers = <fastrnn_direction *>calloc(len(layers), sizeof(fastrnn_direction))
        if self.layers == NULL:
            raise MemoryError("no memory for the layers of this call")
        memset(&self.a, 0, sizeof(self.a))
        self.number, self.arrays = number, (embedding, layers, w_out, b_out, packed_out, stop)
        self.a.V, below = cnp.PyArray_DIM(embedding, 0), cnp.PyArray_DIM(embedding, 1)
        expect(plain(embedding, number, 2, self.a.V, below))
        B = len(layers[0][2])
        for k in range(len(layers)):
            self._add(k, layers[k], B, below)
            below = self.layers[k].P
        expect(
            plain(w_out, number, 2, self.a.V, below) and (b_out is None or plain(b_out, number, 1, self.a.V, 0))
            and (stop is None or plain(stop, cnp.NPY_BOOL, 1, self.a.V, 0))
            and temperature >= 0 and top_k > 0 and 0 < top_p <= 1
        )
        self.a.B, self.a.embedding = B, data(embedding)
        self.a.layers, self.a.count = self.layers, len(layers)
        self.a.w_out, self.a.b_out = data(w_out), data(b_out)
        if packed_out is not None:
            self.a.packed_out = packed_out.lend(self.a.V, below, number)
            self._use(packed_out.kernels)
        if self.kernels == NULL:
            self.kernels = fastrnn_kernels_in_use()
        self.draws = temperature > 0
        self.a.temperature, self.a.top_k, self.a.top_p = temperature, top_k, top_p
        self.a.stop = <const uint8_t *>data(stop)

    cdef int _add(self, int64_t k, tuple layer, cnp.npy_intp B, cnp.npy_intp below) except -1:
        cdef fastrnn_direction *to = &self.layers[k]
        cell, (w_ih, w_hh, b_ih, b_hh, extra), h_0, c_0, h_n, c_n, packed = layer
        expect(weights_fit(cell_numbered(cell), self.number, below, w_ih, w_hh, b_ih, b_hh, extra))
        fill_weights(to, cell, w_ih, w_hh, b_ih, b_hh, extra)
        to.T = to.B = 1
        if packed is not None:
            (<Packed?>packed).lend(to, self.number)
            self._use((<Packed>packed).kernels)
        for h, c in ((h_0, c_0), (h_n, c_n)):
            expect((c is None) != has_two_states(get_cell(cell)) and plain(h, self.number, 2, B, to.P))
            expect(c is None or plain(c, self.number, 2, B, to.H))
        expect(written(h_n) and (c_n is None or written(c_n)))
        point_states(to, data(h_0), data(c_0), &to.h_0, &to.c_0)
        point_states(to, data(h_n), data(c_n), <const void **>&to.h_n, <const void **>&to.c_n)
        return 0

    cdef int _use(self, const fastrnn_kernels *kernels) except -1:
        expect(self.kernels == NULL or self.kernels == kernels)
        self.kernels = kernels
        return 0


def packed_alike(tuple parts not None):
    """Whether packed weights are all for one instruction set: somebody may set another while they are packed."""
    cdef const fastrnn_kernels *kernels = NULL
    cdef const fastrnn_kernels *own
    for part in parts:
        own = (<PackedLinear>part).kernels if type(part) is PackedLinear else (<Packed?>part).kernels
        if kernels != NULL and own != kernels:
            return False
        kernels = own
    return True


def generate(
    Network network not None, cnp.ndarray prompts not None, cnp.ndarray begins not None,
    cnp.ndarray uniform not None, cnp.ndarray indices not None, cnp.ndarray written_ not None, int threads,
):
    cdef fastrnn_generate a = network.a
    cdef int64_t *at
    cdef int64_t b
    expect(
        plain(prompts, cnp.NPY_INT64, 1, cnp.PyArray_SIZE(prompts), 0)
        and indices_fit(prompts, None, cnp.PyArray_SIZE(prompts), a.V)
        and plain(begins, cnp.NPY_INT64, 1, a.B + 1, 0)
        and cnp.PyArray_NDIM(indices) == 2
        and plain(indices, cnp.NPY_INT64, 2, a.B, cnp.PyArray_DIM(indices, 1)) and written(indices)
        and plain(written_, cnp.NPY_INT64, 1, a.B, 0) and written(written_)
        and plain(uniform, cnp.NPY_DOUBLE, 2, cnp.PyArray_DIM(indices, 1), a.B)
    )
    at = <int64_t *>data(begins)
    expect(at[0] == 0 and at[a.B] == cnp.PyArray_SIZE(prompts))
    for b in range(a.B):
        expect(at[b] < at[b + 1])
    a.prompts, a.begins = <const int64_t *>data(prompts), at
    a.length = cnp.PyArray_DIM(indices, 1)
    a.uniform = <const double *>data(uniform) if network.draws else NULL
    a.indices, a.written = <int64_t *>data(indices), <int64_t *>data(written_)
    call(network.kernels.generate[is_double(network.arrays[0])], &a.call, fastrnn_generate_flops(&a), threads)


cdef class Writer(Network):
    """An iterator of the indices of one sequence: its network, packed for the instruction set in use; its state goes on.

    It is compiled as a whole, so that Ctrl-C comes before an index or after it: then the caller has it.
    """

    cdef cnp.ndarray memory
    cdef object random
    cdef str failure
    cdef cnp.ndarray prompt  # None: it is read, and then `last` is next
    cdef int64_t last
    cdef readonly object _left  # how many indices at most; None: there is no end
    cdef double u
    cdef bint drawn, busy  # whether u is drawn, and its index not yet made

    def __init__(self, tuple network not None, cnp.ndarray prompt not None, length, random, str failure):
        Network.__init__(self, *network)
        expect(
            self.a.B == 1 and cnp.PyArray_NDIM(prompt) == 1 and cnp.PyArray_SIZE(prompt) > 0
            and plain(prompt, cnp.NPY_INT64, 1, cnp.PyArray_SIZE(prompt), 0)
            and indices_fit(prompt, None, cnp.PyArray_SIZE(prompt), self.a.V)
        )
        cdef int double_ = self.number == cnp.NPY_DOUBLE
        cdef const fastrnn_kernels *kernels = self.kernels
        cdef cnp.npy_intp size = kernels.pack_generate[double_](&self.a, NULL) + 64
        self.memory = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
        self.a.kept = aligned(self.memory)
        kernels.pack_generate[double_](&self.a, self.a.kept)
        self.prompt, self._left, self.random, self.failure = prompt, length, random, failure

    def __iter__(self):
        return self

    def __next__(self):
        cdef int64_t[2] begins
        cdef int64_t index = -1, count = 0
        if self.memory is None or self.a.kept == NULL:
            raise RuntimeError("this iterator was not made by generate_iter")
        # Who collects them in a list, without an end, runs no Python in between. A handler may ask for indices itself, or
        # let another thread do so: nothing has been looked at before it.
        PyErr_CheckSignals()
        if self.busy:
            raise RuntimeError("this iterator is in use by another thread: give each thread one of its own")
        if self._left == 0:
            raise StopIteration
        self.busy = True
        try:
            if not self.drawn:
                self.u = self.random()
                self.drawn = True
            self.a.prompts = &self.last
            begins[0], begins[1] = 0, 1
            if self.prompt is not None:
                self.a.prompts = <const int64_t *>data(self.prompt)
                begins[1] = cnp.PyArray_SIZE(self.prompt)
            self.a.begins, self.a.length = begins, 1
            self.a.uniform = &self.u if self.draws else NULL
            self.a.indices, self.a.written = &index, &count
            call(
                self.kernels.generate[self.number == cnp.NPY_DOUBLE], &self.a.call, fastrnn_generate_flops(&self.a), 1,
            )
            if count < 0:
                raise ValueError(self.failure)
            self.prompt, self.last, self.drawn = None, index, False
            if self._left is not None:
                self._left -= 1
            if self.a.stop != NULL and self.a.stop[index]:
                self._left = 0
        finally:
            self.busy = False
        return index
