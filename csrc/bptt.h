/* Backpropagation through time of one direction, as each thread of a team runs it: its own rows of the batch, or its
 * own units of all rows, block after block; after each block the team joins for the weight gradients. Steps are counted
 * back from the last one that forward made, `back` = 0.
 *
 * Threads with rows of their own meet after packing, between blocks and at the weight gradients. Those that split units
 * have the carries of thread 0, and meet once more at every step: when dz of all units is there (carry_back), and where
 * a step has a second product before that too. Of the carries each reads and writes the units that it makes. */

struct FN(backward_scratch) {
    int64_t *rows;
    const real **pointers; /* for packing: rows of the weights */
    real **dz; /* (steps*n,) the rows of dz in a block */
    const real **operands; /* (n,) */
    real **d_x; /* (steps*n,) where the products with w_ih go, or dz itself */
    real *carry_h, *carry_c; /* (n) rows: the gradient of the state, from the later steps */
    real *intermediate; /* (n) rows of H */
    const real **chunk_dz, **chunk[GRADIENT_ROWS]; /* (chunk,) rows: of dz, and of what they are multiplied by */
    struct FN(source) sources[MAX_SOURCES];
    struct FN(gradient_scratch) gradient;
};

/* One thread's walk back. */
struct FN(walk) {
    struct FN(job) *job;
    const struct team *team;
    int64_t n; /* rows */
    struct FN(weights) w; /* the columns that its units need, and its d_x */
    const struct team *sharers; /* who make the rows of d_x of a block together; NULL: each makes all of its own */
    struct FN(backward_scratch) s;
    struct FN(back_step) step;
    struct FN(forward_scratch) recomputed;
    int64_t pairs; /* (t, b) of the block so far */
    int64_t summed; /* rows of dz that are in the weight gradients */
};

static ALWAYS_INLINE int64_t FN(time_back)(const struct fastrnn_direction *a, int64_t back)
{
    return FN(time_of)(a, a->T - 1 - back);
}

static ALWAYS_INLINE real *FN(dz_row)(const struct FN(job) *job, int64_t r)
{
    return job->dz + r % job->dz_rows * job->dz_stride;
}

static int FN(weights_wanted)(const struct FN(job) *job)
{
    for (const struct FN(source) *source = job->sources; source < job->sources + job->count; source++)
        if (source->d_sum[0] || source->d_sum[1] || FN(any_wanted)(source))
            return 1;
    return 0;
}

/* --------------------------------------------------------------------------------- weight gradients */

/* The job's sources, with the rows of a thread's chunks. */
static void FN(take_sources)(const struct FN(job) *job, struct FN(backward_scratch) *s)
{
    for (int k = 0; k < job->count; k++) {
        struct FN(source) *source = &s->sources[k];
        *source = job->sources[k];
        source->by_rows = s->chunk[source->by];
        for (int i = 0; i < source->count; i++)
            source->gradients[i].rows = s->chunk[source->gradients[i].of];
    }
}

/* Which rows the weight gradients take. */
static void FN(find_rows)(const struct FN(job) *job, int *taken)
{
    for (const struct FN(source) *source = job->sources; source < job->sources + job->count; source++) {
        taken[source->by] |= source->d_sum[0] || source->d_sum[1];
        for (int i = 0; i < source->count; i++)
            taken[source->gradients[i].of] |= source->gradients[i].d_w != NULL;
    }
    taken[OF_NONE] = 0;
}

/* Whether some of them are on the tape, which then has to be kept until the chunk is complete. */
static int FN(take_tape)(const struct FN(job) *job)
{
    int taken[GRADIENT_ROWS] = {0};
    FN(find_rows)(job, taken);
    return taken[OF_C] || taken[OF_C_BEFORE] || (taken[OF_INTERMEDIATE] && job->cell->intermediate_on_tape);
}

static const real *FN(gradient_row)(const struct FN(job) *job, enum gradient_rows of, const real *dz, int64_t t,
                                    int64_t b)
{
    const struct fastrnn_direction *a = job->a;
    switch (of) {
    case OF_X: return FN(row_at)(a, &a->x, t, b);
    case OF_H_BEFORE: return FN(h_before)(a, &job->start, t, b);
    case OF_C_BEFORE: return FN(c_before)(a, &job->tape, &job->start, t, b);
    case OF_C: return FN(c_row)(&job->tape, t, b);
    default:
        return (job->cell->intermediate_on_tape ? FN(gates_row)(&job->tape, t, b) : dz) + job->cell->intermediate_at(a);
    }
}

