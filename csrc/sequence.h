/* The time loop of one direction, as each thread of a team runs it; forward.h says who makes what, bptt.h goes back.
 *
 * Threads partition the rows of the batch, or have all rows and split the units. Those that have rows of their own wait
 * for nobody, except after packing and at the weight gradients. Those that split units have the states of thread 0 and
 * pre-activations of their own: each writes the units that it makes, and all wait for all before h is multiplied again
 * (recurrence), and in a step with a second product before that too (await_units).
 *
 * Time goes in blocks: the input projection of a block has no recurrence and is one product over its (t, b) pairs;
 * backward keeps dz for a block only. With lengths a thread's rows are sorted by descending length, so that at every t
 * the active ones are the first few.
 */

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

/* With lengths: the rows in the order in which threads take them. */
static uintptr_t FN(layout_order)(struct FN(job) *job, uintptr_t at)
{
    const struct fastrnn_direction *a = job->a;
    const int counting = at == 0;
    if (!a->lengths)
        return at;
    struct FN(length) *pairs = arena_take(&at, a->B, sizeof *pairs);
    int64_t *order = arena_take(&at, a->B, sizeof *order);
    job->order = order;
    if (counting)
        return at;
    for (int64_t b = 0; b < a->B; b++)
        pairs[b] = (struct FN(length)){a->lengths[b], b};
    qsort(pairs, (size_t)a->B, sizeof *pairs, FN(longer_first));
    for (int64_t b = 0; b < a->B; b++)
        order[b] = pairs[b].row;
    return at;
}

/* Writes the rows that a thread has and returns how many. */
static int64_t FN(partition_rows)(const struct FN(job) *job, const struct team *team, int64_t *rows)
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
static int64_t FN(active)(const struct fastrnn_direction *a, const int64_t *rows, int64_t n, int64_t before, int64_t t)
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

/* The t of a step, counted in the order of processing. */
static ALWAYS_INLINE int64_t FN(time_of)(const struct fastrnn_direction *a, int64_t step)
{
    return a->reverse ? a->T - 1 - step : step;
}

/* The end of the block that begins with step `begin`, of steps before `end`. */
static ALWAYS_INLINE int64_t FN(block_end)(const struct FN(job) *job, int64_t begin, int64_t end)
{
    return end - begin < job->plan.steps ? end : begin + job->plan.steps;
}

/* Which way the first step goes through the weights. Calls of a single step in a loop use the same ones: every other
 * time they go backwards, and find the last ones in the cache. */
static int FN(turn)(const struct fastrnn_direction *a)
{
    static _Thread_local int turn;
    return a->T == 1 ? turn = !turn : 0;
}

/* One thread's. Where units are split, h, c and the intermediate rows are thread 0's. */
struct FN(forward_scratch) {
    const struct FN(weights) *w;
    struct FN(share) share; /* the units that are made here */
    const struct team *others; /* who makes the other units of the same rows; NULL: nobody */
    int64_t n, *rows;          /* the rows of the batch */
    int64_t *active;           /* (steps,) active rows at each step of a block */
    const real **x;            /* (steps*n,) the rows of x in a block */
    real **state[2], **output; /* (n,) rows */
    real **intermediate;       /* (n,) rows of H, for cells with two products a step */
    real *h, *z;               /* (2*n) rows of state; (steps*n) rows of pre-activations of a block */
    real *intermediate_rows;
    real *c;                  /* (n) rows, of a cell that has it */
    real *staging;            /* (steps*2) rows of output: see write_staged */
    int64_t counted, running; /* active rows at the last step: of the input projection, of the recurrence */
    int now;                  /* which state is h_{t-1} */
    int turned;               /* steps go through the weights the other way: see turn */
    int takes_x;              /* one row: its steps make the input projection too */
    int staged;               /* whether the first and the last row go to output by write_staged */
};

