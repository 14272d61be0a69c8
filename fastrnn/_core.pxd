# cython: language_level=3
# What _core.pyx uses of csrc/fastrnn.h, which says what it means.
from libc.stdint cimport int64_t, uint8_t


cdef extern from "fastrnn.h" nogil:
    enum: FASTRNN_OK, FASTRNN_NO_MEMORY, FASTRNN_INTERRUPTED

    struct fastrnn_sequence:
        void *data
        int64_t step_t, step_b

    struct fastrnn_call:
        int threads
        int (*interrupted)(void *) noexcept
        void *context

    enum: FASTRNN_MAX_EXTRA

    struct fastrnn_size:
        int times
        char of

    struct fastrnn_extra:
        const char *name
        int rank
        fastrnn_size shape[2]
        int required

    struct fastrnn_cell:
        const char *name
        int gates, tape_gates, has_c, c_alone, extras
        fastrnn_extra extra[4]  # FASTRNN_MAX_EXTRA

    const fastrnn_cell *get_cell "fastrnn_cell"(int)

    struct fastrnn_direction:
        int cell, reverse, given
        int64_t T, B, D, H, P
        fastrnn_sequence x
        const void *h_0
        const void *c_0
        const void *w_ih
        const void *w_hh
        const void *b_ih
        const void *b_hh
        const void *extra[4]
        const int64_t *lengths
        const int64_t *times
        const uint8_t *restart
        const void *packed
        fastrnn_sequence output
        void *h_n
        void *c_n
        void *c
        void *gates
        int64_t checkpoint
        fastrnn_sequence d_output
        const void *d_h_n
        const void *d_c_n
        fastrnn_sequence d_x
        void *d_h_0
        void *d_c_0
        void *d_w_ih
        void *d_w_hh
        void *d_b_ih
        void *d_b_hh
        void *d_extra[4]
        double *norms

    struct fastrnn_directions:
        fastrnn_call call
        const fastrnn_direction *directions
        int count

    double fastrnn_flops(const fastrnn_cell *, const fastrnn_direction *, double)

    enum fastrnn_way:
        FASTRNN_BY_ROWS, FASTRNN_BY_UNITS, FASTRNN_PIPELINE, FASTRNN_CONCURRENT

    struct fastrnn_plan:
        fastrnn_way way
        int threads
        int64_t rows, steps, blocks
        int packed

    fastrnn_plan fastrnn_last_plan()

    struct fastrnn_linear:
        fastrnn_call call
        int64_t N, D, O
        const void *x
        int64_t step_x
        const void *weight
        const void *bias
        const void *packed
        void *output
        const void *d_output
        int64_t step_d
        void *d_x
        void *d_weight
        void *d_bias

    double fastrnn_linear_flops(const fastrnn_linear *)

    struct fastrnn_embedding:
        fastrnn_call call
        int64_t N, D, V
        const int64_t *indices
        const void *d_output
        int64_t step_d
        void *d_weight

    double fastrnn_embedding_flops(const fastrnn_embedding *)

    struct fastrnn_cross_entropy:
        fastrnn_call call
        int64_t N, C
        const void *logits
        int64_t step
        const int64_t *target
        const void *soft
        int64_t step_soft
        const uint8_t *counts
        const double *weights
        const double *class_weight
        double smoothing
        double scale
        void *d_logits
        double *losses
        double *total

    struct fastrnn_softmax:
        fastrnn_call call
        int64_t N, C
        const void *logits
        int64_t step
        int logarithm
        void *output

    double fastrnn_softmax_flops(int64_t N, int64_t C)

    enum:
        FASTRNN_SQUARED, FASTRNN_ABSOLUTE, FASTRNN_HUBER, FASTRNN_BINARY

    struct fastrnn_elements:
        int loss
        int64_t n
        const void *input
        const void *target
        const uint8_t *counts
        const double *weights
        const double *positive
        double delta
        double scale
        void *d_input
        double *losses

    enum fastrnn_rule:
        FASTRNN_SGD

    struct fastrnn_update:
        fastrnn_call call
        fastrnn_rule rule
        int64_t n
        void *params
        const void *grads
        void *state[3]  # FASTRNN_MAX_STATE
        double numbers[9]  # FASTRNN_MAX_NUMBERS

    enum: FASTRNN_MAX_STATE, FASTRNN_MAX_NUMBERS

    double fastrnn_update_flops(const fastrnn_update *)

    struct fastrnn_generate:
        fastrnn_call call
        int64_t V, B
        const void *embedding
        const fastrnn_direction *layers
        int64_t count
        const void *w_out
        const void *b_out
        const void *packed_out
        const int64_t *prompts
        const int64_t *begins
        int64_t length
        const double *uniform
        double temperature
        int64_t top_k
        double top_p
        const uint8_t *stop
        void *kept
        int64_t *indices
        int64_t *written

    double fastrnn_generate_flops(const fastrnn_generate *)

    ctypedef int fastrnn_kernel(const fastrnn_call *) noexcept nogil

    struct fastrnn_kernels:
        const char *name
        fastrnn_kernel *forward[2]
        fastrnn_kernel *backward[2]
        size_t (*pack[2])(const fastrnn_direction *, void *) noexcept nogil
        fastrnn_kernel *linear_forward[2]
        fastrnn_kernel *linear_backward[2]
        size_t (*pack_linear[2])(const fastrnn_linear *, void *) noexcept nogil
        fastrnn_kernel *embedding_backward[2]
        fastrnn_kernel *cross_entropy[2]
        fastrnn_kernel *softmax[2]
        double (*element_losses[2])(const fastrnn_elements *) noexcept nogil
        fastrnn_kernel *update[2]
        fastrnn_kernel *generate[2]
        size_t (*pack_generate[2])(const fastrnn_generate *, void *) noexcept nogil
        double (*sum_of_squares[2])(const void *, int64_t) noexcept nogil
        void (*tanh[2])(const void *, void *, int64_t) noexcept nogil
        void (*sigmoid[2])(const void *, void *, int64_t) noexcept nogil
        void (*exp[2])(const void *, void *, int64_t) noexcept nogil

    const fastrnn_kernels *fastrnn_built[]
    int fastrnn_runs_here(const fastrnn_kernels *)
    const fastrnn_kernels *fastrnn_kernels_in_use()
    int fastrnn_use(const char *)
    int fastrnn_has_openmp()
    int fastrnn_get_num_threads()
    void fastrnn_set_num_threads(int)
    int fastrnn_cpu_quota(const char *)
    void fastrnn_swap_team_policy(double *, double *)
    double fastrnn_swap_far(double)
    void *fastrnn_result_malloc(void *, size_t)
    void *fastrnn_result_calloc(void *, size_t, size_t)
    void *fastrnn_result_realloc(void *, void *, size_t)
    void fastrnn_result_free(void *, void *, size_t)
    long fastrnn_teams_run()
    int fastrnn_workers_made()

    enum:
        FASTRNN_BEFORE_MEETING, FASTRNN_AFTER_MEETING, FASTRNN_AFTER_COUNT, FASTRNN_POLL, FASTRNN_STOP
        FASTRNN_IN_SCRATCH, FASTRNN_BEFORE_JOB, FASTRNN_AFTER_JOB, FASTRNN_BEFORE_SLEEP

    struct fastrnn_delay:
        int place, thread
        int64_t nth, microseconds

    int fastrnn_set_delays(const fastrnn_delay *, int)
    void fastrnn_delays(int *, int *)
    double fastrnn_multiply_add_rate(int, double)
    double fastrnn_read_rate(int, double, int64_t)


cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *, size_t)
        void *(*calloc)(void *, size_t, size_t)
        void *(*realloc)(void *, void *, size_t)
        void (*free)(void *, void *, size_t)
    ctypedef struct PyDataMem_Handler:
        char name[127]
        uint8_t version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object)


cdef extern from "company.h" nogil:
    struct company:
        int max

    int company_allows(company *, int, double)
    void company_saw(company *, int, double, double, double)