/* Adds rows [first, last) of the index back*B + b, a chunk or the end of one, to the weight gradients. */
static void FN(weight_gradients)(struct FN(walk) *walk, int64_t first, int64_t last)
{
    const struct FN(job) *job = walk->job;
    const struct fastrnn_direction *a = job->a;
    const struct FN(backward_scratch) *s = &walk->s;
    const int64_t B = a->B;
    int taken[GRADIENT_ROWS] = {0};
    int64_t K = 0;
    FN(find_rows)(job, taken);
    for (int64_t r = first, back = B ? first / B : 0, b = first - back * B; r < last; r++) {
        const int64_t t = FN(time_back)(a, back);
        if (t < (a->lengths ? a->lengths[b] : a->T)) {
            s->chunk_dz[K] = FN(dz_row)(job, r);
            for (int of = 0; of < GRADIENT_ROWS; of++)
                if (taken[of])
                    s->chunk[of][K] = FN(gradient_row)(job, (enum gradient_rows)of, s->chunk_dz[K], t, b);
            K++;
        }
        if (++b == B) {
            b = 0;
            back++;
        }
    }
    const struct FN(gradient_chunk) chunk = {s->chunk_dz, K, first == 0, s->sources, job->count};
    FN(add_chunk)(walk->team, job->stop, &s->gradient, &chunk);
}

/* Adds what is complete of the rows before `end`: whole chunks, and at the end what is left. */
static void FN(drain_chunks)(struct FN(walk) *walk, int64_t end)
{
    const struct fastrnn_direction *a = walk->job->a;
    const int64_t rows = end * a->B, all = a->T * a->B;
    if (!FN(weights_wanted)(walk->job))
        return;
    for (; rows - walk->summed >= FN(chunk) || (end == a->T && walk->summed < all); walk->summed += FN(chunk))
        FN(weight_gradients)(walk, walk->summed, FN(clamp)(rows, 0, walk->summed + FN(chunk)));
}

/* ---------------------------------------------------------------------------------- a thread's walk */

/* The norm of the gradient of the state after step t, of each active row: of carry_h + d_output and carry_c. */
static void FN(norms)(const struct FN(back_step) *s)
{
    const struct fastrnn_direction *a = s->a;
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const real *d_output = FN(d_output)(a, s->t, b), *carry = s->carry_h + i * FN(stride)(a->P);
        if (s->cell->d_c)
            s->cell->d_c(s, i, s->intermediate);
        else
            for (int64_t j = 0; j < a->P; j += W)
                vstore(s->intermediate + j, FN(d_state)(carry, d_output, j, FN(lanes)(j, a->P)));
        double sum = FN(squares)(s->intermediate, a->P);
        if (s->carry_c && !s->cell->d_c)
            sum += FN(squares)(s->carry_c + i * FN(stride)(a->H), a->H);
        a->norms[FN(caller_t)(a, s->t, b) * a->B + b] = sqrt(sum);
    }
}

/* A short tape is recomputed, some steps at a time, by forward with the same formula and so with the same bits; each
 * thread does so for its own rows. These are the steps [begin, end), counted in the order of processing; what came
 * before is in output and the checkpoints, or was the start. */
static void FN(recompute)(struct FN(walk) *walk, int64_t begin, int64_t end)
{
    const struct FN(job) *job = walk->job, *forward = job->recompute;
    const struct fastrnn_direction *a = job->a;
    struct FN(forward_scratch) *s = &walk->recomputed;
    s->running = s->counted = 0;
    s->now = 0;
    if (begin > 0) {
        const int64_t t = FN(time_of)(a, begin - 1);
        s->running = s->counted = FN(active)(a, s->rows, s->n, 0, t);
        for (int64_t i = 0; i < s->running; i++) {
            const int64_t b = s->rows[i];
            FN(copy_or_zero)(s->state[0][i], FN(row_at)(a, &a->output, t, b), a->P);
            if (s->c) {
                const real *c = FN(checkpoint_row)(a, begin, b);
                FN(copy_or_zero)(s->c + i * FN(stride)(a->H), c, a->H);
                FN(copy_or_zero)(FN(c_row)(&job->tape, t, b), c, a->H);
            }
        }
    }
    while (begin < end && !stop_asked(job->stop)) {
        const int64_t block_end = FN(block_end)(forward, begin, end);
        FN(input_projection)(forward, s, begin, block_end, 0);
        FN(recurrence)(forward, s, begin, block_end, 0);
        begin = block_end;
        stop_poll(job->stop, walk->team);
    }
}

