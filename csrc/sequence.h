/* The time loop and BPTT of one layer in one direction, as each member of a team runs them.
 *
 * Members own rows of the batch and, but for packing the weights and the weight gradients, wait for
 * nobody. Time goes in blocks: the input part of a block has no recurrence and is one product over its
 * (t, b) pairs; backward keeps dz for a block only. With lengths a member's rows are sorted by descending
 * length, so that at every t the active ones are the first few.
 */

static const int64_t FN(block) = 1 << 17; /* bytes of pre-activations in a block: half a small L2 */
static const double FN(block_flops) = 1e9; /* most operations in a block of backward */

struct FN(job) {
    const struct fastrnn_rnn *a;
    const int64_t *order; /* with lengths: the rows by descending length; else NULL */
    int64_t most_rows;    /* of one member */
    int64_t steps;        /* time steps in a block */
    int64_t blocks;       /* of pre-activations that a member of forward holds */
    uintptr_t members;    /* their scratch, each of member_bytes */
    size_t member_bytes;
    struct stop stop;
    struct count made, used; /* blocks of a fed forward */
    real *w_ih, *w_hh; /* packed, forward: the transposes; backward: as they are */
    real *bias;        /* forward */
    /* backward, shared by the team */
    real *dz; /* row s*B + b (s counts steps in processing order) at row (s*B + b) % dz_rows */
    int64_t dz_rows;
    real *chunk_x, *chunk_h; /* packed (chunk, D) and (chunk, H) */
    real *zeros;             /* (H,): the state before a start */
    const real **weight_rows; /* (H,) rows of a weight matrix, while it is packed */
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
static int64_t FN(active)(const struct fastrnn_rnn *a, const int64_t *rows, int64_t n, int64_t before,
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

static ALWAYS_INLINE real *FN(at)(const struct fastrnn_sequence *s, int64_t t, int64_t b)
{
    return (real *)s->data + t * s->step_t + b * s->step_b;
}

static ALWAYS_INLINE void FN(copy_or_zero)(real *dst, const real *src, int64_t n)
{
    if (src)
        memcpy(dst, src, (size_t)n * sizeof(real));
    else
        memset(dst, 0, (size_t)n * sizeof(real));
}

/* ----------------------------------------------------------------------------------------- forward */

struct FN(forward_scratch) {
    int64_t n, *rows;          /* the rows of the batch */
    int64_t *active;           /* (steps,) active rows at each step of a block */
    const real **x;            /* (steps*n,) the rows of x in a block */
    real **state[2], **output; /* (n,) rows */
    real *h, *z;               /* (2*n) rows of state; (steps*n) rows of pre-activations of a block */
    int64_t counted, running;  /* active rows at the last step: of the input part, of the recurrence */
    int now;                   /* which state is h_{t-1} */
    int staged;                /* whether the first and the last row go to output by write_block */
};

static uintptr_t FN(carve_forward)(const struct FN(job) *job, uintptr_t at, struct FN(forward_scratch) *s)
{
    const int64_t n = job->most_rows, stride = FN(stride)(job->a->H), blocks = job->blocks;
    s->rows = carve(&at, n, sizeof *s->rows);
    s->active = carve(&at, blocks * job->steps, sizeof *s->active);
    s->x = carve(&at, job->steps * n, sizeof *s->x);
    s->state[0] = carve(&at, n, sizeof(real *));
    s->state[1] = carve(&at, n, sizeof(real *));
    s->output = carve(&at, n, sizeof(real *));
    s->h = carve(&at, 2 * n * stride, sizeof(real));
    s->z = carve(&at, blocks * job->steps * n * stride, sizeof(real));
    return at;
}

static struct FN(forward_scratch) FN(forward_scratch)(const struct FN(job) *job, int id)
{
    struct FN(forward_scratch) s = {.n = 0};
    FN(carve_forward)(job, job->members + (size_t)id * job->member_bytes, &s);
    return s;
}

/* The sums of the biases, each NULL for zeros; `bias` is padded to whole vectors. */
static void FN(add_biases)(const real *b_ih, const real *b_hh, int64_t H, real *bias)
{
    for (int64_t j = 0; j < FN(stride)(H); j++)
        bias[j] = j < H ? (b_ih ? b_ih[j] : 0) + (b_hh ? b_hh[j] : 0) : 0;
}

/* Time steps of block `block`, and which t is its step `s`. */
static ALWAYS_INLINE int64_t FN(block_steps)(const struct FN(job) *job, int64_t block)
{
    const int64_t left = job->a->T - block * job->steps;
    return left < job->steps ? left : job->steps;
}

static ALWAYS_INLINE int64_t FN(time_of)(const struct FN(job) *job, int64_t block, int64_t s)
{
    const int64_t done = block * job->steps + s;
    return job->a->reverse ? job->a->T - 1 - done : done;
}

/* z = bias + W_ih x for the pairs (t, b) of a block. */
static void FN(input_part)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t block)
{
    const struct fastrnn_rnn *a = job->a;
    const int64_t slot = block % job->blocks * job->steps, stride = FN(stride)(a->H);
    int64_t pairs = 0;
    for (int64_t i = 0; i < FN(block_steps)(job, block); i++) {
        const int64_t t = FN(time_of)(job, block, i);
        s->active[slot + i] = s->counted = FN(active)(a, s->rows, s->n, s->counted, t);
        for (int64_t row = 0; row < s->counted; row++)
            s->x[pairs++] = FN(at)(&a->x, t, s->rows[row]);
    }
    FN(product)(s->x, pairs, a->D, job->w_ih, a->H, 0, job->bias, 0, s->z + slot * s->n * stride, stride,
                NULL, NULL);
}

/* h_t = f(z + W_hh h_{t-1}) for the steps of a block. */
static void FN(recurrence)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t block)
{
    const struct fastrnn_rnn *a = job->a;
    const int64_t H = a->H, stride = FN(stride)(H), slot = block % job->blocks * job->steps;
    FN(finish) *finish = a->nonlinearity == FASTRNN_TANH ? FN(rnn_finish_tanh) : FN(rnn_finish_relu);
    struct FN(rnn_step) step = {.H = H, .output = s->output};
    real *z = s->z + slot * s->n * stride;
    for (int64_t i = 0; i < FN(block_steps)(job, block); i++) {
        const int64_t t = FN(time_of)(job, block, i), active = s->active[slot + i];
        real **state = s->state[s->now];
        for (int64_t row = s->running; row < active; row++)
            FN(copy_or_zero)(state[row], a->h_0 ? (const real *)a->h_0 + s->rows[row] * H : NULL, H);
        s->running = active;
        for (int64_t row = 0; row < s->n; row++) {
            const int staged = s->staged && (row == 0 || row == s->n - 1);
            s->output[row] = staged ? z + row * stride : FN(at)(&a->output, t, s->rows[row]);
            if (row >= active)
                FN(copy_or_zero)(s->output[row], NULL, H);
            else if (a->restart && a->restart[t * a->B + s->rows[row]])
                FN(copy_or_zero)(state[row], NULL, H);
        }
        step.state = s->state[!s->now];
        FN(product)((const real *const *)state, active, H, job->w_hh, H, s->now, z, stride, NULL, 0, finish,
                    &step);
        z += active * stride;
        s->now = !s->now;
    }
}

