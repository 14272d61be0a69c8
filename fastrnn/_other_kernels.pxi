# Included by _core.pyx: the kernels beside those of recurrent layers.

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


cdef class PackedLinear:
    """The weight and bias of an output layer, packed for an instruction set; they may change or go away then.

    A call that is given them runs on that instruction set. It never changes, so threads may share it.
    """

    cdef const fastrnn_kernels *kernels
    cdef fastrnn_linear sizes
    cdef int number
    cdef cnp.ndarray memory

    def __init__(self, cnp.ndarray weight not None, bias):
        cdef int number = cnp.PyArray_TYPE(weight), double_ = is_double(weight)
        expect(is_matrix(weight) and (number == cnp.NPY_FLOAT or double_) and self.memory is None)
        memset(&self.sizes, 0, sizeof(self.sizes))
        self.sizes.O, self.sizes.D = cnp.PyArray_DIM(weight, 0), cnp.PyArray_DIM(weight, 1)
        expect(
            plain(weight, number, 2, self.sizes.O, self.sizes.D)
            and (bias is None or plain(bias, number, 1, self.sizes.O, 0))
        )
        cdef fastrnn_linear a = self.sizes
        cdef const fastrnn_kernels *kernels = fastrnn_kernels_in_use()
        cdef cnp.npy_intp size = kernels.pack_linear[double_](&a, NULL) + 64
        cdef cnp.ndarray memory = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
        a.weight, a.bias = data(weight), data(bias)
        kernels.pack_linear[double_](&a, aligned(memory))
        self.kernels, self.number, self.memory = kernels, number, memory

    def current(self):
        """Whether it is for the instruction set in use."""
        return self.kernels == fastrnn_kernels_in_use()

    @property
    def nbytes(self):
        return 0 if self.memory is None else cnp.PyArray_NBYTES(self.memory)

    cdef const void *lend(self, int64_t O, int64_t D, int number) except NULL:
        """The packed weights, for a call that has the same ones."""
        expect(self.memory is not None and self.sizes.O == O and self.sizes.D == D and self.number == number)
        return aligned(self.memory)


def packed_linear_forward(PackedLinear packed not None, cnp.ndarray x not None, cnp.ndarray output not None, int threads):
    cdef fastrnn_linear a = packed.sizes
    cdef int number = packed.number
    a.packed = packed.lend(a.O, a.D, number)
    expect(
        cnp.PyArray_NDIM(x) == 2 and rows_fit(x, number, cnp.PyArray_DIM(x, 0), a.D)
        and plain(output, number, 2, cnp.PyArray_DIM(x, 0), a.O) and written(output)
    )
    a.N = cnp.PyArray_DIM(x, 0)
    a.x, a.step_x, a.output = data(x), row_step(x), data(output)
    call(packed.kernels.linear_forward[number == cnp.NPY_DOUBLE], &a.call, fastrnn_linear_flops(&a), threads)


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


cdef int expect_logits(cnp.ndarray logits) except -1:
    cdef int number = cnp.PyArray_TYPE(logits)
    expect(cnp.PyArray_NDIM(logits) == 2 and (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE))
    return expect(rows_fit(logits, number, cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)))


def cross_entropy(
    cnp.ndarray logits not None, target, soft, counts, weights, class_weight, double smoothing, double scale,
    cnp.ndarray d_logits not None, cnp.ndarray losses not None, int threads,
):
    cdef fastrnn_cross_entropy a
    expect_logits(logits)
    cdef int number = cnp.PyArray_TYPE(logits)
    cdef cnp.npy_intp N = cnp.PyArray_DIM(logits, 0), C = cnp.PyArray_DIM(logits, 1)
    expect(
        (counts is None or plain(counts, cnp.NPY_BOOL, 1, N, 0))
        and (weights is None or plain(weights, cnp.NPY_DOUBLE, 1, N, 0))
        and (class_weight is None or plain(class_weight, cnp.NPY_DOUBLE, 1, C, 0))
        and plain(d_logits, number, 2, N, C) and written(d_logits)
        and plain(losses, cnp.NPY_DOUBLE, 1, N, 0) and written(losses)
        and (
            rows_fit(soft, number, N, C) if target is None
            else plain(target, cnp.NPY_INT64, 1, N, 0) and indices_fit(target, counts, N, C)
        )
    )
    memset(&a, 0, sizeof(a))
    a.N, a.C = N, C
    a.logits = data(logits)
    a.step = row_step(logits)
    if target is None:
        a.soft = data(soft)
        a.step_soft = row_step(soft)
    else:
        a.target = <const int64_t *>data(target)
    a.counts = <const uint8_t *>data(counts)
    a.weights = <const double *>data(weights)
    a.class_weight = <const double *>data(class_weight)
    a.smoothing = smoothing
    a.scale = scale
    a.d_logits = data(d_logits)
    a.losses = <double *>data(losses)
    cdef double total
    a.total = &total
    call(fastrnn_kernels_in_use().cross_entropy[is_double(logits)], &a.call, fastrnn_softmax_flops(N, C), threads)
    return total


cdef inline bint updated(object value, cnp.ndarray params) noexcept:
    """Whether this is an array like params, C-contiguous, that can be written to, or None."""
    return value is None or (alike(value, params) and cnp.PyArray_ISCARRAY(<cnp.ndarray>value))


cdef inline bint alike(object value, cnp.ndarray params) noexcept:
    return (
        cnp.PyArray_CheckExact(value)
        and cnp.PyArray_TYPE(<cnp.ndarray>value) == cnp.PyArray_TYPE(params)
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>value)
        and cnp.PyArray_SAMESHAPE(<cnp.ndarray>value, params)
    )