/* Before step `back`: the steps since the checkpoint before it, where it is the last of them. */
static void FN(recompute_before)(struct FN(walk) *walk, int64_t back)
{
    const int64_t end = walk->job->a->T - back, K = walk->job->a->checkpoint;
    if (walk->job->recompute && (back == 0 || end % K == 0))
        FN(recompute)(walk, (end - 1) / K * K, end);
}

/* Where the active rows of step `back` write dz and d_x; what does not count has no gradient. */
static void FN(point_gradients)(struct FN(walk) *walk, int64_t back)
{
    const struct FN(job) *job = walk->job;
    const struct fastrnn_direction *a = job->a;
    const struct FN(back_step) *step = &walk->step;
    real **const dz = walk->s.dz + walk->pairs, **const d_x = walk->s.d_x + walk->pairs;
    for (int64_t i = 0; i < walk->n; i++) {
        const int64_t b = step->rows[i];
        real *const to = a->d_x.data ? FN(row_at)(a, &a->d_x, step->t, b) : NULL;
        if (i < step->active) {
            dz[i] = FN(dz_row)(job, back * a->B + b);
            d_x[i] = to;
            continue;
        }
        if (to && step->share.begin == 0) /* others may have the same rows */
            FN(copy_or_zero)(to, NULL, a->D);
        if (a->norms)
            a->norms[FN(caller_t)(a, step->t, b) * a->B + b] = 0;
    }
}

/* The gradient of a row's state, of the units that are made here: rows of P and of H, or NULL: zeros. */
static void FN(set_carry)(const struct FN(back_step) *step, int64_t i, const real *h, const real *c)
{
    const struct fastrnn_direction *a = step->a;
    const struct FN(share) *share = &step->share;
    real *const to_h = step->carry_h + i * FN(stride)(a->P) + share->begin;
    FN(copy_or_zero)(to_h, h ? h + share->begin : NULL, share->end - share->begin);
    if (step->carry_c)
        FN(copy_or_zero)(step->carry_c + i * FN(stride)(a->H) + share->c_begin, c ? c + share->c_begin : NULL,
                         share->c_end - share->c_begin);
}

/* No gradient crosses a restart. */
static void FN(drop_restarted)(struct FN(walk) *walk)
{
    const struct FN(back_step) *step = &walk->step;
    const struct fastrnn_direction *a = step->a;
    for (int64_t i = 0; a->restart && i < step->active; i++)
        if (FN(restarts)(a, step->t, step->rows[i]))
            FN(set_carry)(step, i, NULL, NULL);
}

static void FN(back_block)(struct FN(walk) *walk, int64_t begin, int64_t end)
{
    const struct FN(job) *job = walk->job;
    const struct fastrnn_direction *a = job->a;
    struct FN(back_step) *step = &walk->step;
    walk->pairs = 0;
    for (int64_t back = begin; back < end; back++) {
        FN(recompute_before)(walk, back);
        step->t = FN(time_back)(a, back);
        step->active = FN(active)(a, step->rows, walk->n, step->active, step->t);
        step->dz = walk->s.dz + walk->pairs;
        step->reversed = (int)(back & 1);
        step->last = back == a->T - 1 && !a->d_h_0 && !(job->cell->facts.c_alone && a->d_c_0);
        FN(point_gradients)(walk, back);
        if (a->norms)
            FN(norms)(step);
        job->cell->back_step(step);
        FN(drop_restarted)(walk);
        walk->pairs += step->active;
    }
    if (!a->d_x.data)
        return;
    const struct team *sharers = walk->sharers;
    const int64_t first = sharers ? walk->pairs * sharers->id / sharers->n : 0;
    const int64_t last = sharers ? walk->pairs * (sharers->id + 1) / sharers->n : walk->pairs;
    if (a->given) {
        for (int64_t i = first; i < last; i++)
            FN(copy_or_zero)(walk->s.d_x[i], walk->s.dz[i], a->D);
        return;
    }
    struct FN(rows_out) out = {walk->s.d_x + first, a->D};
    FN(gemm)((const real *const *)walk->s.dz + first, last - first, &walk->w.x[0], 0, NULL, 0, NULL, 0, FN(store_rows),
             &out);
}

