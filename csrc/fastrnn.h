/* The C contract: what a caller hands over, and what each instruction set provides.
 *
 * Shapes use T (time steps), B (batch), D (input features), H (hidden units), O (outputs), V (vocabulary).
 * `real` is float or double.
 * The caller owns every array; nothing is kept after a call returns. No result overlaps an argument or
 * another result. NULL for an argument means absent (zeros); NULL for a result of backward means not
 * wanted, and then it costs nothing. Nobody here checks shapes: the Python side has.
 */
#ifndef FASTRNN_H
#define FASTRNN_H
#include <stddef.h>
#include <stdint.h>

enum fastrnn_status { FASTRNN_OK, FASTRNN_NO_MEMORY, FASTRNN_INTERRUPTED };

/* A (T, B, n) array with unit stride along n: element (t, b, i) is data[t*step_t + b*step_b + i]. The
 * strides count elements and may be negative; for arguments also zero. */
struct fastrnn_sequence {
    void *data;
    int64_t step_t, step_b;
};

/* What every call has; each struct of a call begins with it. */
struct fastrnn_call {
    int threads; /* at most so many; 0: fastrnn_get_num_threads() */
    /* Called now and then by the thread that made the call; nonzero ends the call with
     * FASTRNN_INTERRUPTED, the results then undefined. May be NULL. */
    int (*interrupted)(void *context);
    void *context;
};

/* ------------------------------------------------------------------------------------------- cells */

enum { FASTRNN_MAX_EXTRA = 4 };

/* A size: `times` H, or `times` P. */
struct fastrnn_size {
    int times;
    char of; /* 'H' or 'P' */
};

/* A parameter that not every cell has, and that a call may leave out unless it is required. Of rank 1 it is some rows
 * of H, for each unit its own; of rank 2 a matrix of some rows and H columns, with which the step has a second
 * product. */
struct fastrnn_extra {
    const char *name;
    int rank; /* 1 or 2 */
    struct fastrnn_size shape[2];
    int required;
};

/* What a caller has to know of a cell. */
struct fastrnn_cell {
    const char *name;
    int gates;      /* G: w_ih has G*H rows */
    int tape_gates; /* how many values a unit has on the tape beside c; 0: the tape is output alone */
    int has_c;      /* whether there is a second row of H beside h, c */
    int c_alone; /* c alone is the state, and h, which is output, a function of it: h_0, h_n and their gradients are
                       NULL */
    int extras;
    struct fastrnn_extra extra[FASTRNN_MAX_EXTRA];
};

/* Cell number 0, 1, ...; NULL behind the last. There is no other list of them. */
const struct fastrnn_cell *fastrnn_cell(int number);

/* One direction of one layer. Arrays without strides are C-contiguous. */
struct fastrnn_direction {
    int cell; /* its number */
    int reverse; /* process t = T-1 ... 0 */
    int given; /* x holds the gates' pre-activations without biases: D = G*H, and there is no w_ih */
    int64_t T, B, D, H, P; /* P = H but for a cell with a projection */

    /* forward: arguments */
    struct fastrnn_sequence x; /* (T, B, D) */
    const void *h_0, *c_0; /* (B, P), (B, H); or NULL. c_0 and c_n: of cells that have c */
    const void *w_ih, *w_hh; /* (G*H, D) or NULL if `given`, (G*H, P) */
    const void *b_ih, *b_hh; /* (G*H,) or NULL, each */
    const void *extra[FASTRNN_MAX_EXTRA]; /* as the cell says, each or NULL */
    const int64_t *lengths; /* (B,) in [0, T], or NULL: all T */
    /* With a mask of steps, lengths says how many of row b count and `times` (T, B) which: times[i*B + b] is the t of
     * the i-th of them, in order; the others follow. NULL: each step is its own. */
    const int64_t *times;
    const uint8_t *restart; /* the reset mask: (T, B), nonzero: the state before step t is zero; or NULL */
    const void *packed; /* what `pack` made of the weights, which are then not read; or NULL */
    /* forward: results; backward: output, c and gates are arguments, h_n and c_n are not read */
    struct fastrnn_sequence output; /* (T, B, P) */
    void *h_n, *c_n; /* (B, P), (B, H), each or NULL: may be h_0 and c_0 */
    /* The tape, zero in padding and in steps that do not count; NULL: none is kept. */
    void *c, *gates; /* (T, B, H), (T, B, tape_gates*H) */
    /* 0, or K > 0: the tape is short. gates is NULL, and c, where the cell has it, is ((T-1)/K, B, H): c after every
     * K-th step in the order of processing. Backward recomputes the rest, K steps at a time. */
    int64_t checkpoint;

