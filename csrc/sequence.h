/* The time loop of one layer in one direction, as each member of a team runs it; forward.h says who makes what,
 * bptt.h goes back.
 *
 * Members own rows of the batch and, but for packing the weights and the weight gradients, wait for
 * nobody; few rows are shared, and members own units instead. Time goes in blocks: the input part of a
 * block has no recurrence and is one product over its (t, b) pairs; backward keeps dz for a block only.
 * With lengths a member's rows are sorted by descending length, so that at every t the active ones are
 * the first few.
 */

static const int64_t FN(block) = 1 << 17; /* bytes of pre-activations in a block: half a small L2 */
static const double FN(block_flops) = 1e9; /* most operations in a block of backward */

struct FN(job) {
    const struct fastrnn_layer *a;
    double flops; /* that members share, */
    int64_t most; /* of whom there is work for so many */
    struct FN(weights) w;
    const int64_t *order; /* with lengths: the rows by descending length; else NULL */
    int64_t most_rows;    /* of one member */
    int sharers;          /* most members for whom sharing the units of a step pays */
    int64_t steps;        /* time steps in a block */
    int64_t blocks;       /* of pre-activations that a member of forward holds */
    uintptr_t members;    /* their scratch, each of member_bytes */
    size_t member_bytes;
    struct stop *stop;
    _Alignas(64) struct count made; /* blocks of a fed forward */
    _Alignas(64) struct count used;
    /* backward, shared by the team */
    struct FN(again) *again; /* with a short tape; else NULL */
    real *ring; /* row s*B + b (s counts steps in processing order) at row (s*B + b) % ring_rows */
    int64_t ring_rows, ring_stride;
    real *packed[3]; /* (chunk, N) of a weight gradient each */
    real *zeros;     /* (H,): the state before a start */
};

struct FN(length) {
    int64_t length, row;
};

static int FN(longer_first)(const void *a, const void *b)
{
    const struct FN(length) *p = a, *q = b;
    if (p->length != q->length)
        return p->length > q->length ? -1 : 1;
    return p->row < q->row ? -1 : 1;
}

static void FN(sort_by_length)(const int64_t *lengths, int64_t B, struct FN(length) *pairs, int64_t *order)
{
    for (int64_t b = 0; b < B; b++)
        pairs[b] = (struct FN(length)){lengths[b], b};
    qsort(pairs, (size_t)B, sizeof *pairs, FN(longer_first));
    for (int64_t b = 0; b < B; b++)
        order[b] = pairs[b].row;
}

/* Writes the rows that a member owns and returns how many. */
static int64_t FN(deal)(const struct FN(job) *job, const struct team *team, int64_t *rows)
{
    const int64_t B = job->a->B;
    int64_t n = 0;
    if (job->order)
        for (int64_t i = team->id; i < B; i += team->n)
            rows[n++] = job->order[i];
    else
        for (int64_t b = B * team->id / team->n; b < B * (team->id + 1) / team->n; b++)
            rows[n++] = b;
    return n;
}

/* Of rows[0 ... n), which descend in length, how many are active at t; `before` is the last answer. */
static int64_t FN(active)(const struct fastrnn_layer *a, const int64_t *rows, int64_t n, int64_t before,
                          int64_t t)
{
    if (!a->lengths)
        return n;
    while (before > 0 && a->lengths[rows[before - 1]] <= t)
        before--;
    while (before < n && a->lengths[rows[before]] > t)
        before++;
    return before;
}

static ALWAYS_INLINE void FN(copy_or_zero)(real *dst, const real *src, int64_t n)
{
    if (src)
        memcpy(dst, src, (size_t)n * sizeof(real));
    else
        memset(dst, 0, (size_t)n * sizeof(real));
}

static double FN(flops)(const struct fastrnn_layer *a)
{
    const double units = (double)a->H * gates_of(a->cell);
    return 2.0 * (double)a->T * (double)a->B *
           (units * (double)(a->D + a->P) + (a->w_hr ? (double)a->H * (double)a->P : 0));
}

static int64_t FN(clamp)(int64_t n, int64_t least, int64_t most)
{
    return n < least ? least : n > most ? most : n;
}