/* The units that a thread makes, of `others`; NULL: all, of its own rows. */
static void FN(share_back)(struct FN(walk) *walk, const struct team *others)
{
    const struct FN(job) *job = walk->job;
    const struct fastrnn_direction *a = job->a;
    struct FN(back_step) *step = &walk->step;
    walk->w = job->w;
    step->w = &walk->w;
    step->others = others;
    step->share = others ? FN(share)(job, FN(piece)(1), others) : FN(all_units)(a);
    for (int i = 0; i < job->cell->products; i++)
        walk->w.h[i] = FN(of_units)(job->w.h[i], step->share.begin, step->share.end, a->P);
    for (int i = 0; i < job->cell->facts.extras; i++)
        if (job->cell->facts.extra[i].rank == 2 && a->extra[i])
            walk->w.extra[i] = FN(of_units)(job->w.extra[i], step->share.c_begin, step->share.c_end, a->H);
    /* Of d_x some rows each; or some columns, and then W_ih is read once. */
    const int by_columns = others && job->far_input;
    walk->sharers = by_columns ? NULL : others;
    if (by_columns)
        walk->w.x[0] = FN(share_of_columns)(job->w.x[0], others->id, others->n);
}

/* Of the matrices that are packed as they are. */
static int64_t FN(max_rows)(const struct FN(job) *job)
{
    int64_t max = job->cell->facts.gates * job->a->H;
    for (int i = 0; i < job->cell->facts.extras; i++)
        max = job->w.extra[i].K > max ? job->w.extra[i].K : max;
    return max;
}

static uintptr_t FN(layout_backward_scratch)(const struct FN(job) *job, uintptr_t at, struct FN(backward_scratch) *s)
{
    const struct fastrnn_direction *a = job->a;
    const int64_t n = job->plan.rows, steps = job->plan.steps, wide = FN(stride)(a->H);
    s->rows = arena_take(&at, n, sizeof *s->rows);
    s->pointers = arena_take(&at, FN(max_rows)(job), sizeof *s->pointers);
    s->dz = arena_take(&at, steps * n, sizeof *s->dz);
    s->operands = arena_take(&at, n, sizeof *s->operands);
    s->d_x = arena_take(&at, steps * n, sizeof *s->d_x);
    s->carry_h = arena_take(&at, n * FN(stride)(a->P), sizeof(real));
    s->carry_c = job->cell->facts.has_c ? arena_take(&at, n * wide, sizeof(real)) : NULL;
    s->intermediate = job->intermediate || a->norms ? arena_take(&at, n * wide, sizeof(real)) : NULL;
    s->chunk_dz = arena_take(&at, FN(chunk), sizeof *s->chunk_dz);
    s->chunk[OF_NONE] = NULL;
    for (int of = OF_NONE + 1; of < GRADIENT_ROWS; of++)
        s->chunk[of] = arena_take(&at, FN(chunk), sizeof *s->chunk[of]);
    FN(take_sources)(job, s);
    return FN(layout_gradient)(&s->gradient, s->sources, job->count, job->plan.threads, at);
}

static uintptr_t FN(layout_start)(struct FN(job) *job, uintptr_t at)
{
    const struct fastrnn_direction *a = job->a;
    const int64_t stride = FN(stride)(a->H);
    const real *const zeros = arena_take(&at, stride, sizeof(real));
    job->start = (struct FN(start)){a->h_0, a->P, zeros, zeros};
    if (job->cell->h_of_c) {
        job->start.h = arena_take(&at, stride, sizeof(real));
        if (a->c_0)
            job->start.h_0 = arena_take(&at, a->B * stride, sizeof(real));
        job->start.stride = stride;
    }
    return at;
}

