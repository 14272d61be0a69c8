# Included by _core.pyx: layers that keep packed weights and a state, one step at a time.

STREAM_BUSY = "this stream is in use by another thread: give each thread a stream of its own"


cdef inline void *aligned(cnp.ndarray memory) noexcept:
    """The first whole cache line."""
    return <void *>((<size_t>data(memory) + 63) & ~<size_t>63)


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
    cdef fastrnn_layer *layers
    cdef int64_t count, batch, features, units, cells  # units: of h; cells: of c, 0 where there is none
    cdef int number  # the arrays' type number
    cdef int now
    cdef bint busy
    cdef double flops  # of a step
    cdef list packed, states, between
    cdef object threads

    def __dealloc__(self):
        free(self.layers)

    def _allocate(self, int kind, list weights, int64_t batch, threads):
        """For layers of one kind with these weights: (w_ih, w_hh, b_ih, b_hh, w_hr, w_peep) of each."""
        cdef cnp.ndarray w_ih = weights[0][0], w_hh = weights[0][1]
        cdef fastrnn_layer[1] a
        self.layers = <fastrnn_layer *>calloc(len(weights), sizeof(fastrnn_layer))
        if self.layers == NULL:
            raise MemoryError("no memory for the layers of this stream")
        fill_weights(a, kind, w_ih, w_hh, None, None, None, None)
        self.count, self.batch, self.features, self.units = len(weights), batch, a[0].D, a[0].P
        self.cells = a[0].H if kind == FASTRNN_LSTM else 0
        self.number = cnp.PyArray_TYPE(w_ih)
        self.threads = threads
        self.packed = []
        self.states = []
        cdef cnp.npy_intp *shape = [self.count, batch, self.units]
        for n in (self.units, self.units, self.cells, self.cells):
            shape[2] = n
            self.states.append(cnp.PyArray_ZEROS(3, shape, self.number, 0))
        shape[1], shape[2] = batch, self.units
        self.between = [cnp.PyArray_EMPTY(2, shape + 1, self.number, 0) for _ in range(self.count - 1)]
        self._pack(kind, weights)

    def _pack(self, int kind, list weights):
        """Pack the weights, for the instruction set in use."""
        cdef const fastrnn_kernels *kernels = fastrnn_kernels_in_use()
        cdef int is_double_ = self.number == cnp.NPY_DOUBLE
        cdef fastrnn_layer *a
        cdef cnp.npy_intp size
        cdef int64_t k
        cdef list packed = []
        cdef fastrnn_layer[1] made
        if self.busy:
            raise RuntimeError(STREAM_BUSY)
        for w_ih, w_hh, b_ih, b_hh, w_hr, w_peep in weights:  # what may fail comes first
            fill_weights(&made[0], kind, w_ih, w_hh, b_ih, b_hh, w_hr, w_peep)
            size = kernels.pack[is_double_](&made[0], NULL) + 64
            memory = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
            kernels.pack[is_double_](&made[0], aligned(memory))
            packed.append(memory)
        self.flops = 0
        for k in range(self.count):
            a = &self.layers[k]
            w_ih, w_hh, b_ih, b_hh, w_hr, w_peep = weights[k]
            fill_weights(a, kind, w_ih, w_hh, None, None, w_hr, w_peep)
            a.packed = aligned(packed[k])
            # Of these only whether they are there is looked at, and the arrays may go away.
            a.w_ih = a.w_hh = NULL
            if a.w_hr != NULL:
                a.w_hr = a.packed
            if a.w_peep != NULL:
                a.w_peep = a.packed
            a.B = self.batch
            self.flops += step_flops(a) * self.batch
        self.kernels, self.packed = kernels, packed

    cdef int advance(self, cnp.ndarray x, int64_t T, cnp.ndarray output, list between, object restart) except -1:
        """Run all layers; x and output are (B, .) or (T, B, .), `between` like output, of each layer but the last."""
        cdef fastrnn_layer *a
        cdef fastrnn_sequence from_ = steps_of(x), to
        cdef int64_t k
        cdef int threads = 0
        cdef size_t h_bytes = self.batch * self.units * cnp.PyArray_ITEMSIZE(x)
        cdef size_t c_bytes = self.batch * self.cells * cnp.PyArray_ITEMSIZE(x)
        cdef char *h = <char *>data(self.states[self.now])
        cdef char *next_h = <char *>data(self.states[1 - self.now])
        cdef char *c = <char *>data(self.states[2 + self.now])
        cdef char *next_c = <char *>data(self.states[3 - self.now])
        if self.busy:
            raise RuntimeError(STREAM_BUSY)
        if self.flops * T >= keep_gil_below:
            threads = self.threads.get()
        self.busy = True
        try:
            for k in range(self.count):
                to = steps_of(output if k == self.count - 1 else between[k])
                a = &self.layers[k]
                a.T = T
                a.x, a.output = from_, to
                a.h_0, a.h_n = h + k * h_bytes, next_h + k * h_bytes
                if self.cells:
                    a.c_0, a.c_n = c + k * c_bytes, next_c + k * c_bytes
                a.restart = <const uint8_t *>data(restart)
                call(
                    self.kernels.layer_forward[self.number == cnp.NPY_DOUBLE], &a.call,
                    self.flops * T / self.count, threads,
                )
                from_ = to
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
        """
        cdef cnp.npy_intp *shape = [self.batch, self.units]
        cdef bint alone
        if not (
            plain(x_t, self.number, 2, self.batch, self.features)
            or (self.batch == 1 and plain(x_t, self.number, 1, self.features, 0))
        ):
            x_t = self._checked_step(x_t)
        alone = cnp.PyArray_NDIM(<cnp.ndarray>x_t) == 1
        if out is None:
            out = cnp.PyArray_EMPTY(2 - alone, shape + alone, self.number, 0)
        elif not (
            plain(out, self.number, 2 - alone, self.units if alone else self.batch, self.units)
            and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
        ):
            self._checked_out(out, alone)
        elif overlap(x_t, out):
            x_t = x_t.copy()
        if restart is not None:
            restart = self._checked_restart(restart)
        if self.batch:
            self.advance(x_t, 1, out, self.between, restart)
        return out

    def _run(self, cnp.ndarray x, cnp.ndarray output, list between, restart):
        """All steps of a checked x (T, B, D), T and B positive."""
        self.advance(x, cnp.PyArray_DIM(x, 0), output, between, restart)

    def _states(self):
        """The current h (layers, B, P) and c (layers, B, H), None where there is none: no copies."""
        if self.busy:
            raise RuntimeError(STREAM_BUSY)
        return self.states[self.now], self.states[2 + self.now] if self.cells else None