/* ----------------------------------------------------------------------------------------- forward */

struct FN(forward_scratch) {
    const struct FN(weights) *w;
    int64_t begin, end, c_end; /* of the P units of h and the H units of c those that are made here */
    const struct team *sharing; /* who makes the others of the same rows; NULL: nobody */
    int64_t n, *rows;          /* the rows of the batch */
    int64_t *active;           /* (steps,) active rows at each step of a block */
    const real **x;            /* (steps*n,) the rows of x in a block */
    real **state[2], **output; /* (n,) rows */
    real **between;            /* (n,) rows of H, for cells with two products a step */
    real *h, *z;               /* (2*n) rows of state; (steps*n) rows of pre-activations of a block */
    real *between_rows;
    real *c;                   /* LSTM: (n) rows */
    real *staging;             /* (steps*2) rows of output: see write_block */
    int64_t counted, running;  /* active rows at the last step: of the input part, of the recurrence */
    int now;                   /* which state is h_{t-1} */
    int fused;                 /* one row: its steps make the input part too */
    int staged;                /* whether the first and the last row go to output by write_block */
};

static uintptr_t FN(carve_forward)(const struct FN(job) *job, uintptr_t at, struct FN(forward_scratch) *s)
{
    const struct fastrnn_layer *a = job->a;
    const int64_t n = job->most_rows, stride = FN(stride)(a->P), wide = FN(stride)(a->H);
    const int second = a->w_hr || a->cell == FASTRNN_GRU_RESET_FIRST;
    s->w = &job->w;
    s->end = a->P;
    s->c_end = a->H;
    s->rows = carve(&at, n, sizeof *s->rows);
    s->active = carve(&at, job->blocks * job->steps, sizeof *s->active);
    s->x = carve(&at, job->steps * n, sizeof *s->x);
    s->state[0] = carve(&at, n, sizeof(real *));
    s->state[1] = carve(&at, n, sizeof(real *));
    s->output = carve(&at, n, sizeof(real *));
    s->between = carve(&at, n, sizeof(real *));
    s->h = carve(&at, 2 * n * stride, sizeof(real));
    s->c = a->cell == FASTRNN_LSTM ? carve(&at, n * wide, sizeof(real)) : NULL;
    s->between_rows = second ? carve(&at, n * wide, sizeof(real)) : NULL;
    s->staging = carve(&at, job->steps * 2 * stride, sizeof(real));
    s->z = carve(&at, job->blocks * job->steps * n * job->w.width, sizeof(real));
    return at;
}

static struct FN(forward_scratch) FN(forward_scratch)(const struct FN(job) *job, int id)
{
    struct FN(forward_scratch) s = {.n = 0};
    FN(carve_forward)(job, job->members + (size_t)id * job->member_bytes, &s);
    return s;
}

static void FN(begin_rows)(const struct FN(job) *job, struct FN(forward_scratch) *s)
{
    const int64_t stride = FN(stride)(job->a->P);
    for (int64_t row = 0; row < s->n; row++) {
        s->state[0][row] = s->h + row * stride;
        s->state[1][row] = s->h + (s->n + row) * stride;
        s->between[row] = s->between_rows ? s->between_rows + row * FN(stride)(job->a->H) : NULL;
    }
}

/* The t of a step, counted in the order of processing. */
static ALWAYS_INLINE int64_t FN(time_of)(const struct fastrnn_layer *a, int64_t step)
{
    return a->reverse ? a->T - 1 - step : step;
}

/* The end of the block that begins with step `begin`, of steps before `end`. */
static ALWAYS_INLINE int64_t FN(block_end)(const struct FN(job) *job, int64_t begin, int64_t end)
{
    return end - begin < job->steps ? end : begin + job->steps;
}

/* Pre-activations of `pairs` rows, from the bias: the products with x. Where a GRU's W_hn h has columns of its
 * own these begin as b_hn. */