/* Copies the states of the first and the last row to output. They share cache lines there with rows of other
 * members, at every step: were these written as they are made, the lines would go to and fro between the
 * processors all the time. So h_t of such a row replaces its pre-activations first, and of two neighbours
 * one begins at the block's end. (With lengths the rows lie anywhere, and there was no gain.) */
static void FN(write_block)(const struct FN(job) *job, struct FN(forward_scratch) *s, int64_t block,
                            int downwards)
{
    const struct fastrnn_rnn *a = job->a;
    const int64_t H = a->H, stride = FN(stride)(H), steps = FN(block_steps)(job, block);
    for (int64_t count = 0; count < steps; count++) {
        const int64_t i = downwards ? steps - 1 - count : count, t = FN(time_of)(job, block, i);
        for (int64_t row = 0; row < s->n; row += s->n > 1 ? s->n - 1 : 1) {
            const real *from = s->z + (i * s->n + row) * stride;
            real *to = FN(at)(&a->output, t, s->rows[row]);
            int64_t j = 0;
            for (; j + W <= H; j += W)
                vstore(to + j, vload(from + j));
            if (j < H)
                vstore_n(to + j, vload(from + j), (int)(H - j));
        }
    }
}

static void FN(begin_rows)(const struct FN(job) *job, struct FN(forward_scratch) *s)
{
    const int64_t stride = FN(stride)(job->a->H);
    for (int64_t row = 0; row < s->n; row++) {
        s->state[0][row] = s->h + row * stride;
        s->state[1][row] = s->h + (s->n + row) * stride;
    }
}