    /* backward: arguments */
    struct fastrnn_sequence d_output; /* (T, B, P) or data == NULL */
    const void *d_h_n, *d_c_n; /* as h_0 and c_0 */
    /* backward: results */
    struct fastrnn_sequence d_x; /* (T, B, D) or data == NULL */
    void *d_h_0, *d_c_0; /* as h_0 and c_0 */
    void *d_w_ih, *d_w_hh, *d_b_ih, *d_b_hh; /* as the weights, each or NULL */
    void *d_extra[FASTRNN_MAX_EXTRA];
    double *norms; /* (T, B): of the gradient of the state after step t; or NULL */
};

/* A call of one direction, or of both of a layer, which may then run at the same time. */
struct fastrnn_directions {
    struct fastrnn_call call;
    const struct fastrnn_direction *directions; /* (count,) */
    int count; /* 1 or 2 */
};

static inline int64_t units_of(const struct fastrnn_direction *a, struct fastrnn_size size)
{
    return size.times * (size.of == 'P' ? a->P : a->H);
}

/* How many features of x w_ih multiplies. */
static inline int64_t multiplied_features(const struct fastrnn_direction *a) { return a->given ? 0 : a->D; }

/* Floating-point operations of forward, of this cell: those of its products, and `activation` more for each gate of
 * each unit. */
double fastrnn_flops(const struct fastrnn_cell *cell, const struct fastrnn_direction *a, double activation);

/* How the last call of directions in this thread was run, for tests. */
enum fastrnn_way {
    FASTRNN_BY_ROWS, /* each thread has rows of the batch */
    FASTRNN_BY_UNITS, /* each thread makes some hidden units of all rows */
    FASTRNN_PIPELINE, /* one sequence: one thread makes the input projections, another follows with the recurrence */
    FASTRNN_CONCURRENT /* two directions, one thread each */
};
struct fastrnn_plan {
    enum fastrnn_way way;
    int threads;
    int64_t rows; /* of the batch, of one thread, at most */
    int64_t steps; /* time steps in a block */
    int64_t blocks; /* of input projections that are held at once */
    int packed; /* whether the weights are packed, in this call or before; else they are multiplied as they are */
};
struct fastrnn_plan fastrnn_last_plan(void);

/* ------------------------------------------------------------------------------------ other kernels */

/* The output layer: N rows of D features to rows of O. */
struct fastrnn_linear {
    struct fastrnn_call call;
    int64_t N, D, O;
    const void *x; /* (N, D); row n begins at element n*step_x, which may be zero or negative */
    int64_t step_x;
    const void *weight, *bias; /* (O, D), (O,) or NULL */
    const void *packed; /* forward: what `pack_linear` made of both, which are then not read; or NULL */
    void *output; /* forward: (N, O) */
    const void *d_output; /* backward: (N, O) in rows of step_d */
    int64_t step_d;
    void *d_x, *d_weight, *d_bias; /* as their arguments, or NULL */
};
double fastrnn_linear_flops(const struct fastrnn_linear *a); /* of forward */

/* The gradient of an embedding: row indices[n] of d_weight is the sum of such rows n of d_output. */
struct fastrnn_embedding {
    struct fastrnn_call call;
    int64_t N, D, V;
    const int64_t *indices; /* (N,) in [0, V) */
    const void *d_output; /* (N, D) in rows of step_d */
    int64_t step_d;
    void *d_weight; /* (V, D) */
};
double
fastrnn_embedding_flops(const struct fastrnn_embedding *a); /* counted as operations of a product that takes as long */

/* Softmax and cross-entropy of N rows of C >= 1 classes. */
struct fastrnn_cross_entropy {
    struct fastrnn_call call;
    int64_t N, C;
    const void *logits; /* (N, C) in rows of step */
    int64_t step;
    const int64_t *target; /* (N,), in [0, C) where the row counts; or NULL: soft */
    const void *soft; /* (N, C) in rows of step_soft: the target of each class; or NULL */
    int64_t step_soft;
    const uint8_t *counts; /* (N,): zero where a row does not count; or NULL: all do */
    const double *weights; /* (N,): of the rows; or NULL: 1 */
    const double *class_weight; /* (C,): of soft or smoothed targets; or NULL: 1 */
    double smoothing; /* in [0, 1]: this part of each target is spread over all classes */
    double scale; /* of the gradients */
    void *d_logits; /* (N, C) */
    double *losses; /* (N,): of each row, unscaled; 0 where it does not count */
    double *total; /* their sum, in the order of the rows */
};

