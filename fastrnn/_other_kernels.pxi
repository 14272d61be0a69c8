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
    if n < keep_gil_below:
        return fastrnn_kernels_in_use().element_losses[which](&a)
    with nogil:
        total = fastrnn_kernels_in_use().element_losses[which](&a)
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
            cell, (w_ih, w_hh, b_ih, b_hh, extra), h, c = layers[k]
            expect(weights_fit(cell_numbered(cell), number, below, w_ih, w_hh, b_ih, b_hh, extra))
            expect((c is None) != has_two_states(get_cell(cell)))
            fill_weights(&each[k], cell, w_ih, w_hh, b_ih, b_hh, extra)
            each[k].T = each[k].B = 1
            below = each[k].P
            expect(plain(h, number, 1, below, 0) and written(h))
            expect(c is None or plain(c, number, 1, each[k].H, 0) and written(c))
            point_states(&each[k], data(h), data(c), <const void **>&each[k].h_n, <const void **>&each[k].c_n)
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


def sigmoid(cnp.ndarray x not None, cnp.ndarray out not None):
    cdef int number = cnp.PyArray_TYPE(x), which = is_double(x)
    cdef int64_t size = cnp.PyArray_SIZE(x)
    expect(
        (number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE)
        and elements_fit(x, number, size) and elements_fit(out, number, size) and written(out)
    )
    cdef const void *elements = data(x)
    cdef void *results = data(out)
    if size < keep_gil_below:
        fastrnn_kernels_in_use().sigmoid[which](elements, results, size)
    else:
        with nogil:
            fastrnn_kernels_in_use().sigmoid[which](elements, results, size)