static uintptr_t FN(layout_forward_scratch)(const struct FN(job) *job, uintptr_t at, struct FN(forward_scratch) *s)
{
    const struct fastrnn_direction *a = job->a;
    const struct fastrnn_plan *plan = &job->plan;
    const int64_t n = plan->rows, stride = FN(stride)(a->P), wide = FN(stride)(a->H);
    s->w = &job->w;
    s->share = FN(all_units)(a);
    s->rows = arena_take(&at, n, sizeof *s->rows);
    s->active = arena_take(&at, plan->blocks * plan->steps, sizeof *s->active);
    s->x = arena_take(&at, plan->steps * n, sizeof *s->x);
    s->state[0] = arena_take(&at, n, sizeof(real *));
    s->state[1] = arena_take(&at, n, sizeof(real *));
    s->output = arena_take(&at, n, sizeof(real *));
    s->intermediate = arena_take(&at, n, sizeof(real *));
    s->h = arena_take(&at, 2 * n * stride, sizeof(real));
    s->c = job->cell->facts.has_c ? arena_take(&at, n * wide, sizeof(real)) : NULL;
    s->intermediate_rows = job->intermediate ? arena_take(&at, n * wide, sizeof(real)) : NULL;
    s->staging = arena_take(&at, plan->steps * 2 * stride, sizeof(real));
    s->z = arena_take(&at, plan->blocks * plan->steps * n * job->w.width, sizeof(real));
    return at;
}

static struct FN(forward_scratch) FN(forward_scratch)(const struct FN(job) *job, int id)
{
    struct FN(forward_scratch) s = {.n = 0};
    FN(layout_forward_scratch)(job, job->scratch + (size_t)id * job->scratch_bytes, &s);
    return s;
}

static void FN(begin_rows)(const struct FN(job) *job, struct FN(forward_scratch) *s)
{
    const int64_t stride = FN(stride)(job->a->P);
    for (int64_t row = 0; row < s->n; row++) {
        s->state[0][row] = s->h + row * stride;
        s->state[1][row] = s->h + (s->n + row) * stride;
        s->intermediate[row] = s->intermediate_rows ? s->intermediate_rows + row * FN(stride)(job->a->H) : NULL;
    }
}

/* Pre-activations of `pairs` rows: the products with x, from the bias. Slots that no product fills get their bias, and
 * with that what x holds for them. */
static void FN(input_products)(const struct FN(job) *job, const struct FN(forward_scratch) *s, const real *const *x,
                               int64_t pairs, real *z)
{
    const struct FN(weights) *w = s->w;
    const int given = job->a->given;
    for (int i = 0; i < job->cell->products; i++) {
        const struct gate_layout *layout = &job->cell->layout[i];
        const int64_t at = w->at[i], H = job->a->H;
        if (!given)
            FN(gemm)(x, pairs, &w->x[i], 0, w->bias + at, 0, z + at, w->width, NULL, NULL);
        for (int slot = given ? 0 : layout->x_gates; slot < layout->slots; slot++)
            for (int64_t row = 0; row < pairs; row++) {
                const real *from = slot < layout->x_gates ? x[row] + layout->x[slot] * H : NULL;
                for (int64_t j = s->share.c_begin; j < s->share.c_end; j += W) {
                    const int64_t column = at + FN(column)(layout->slots, slot, j, H);
                    vec start = vload(w->bias + column);
                    if (from)
                        start = vadd(start, FN(load_lanes)(from + j, FN(lanes)(j, H)));
                    FN(store_counting)(z + row * w->width + column, start, FN(group_width)(j, H));
                }
            }
    }
}

/* The input projection of the pairs (t, b) of a block, in one of the buffers that a thread has for blocks. */
static void FN(input_projection)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t begin, int64_t end,
                                 int64_t buffer)
{
    const struct fastrnn_direction *a = job->a;
    int64_t *const active = s->active + buffer * job->plan.steps, pairs = 0;
    for (int64_t step = begin; step < end; step++) {
        const int64_t t = FN(time_of)(a, step);
        active[step - begin] = s->counted = FN(active)(a, s->rows, s->n, s->counted, t);
        for (int64_t row = 0; row < s->counted; row++)
            s->x[pairs++] = FN(row_at)(a, &a->x, t, s->rows[row]);
    }
    if (!s->takes_x)
        FN(input_products)(job, s, s->x, pairs, s->z + buffer * job->plan.steps * s->n * job->w.width);
}