/* The softmax of each row, or its logarithm. */
struct fastrnn_softmax {
    struct fastrnn_call call;
    int64_t N, C;
    const void *logits; /* (N, C) in rows of step */
    int64_t step;
    int logarithm;
    void *output; /* (N, C) */
};
double fastrnn_softmax_flops(int64_t N, int64_t C); /* with or without cross-entropy */

/* Losses that are sums over elements, with their gradients: element_losses.h has the equations. */
enum { FASTRNN_SQUARED, FASTRNN_ABSOLUTE, FASTRNN_HUBER, FASTRNN_BINARY };
struct fastrnn_elements {
    int loss; /* which */
    int64_t n;
    const void *input, *target; /* (n,) */
    const uint8_t *counts; /* (n,): zero where an element does not count; or NULL: all do */
    const double *weights; /* (n,): zero where an element does not count either; or NULL: 1 */
    const double *positive; /* (n,) of FASTRNN_BINARY: weights of the positive part; or NULL: 1 */
    double delta; /* of FASTRNN_HUBER */
    double scale; /* of the gradients */
    void *d_input; /* (n,) */
    double *losses; /* (n,): of each element, unscaled, 0 where it does not count; or NULL */
};

/* One step of an optimiser over n parameters, in place. What its numbers and state are, in their order, says
 * reference/optim.py; subnormals are not flushed. */
enum fastrnn_rule { FASTRNN_SGD, FASTRNN_ADAM, FASTRNN_RMSPROP, FASTRNN_ADAGRAD };
enum { FASTRNN_MAX_STATE = 3, FASTRNN_MAX_NUMBERS = 9 };
struct fastrnn_update {
    struct fastrnn_call call;
    enum fastrnn_rule rule;
    int64_t n;
    void *params; /* (n,) */
    const void *grads; /* (n,): may be params */
    void *state[FASTRNN_MAX_STATE]; /* (n,), each or NULL */
    double numbers[FASTRNN_MAX_NUMBERS];
};
double fastrnn_update_flops(const struct fastrnn_update *a); /* counted as operations of a product that takes as long */

/* Autoregressive generation: a network of an embedding, recurrent layers and an output layer reads its own output, in B
 * sequences that know nothing of each other. */
struct fastrnn_generate {
    struct fastrnn_call call;
    int64_t V, B;
    const void *embedding; /* (V, D), D of the first layer */
    /* (count,), count >= 1: of each layer what is needed for one step of one sequence: cell, T = B = 1, D (P of the
     * layer before), H, P and the weights; and the states of all sequences (B, P), (B, H), h_0 and c_0 at the start, or
     * NULL, and h_n and c_n at the end, of which only those of `kept` may be h_0 and c_0. */
    const struct fastrnn_direction *layers;
    int64_t count;
    const void *w_out, *b_out; /* (V, P of the last layer), (V,) or NULL */
    const void *packed_out; /* what `pack_linear` made of both, which are then not read; or NULL */
    const int64_t *prompts, *begins; /* that of sequence b is prompts[begins[b]], ... before begins[b + 1], 1 or more */
    int64_t length; /* at most so many indices are written */
    const double *uniform; /* (length, B) in [0, 1); NULL: the most probable index */
    double temperature; /* > 0 where uniform is given */
    int64_t top_k; /* > 0: an index is drawn from the k most probable; V: from all */
    double top_p; /* > 0: and of these from the fewest whose probability is p; 1: from all */
    const uint8_t *stop; /* (V,) nonzero: a sequence ends with this index; or NULL */
    void *kept; /* of one sequence what pack_generate has made, which is used and changed; or NULL */
    int64_t *indices; /* (B, length) results */
    int64_t *written; /* (B,): how many there are; -1: NaN or infinity has left no choice */
};
double fastrnn_generate_flops(const struct fastrnn_generate *a);

/* A kernel takes the address of the struct above that is meant for it, which is that of its fastrnn_call. */
typedef int fastrnn_kernel(const struct fastrnn_call *);