static void FN(fill_start)(const struct FN(job) *job)
{
    const struct fastrnn_direction *a = job->a;
    const struct FN(start) *start = &job->start;
    FN(copy_or_zero)((real *)start->c, NULL, a->H);
    if (!job->cell->h_of_c)
        return;
    job->cell->h_of_c(job->cell, start->c, (real *)start->h, a->H);
    for (int64_t b = 0; a->c_0 && b < a->B; b++)
        job->cell->h_of_c(job->cell, FN(row_of)(a->c_0, b, a->H), (real *)start->h_0 + b * start->stride, a->H);
}

/* Packs the weights, and starts with the gradient of the final state. */
static void FN(begin_backward)(struct FN(walk) *walk)
{
    struct FN(job) *job = walk->job;
    const struct team *team = walk->team;
    const struct fastrnn_direction *a = job->a;
    struct FN(backward_scratch) *s = &walk->s;
    FN(layout_backward_scratch)(job, job->scratch + (size_t)team->id * job->scratch_bytes, s);
    FN(pack_plain_weights)(a, &job->w, s->pointers, team->id, team->n);
    if (job->recompute) {
        const struct FN(job) *forward = job->recompute;
        FN(pack_weights)(a, &forward->w, FN(all_weights), team->id, team->n);
        walk->recomputed = FN(forward_scratch)(forward, team->id);
        walk->recomputed.n = FN(partition_rows)(job, team, walk->recomputed.rows);
        FN(begin_rows)(forward, &walk->recomputed);
    }
    if (team->id == 0)
        FN(fill_start)(job);
    team_barrier(team);

    const int by_units = job->plan.way == FASTRNN_BY_UNITS;
    if (by_units) { /* the rows of thread 0 */
        struct FN(backward_scratch) first;
        FN(layout_backward_scratch)(job, job->scratch, &first);
        s->carry_h = first.carry_h;
        s->carry_c = first.carry_c;
        s->intermediate = first.intermediate;
    }
    walk->n = FN(partition_rows)(job, by_units ? &(struct team){.n = 1} : team, s->rows);
    walk->step = (struct FN(back_step)){
        .a = a,
        .cell = job->cell,
        .tape = job->tape,
        .distance = FN(distance)(a, &job->tape, a->output.step_t, 0),
        .rows = s->rows,
        .carry_h = s->carry_h,
        .carry_c = s->carry_c,
        .intermediate = s->intermediate,
        .operands = s->operands,
        .start = job->start,
    };
    FN(share_back)(walk, by_units ? team : NULL);
    for (int64_t i = 0; i < walk->n; i++)
        FN(set_carry)(&walk->step, i, FN(row_of)(a->d_h_n, s->rows[i], a->P), FN(row_of)(a->d_c_n, s->rows[i], a->H));
}

/* The gradient of the initial state is what is still carried. */
static void FN(end_backward)(struct FN(walk) *walk)
{
    const struct fastrnn_direction *a = walk->job->a;
    if (a->T * a->B == 0) /* the sum of nothing */
        FN(weight_gradients)(walk, 0, 0);
    if (walk->step.others) {
        team_barrier(walk->team); /* one thread may have made all units */
        if (walk->team->id)
            return;
    }
    for (int64_t i = 0; i < walk->n; i++) {
        const int64_t b = walk->s.rows[i];
        if (a->d_h_0)
            FN(copy_or_zero)((real *)a->d_h_0 + b * a->P, walk->s.carry_h + i * FN(stride)(a->P), a->P);
        if (a->d_c_0)
            FN(copy_or_zero)((real *)a->d_c_0 + b * a->H, walk->s.carry_c + i * FN(stride)(a->H), a->H);
    }
}

static void FN(backward_thread)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct team alone = team_of_one(team);
    const int64_t T = job->a->T;
    struct FN(walk) walk;
    walk.job = job;
    walk.team = team;
    walk.summed = 0;
    FN(begin_backward)(&walk);
    for (int64_t begin = 0; begin < T; begin += job->plan.steps) {
        const int64_t end = FN(block_end)(job, begin, T);
        if (job->plan.way == FASTRNN_BY_UNITS) /* as in forward */
            FN(share_back)(&walk, team_meets_apart(team) ? team : &alone);
        if (walk.step.others != &alone || team->id == 0)
            FN(back_block)(&walk, begin, end);
        FN(drain_chunks)(&walk, end);
        if (end < T && stop_together(job->stop, team))
            return;
    }
    FN(end_backward)(&walk);
}