static void FN(end_rows)(const struct FN(job) *job, struct FN(forward_scratch) *s)
{
    const struct fastrnn_rnn *a = job->a;
    const int64_t H = a->H;
    for (int64_t row = 0; row < s->n; row++) {
        const int64_t b = s->rows[row], length = a->lengths ? a->lengths[b] : a->T;
        const real *last = a->h_0 ? (const real *)a->h_0 + b * H : NULL;
        if (length > 0)
            last = FN(at)(&a->output, a->reverse ? 0 : length - 1, b);
        FN(copy_or_zero)((real *)a->h_n + b * H, last, H);
    }
}

static void FN(forward_member)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct fastrnn_rnn *a = job->a;
    FN(pack_transposed)(a->w_ih, a->D, a->H, job->w_ih, team->id, team->n);
    FN(pack_transposed)(a->w_hh, a->H, a->H, job->w_hh, team->id, team->n);
    if (team->id == 0)
        FN(add_biases)(a->b_ih, a->b_hh, a->H, job->bias);
    team_barrier(team);

    struct FN(forward_scratch) s = FN(forward_scratch)(job, team->id);
    s.n = FN(deal)(job, team, s.rows);
    s.staged = team->n > 1 && !job->order;
    FN(begin_rows)(job, &s);
    for (int64_t block = 0; block * job->steps < a->T; block++) {
        FN(input_part)(job, &s, block);
        FN(recurrence)(job, &s, block);
        if (s.staged)
            FN(write_block)(job, &s, block, team->id & 1);
        stop_poll(&job->stop, team);
        if (stop_asked(&job->stop))
            return;
    }
    FN(end_rows)(job, &s);
}

/* One sequence by two members: member 1 makes the input parts, in short blocks because member 0 waits for
 * the first one, and member 0 follows with the recurrence. */
enum { FN(fed_steps) = MR, FN(fed_blocks) = 8 };

static int FN(is_fed)(const struct fastrnn_rnn *a, int members) { return a->B == 1 && members > 1; }

static void FN(fed_member)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct fastrnn_rnn *a = job->a;
    struct FN(forward_scratch) s = FN(forward_scratch)(job, 0);
    int64_t row = 0;
    s.rows = &row;
    s.n = 1;
    if (team->id == 1) {
        FN(pack_transposed)(a->w_ih, a->D, a->H, job->w_ih, 0, 1);
        FN(add_biases)(a->b_ih, a->b_hh, a->H, job->bias);
        for (int64_t block = 0; block * job->steps < a->T; block++) {
            if (!count_reaches(&job->used, block + 1 - job->blocks, &job->stop))
                return;
            FN(input_part)(job, &s, block);
            count_set(&job->made, block + 1);
        }
        return;
    }
    FN(pack_transposed)(a->w_hh, a->H, a->H, job->w_hh, 0, 1);
    FN(begin_rows)(job, &s);
    for (int64_t block = 0; block * job->steps < a->T; block++) {
        count_reaches(&job->made, block + 1, &job->stop);
        FN(recurrence)(job, &s, block);
        count_set(&job->used, block + 1);
        if (block % job->blocks == 0)
            stop_poll(&job->stop, team);
        if (stop_asked(&job->stop))
            return;
    }
    FN(end_rows)(job, &s);
}