static void FN(input_products)(const struct FN(job) *job, const struct FN(forward_scratch) *s,
                               const real *const *x, int64_t pairs, real *z)
{
    const struct FN(weights) *w = s->w;
    for (int i = 0; i < w->x_count; i++)
        FN(product)(x, pairs, &w->x[i], 0, w->bias + w->x_at[i], 0, z + w->x_at[i], w->width, NULL, NULL);
    if (job->a->cell == FASTRNN_GRU)
        for (int64_t row = 0; row < pairs; row++)
            for (int64_t j = s->begin; j < s->end; j += W) {
                const int64_t at = FN(column)(FN(gru_slots), FN(gru_slots) - 1, j, job->a->H);
                FN(store_counting)(z + row * w->width + at, vload(w->bias + at), FN(group_width)(j, job->a->H));
            }
}

/* The input part of the pairs (t, b) of a block, which lies in slot `slot` of those that a member holds. */
static void FN(input_part)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t begin, int64_t end,
                           int64_t slot)
{
    const struct fastrnn_layer *a = job->a;
    int64_t *const active = s->active + slot * job->steps, pairs = 0;
    for (int64_t step = begin; step < end; step++) {
        const int64_t t = FN(time_of)(a, step);
        active[step - begin] = s->counted = FN(active)(a, s->rows, s->n, s->counted, t);
        for (int64_t row = 0; row < s->counted; row++)
            s->x[pairs++] = FN(at)(&a->x, t, s->rows[row]);
    }
    if (!s->fused)
        FN(input_products)(job, s, s->x, pairs, s->z + slot * job->steps * s->n * job->w.width);
}

/* One row, full panels, and an input part so small that to store it and to load it again would take as long; a step
 * then reads its weights again, which stay in the first cache or not far from it. (An Elman cell gains nothing.) */
static int FN(is_fused)(const struct FN(job) *job, int64_t rows)
{
    const struct fastrnn_layer *a = job->a;
    const struct FN(matrix) *x = &job->w.x[0];
    const int by_rows = (a->cell == FASTRNN_LSTM && !a->w_peep) || a->cell == FASTRNN_GRU;
    const int64_t row = x->N * (int64_t)sizeof(real);
    return rows == 1 && by_rows && x->N % x->panel == 0 &&
           (a->T == 1 || a->D * row <= FIRST_CACHE / 8);
}

/* Where the c of a short tape has row b after `steps` steps. */
static ALWAYS_INLINE real *FN(checkpoint_row)(const struct fastrnn_layer *a, void *c, int64_t steps, int64_t b)
{
    return (real *)c + ((steps / a->checkpoint - 1) * a->B + b) * a->H;
}

/* After `steps` steps. */
static void FN(write_checkpoint)(const struct FN(forward_scratch) *s, const struct fastrnn_layer *a, int64_t steps)
{
    const int64_t wide = FN(stride)(a->H);
    for (int64_t row = 0; row < s->n; row++)
        FN(copy_or_zero)(FN(checkpoint_row)(a, a->c, steps, s->rows[row]) + s->begin,
                         row < s->running ? s->c + row * wide + s->begin : NULL, s->c_end - s->begin);
}