cdef inline bint one_fits(object p, object g, tuple state) except -1:
    """Whether a gradient can be read, and its parameter and the state changed, as they are."""
    return (
        cnp.PyArray_CheckExact(p)
        and (cnp.PyArray_TYPE(<cnp.ndarray>p) == cnp.NPY_FLOAT or cnp.PyArray_TYPE(<cnp.ndarray>p) == cnp.NPY_DOUBLE)
        and updated(p, p)
        and alike(g, p)
        and len(state) <= FASTRNN_MAX_STATE
        and all([updated(a, p) for a in state])
    )


cdef bint update_fits(tuple params, tuple grads, tuple state) except -1:
    cdef Py_ssize_t count = len(params), i, j
    if len(grads) != count or len(state) != count:
        return False
    for i in range(count):
        if not one_fits(params[i], grads[i], <tuple>state[i]):
            return False
    for i in range(count):
        for j in range(count):  # its own gradient may be a parameter itself
            if overlap(params[i], grads[j]) and (i != j or data(params[i]) != data(grads[j])):
                return False
    return True


def update(int rule, tuple params not None, grads, tuple state not None, tuple numbers not None, int threads):
    cdef fastrnn_update a
    cdef Py_ssize_t i, k
    if type(grads) is not list and type(grads) is not tuple:
        return False
    cdef tuple given = tuple(grads), of_p, own
    if not update_fits(params, given, state):
        return False
    memset(&a, 0, sizeof(a))
    a.rule = <fastrnn_rule>rule
    for i in range(len(params)):
        p, g, of_p, own = params[i], given[i], state[i], numbers[i]
        # While the call before ran without the GIL, another thread may have changed them.
        expect(one_fits(p, g, of_p) and len(own) <= FASTRNN_MAX_NUMBERS)
        for k in range(len(of_p)):
            a.state[k] = data(of_p[k])
        for k in range(len(own)):
            a.numbers[k] = own[k]
        a.n = cnp.PyArray_SIZE(<cnp.ndarray>p)
        a.params = data(p)
        a.grads = data(g)
        call(fastrnn_kernels_in_use().update[is_double(p)], &a.call, fastrnn_update_flops(&a), threads, True)
    return True


def softmax(cnp.ndarray logits not None, bint logarithm, cnp.ndarray output not None, int threads):
    cdef fastrnn_softmax a
    expect_logits(logits)
    memset(&a, 0, sizeof(a))
    a.N, a.C = cnp.PyArray_DIM(logits, 0), cnp.PyArray_DIM(logits, 1)
    expect(plain(output, cnp.PyArray_TYPE(logits), 2, a.N, a.C) and written(output))
    a.logits = data(logits)
    a.step = row_step(logits)
    a.logarithm = logarithm
    a.output = data(output)
    call(fastrnn_kernels_in_use().softmax[is_double(logits)], &a.call, fastrnn_softmax_flops(a.N, a.C), threads)


cdef bint elements_fit(object a, int type_number, cnp.npy_intp n):
    """Whether this is a C-contiguous array of that type and of so many elements."""
    return (
        cnp.PyArray_CheckExact(a) and cnp.PyArray_TYPE(<cnp.ndarray>a) == type_number
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>a) and cnp.PyArray_SIZE(<cnp.ndarray>a) == n
    )


ELEMENT_LOSSES = {
    "squared": FASTRNN_SQUARED, "absolute": FASTRNN_ABSOLUTE, "huber": FASTRNN_HUBER, "binary": FASTRNN_BINARY,
}


def element_losses(
    str loss not None, cnp.ndarray input not None, target, counts, weights, positive, double delta, double scale,
    d_input, losses,
):
    cdef fastrnn_elements a
    cdef int number = cnp.PyArray_TYPE(input)
    cdef cnp.npy_intp n = cnp.PyArray_SIZE(input)
    expect(
        (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE)
        and elements_fit(input, number, n) and elements_fit(target, number, n)
        and (counts is None or elements_fit(counts, cnp.NPY_BOOL, n))
        and (weights is None or elements_fit(weights, cnp.NPY_DOUBLE, n))
        and (positive is None or elements_fit(positive, cnp.NPY_DOUBLE, n))
        and elements_fit(d_input, number, n) and written(d_input)
        and (losses is None or elements_fit(losses, cnp.NPY_DOUBLE, n) and written(losses))
    )
    memset(&a, 0, sizeof(a))
    a.loss = ELEMENT_LOSSES[loss]
    a.n = n
    a.input = data(input)
    a.target = data(target)
    a.counts = <const uint8_t *>data(counts)
    a.weights = <const double *>data(weights)
    a.positive = <const double *>data(positive)
    a.delta, a.scale = delta, scale
    a.d_input = data(d_input)
    a.losses = <double *>data(losses)
    cdef int which = is_double(input)
    cdef double total
    if fastrnn_softmax_flops(n, 1) < keep_gil_below:
        return fastrnn_kernels_in_use().element_losses[which](&a)
    with nogil:
        total = fastrnn_kernels_in_use().element_losses[which](&a)
    return total


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


def sigmoid(cnp.ndarray x not None, cnp.ndarray out not None):
    cdef int number = cnp.PyArray_TYPE(x), which = is_double(x)
    cdef int64_t size = cnp.PyArray_SIZE(x)
    expect(
        (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE)
        and elements_fit(x, number, size) and elements_fit(out, number, size) and written(out)
    )
    cdef const void *elements = data(x)
    cdef void *results = data(out)
    if fastrnn_softmax_flops(size, 1) < keep_gil_below:
        fastrnn_kernels_in_use().sigmoid[which](elements, results, size)
    else:
        with nogil:
            fastrnn_kernels_in_use().sigmoid[which](elements, results, size)