static double FN(flops)(const struct fastrnn_rnn *a)
{
    return 2.0 * (double)a->T * (double)a->B * (double)a->H * (double)(a->D + a->H);
}

static int64_t FN(clamp)(int64_t n, int64_t least, int64_t most)
{
    return n < least ? least : n > most ? most : n;
}

static int FN(run)(const struct fastrnn_rnn *a, double flops, void (*member)(const struct team *, void *),
                   uintptr_t (*lay_out)(void *job, int members, uintptr_t at))
{
    /* One sequence has work for two: the input part in forward, the weight gradients in backward. */
    const int members = team_size(a->call.threads, flops, a->B == 1 ? 2 : a->B);
    struct FN(job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(members, lay_out, member, &job));
}

static uintptr_t FN(lay_out_rows)(struct FN(job) *job, int members, uintptr_t at)
{
    const struct fastrnn_rnn *a = job->a;
    const int counting = at == 0;
    job->most_rows = (a->B + members - 1) / members;
    if (a->lengths) {
        struct FN(length) *pairs = carve(&at, a->B, sizeof *pairs);
        int64_t *order = carve(&at, a->B, sizeof *order);
        if (!counting)
            FN(sort_by_length)(a->lengths, a->B, pairs, order);
        job->order = order;
    }
    return at;
}

static uintptr_t FN(lay_out_forward)(void *shared, int members, uintptr_t at)
{
    struct FN(job) *job = shared;
    const struct fastrnn_rnn *a = job->a;
    struct FN(forward_scratch) s;
    at = FN(lay_out_rows)(job, members, at);
    const int64_t row_bytes = FN(stride)(a->H) * (int64_t)sizeof(real);
    const int fed = FN(is_fed)(a, members);
    job->blocks = fed ? FN(fed_blocks) : 1;
    job->steps = FN(clamp)(fed ? FN(fed_steps) : FN(block) / (row_bytes * (job->most_rows + 1)), 1, a->T + 1);
    job->w_ih = carve(&at, FN(packed_size)(a->D, a->H), sizeof(real));
    job->w_hh = carve(&at, FN(packed_size)(a->H, a->H), sizeof(real));
    job->bias = carve(&at, FN(stride)(a->H), sizeof(real));
    job->members = at;
    job->member_bytes = FN(carve_forward)(job, at, &s) - at;
    return at + (size_t)members * job->member_bytes;
}

static void FN(forward)(const struct team *team, void *job)
{
    if (FN(is_fed)(((struct FN(job) *)job)->a, team->n))
        FN(fed_member)(team, job);
    else
        FN(forward_member)(team, job);
}

static int FN(rnn_forward)(const struct fastrnn_call *call)
{
    const struct fastrnn_rnn *a = (const void *)call;
    /* Of one sequence a second member takes the input part, which therefore has to be worth it. */
    const double flops = a->B == 1 ? 4.0 * (double)a->T * (double)a->D * (double)a->H : FN(flops)(a);
    return FN(run)(a, flops, FN(forward), FN(lay_out_forward));
}

/* ---------------------------------------------------------------------------------------- backward */

struct FN(backward_scratch) {
    int64_t *rows;
    const real **dz; /* (steps*n,) the rows of dz in a block */
    real **d_x;      /* (steps*n,) where their products with w_ih go */
    real *carry;     /* (n) rows: the gradient of the state, from the later steps */
    /* one chunk of the weight gradients */
    const real **chunk_x, **chunk_h, **chunk_dz; /* (chunk,) rows */
    struct FN(gradient_scratch) gradient;
};

