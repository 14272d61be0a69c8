/* A cell is a value: the `struct cell` at the end of its file in cells/ says all that the drivers ask of it. Here
 * is that struct, with what the cells' files share: packed weights, one step forward, one step of backpropagation.
 */
#ifndef FASTRNN_CELL_COMMON
#define FASTRNN_CELL_COMMON
/* Where the gates of a product lie in a row of pre-activations. Its columns come in groups: W units of each slot in
 * turn. The product with x fills the first slots and that with h the last ones; where they overlap, both have the same
 * gates and enter one sum. */
struct gate_layout {
    int slots, x_gates, h_gates;
    int x[4], h[4]; /* the gate of each of its slots */
};
#endif

/* Which weights are meant: those of the input projection, with the biases; the others. */
enum { FN(input_weights) = 1, FN(state_weights) = 2, FN(all_weights) = 3 };

/* Packed weights. A row of pre-activations is `width` long and begins as `bias`; product i takes up columns at[i]
 * and on of it. */
struct FN(weights) {
    int64_t at[2], width;
    struct FN(matrix) x[2], h[2];
    real *bias;
    struct FN(matrix) extra[FASTRNN_MAX_EXTRA]; /* of rank 1: `packed` holds rows of H, stride(H) apart */
    int unpacked;  /* which matrices are not packed before they are multiplied; */
    int64_t panel; /* each thread then has room for this much of one */
};

/* The units that a thread makes, of all or of some rows: of the P of h, and of the H of c. */
struct FN(share) {
    int64_t begin, end, c_begin, c_end;
};

/* The tape: all steps, or those that are being recomputed: then step t is at t % steps. */
struct FN(tape) {
    real *gates, *c; /* NULL: not kept */
    int64_t steps, B, H, width; /* width: of a row of gates */
    const int64_t *times;       /* as the caller's; NULL: t is its own place */
};

/* How far ahead to prefetch, in reals. What a step reads and writes of the tape, output and d_output lies in many
 * places of a large memory, which the processor does not foresee: so each step asks for what the next one needs. */
struct FN(distance) {
    int64_t gates, c, output, d_output;
};

/* One step of a thread's active rows, or several, so that what they have in common is done once. */
struct FN(step) {
    const struct fastrnn_direction *a;
    const struct FN(cell) *cell;
    const struct FN(weights) *w;
    struct FN(tape) tape;
    struct FN(distance) distance;
    int64_t active, t, count; /* count: steps from t on */
    int64_t staged;           /* how far apart staged outputs of the first and the last row are; 0: not staged */
    const int64_t *rows;      /* their places in the batch */
    const struct team *others; /* who makes the other units of these rows; NULL: nobody */
    int reversed;
    real *z;                     /* (active) rows of pre-activations, with the input projection in them; */
    const real *const *x;        /* or if not NULL, one row: the input projection is made from one of these a step */
    const real *const *h_before; /* rows of h_{t-1} and of h_t, padded to whole vectors */
    real *const *h;
    real *c;                   /* rows of c, stride(H) apart, in place */
    real *const *intermediate; /* rows of H, padded: what the second product of a step multiplies */
    real **output;             /* rows of output_t, P reals */
};

/* The state before a start: rows of h, and h and c where the state is zero. */
struct FN(start) {
    const real *h_0; /* (B) rows, `stride` apart; or NULL */
    int64_t stride;
    const real *h, *c;
};

/* One step of backpropagation. A row of dz begins with dz as x meets it, in the order of w_ih; behind it is what else
 * the weight gradients need. */
struct FN(back_step) {
    const struct fastrnn_direction *a;
    const struct FN(cell) *cell;
    const struct FN(weights) *w; /* here: as they are, not transposed */
    struct FN(tape) tape;
    struct FN(distance) distance;
    int64_t active, t;
    const int64_t *rows;
    struct FN(share) share;    /* the units that are made here */
    const struct team *others; /* as in struct step */
    int reversed, last;       /* last: nobody asks for the gradient of the state before */
    real *const *dz;          /* (active) rows */
    real *carry_h, *carry_c;  /* rows of P and of H, from the later steps to the earlier ones */
    real *intermediate;       /* (active) rows of H in scratch */
    const real **operands;    /* (active) pointers, for products */
    struct FN(start) start;
};