/* Where the c of a short tape has row b after `steps` steps. */
static ALWAYS_INLINE real *FN(checkpoint_row)(const struct fastrnn_direction *a, int64_t steps, int64_t b)
{
    return (real *)a->c + ((steps / a->checkpoint - 1) * a->B + b) * a->H;
}

/* After `steps` steps. */
static void FN(write_checkpoint)(const struct FN(forward_scratch) *s, const struct fastrnn_direction *a, int64_t steps)
{
    const int64_t wide = FN(stride)(a->H);
    for (int64_t row = 0; row < s->n; row++)
        FN(copy_or_zero)(FN(checkpoint_row)(a, steps, s->rows[row]) + s->share.c_begin,
                         row < s->running ? s->c + row * wide + s->share.c_begin : NULL,
                         s->share.c_end - s->share.c_begin);
}

/* A row's state, of the units that are made here: from rows of h and c, or NULL: zeros. */
static ALWAYS_INLINE void FN(set_state)(const struct FN(job) *job, const struct FN(forward_scratch) *s, int64_t row,
                                        const real *h, const real *c)
{
    const struct FN(share) *share = &s->share;
    const int64_t units = share->c_end - share->c_begin;
    real *const to_h = s->state[s->now][row] + share->begin;
    real *const to_c = s->c ? s->c + row * FN(stride)(job->a->H) + share->c_begin : NULL;
    if (s->c)
        FN(copy_or_zero)(to_c, c ? c + share->c_begin : NULL, units);
    if (job->cell->h_of_c) /* a unit of c is one of h */
        job->cell->h_of_c(job->cell, to_c, to_h, units);
    else
        FN(copy_or_zero)(to_h, h ? h + share->begin : NULL, share->end - share->begin);
}

/* The rows that become active begin with their initial state. */
static ALWAYS_INLINE void FN(start_rows)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t active)
{
    const struct fastrnn_direction *a = job->a;
    for (int64_t row = s->running; row < active; row++)
        FN(set_state)(job, s, row, FN(row_of)(a->h_0, s->rows[row], a->P), FN(row_of)(a->c_0, s->rows[row], a->H));
    s->running = active;
}

static ALWAYS_INLINE void FN(clear_restarted)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t t)
{
    const struct fastrnn_direction *a = job->a;
    for (int64_t row = 0; a->restart && row < s->running; row++)
        if (FN(restarts)(a, t, s->rows[row]))
            FN(set_state)(job, s, row, NULL, NULL);
}

/* Output and tape are zero in padding, and in steps that do not count. */
static ALWAYS_INLINE void FN(clear_inactive)(const struct FN(job) *job, const struct FN(forward_scratch) *s, int64_t t)
{
    const struct FN(tape) *tape = &job->tape;
    if (s->share.begin) /* another thread has the same rows */
        return;
    for (int64_t row = s->running; row < s->n; row++) {
        FN(copy_or_zero)(s->output[row], NULL, job->a->P);
        if (!tape->gates)
            continue;
        FN(copy_or_zero)(FN(gates_row)(tape, t, s->rows[row]), NULL, tape->width);
        if (tape->c)
            FN(copy_or_zero)(FN(c_row)(tape, t, s->rows[row]), NULL, tape->H);
    }
}

/* Where step i of a block, at t, writes its output. */
static ALWAYS_INLINE void FN(point_outputs)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t i,
                                            int64_t t)
{
    for (int64_t row = 0; row < s->n; row++) {
        const int staged = s->staged && (row == 0 || row == s->n - 1);
        s->output[row] = staged ? s->staging + (i * 2 + (row > 0)) * FN(stride)(job->a->P)
                                : FN(row_at)(job->a, &job->output, t, s->rows[row]);
    }
}