static uintptr_t FN(carve_backward)(const struct FN(job) *job, int members, uintptr_t at,
                                struct FN(backward_scratch) *s)
{
    const int64_t n = job->most_rows, stride = FN(stride)(job->a->H);
    s->rows = carve(&at, n, sizeof *s->rows);
    s->dz = carve(&at, job->steps * n, sizeof *s->dz);
    s->d_x = carve(&at, job->steps * n, sizeof *s->d_x);
    s->carry = carve(&at, n * stride, sizeof(real));
    s->chunk_x = carve(&at, FN(chunk), sizeof *s->chunk_x);
    s->chunk_h = carve(&at, FN(chunk), sizeof *s->chunk_h);
    s->chunk_dz = carve(&at, FN(chunk), sizeof *s->chunk_dz);
    return FN(carve_gradient)(&s->gradient, job->a->H, members, at);
}

/* Adds rows [first, last) of the index s*B + b, a chunk or the end of one, to the weight gradients. */
static void FN(weight_gradients)(struct FN(job) *job, const struct team *team,
                                 struct FN(backward_scratch) *s, int64_t first, int64_t last)
{
    const struct fastrnn_rnn *a = job->a;
    const int64_t T = a->T, B = a->B, D = a->D, H = a->H;
    int64_t K = 0;
    for (int64_t r = first, step = B ? first / B : 0, b = first - step * B; r < last; r++) {
        const int64_t t = a->reverse ? step : T - 1 - step, before = a->reverse ? t + 1 : t - 1;
        const int64_t length = a->lengths ? a->lengths[b] : T;
        if (t < length) {
            const real *h = job->zeros;
            if (a->restart && a->restart[t * B + b])
                ;
            else if (before >= 0 && before < length)
                h = FN(at)(&a->output, before, b);
            else if (a->h_0)
                h = (const real *)a->h_0 + b * H;
            s->chunk_x[K] = FN(at)(&a->x, t, b);
            s->chunk_h[K] = h;
            s->chunk_dz[K] = job->dz + r % job->dz_rows * FN(stride)(H);
            K++;
        }
        if (++b == B) {
            b = 0;
            step++;
        }
    }
    const struct FN(gradient) gradients[] = {{s->chunk_x, D, job->chunk_x, a->d_w_ih},
                                             {s->chunk_h, H, job->chunk_h, a->d_w_hh}};
    FN(gradient_chunk)(team, &job->stop, &s->gradient, s->chunk_dz, K, H, first == 0, a->d_b, gradients, 2);
}

