/* What the cells share: their packed weights, a step forward, a step of backpropagation, and the common
 * loops over rows. Each cell has a file of its own: its equations, its layout, its pointwise operations. */
#ifndef FASTRNN_CELL_COMMON
#define FASTRNN_CELL_COMMON
static int gates_of(int cell) { return cell == FASTRNN_LSTM ? 4 : cell <= FASTRNN_RNN_RELU ? 1 : 3; }
#endif

/* Packed weights. A row of pre-activations is `width` long, begins as `bias` and takes up the products with
 * x[0] and, where there are two, x[1] from column x_at[i] on; then the step goes on from there. */
struct FN(weights) {
    int x_count;
    int64_t x_at[2], width;
    struct FN(matrix) x[2], h[2], w_hr;
    real *bias, *peep; /* peep: three rows, stride(H) apart */
};

/* What a step reads and writes of the tape, output and d_output lies in many places of a large memory, which the
 * processor does not foresee. So each step asks for what the next one needs: how far away that is, in reals. */
struct FN(ahead) {
    int64_t gates, c, output, d_output;
};

/* One step of the rows of a member that are active, or several, so that what they have in common is done once. */
struct FN(step) {
    const struct fastrnn_layer *a;
    const struct FN(weights) *w;
    int64_t active, t, count; /* count: steps from t on */
    int64_t staged;           /* how far apart the staged outputs of the first and the last row are; 0: not staged */
    const int64_t *rows;      /* their places in the batch */
    int downwards;
    real *z;                    /* (active) rows of pre-activations; the input part is in them, */
    const real *const *x;       /* or if not NULL, that of the one row is yet to be made, from one of these a step */
    struct FN(ahead) ahead;
    const real *const *h_before; /* rows of h_{t-1} and of h_t, padded to whole vectors */
    real *const *h;
    real *c;                   /* LSTM: rows of c, stride(H) apart, in place */
    real *const *between;       /* rows of H, padded: what the second product of a step multiplies */
    real **output;              /* rows of output_t, P reals */
};

/* One step of backpropagation. The rows of the ring hold dz, and what else the weight gradients need. */
struct FN(back_step) {
    const struct fastrnn_layer *a;
    const struct FN(weights) *w; /* here: as they are, not transposed */
    int64_t active, t;
    const int64_t *rows;
    int downwards, last;          /* last: nobody asks for the gradient of the state before */
    real *const *ring;            /* (active) rows */
    real *carry_h, *carry_c;      /* rows of P and of H, from the later steps to the earlier ones */
    real *between;                /* (active) rows of H in scratch */
    const real **factors;         /* (active) pointers, for products */
    const real *zeros;            /* the state before a start */
    struct FN(ahead) ahead;
};

/* `forward`: for steps in the order of processing; else backward. */
static struct FN(ahead) FN(ahead)(const struct fastrnn_layer *a, int forward)
{
    const int64_t steps = forward == !a->reverse ? 1 : -1, tape = steps * a->B * a->H;
    return (struct FN(ahead)){4 * tape, tape, steps * a->output.step_t, steps * a->d_output.step_t};
}

/* Asks for the cache line of p + n, wherever that is; p may be NULL. */
static ALWAYS_INLINE void FN(soon)(const real *p, int64_t n)
{
    __builtin_prefetch((const char *)((uintptr_t)p + (uintptr_t)n * sizeof(real)), 0, 2);
}

/* The same for the four gates of a unit. */
static ALWAYS_INLINE void FN(gates_soon)(const real *gates, int64_t H, int64_t n)
{
    UNROLL for (int gate = 0; gate < 4; gate++) FN(soon)(gates + gate * H, n);
}

static ALWAYS_INLINE real *FN(at)(const struct fastrnn_sequence *s, int64_t t, int64_t b)
{
    return (real *)s->data + t * s->step_t + b * s->step_b;
}

/* Loads and stores of units [unit, H): of the last vector only the lanes that are there. */
static ALWAYS_INLINE int FN(lanes)(int64_t unit, int64_t H) { return H - unit < W ? (int)(H - unit) : W; }

