# Included by _core.pyx: layers that keep packed weights and a state, one step at a time.

STREAM_BUSY = "this stream is in use by another thread: give each thread a stream of its own"


cdef inline fastrnn_sequence steps_of(cnp.ndarray a) noexcept:
    """An array (n,), (B, n) or (T, B, n) with its strides."""
    cdef fastrnn_sequence s
    cdef int rank = cnp.PyArray_NDIM(a)
    s.data = data(a)
    s.step_t = cnp.PyArray_STRIDE(a, 0) // cnp.PyArray_ITEMSIZE(a) if rank == 3 else 0
    s.step_b = cnp.PyArray_STRIDE(a, rank - 2) // cnp.PyArray_ITEMSIZE(a) if rank > 1 else 0
    return s


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share memory."""
    cdef char *p = <char *>data(a)
    cdef char *q = <char *>data(b)
    return p < q + cnp.PyArray_NBYTES(b) and q < p + cnp.PyArray_NBYTES(a)


cdef class StreamCore:
    """What fastrnn.stream.Stream is made of: packed weights, the state, `step`.

    The state has two copies. A call reads one and writes the other, and then they change places, so that a
    call that fails leaves the state as it was.
    """

    cdef const fastrnn_kernels *kernels  # the packing is that of one instruction set
    cdef fastrnn_direction *layers
    cdef readonly int64_t _count, _batch, _features, _units  # layers, B, D, P
    cdef int64_t cells  # units of a second state, c; 0 where there is none
    cdef int number  # the arrays' type number
    cdef int now
    cdef bint busy
    cdef double flops  # of a step
    cdef tuple packed  # a Packed of each layer, which other streams and layers may share
    cdef list states, intermediate
    cdef object threads

    def __dealloc__(self):
        free(self.layers)

    def _allocate(self, tuple packed not None, int64_t batch, threads):
        """For layers of one cell with these weights, a Packed of each."""
        if self.layers != NULL or not packed:
            raise RuntimeError("a stream is made once, of one layer or more")
        cdef Packed first = <Packed?>packed[0]
        expect(first.memory is not None)
        cdef list states = [], intermediate = []
        cdef cnp.npy_intp *shape = [len(packed), batch, first.sizes.P]
        cdef int64_t cells = first.sizes.H if has_two_states(get_cell(first.sizes.cell)) else 0
        for n in (first.sizes.P, first.sizes.P, cells, cells):
            shape[2] = n
            states.append(cnp.PyArray_ZEROS(3, shape, first.number, 0))
        shape[2] = first.sizes.P
        for _ in range(len(packed) - 1):
            intermediate.append(cnp.PyArray_EMPTY(2, shape + 1, first.number, 0))
        self.layers = <fastrnn_direction *>calloc(len(packed), sizeof(fastrnn_direction))
        if self.layers == NULL:
            raise MemoryError("no memory for the layers of this stream")
        self._count, self._batch, self.number, self.threads = len(packed), batch, first.number, threads
        self._features, self._units, self.cells = first.sizes.D, first.sizes.P, cells
        self.states, self.intermediate = states, intermediate
        self._pack(packed)

    def _pack(self, tuple packed not None):
        """Use these packed weights, and the instruction set for which they are packed."""
        cdef const fastrnn_kernels *kernels = NULL
        cdef fastrnn_direction *a
        cdef Packed own
        cdef int64_t k
        cdef int64_t below = self._features
        if self.busy:
            raise RuntimeError(STREAM_BUSY)
        if <int64_t>len(packed) != self._count:
            raise RuntimeError("the layer has another number of layers than when the stream was made")
        for each in packed:  # what may fail comes first
            own = <Packed?>each
            kernels = kernels_of(own, kernels)
            # The states and the intermediate outputs were made for these sizes.
            expect(
                own.memory is not None and own.number == self.number
                and own.sizes.D == below and own.sizes.P == self._units
                and (own.sizes.H if has_two_states(get_cell(own.sizes.cell)) else 0) == self.cells
            )
            below = own.sizes.P
        self.flops = 0
        for k in range(self._count):
            own, a = packed[k], &self.layers[k]
            a[0] = own.sizes
            a.packed = aligned(own.memory)
            a.T, a.B = 1, self._batch
            self.flops += work(a)
        self.kernels, self.packed = kernels, packed

    cdef int advance(self, cnp.ndarray x, int64_t T, cnp.ndarray output, list intermediate, object restart) except -1:
        """Run all layers; x and output are (B, .) or (T, B, .), `intermediate` the outputs of all layers but the last."""
        cdef fastrnn_direction *a
        cdef fastrnn_sequence from_ = steps_of(x), to
        cdef int64_t k
        cdef int threads = 0
        cdef size_t h_bytes = self._batch * self._units * cnp.PyArray_ITEMSIZE(x)
        cdef size_t c_bytes = self._batch * self.cells * cnp.PyArray_ITEMSIZE(x)
        cdef char *h
        cdef char *next_h
        cdef char *c
        cdef char *next_c
        cdef size_t h_at, c_at
        if self.busy:
            raise RuntimeError(STREAM_BUSY)
        if self.kernels == NULL or <int64_t>len(intermediate) != self._count - 1:
            raise RuntimeError("this stream was not made by layer.stream()")
        if self.flops * T >= keep_gil_below:
            threads = self.threads.get()
        h, next_h = <char *>data(self.states[self.now]), <char *>data(self.states[1 - self.now])
        c, next_c = <char *>data(self.states[2 + self.now]), <char *>data(self.states[3 - self.now])
        self.busy = True
        try:
            for k in range(self._count):
                to = steps_of(output if k == self._count - 1 else intermediate[k])
                a = &self.layers[k]
                a.T = T
                a.x, a.output = from_, to
                h_at, c_at = k * h_bytes, k * c_bytes
                point_states(a, h + h_at, c + c_at if self.cells else NULL, &a.h_0, &a.c_0)
                point_states(
                    a, next_h + h_at, next_c + c_at if self.cells else NULL,
                    <const void **>&a.h_n, <const void **>&a.c_n,
                )
                a.restart = <const uint8_t *>data(restart)
                call_directions(
                    self.kernels.forward[self.number == cnp.NPY_DOUBLE], a, 1,
                    self.flops * T / self._count, threads,
                )
                from_ = to
            if self.flops * T >= keep_gil_below:
                PyErr_CheckSignals()  # what came since the kernel looked: the state is still as before
            self.now = 1 - self.now
        finally:
            self.busy = False
        return 0

    def step(self, x_t, restart=None, out=None):
        """Take one time step.

        Parameters
        ----------
        x_t : ndarray
            (B, D), or (D,) where B = 1; the layer's dtype.
        restart : bool or boolean array, optional
            (B,): where true, the state before this step is zero. One bool is for all rows.
        out : ndarray, optional
            (B, P), or (P,) like x_t, C-contiguous: where the output is written. No array is made then.

        Returns
        -------
        ndarray
            (B, P) or (P,): the last layer's output; `out` where that is given.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it, and the state is as before.
        RuntimeError
            If another thread is in a call of this stream.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> stream = fastrnn.GRU(3, 4, rng=0).stream(batch_size=2)
        >>> stream.step(np.ones((2, 3), np.float32), restart=[True, False]).shape
        (2, 4)
        """
        cdef cnp.npy_intp *shape = [self._batch, self._units]
        cdef bint alone
        if restart is not None:  # first: it may be anything, and run anything
            restart = self._checked_restart(restart)
            if not plain(restart, cnp.NPY_BOOL, 1, self._batch, 0):
                raise TypeError("restart is not an array of B booleans")
        if not self._takes(x_t):
            x_t = self._checked_step(x_t)
            if not self._takes(x_t):
                raise TypeError("x_t is not an array of the stream's type and shape")
        alone = cnp.PyArray_NDIM(<cnp.ndarray>x_t) == 1
        if out is None:
            made = cnp.PyArray_EMPTY(2 - alone, shape + alone, self.number, 0)
            out = made
        elif self._gives(out, alone):
            made = out
        else:
            made = self._checked_out(out, alone)
            if not self._gives(made, alone):
                raise TypeError("out is not an array of the stream's type and shape")
        if overlap(x_t, made):
            x_t = x_t.copy()
        if self._batch:
            self.advance(x_t, 1, made, self.intermediate, restart)
        return out

    cdef inline bint _takes(self, x_t):
        return plain(x_t, self.number, 2, self._batch, self._features) or (
            self._batch == 1 and plain(x_t, self.number, 1, self._features, 0)
        )

    cdef inline bint _gives(self, out, bint alone):
        return plain(out, self.number, 2 - alone, self._units if alone else self._batch, self._units) and (
            cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
        )

    def _run(self, cnp.ndarray x not None, cnp.ndarray output not None, list intermediate not None, restart):
        """All steps of a checked x (T, B, D), T and B positive."""
        cdef cnp.npy_intp T = 0
        if cnp.PyArray_NDIM(x) == 3:
            T = cnp.PyArray_DIM(x, 0)
        expect(
            tape_sequence(x, self.number, T, self._batch, self._features, True)
            and tape_sequence(output, self.number, T, self._batch, self._units, True) and written(output)
            and (restart is None or plain(restart, cnp.NPY_BOOL, 2, T, self._batch))
        )
        for each in intermediate:
            expect(tape_sequence(each, self.number, T, self._batch, self._units, True) and written(each))
        self.advance(x, cnp.PyArray_DIM(x, 0), output, intermediate, restart)

    def _states(self):
        """The current h (layers, B, P) and c (layers, B, H), None where there is none: no copies."""
        if self.busy:
            raise RuntimeError(STREAM_BUSY)
        if self.kernels == NULL:
            raise RuntimeError("this stream was not made by layer.stream()")
        return self.states[self.now], self.states[2 + self.now] if self.cells else None