struct FN(cell) {
    struct fastrnn_cell facts;
    int products; /* with h in a step, 1 or 2: the second one takes rows that the first has made */
    struct gate_layout layout[2];
    int overwrites; /* a step writes over its pre-activations */
    /* Whether a step of one row can make its input projection too, see struct step; NULL: never. */
    int (*takes_x)(const struct fastrnn_direction *a);
    void (*step)(struct FN(step) *s);
    void (*back_step)(const struct FN(back_step) *s);
    enum nonlinearity f;        /* of the cells that have one */
    FN(epilogue) *epilogue;     /* for plain_step */
    /* Of a cell whose state is c alone: h of n units; and the gradient of the state of active row i, of H units. */
    void (*h_of_c)(const struct FN(cell) *cell, const real *c, real *h, int64_t n);
    void (*d_c)(const struct FN(back_step) *s, int64_t i, real *d_c);
    /* Reals of a row of dz, and where in it the row lies that the second product of a step multiplies; or, of a row of
     * the tape's gates, if it is on the tape. */
    int64_t (*dz_stride)(const struct fastrnn_direction *a);
    int64_t (*intermediate_at)(const struct fastrnn_direction *a);
    int intermediate_on_tape;
    /* The weight gradients: returns how many sources it has written, at most MAX_SOURCES. */
    int (*sources)(const struct fastrnn_direction *a, struct FN(source) *sources);
};

static ALWAYS_INLINE struct FN(share) FN(all_units)(const struct fastrnn_direction *a)
{
    return (struct FN(share)){0, a->P, 0, a->H};
}

/* Before a product of what all threads have made: waits for those that have other units of the same rows. */
static ALWAYS_INLINE void FN(await_units)(const struct team *others)
{
    if (others)
        team_barrier(others);
}

/* Whether a step has a second product, of rows of H that its first part makes. */
static int FN(has_intermediate)(const struct fastrnn_direction *a, const struct FN(cell) *cell)
{
    for (int i = 0; i < cell->facts.extras; i++)
        if (cell->facts.extra[i].rank == 2 && a->extra[i])
            return 1;
    return cell->products > 1;
}

static struct FN(tape) FN(tape)(const struct fastrnn_direction *a, const struct FN(cell) *cell)
{
    return (struct FN(tape)){a->gates, a->c, a->T, a->B, a->H, cell->facts.tape_gates * a->H, a->times};
}

/* `forward`: for steps in the order of processing; else backward. */
static struct FN(distance)
    FN(distance)(const struct fastrnn_direction *a, const struct FN(tape) *tape, int64_t output_step, int forward)
{
    const int64_t steps = forward == !a->reverse ? 1 : -1;
    return (struct FN(distance)){steps * a->B * tape->width, steps * a->B * a->H, steps * output_step,
                                 steps * a->d_output.step_t};
}

/* Asks for the cache line of p + n, wherever that is; p may be NULL. */
static ALWAYS_INLINE void FN(prefetch)(const real *p, int64_t n)
{
    __builtin_prefetch((const char *)((uintptr_t)p + (uintptr_t)n * sizeof(real)), 0, 2);
}

/* The same for the four gates of a unit. */
static ALWAYS_INLINE void FN(prefetch_gates)(const real *gates, int64_t H, int64_t n)
{
    UNROLL for (int gate = 0; gate < 4; gate++) FN(prefetch)(gates + gate * H, n);
}

static ALWAYS_INLINE real *FN(at)(const struct fastrnn_sequence *s, int64_t t, int64_t b)
{
    return (real *)s->data + t * s->step_t + b * s->step_b;
}

/* The t that step t of row b has in the caller's sequences. With a mask the steps that count are a row's first ones, and
 * all is as with lengths but for that place. */
static ALWAYS_INLINE int64_t FN(caller_t)(const struct fastrnn_direction *a, int64_t t, int64_t b)
{
    return a->times ? a->times[t * a->B + b] : t;
}