static ALWAYS_INLINE vec FN(load_lanes)(const real *p, int n) { return n == W ? vload(p) : vload_n(p, n); }

static ALWAYS_INLINE void FN(store_lanes)(real *p, vec a, int n)
{
    if (n == W)
        vstore(p, a);
    else
        vstore_n(p, a, n);
}

/* Rows of the tape. */
static ALWAYS_INLINE real *FN(tape_row)(const struct fastrnn_layer *a, void *tape, int64_t t, int64_t b,
                                        int64_t n)
{
    return (real *)tape + ((t < a->tape_steps ? t : t % a->tape_steps) * a->B + b) * n;
}

/* Row `row` of a (B, n) array that may be NULL. */
static ALWAYS_INLINE const real *FN(row_of)(const void *array, int64_t row, int64_t n)
{
    return array ? (const real *)array + row * n : NULL;
}

/* The step whose state row b has before step t; -1 where that is the initial state. */
static ALWAYS_INLINE int64_t FN(step_before)(const struct fastrnn_layer *a, int64_t t, int64_t b)
{
    const int64_t length = a->lengths ? a->lengths[b] : a->T, earlier = a->reverse ? t + 1 : t - 1;
    return earlier < length ? earlier : -1;
}

static ALWAYS_INLINE int FN(restarts)(const struct fastrnn_layer *a, int64_t t, int64_t b)
{
    return a->restart && a->restart[t * a->B + b];
}

/* The state before step t of row b. */
static ALWAYS_INLINE const real *FN(h_before)(const struct fastrnn_layer *a, const real *zeros, int64_t t,
                                              int64_t b)
{
    const int64_t from = FN(step_before)(a, t, b);
    const real *h = from < 0 ? FN(row_of)(a->h_0, b, a->P) : FN(at)(&a->output, from, b);
    return h && !FN(restarts)(a, t, b) ? h : zeros;
}

static ALWAYS_INLINE const real *FN(c_before)(const struct fastrnn_layer *a, const real *zeros, int64_t t,
                                              int64_t b)
{
    const int64_t from = FN(step_before)(a, t, b);
    const real *c = from < 0 ? FN(row_of)(a->c_0, b, a->H) : FN(tape_row)(a, a->c, from, b, a->H);
    return c && !FN(restarts)(a, t, b) ? c : zeros;
}

/* d_output_t of a row, or NULL: zeros. */
static ALWAYS_INLINE const real *FN(d_output)(const struct fastrnn_layer *a, int64_t t, int64_t b)
{
    return a->d_output.data ? FN(at)(&a->d_output, t, b) : NULL;
}

/* carry + d_output, from unit j on. */
static ALWAYS_INLINE vec FN(d_state)(const real *carry, const real *d_output, int64_t j, int n)
{
    return vadd(vload(carry + j), d_output ? FN(load_lanes)(d_output + j, n) : vzero());
}

/* The one product of a step of one row, with panels of nv vectors. */
static ALWAYS_INLINE void FN(row_step)(const int nv, struct FN(step) *s, FN(finish_panel) *finish_panel,
                                       FN(finish) *finish)
{
    FN(row_product)(nv, (struct FN(factor)){s->x ? *s->x : NULL, &s->w->x[0]},
                    (struct FN(factor)){s->h_before[0], &s->w->h[0]}, s->downwards, s->x ? s->w->bias : s->z,
                    finish_panel, finish, s);
}

/* On to the next step of the same rows; 0 if there is none. */
static ALWAYS_INLINE int FN(next_step)(struct FN(step) *s)
{
    if (s->x)
        s->x += s->active;
    else
        s->z += s->active * s->w->width;
    if (--s->count == 0)
        return 0;
    real *const *const h = (real *const *)s->h_before;
    s->h_before = (const real *const *)s->h;
    s->h = h;
    s->downwards = !s->downwards;
    s->t += s->a->reverse ? -1 : 1;
    for (int64_t row = 0; row < s->active; row++)
        s->output[row] += s->staged && (row == 0 || row == s->active - 1) ? s->staged : s->ahead.output;
    return 1;
}