/* What one instruction set provides; index 0 is float, 1 is double. */
struct fastrnn_kernels {
    const char *name;
    const struct fastrnn_cell *(*cell)(int number); /* as fastrnn_cell */
    fastrnn_kernel *forward[2], *backward[2]; /* of struct fastrnn_directions */
    /* Packs the weights of a direction for its `packed`, aligned to 64 bytes; returns how many bytes that takes.
     * packed may be NULL: to count. */
    size_t (*pack[2])(const struct fastrnn_direction *a, void *packed);
    fastrnn_kernel *linear_forward[2], *linear_backward[2];
    /* Packs weight and bias for `packed`; returns as `pack`. */
    size_t (*pack_linear[2])(const struct fastrnn_linear *a, void *packed);
    fastrnn_kernel *embedding_backward[2], *cross_entropy[2], *softmax[2], *update[2], *generate[2];
    /* The sum of the losses, in float64. */
    double (*element_losses[2])(const struct fastrnn_elements *a);
    /* Packs a network for `kept`, aligned to 64 bytes, of which then only the embedding is read; returns as `pack`. */
    size_t (*pack_generate[2])(const struct fastrnn_generate *a, void *kept);
    /* The sum of x[i]^2, i < n, in float64. */
    double (*sum_of_squares[2])(const void *x, int64_t n);
    /* out[i] = tanh(x[i]), sigmoid(x[i]) or exp(x[i]), i < n */
    void (*tanh[2])(const void *x, void *out, int64_t n);
    void (*sigmoid[2])(const void *x, void *out, int64_t n);
    void (*exp[2])(const void *x, void *out, int64_t n);
    /* Multiply-adds with no memory traffic: returns the floating-point operations done. */
    double (*multiply_adds[2])(int64_t rounds);
    /* Reads n reals, which are zeros and fill whole KiB, so many times: returns the bytes read. */
    double (*reads[2])(const void *x, int64_t n, int64_t rounds);
};

/* cpu.c: the instruction sets built, best first, ended by NULL; and whether this machine runs one. */
extern const struct fastrnn_kernels *const fastrnn_built[];
int fastrnn_runs_here(const struct fastrnn_kernels *k);
/* The set in use; it is chosen at the first call: FASTRNN_ISA where that names one that runs here,
 * else the best. fastrnn_use returns 0, or -1 where the name is unknown or does not run here. */
const struct fastrnn_kernels *fastrnn_kernels_in_use(void);
int fastrnn_use(const char *name);

/* policy.c, quota.c, schedule.c, rates.c: threads. */
int fastrnn_has_openmp(void);
int fastrnn_get_num_threads(void);
void fastrnn_set_num_threads(int n);
/* How many processors' time the control groups of this process allow it, rounded up; 0: there is no limit. Files
 * are looked for below `root`, for tests. */
int fastrnn_cpu_quota(const char *root);
/* For tests: exchanges what fork and join of a thread cost, in operations, and the number of operations that are worth
 * waking a team (0: any are); and the number of teams of several threads so far. */
void fastrnn_swap_team_policy(double *fork_join, double *wake);
/* Memory of large results, aligned to 64 bytes: that of results which are gone is used again, as fresh pages cost as much
 * as what is written to them. In the form in which NumPy calls them; the context is not used. */
void *fastrnn_result_malloc(void *context, size_t bytes);
void *fastrnn_result_calloc(void *context, size_t count, size_t size);
void *fastrnn_result_realloc(void *context, void *p, size_t bytes);
void fastrnn_result_free(void *context, void *p, size_t bytes);

/* For tests: exchanges how many bytes a matrix has at least that outgrows a second-level cache. */
double fastrnn_swap_far(double bytes);
int fastrnn_workers_made(void);
long fastrnn_teams_run(void);
/* For tests: the n-th time that a thread of a team comes to a place it waits so long there. Places are counted from 1
 * in each call of a kernel, but for the count that another thread has reached, which is its value. Returns -1
 * where there are too many; none ends the schedule. Not while a call runs. */
enum fastrnn_place {
    FASTRNN_BEFORE_MEETING,
    FASTRNN_AFTER_MEETING,
    FASTRNN_AFTER_COUNT, /* of another thread, which it has waited for */
    FASTRNN_POLL, /* thread 0 asks the caller's function at once, however short a time it is since the last */
    FASTRNN_STOP, /* the same, and the answer is yes */
    /* nth 0: */
    FASTRNN_IN_SCRATCH, /* thread 0: whoever takes scratch, and holds its lock */
    FASTRNN_BEFORE_JOB, /* a worker that has seen its job */
    FASTRNN_AFTER_JOB, /* and one that has not yet said that it is done */
    FASTRNN_BEFORE_SLEEP /* thread 0: whoever has said that it sleeps */
};
struct fastrnn_delay {
    int place, thread;
    int64_t nth, microseconds;
};
int fastrnn_set_delays(const struct fastrnn_delay *delays, int count);
/* How many delays of the schedule have begun and ended. */
void fastrnn_delays(int *begun, int *ended);
/* The multiply-add rate, operations a second, over the current number of threads. */
double fastrnn_multiply_add_rate(int is_double, double seconds);
/* Bytes a second in reading a buffer again and again, each thread its share; 0: no memory. */
double fastrnn_read_rate(int is_double, double seconds, int64_t bytes);
#endif
