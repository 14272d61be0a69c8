/* The C contract: what a caller hands over, and what each instruction set provides.
 *
 * Shapes use T (time steps), B (batch), D (input features), H (hidden units). `real` is float or double.
 * The caller owns every array; nothing is kept after a call returns. No result overlaps an argument or
 * another result. NULL for an argument means absent (zeros); NULL for a result of backward means not
 * wanted, and then it costs nothing. Nobody here checks shapes: fastrnn/_checks.py has.
 */
#ifndef FASTRNN_H
#define FASTRNN_H
#include <stddef.h>
#include <stdint.h>

enum fastrnn_status { FASTRNN_OK = 0, FASTRNN_NO_MEMORY = 1, FASTRNN_INTERRUPTED = 2 };
enum fastrnn_nonlinearity { FASTRNN_TANH = 0, FASTRNN_RELU = 1 };

/* A (T, B, n) array with unit stride along n: element (t, b, i) is data[t*step_t + b*step_b + i]. The
 * strides count elements and may be negative; for arguments also zero. */
struct fastrnn_sequence {
    void *data;
    int64_t step_t, step_b;
};

/* One call of one layer in one direction. Arrays without strides are C-contiguous. */
struct fastrnn_rnn {
    int64_t T, B, D, H;
    int nonlinearity; /* enum fastrnn_nonlinearity */
    int reverse;      /* process t = T-1 ... 0 */
    int threads;      /* at most so many; 0: fastrnn_get_num_threads() */

    /* forward: arguments */
    struct fastrnn_sequence x; /* (T, B, D) */
    const void *h_0;           /* (B, H) or NULL */
    const void *w_ih, *w_hh;   /* (H, D), (H, H) */
    const void *b_ih, *b_hh;   /* (H,) or NULL, each */
    const int64_t *lengths;    /* (B,) in [0, T], or NULL: all T */
    const uint8_t *restart;    /* (T, B), nonzero: the state before step t is zero; or NULL */
    /* forward: results; backward: output is an argument, h_n is not read */
    struct fastrnn_sequence output; /* (T, B, H) */
    void *h_n;                      /* (B, H) */

    /* backward: arguments */
    struct fastrnn_sequence d_output; /* (T, B, H) or data == NULL */
    const void *d_h_n;                /* (B, H) or NULL */
    /* backward: results */
    struct fastrnn_sequence d_x; /* (T, B, D) or data == NULL */
    void *d_h_0;                 /* (B, H) or NULL */
    void *d_w_ih, *d_w_hh;       /* as the weights, or NULL */
    void *d_b;                   /* (H,): the gradient of either bias, or NULL */

    /* Called now and then by the thread that made the call; nonzero ends the call with
     * FASTRNN_INTERRUPTED, the results then undefined. May be NULL. */
    int (*interrupted)(void *context);
    void *context;
};

/* What one instruction set provides; index 0 is float, 1 is double. */
struct fastrnn_kernels {
    const char *name;
    int (*rnn_forward[2])(const struct fastrnn_rnn *);
    int (*rnn_backward[2])(const struct fastrnn_rnn *);
    /* out[i] = tanh(x[i]), i < n */
    void (*tanh[2])(const void *x, void *out, int64_t n);
    /* Multiply-adds with no memory traffic: returns the floating-point operations done. */
    double (*multiply_adds[2])(int64_t rounds);
};

/* cpu.c: the instruction sets built, best first, ended by NULL; and whether this machine runs one. */
extern const struct fastrnn_kernels *const fastrnn_built[];
int fastrnn_runs_here(const struct fastrnn_kernels *k);
/* The set in use; it is chosen at the first call: FASTRNN_ISA where that names one that runs here,
 * else the best. fastrnn_use returns 0, or -1 where the name is unknown or does not run here. */
const struct fastrnn_kernels *fastrnn_kernels_in_use(void);
int fastrnn_use(const char *name);

/* parallel.c: threads. */
int fastrnn_has_openmp(void);
int fastrnn_get_num_threads(void);
void fastrnn_set_num_threads(int n);
/* For tests: exchanges the numbers of operations that are worth another member, and waking a team (0: any
 * are); and the number of teams of several members so far. */
void fastrnn_swap_team_policy(double *per_member, double *to_wake);
long fastrnn_teams_run(void);
/* The multiply-add rate, operations a second, over the current number of threads. */
double fastrnn_multiply_add_rate(int is_double, double seconds);
#endif