static void FN(backward_member)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct fastrnn_rnn *a = job->a;
    const int64_t T = a->T, B = a->B, D = a->D, H = a->H, stride = FN(stride)(H);

    const int64_t share = H * team->id / team->n, share_end = H * (team->id + 1) / team->n;
    for (int64_t k = share; k < share_end; k++)
        job->weight_rows[k] = (const real *)a->w_hh + k * H;
    FN(pack_rows)(job->weight_rows, share, share_end, H, H, job->w_hh);
    if (a->d_x.data) {
        for (int64_t k = share; k < share_end; k++)
            job->weight_rows[k] = (const real *)a->w_ih + k * D;
        FN(pack_rows)(job->weight_rows, share, share_end, H, D, job->w_ih);
    }
    if (team->id == 0)
        FN(copy_or_zero)(job->zeros, NULL, H);
    team_barrier(team);

    struct FN(backward_scratch) s;
    FN(carve_backward)(job, team->n, job->members + (size_t)team->id * job->member_bytes, &s);
    const int64_t n = FN(deal)(job, team, s.rows);
    for (int64_t i = 0; i < n; i++)
        FN(copy_or_zero)(s.carry + i * stride,
                         a->d_h_n ? (const real *)a->d_h_n + s.rows[i] * H : NULL, H);
    int64_t active = 0, summed = 0;

    for (int64_t begin = 0; begin < T; begin += job->steps) {
        const int64_t end = T - begin < job->steps ? T : begin + job->steps;
        int64_t pairs = 0;
        for (int64_t step = begin; step < end; step++) {
            const int64_t t = a->reverse ? step : T - 1 - step;
            const real **dz = s.dz + pairs;
            active = FN(active)(a, s.rows, n, active, t);
            for (int64_t i = 0; i < n; i++) {
                const int64_t b = s.rows[i];
                if (i >= active) {
                    if (a->d_x.data)
                        FN(copy_or_zero)(FN(at)(&a->d_x, t, b), NULL, D);
                    continue;
                }
                real *to = job->dz + (step * B + b) % job->dz_rows * stride;
                FN(rnn_backward_row)(a->nonlinearity, H, FN(at)(&a->output, t, b),
                                     a->d_output.data ? FN(at)(&a->d_output, t, b) : NULL,
                                     s.carry + i * stride, to);
                dz[i] = to;
                if (a->d_x.data)
                    s.d_x[pairs + i] = FN(at)(&a->d_x, t, b);
            }
            pairs += active;
            if (step == T - 1 && !a->d_h_0)
                break;
            FN(product)(dz, active, H, job->w_hh, H, (int)(step & 1), NULL, 0, s.carry, stride, NULL, NULL);
            if (a->restart)
                for (int64_t i = 0; i < active; i++)
                    if (a->restart[t * B + s.rows[i]])
                        FN(copy_or_zero)(s.carry + i * stride, NULL, H);
        }
        if (a->d_x.data) {
            struct FN(rows_out) out = {s.d_x, D};
            FN(product)(s.dz, pairs, H, job->w_ih, D, 0, NULL, 0, NULL, 0, FN(finish_rows), &out);
        }
        if (a->d_w_ih || a->d_w_hh || a->d_b)
            for (; end * B - summed >= FN(chunk) || (end == T && summed < T * B); summed += FN(chunk))
                FN(weight_gradients)(job, team, &s, summed, FN(clamp)(end * B, 0, summed + FN(chunk)));
        if (end < T && stop_together(&job->stop, team))
            return;
    }
    if (T * B == 0) /* the sum of nothing */
        FN(weight_gradients)(job, team, &s, 0, 0);
    if (a->d_h_0)
        for (int64_t i = 0; i < n; i++)
            FN(copy_or_zero)((real *)a->d_h_0 + s.rows[i] * H, s.carry + i * stride, H);
}

static uintptr_t FN(lay_out_backward)(void *shared, int members, uintptr_t at)
{
    struct FN(job) *job = shared;
    const struct fastrnn_rnn *a = job->a;
    struct FN(backward_scratch) s;
    at = FN(lay_out_rows)(job, members, at);
    const int64_t stride = FN(stride)(a->H);
    /* A chunk's rows, but no more work than tens of milliseconds: signals are looked for in between. */
    const double most = FN(block_flops) * (double)(a->T + 1) / (2 * FN(flops)(a) + 1);
    job->steps = FN(clamp)(FN(chunk) / (a->B + 1) + 1, 1, a->T + 1);
    if ((double)job->steps > most)
        job->steps = most < 1 ? 1 : (int64_t)most;
    job->dz_rows = FN(chunk) + job->steps * a->B;
    job->w_hh = carve(&at, FN(packed_size)(a->H, a->H), sizeof(real));
    if (a->d_x.data)
        job->w_ih = carve(&at, FN(packed_size)(a->H, a->D), sizeof(real));
    job->weight_rows = carve(&at, a->H, sizeof *job->weight_rows);
    job->zeros = carve(&at, stride, sizeof(real));
    job->dz = carve(&at, job->dz_rows * stride, sizeof(real));
    if (a->d_w_ih)
        job->chunk_x = carve(&at, FN(packed_size)(FN(chunk), a->D), sizeof(real));
    if (a->d_w_hh)
        job->chunk_h = carve(&at, FN(packed_size)(FN(chunk), a->H), sizeof(real));
    job->members = at;
    job->member_bytes = FN(carve_backward)(job, members, at, &s) - at;
    return at + (size_t)members * job->member_bytes;
}

static int FN(rnn_backward)(const struct fastrnn_call *call)
{
    const struct fastrnn_rnn *a = (const void *)call;
    return FN(run)(a, 2 * FN(flops)(a), FN(backward_member), FN(lay_out_backward));
}