/* The state and the output of the steps of a block. */
static void FN(recurrence)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t begin, int64_t end,
                           int64_t slot)
{
    const struct fastrnn_layer *a = job->a;
    const int64_t H = a->H, P = a->P, wide = FN(stride)(H);
    struct FN(step) step = {.a = a, .w = s->w, .rows = s->rows, .c = s->c, .between = s->between};
    step.output = s->output;
    step.ahead = FN(ahead)(a, 1);
    step.staged = s->staged ? 2 * FN(stride)(P) : 0;
    step.z = s->z + slot * job->steps * s->n * job->w.width;
    step.x = s->fused ? (const real *const *)s->x : NULL;
    const int checkpoints = a->c && !a->gates;
    const int apart = s->sharing || a->lengths || a->restart || checkpoints; /* something is done between steps */
    for (int64_t i = 0, count; i < end - begin; i += count) {
        const int64_t t = FN(time_of)(a, begin + i), active = s->active[slot * job->steps + i];
        real **state = s->state[s->now];
        for (int64_t row = s->running; row < active; row++) {
            const real *h_0 = FN(row_of)(a->h_0, s->rows[row], P);
            FN(copy_or_zero)(state[row] + s->begin, h_0 ? h_0 + s->begin : NULL, s->end - s->begin);
            const real *c_0 = FN(row_of)(a->c_0, s->rows[row], H);
            if (s->c)
                FN(copy_or_zero)(s->c + row * wide + s->begin, c_0 ? c_0 + s->begin : NULL,
                                 s->c_end - s->begin);
        }
        s->running = active;
        for (int64_t row = 0; row < s->n; row++) {
            const int staged = s->staged && (row == 0 || row == s->n - 1);
            s->output[row] = staged ? s->staging + (i * 2 + (row > 0)) * FN(stride)(P)
                                    : FN(at)(&a->output, t, s->rows[row]);
            if (row >= active) {
                FN(copy_or_zero)(s->output[row], NULL, P);
                if (a->gates)
                    FN(copy_or_zero)(FN(tape_row)(a, a->gates, t, s->rows[row], 4 * H), NULL, 4 * H);
                if (a->gates && a->c)
                    FN(copy_or_zero)(FN(tape_row)(a, a->c, t, s->rows[row], H), NULL, H);
            } else if (FN(restarts)(a, t, s->rows[row])) {
                FN(copy_or_zero)(state[row], NULL, P);
                if (s->c)
                    FN(copy_or_zero)(s->c + row * wide, NULL, H);
            }
        }
        if (s->sharing)
            team_barrier(s->sharing); /* the state before is complete, and the one before that is free */
        count = apart ? 1 : end - begin - i;
        step.active = active;
        step.t = t;
        step.count = count;
        step.downwards = s->now;
        step.h_before = (const real *const *)state;
        step.h = s->state[!s->now];
        switch (a->cell) {
        case FASTRNN_LSTM: FN(lstm_step)(&step); break;
        case FASTRNN_GRU: FN(gru_step)(&step); break;
        case FASTRNN_GRU_RESET_FIRST: FN(gru_reset_first_step)(&step); break;
        default: FN(rnn_step)(&step); break;
        }
        s->now ^= count & 1;
        const int64_t done = begin + i + count;
        if (checkpoints && done % a->checkpoint == 0 && done < a->T)
            FN(write_checkpoint)(s, a, done);
    }
}

/* Copies the staged states of the first and the last row to output. They share cache lines there with rows of
 * other members, at every step: were these written as they are made, the lines would go to and fro between the
 * processors all the time. Of two neighbours one begins at the block's end. (With lengths the rows lie
 * anywhere, and there was no gain.) */
static void FN(write_block)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t begin,
                            int64_t end, int downwards)
{
    const struct fastrnn_layer *a = job->a;
    const int64_t P = a->P, steps = end - begin;
    for (int64_t count = 0; count < steps; count++) {
        const int64_t i = downwards ? steps - 1 - count : count, t = FN(time_of)(a, begin + i);
        for (int64_t row = 0; row < s->n; row += s->n > 1 ? s->n - 1 : 1) {
            const real *from = s->staging + (i * 2 + (row > 0)) * FN(stride)(P);
            real *to = FN(at)(&a->output, t, s->rows[row]);
            for (int64_t j = 0; j < P; j += W)
                FN(store_lanes)(to + j, vload(from + j), FN(lanes)(j, P));
        }
    }
}

static void FN(end_rows)(const struct FN(job) *job, struct FN(forward_scratch) *s)
{
    const struct fastrnn_layer *a = job->a;
    const int64_t P = a->P, H = a->H;
    for (int64_t row = 0; row < s->n; row++) {
        const int64_t b = s->rows[row], length = a->lengths ? a->lengths[b] : a->T;
        const real *h = FN(row_of)(a->h_0, b, P), *c = FN(row_of)(a->c_0, b, H);
        if (length > 0) {
            h = FN(at)(&a->output, a->reverse ? 0 : length - 1, b);
            c = s->c ? s->c + row * FN(stride)(H) : NULL;
        }
        if (h != (const real *)a->h_n + b * P)
            FN(copy_or_zero)((real *)a->h_n + b * P + s->begin, h ? h + s->begin : NULL, s->end - s->begin);
        if (s->c && c != (const real *)a->c_n + b * H)
            FN(copy_or_zero)((real *)a->c_n + b * H + s->begin, c ? c + s->begin : NULL,
                             s->c_end - s->begin);
    }
}