/* The state and the output of the steps of a block. */
static void FN(recurrence)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t begin, int64_t end,
                           int64_t buffer)
{
    const struct fastrnn_direction *a = job->a;
    struct FN(step) step = {.a = a, .cell = job->cell, .w = s->w, .tape = job->tape, .rows = s->rows, .c = s->c};
    step.others = s->others;
    step.intermediate = s->intermediate;
    step.output = s->output;
    step.distance = FN(distance)(a, &job->tape, job->output.step_t, 1);
    step.staged = s->staged ? 2 * FN(stride)(a->P) : 0;
    step.z = s->z + buffer * job->plan.steps * s->n * job->w.width;
    step.x = s->takes_x ? (const real *const *)s->x : NULL;
    const int checkpoints = a->checkpoint && job->tape.c && !job->tape.gates;
    const int apart = s->others || a->lengths || a->restart || checkpoints; /* something is done between steps */
    for (int64_t i = 0, count; i < end - begin; i += count) {
        const int64_t t = FN(time_of)(a, begin + i);
        FN(start_rows)(job, s, s->active[buffer * job->plan.steps + i]);
        FN(point_outputs)(job, s, i, t);
        FN(clear_inactive)(job, s, t);
        FN(clear_restarted)(job, s, t);
        if (s->others)
            team_barrier(s->others); /* the state before is complete, and the one before that is free */
        count = apart ? 1 : end - begin - i;
        step.active = s->running;
        step.t = t;
        step.count = count;
        step.reversed = s->now ^ s->turned;
        step.h_before = (const real *const *)s->state[s->now];
        step.h = s->state[!s->now];
        job->cell->step(&step);
        s->now ^= count & 1;
        if (checkpoints && (begin + i + count) % a->checkpoint == 0 && begin + i + count < a->T)
            FN(write_checkpoint)(s, a, begin + i + count);
    }
}

/* Copies the staged states of the first and the last row to output. They share cache lines there with rows of
 * other threads, at every step: were these written as they are made, the lines would go to and fro between the
 * processors all the time. Of two neighbours one begins at the block's end. (With lengths the rows lie
 * anywhere, and there was no gain.) */
static void FN(write_staged)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t begin, int64_t end,
                             int reversed)
{
    const struct fastrnn_direction *a = job->a;
    const int64_t P = a->P, steps = end - begin;
    for (int64_t count = 0; count < steps; count++) {
        const int64_t i = reversed ? steps - 1 - count : count, t = FN(time_of)(a, begin + i);
        for (int64_t row = 0; row < s->n; row += s->n > 1 ? s->n - 1 : 1) {
            const real *from = s->staging + (i * 2 + (row > 0)) * FN(stride)(P);
            real *to = FN(at)(&job->output, t, s->rows[row]);
            for (int64_t j = 0; j < P; j += W)
                FN(store_lanes)(to + j, vload(from + j), FN(lanes)(j, P));
        }
    }
}

/* The final state. */
static void FN(end_rows)(const struct FN(job) *job, struct FN(forward_scratch) *s)
{
    const struct fastrnn_direction *a = job->a;
    const int64_t P = a->P, H = a->H, begin = s->share.begin, c_begin = s->share.c_begin;
    for (int64_t row = 0; row < s->n; row++) {
        const int64_t b = s->rows[row], length = a->lengths ? a->lengths[b] : a->T;
        const real *h = FN(row_of)(a->h_0, b, P), *c = FN(row_of)(a->c_0, b, H);
        if (length > 0) {
            h = FN(row_at)(a, &job->output, a->reverse ? 0 : length - 1, b);
            c = s->c ? s->c + row * FN(stride)(H) : NULL;
        }
        if (a->h_n && h != (const real *)a->h_n + b * P)
            FN(copy_or_zero)((real *)a->h_n + b * P + begin, h ? h + begin : NULL, s->share.end - begin);
        if (s->c && c != (const real *)a->c_n + b * H)
            FN(copy_or_zero)((real *)a->c_n + b * H + c_begin, c ? c + c_begin : NULL, s->share.c_end - c_begin);
    }
}