/* Row b of step t in one of them. */
static ALWAYS_INLINE real *FN(row_at)(const struct fastrnn_direction *a, const struct fastrnn_sequence *s, int64_t t,
                                      int64_t b)
{
    return FN(at)(s, FN(caller_t)(a, t, b), b);
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

/* Row b of step t on the tape. */
static ALWAYS_INLINE int64_t FN(tape_row)(const struct FN(tape) *tape, int64_t t, int64_t b)
{
    const int64_t place = tape->times ? tape->times[t * tape->B + b] : t < tape->steps ? t : t % tape->steps;
    return place * tape->B + b;
}

static ALWAYS_INLINE real *FN(gates_row)(const struct FN(tape) *tape, int64_t t, int64_t b)
{
    return tape->gates + FN(tape_row)(tape, t, b) * tape->width;
}

static ALWAYS_INLINE real *FN(c_row)(const struct FN(tape) *tape, int64_t t, int64_t b)
{
    return tape->c + FN(tape_row)(tape, t, b) * tape->H;
}

/* Row `row` of a (B, n) array that may be NULL. */
static ALWAYS_INLINE const real *FN(row_of)(const void *array, int64_t row, int64_t n)
{
    return array ? (const real *)array + row * n : NULL;
}

/* The step whose state row b has before step t; -1 where that is the initial state. */
static ALWAYS_INLINE int64_t FN(step_before)(const struct fastrnn_direction *a, int64_t t, int64_t b)
{
    const int64_t length = a->lengths ? a->lengths[b] : a->T, earlier = a->reverse ? t + 1 : t - 1;
    return earlier < length ? earlier : -1;
}

static ALWAYS_INLINE int FN(restarts)(const struct fastrnn_direction *a, int64_t t, int64_t b)
{
    return a->restart && a->restart[FN(caller_t)(a, t, b) * a->B + b];
}

/* The state before step t of row b. */
static ALWAYS_INLINE const real *FN(h_before)(const struct fastrnn_direction *a, const struct FN(start) *start,
                                              int64_t t, int64_t b)
{
    const int64_t from = FN(step_before)(a, t, b);
    const real *h = from < 0 ? FN(row_of)(start->h_0, b, start->stride) : FN(row_at)(a, &a->output, from, b);
    return h && !FN(restarts)(a, t, b) ? h : start->h;
}

static ALWAYS_INLINE const real *FN(c_before)(const struct fastrnn_direction *a, const struct FN(tape) *tape,
                                              const struct FN(start) *start, int64_t t, int64_t b)
{
    const int64_t from = FN(step_before)(a, t, b);
    const real *c = from < 0 ? FN(row_of)(a->c_0, b, a->H) : FN(c_row)(tape, from, b);
    return c && !FN(restarts)(a, t, b) ? c : start->c;
}

/* d_output_t of a row, or NULL: zeros. */
static ALWAYS_INLINE const real *FN(d_output)(const struct fastrnn_direction *a, int64_t t, int64_t b)
{
    return a->d_output.data ? FN(row_at)(a, &a->d_output, t, b) : NULL;
}

/* carry + d_output, from unit j on. */
static ALWAYS_INLINE vec FN(d_state)(const real *carry, const real *d_output, int64_t j, int n)
{
    return vadd(vload(carry + j), d_output ? FN(load_lanes)(d_output + j, n) : vzero());
}

/* A step of one row, of weights that are not packed: each panel's product with x and then with h. */
static NOINLINE void FN(step_of_units)(struct FN(step) *s, FN(epilogue) *epilogue)
{
    real tile[PANEL] __attribute__((aligned(64)));
    const struct FN(matrix) *x = &s->w->x[0], *h = &s->w->h[0];
    const int64_t first = h->begin / h->panel, panels = (h->end - h->begin + h->panel - 1) / h->panel;
    for (int64_t i = 0; i < panels; i++) {
        const int64_t p = first + (s->reversed ? panels - 1 - i : i), col = p * h->panel, at = p * h->spread;
        const int width = FN(panel_width)(col, h->N, h->panel), units = width / h->slots;
        real *const z = s->z + at;
        memcpy(z, s->w->bias + at, (size_t)(h->spread * width / h->panel) * sizeof(real)); /* x may not fill it */
        real *const of_x = z + x->slot * units;
        FN(panel_of_units)(x, p * x->panel, s->x[0], of_x, of_x);
        FN(panel_of_units)(h, col, s->h_before[0], z + h->slot * units, tile);
        epilogue(s, 0, 1, col, tile);
    }
}

/* The one product of a step of one row, with panels of nv vectors of the row's `slots`. */
static ALWAYS_INLINE void FN(step_of_row)(const int nv, const int slots, struct FN(step) *s,
                                          FN(panel_epilogue) *panel_epilogue, FN(epilogue) *epilogue)
{
    if (s->w->h[0].source.w && s->x) { /* not packed */
        FN(step_of_units)(s, epilogue);
        return;
    }
    if (s->w->h[0].source.w) {
        FN(gemm)(s->h_before, 1, &s->w->h[0], s->reversed, s->z, 0, NULL, 0, epilogue, s);
        return;
    }
    FN(gemv)(nv, slots, (struct FN(operand)){s->x ? *s->x : NULL, &s->w->x[0]},
             (struct FN(operand)){s->h_before[0], &s->w->h[0]}, s->reversed, s->x ? s->w->bias : s->z, panel_epilogue,
             epilogue, s);
}

/* Product i of a step of several rows. */
static ALWAYS_INLINE void FN(step_of_rows)(const int i, struct FN(step) *s, const real *const *rows,
                                           FN(epilogue) *epilogue)
{
    FN(gemm)(rows, s->active, &s->w->h[i], s->reversed, s->z + s->w->at[i], s->w->width, NULL, 0, epilogue, s);
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
    s->reversed = !s->reversed;
    s->t += s->a->reverse ? -1 : 1;
    for (int64_t row = 0; row < s->active; row++)
        s->output[row] += s->staged && (row == 0 || row == s->active - 1) ? s->staged : s->distance.output;
    return 1;
}

static ALWAYS_INLINE void FN(finish_panel)(void *step, int64_t col, const vec *sums)
{
    struct FN(step) *const s = step;
    real tile[PANEL] __attribute__((aligned(64)));
    FN(store_panel)(tile, 0, sums);
    s->cell->epilogue(s, 0, 1, col, tile);
}

/* The step of a cell of one product with one gate, whose epilogue does the rest, of one row too: there it costs a few
 * per cent to store the sums, and saves a product of the cell's own, which is most of a cell's code. */
static inline void FN(plain_step)(struct FN(step) *s)
{
    do {
        if (s->active == 1)
            FN(step_of_row)(NV, NV, s, FN(finish_panel), s->cell->epilogue);
        else
            FN(step_of_rows)(0, s, s->h_before, s->cell->epilogue);
    } while (FN(next_step)(s));
}

/* The gradient of the state before: rows times matrix i, from the carry that is there or from zeros. */
static ALWAYS_INLINE void FN(carry_back)(const struct FN(back_step) *s, const real *const *rows, int keep)
{
    const int64_t stride = FN(stride)(s->a->P);
    FN(await_units)(s->others);
    if (!s->last)
        FN(gemm)(rows, s->active, &s->w->h[0], s->reversed, keep ? s->carry_h : NULL, keep ? stride : 0, s->carry_h,
                 stride, NULL, NULL);
}

static int FN(single_step)(const struct fastrnn_direction *a) { return a->T == 1; }

static int FN(always)(const struct fastrnn_direction *a)
{
    (void)a;
    return 1;
}

/* The source of both weight matrices and both biases. */
static struct FN(source) FN(source_of_both)(const struct fastrnn_direction *a, int64_t units)
{
    return (struct FN(source)){
        .units = units,
        .d_sum = {a->d_b_ih, a->d_b_hh},
        .count = 2,
        .gradients = {{.of = OF_X, .N = a->D, .d_w = a->d_w_ih}, {.of = OF_H_BEFORE, .N = a->P, .d_w = a->d_w_hh}},
    };
}