/* ------------------------------------------------------------------------------------------ layout */

/* The tape in scratch holds the steps that are recomputed at once, the one before them, and those of which the weight
 * gradients still need something. */
static uintptr_t FN(layout_recompute)(struct FN(job) *job, uintptr_t at)
{
    const struct fastrnn_direction *a = job->a;
    struct FN(job) *forward = job->recompute;
    const int64_t B = a->B, stride = FN(stride)(a->P);
    const int64_t late = FN(take_tape)(job) ? job->dz_rows / (B > 0 ? B : 1) + 2 : 0;
    struct FN(tape) *tape = &job->tape;
    tape->times = NULL;
    tape->steps = a->checkpoint + 1 + late < a->T ? a->checkpoint + 1 + late : a->T;
    tape->gates = arena_take(&at, tape->steps * B * tape->width, sizeof(real));
    if (job->cell->facts.has_c)
        tape->c = arena_take(&at, tape->steps * B * a->H, sizeof(real));
    forward->tape = *tape;
    forward->output = (struct fastrnn_sequence){arena_take(&at, B * stride, sizeof(real)), 0, stride};
    at = FN(layout_weights)(a, 0, 0, at, &forward->w);
    FN(plan_rows)(forward, job->plan.threads, job->plan.rows);
    return FN(layout_threads)(forward, at);
}

static uintptr_t FN(layout_backward)(void *shared, int threads, uintptr_t at)
{
    struct FN(job) *job = shared;
    const struct fastrnn_direction *a = job->a;
    struct FN(backward_scratch) s;
    at = FN(layout_order)(job, at);
    FN(plan_backward)(job, threads);
    job->dz_rows = FN(chunk) + job->plan.steps * a->B;
    job->dz_stride = job->cell->dz_stride(a);
    at = FN(layout_plain_weights)(a, at, &job->w);
    at = FN(layout_start)(job, at);
    job->dz = arena_take(&at, job->dz_rows * job->dz_stride, sizeof(real));
    job->count = job->cell->sources(a, job->sources);
    for (struct FN(source) *source = job->sources; source < job->sources + job->count; source++)
        for (int i = 0; i < source->count; i++) {
            struct FN(gradient) *g = &source->gradients[i];
            if (g->d_w)
                g->packed = arena_take(&at, FN(packed_size)(FN(chunk), g->N), sizeof(real));
        }
    if (job->recompute)
        at = FN(layout_recompute)(job, at);
    job->scratch = at;
    job->scratch_bytes = FN(layout_backward_scratch)(job, at, &s) - at;
    return at + (size_t)threads * job->scratch_bytes;
}

static int FN(backward)(const struct fastrnn_call *shared)
{
    const struct fastrnn_directions *call = (const void *)shared;
    struct stop stop = stop_for(shared);
    struct FN(job) jobs[2], forward[2]; /* forward: where a tape is recomputed */
    struct FN(source) sources[2][MAX_SOURCES];
    for (int i = 0; i < call->count; i++) {
        const struct fastrnn_direction *a = &call->directions[i];
        struct FN(job) *job = &jobs[i];
        FN(begin_job)(job, a, &stop);
        job->sources = sources[i];
        job->flops *= 2;
        if (a->B == 1) /* work for two: the weight gradients are one product over all steps */
            job->max_threads = 2;
        if (a->checkpoint && job->cell->facts.tape_gates) {
            FN(begin_job)(&forward[i], a, &stop);
            job->recompute = &forward[i];
            job->flops += fastrnn_flops(&job->cell->facts, a, 0);
        }
        /* The norms are of whole states, and a short tape is recomputed by rows. */
        job->unit_threads = a->norms || job->recompute ? 1 : FN(unit_threads)(job, FN(piece)(1));
        if (job->unit_threads > job->max_threads && FN(splits_units)(job, job->unit_threads))
            job->max_threads = job->unit_threads;
    }
    return FN(run)(call, jobs, FN(backward_thread), FN(layout_backward));
}
