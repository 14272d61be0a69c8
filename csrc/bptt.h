/* Backpropagation through time of one layer in one direction, as each member of a team runs it: its own rows
 * of the batch, block after block; after each block the team joins for the weight gradients. */

struct FN(backward_scratch) {
    int64_t *rows;
    const real **pointers;  /* for packing: rows of the weights */
    real **ring;            /* (steps*n,) the rows of the ring in a block */
    const real **factors;   /* (n,) */
    real **d_x;             /* (steps*n,) where the products with w_ih go */
    real *carry_h, *carry_c; /* (n) rows: the gradient of the state, from the later steps */
    real *between;           /* (n) rows of H */
    /* one chunk of the weight gradients: (chunk,) rows */
    const real **chunk_ring, **chunk_x, **chunk_h, **chunk_second, **chunk_c_before, **chunk_c;
    struct FN(gradient_scratch) gradient;
};

/* The sources of the weight gradients, the rows of a chunk being in `s`, and how many they are. */
static int FN(sources)(const struct FN(job) *job, const struct FN(backward_scratch) *s,
                       struct FN(source) sources[3])
{
    const struct fastrnn_layer *a = job->a;
    const int64_t H = a->H, D = a->D, P = a->P, rows = gates_of(a->cell) * H;
    const struct FN(gradient) x = {s->chunk_x, D, job->packed[0], a->d_w_ih};
    const struct FN(gradient) h = {s->chunk_h, P, job->packed[1], a->d_w_hh};
    void *const d_b = a->d_b_ih ? a->d_b_ih : a->d_b_hh;
    switch (a->cell) {
    case FASTRNN_GRU:
        sources[0] = (struct FN(source)){0, rows, a->d_b_ih, 1, {x}};
        sources[1] = (struct FN(source)){FN(gru_dh_at)(a), rows, a->d_b_hh, 1, {h}};
        return 2;
    case FASTRNN_GRU_RESET_FIRST: /* of W_hn the factor is r h */
        sources[0] = (struct FN(source)){0, rows, d_b, 1, {x}};
        sources[1] = (struct FN(source)){0, 2 * H, NULL, 1, {h}};
        sources[2] = (struct FN(source)){
            2 * H, H, NULL, 1, {{s->chunk_second, H, job->packed[2], a->d_w_hh}}};
        if (a->d_w_hh)
            sources[2].gradients[0].d_w = (real *)a->d_w_hh + 2 * H * H;
        return 3;
    case FASTRNN_LSTM:
        sources[1] = (struct FN(source)){
            FN(lstm_dh_at)(a), P, NULL, 1, {{s->chunk_second, H, job->packed[2], a->d_w_hr}}};
        sources[0] = (struct FN(source)){0, rows, d_b, 2, {x, h}};
        return a->w_hr ? 2 : 1;
    default: sources[0] = (struct FN(source)){0, rows, d_b, 2, {x, h}}; return 1;
    }
}

/* Reals of a row of the ring. */
static int64_t FN(ring_stride)(const struct fastrnn_layer *a)
{
    switch (a->cell) {
    case FASTRNN_LSTM: return a->w_hr ? FN(lstm_m_at)(a) + FN(stride)(a->H) : FN(stride)(4 * a->H);
    case FASTRNN_GRU: return 2 * FN(gru_dh_at)(a);
    default: return FN(stride)(gates_of(a->cell) * a->H);
    }
}

static uintptr_t FN(carve_backward)(const struct FN(job) *job, int members, uintptr_t at,
                                struct FN(backward_scratch) *s)
{
    const struct fastrnn_layer *a = job->a;
    const int64_t n = job->most_rows, wide = FN(stride)(a->H), rows = gates_of(a->cell) * a->H;
    const int second = a->w_hr || a->cell == FASTRNN_GRU_RESET_FIRST;
    s->rows = carve(&at, n, sizeof *s->rows);
    s->pointers = carve(&at, rows, sizeof *s->pointers);
    s->ring = carve(&at, job->steps * n, sizeof *s->ring);
    s->factors = carve(&at, n, sizeof *s->factors);
    s->d_x = carve(&at, job->steps * n, sizeof *s->d_x);
    s->carry_h = carve(&at, n * FN(stride)(a->P), sizeof(real));
    s->carry_c = a->cell == FASTRNN_LSTM ? carve(&at, n * wide, sizeof(real)) : NULL;
    s->between = second || a->norms ? carve(&at, n * wide, sizeof(real)) : NULL;
    const real ***const chunk[] = {&s->chunk_ring, &s->chunk_x,        &s->chunk_h,
                                   &s->chunk_second, &s->chunk_c_before, &s->chunk_c};
    for (size_t i = 0; i < sizeof chunk / sizeof *chunk; i++)
        *chunk[i] = carve(&at, FN(chunk), sizeof **chunk[i]);
    struct FN(source) sources[3];
    const int count = FN(sources)(job, s, sources);
    int64_t units = 0;
    for (int i = 0; i < count; i++)
        units += FN(any_wanted)(&sources[i]) ? sources[i].units : 0;
    return FN(carve_gradient)(&s->gradient, units, count, members, at);
}

static int FN(weights_wanted)(const struct fastrnn_layer *a)
{
    return a->d_w_ih || a->d_w_hh || a->d_b_ih || a->d_b_hh || a->d_w_hr || a->d_w_peep;
}

/* Adds rows [first, last) of the index s*B + b, a chunk or the end of one, to the weight gradients. */
static void FN(weight_gradients)(struct FN(job) *job, const struct team *team,
                                 struct FN(backward_scratch) *s, int64_t first, int64_t last)
{
    const struct fastrnn_layer *a = job->a;
    const int64_t T = a->T, B = a->B, H = a->H;
    int64_t K = 0;
    for (int64_t r = first, step = B ? first / B : 0, b = first - step * B; r < last; r++) {
        const int64_t t = FN(time_of)(a, T - 1 - step);
        if (t < (a->lengths ? a->lengths[b] : T)) {
            const real *ring = job->ring + r % job->ring_rows * job->ring_stride;
            s->chunk_ring[K] = ring;
            s->chunk_x[K] = FN(at)(&a->x, t, b);
            s->chunk_h[K] = FN(h_before)(a, job->zeros, t, b);
            if (a->w_hr)
                s->chunk_second[K] = ring + FN(lstm_m_at)(a);
            else if (a->cell == FASTRNN_GRU_RESET_FIRST)
                s->chunk_second[K] = FN(tape_row)(a, a->gates, t, b, 4 * H) + 3 * H;
            if (a->d_w_peep) {
                s->chunk_c_before[K] = FN(c_before)(a, job->zeros, t, b);
                s->chunk_c[K] = FN(tape_row)(a, a->c, t, b, H);
            }
            K++;
        }
        if (++b == B) {
            b = 0;
            step++;
        }
    }
    struct FN(source) sources[3];
    const int count = FN(sources)(job, s, sources);
    if (a->d_w_peep) {
        team_barrier(team); /* the ring's rows of all members are there */
        const int64_t begin = H * team->id / team->n, end = H * (team->id + 1) / team->n;
        real *const d_p = a->d_w_peep;
        FN(columns_summed)(s->chunk_ring, 0, s->chunk_c_before, K, begin, end, d_p, first == 0);
        FN(columns_summed)(s->chunk_ring, H, s->chunk_c_before, K, begin, end, d_p + H, first == 0);
        FN(columns_summed)(s->chunk_ring, 3 * H, s->chunk_c, K, begin, end, d_p + 2 * H, first == 0);
    }
    FN(gradient_chunk)(team, job->stop, &s->gradient, s->chunk_ring, K, first == 0, sources, count);
}

/* Both biases of a cell enter the same sum, but for a GRU's with the reset gate after the product. */
static void FN(copy_bias_gradient)(const struct fastrnn_layer *a, const struct team *team)
{
    if (a->cell == FASTRNN_GRU || !a->d_b_ih || !a->d_b_hh)
        return;
    const int64_t rows = gates_of(a->cell) * a->H;
    const int64_t begin = rows * team->id / team->n, end = rows * (team->id + 1) / team->n;
    memcpy((real *)a->d_b_hh + begin, (real *)a->d_b_ih + begin, (size_t)(end - begin) * sizeof(real));
}

/* The norm of the gradient of the state after step t, of each active row: of carry_h + d_output and carry_c. */
static void FN(norms)(const struct FN(back_step) *s)
{
    const struct fastrnn_layer *a = s->a;
    for (int64_t i = 0; i < s->active; i++) {
        const int64_t b = s->rows[i];
        const real *d_output = FN(d_output)(a, s->t, b), *carry = s->carry_h + i * FN(stride)(a->P);
        for (int64_t j = 0; j < a->P; j += W)
            vstore(s->between + j, FN(d_state)(carry, d_output, j, FN(lanes)(j, a->P)));
        double sum = FN(squares)(s->between, a->P);
        if (s->carry_c)
            sum += FN(squares)(s->carry_c + i * FN(stride)(a->H), a->H);
        a->norms[s->t * a->B + b] = sqrt(sum);
    }
}

static void FN(back_step)(const struct FN(back_step) *s)
{
    if (s->a->norms)
        FN(norms)(s);
    switch (s->a->cell) {
    case FASTRNN_LSTM: FN(lstm_back_step)(s); break;
    case FASTRNN_GRU: FN(gru_back_step)(s); break;
    case FASTRNN_GRU_RESET_FIRST: FN(gru_reset_first_back_step)(s); break;
    default: FN(rnn_back_step)(s); break;
    }
}

/* A short tape is made again, some steps at a time, by the forward pass with the same formula and so with the
 * same bits. Each member makes that of its own rows. */
struct FN(again) {
    struct FN(job) forward;
    struct fastrnn_layer a;    /* of that job: its output is forgotten */
    struct fastrnn_layer back; /* that of backward: c and gates are what has been made */
    void *checkpoints;         /* the caller's c */
};

/* Makes the tape of the steps [begin, end) again, counted in the order of processing, of the
 * rows in `s`. What came before is on the tape, or was the start. */
static void FN(record_again)(struct FN(job) *job, const struct team *team, struct FN(forward_scratch) *s,
                             int64_t begin, int64_t end)
{
    const struct fastrnn_layer *a = job->a;
    const struct FN(job) *forward = &job->again->forward;
    const int64_t H = a->H, P = a->P;
    s->running = s->counted = 0;
    s->now = 0;
    if (begin > 0) {
        const int64_t t = FN(time_of)(a, begin - 1);
        s->running = s->counted = FN(active)(a, s->rows, s->n, 0, t);
        for (int64_t i = 0; i < s->running; i++) {
            const int64_t b = s->rows[i];
            FN(copy_or_zero)(s->state[0][i], FN(at)(&a->output, t, b), P);
            if (s->c) {
                const real *c = FN(checkpoint_row)(a, job->again->checkpoints, begin, b);
                FN(copy_or_zero)(s->c + i * FN(stride)(H), c, H);
                FN(copy_or_zero)(FN(tape_row)(a, a->c, t, b, H), c, H);
            }
        }
    }
    while (begin < end && !stop_asked(job->stop)) {
        const int64_t block_end = FN(block_end)(forward, begin, end);
        FN(input_part)(forward, s, begin, block_end, 0);
        FN(recurrence)(forward, s, begin, block_end, 0);
        begin = block_end;
        stop_poll(job->stop, team);
    }
}

static void FN(backward_member)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct fastrnn_layer *a = job->a;
    const int64_t T = a->T, B = a->B, D = a->D, H = a->H, P = a->P, K = a->checkpoint;
    const int64_t stride = FN(stride)(P), wide = FN(stride)(H);

    struct FN(backward_scratch) s;
    struct FN(forward_scratch) again;
    FN(carve_backward)(job, team->n, job->members + (size_t)team->id * job->member_bytes, &s);
    FN(pack_plain_weights)(a, &job->w, s.pointers, team->id, team->n);
    if (job->again) {
        const struct FN(job) *forward = &job->again->forward;
        FN(pack_weights)(a, &forward->w, FN(input_weights) | FN(state_weights), team->id, team->n);
        again = FN(forward_scratch)(forward, team->id);
        again.n = FN(deal)(job, team, again.rows);
        FN(begin_rows)(forward, &again);
    }
    if (team->id == 0)
        FN(copy_or_zero)(job->zeros, NULL, H);
    team_barrier(team);

    const int64_t n = FN(deal)(job, team, s.rows);
    for (int64_t i = 0; i < n; i++) {
        FN(copy_or_zero)(s.carry_h + i * stride, FN(row_of)(a->d_h_n, s.rows[i], P), P);
        if (s.carry_c)
            FN(copy_or_zero)(s.carry_c + i * wide, FN(row_of)(a->d_c_n, s.rows[i], H), H);
    }
    struct FN(back_step) at = {.a = a, .w = &job->w, .rows = s.rows, .carry_h = s.carry_h};
    at.carry_c = s.carry_c;
    at.ahead = FN(ahead)(a, 0);
    at.between = s.between;
    at.factors = s.factors;
    at.zeros = job->zeros;
    int64_t summed = 0;

    for (int64_t begin = 0; begin < T; begin += job->steps) {
        const int64_t end = T - begin < job->steps ? T : begin + job->steps;
        int64_t pairs = 0;
        for (int64_t step = begin; step < end; step++) {
            const int64_t forwards = T - 1 - step;
            if (job->again && (step == 0 || (forwards + 1) % K == 0))
                FN(record_again)(job, team, &again, forwards / K * K, forwards + 1);
            at.t = FN(time_of)(a, forwards);
            at.active = FN(active)(a, s.rows, n, at.active, at.t);
            at.ring = s.ring + pairs;
            at.downwards = (int)(step & 1);
            at.last = step == T - 1 && !a->d_h_0;
            for (int64_t i = 0; i < n; i++) {
                const int64_t b = s.rows[i];
                if (i < at.active) {
                    s.ring[pairs + i] = job->ring + (step * B + b) % job->ring_rows * job->ring_stride;
                    if (a->d_x.data)
                        s.d_x[pairs + i] = FN(at)(&a->d_x, at.t, b);
                    continue;
                }
                if (a->d_x.data)
                    FN(copy_or_zero)(FN(at)(&a->d_x, at.t, b), NULL, D);
                if (a->norms)
                    a->norms[at.t * B + b] = 0;
            }
            FN(back_step)(&at);
            pairs += at.active;
            for (int64_t i = 0; a->restart && i < at.active; i++)
                if (a->restart[at.t * B + s.rows[i]]) {
                    FN(copy_or_zero)(s.carry_h + i * stride, NULL, P);
                    if (s.carry_c)
                        FN(copy_or_zero)(s.carry_c + i * wide, NULL, H);
                }
        }
        if (a->d_x.data) {
            struct FN(rows_out) out = {s.d_x, D};
            FN(product)((const real *const *)s.ring, pairs, &job->w.x[0], 0, NULL, 0, NULL, 0,
                        FN(finish_rows), &out);
        }
        if (FN(weights_wanted)(a))
            for (; end * B - summed >= FN(chunk) || (end == T && summed < T * B); summed += FN(chunk))
                FN(weight_gradients)(job, team, &s, summed, FN(clamp)(end * B, 0, summed + FN(chunk)));
        if (end < T && stop_together(job->stop, team))
            return;
    }
    if (T * B == 0) /* the sum of nothing */
        FN(weight_gradients)(job, team, &s, 0, 0);
    FN(copy_bias_gradient)(a, team);
    for (int64_t i = 0; i < n; i++) {
        if (a->d_h_0)
            FN(copy_or_zero)((real *)a->d_h_0 + s.rows[i] * P, s.carry_h + i * stride, P);
        if (a->d_c_0)
            FN(copy_or_zero)((real *)a->d_c_0 + s.rows[i] * H, s.carry_c + i * wide, H);
    }
}

/* Beside the steps that are made at once the tape holds the one before them, and those of which the weight
 * gradients still need something. */
static uintptr_t FN(lay_out_again)(struct FN(job) *job, int members, uintptr_t at)
{
    struct FN(again) *again = job->again;
    struct fastrnn_layer *a = &again->a, *back = &again->back;
    const int late = a->w_peep || a->cell == FASTRNN_GRU_RESET_FIRST;
    const int64_t B = a->B, steps = a->checkpoint + 1 + (late ? job->ring_rows / (B > 0 ? B : 1) + 2 : 0);
    a->tape_steps = back->tape_steps = steps < a->T ? steps : a->T;
    a->gates = back->gates = carve(&at, a->tape_steps * B * 4 * a->H, sizeof(real));
    if (a->cell == FASTRNN_LSTM)
        a->c = back->c = carve(&at, a->tape_steps * B * a->H, sizeof(real));
    const int64_t stride = FN(stride)(a->P);
    a->output = (struct fastrnn_sequence){carve(&at, B * stride, sizeof(real)), 0, stride};
    again->forward.most_rows = job->most_rows;
    at = FN(carve_weights)(a, at, &again->forward.w);
    return FN(lay_out_members)(&again->forward, members, at);
}

static uintptr_t FN(lay_out_backward)(void *shared, int members, uintptr_t at)
{
    struct FN(job) *job = shared;
    const struct fastrnn_layer *a = job->a;
    struct FN(backward_scratch) s;
    at = FN(lay_out_rows)(job, members, at);
    /* A chunk's rows, but no more work than tens of milliseconds: signals are looked for in between. */
    const double most = FN(block_flops) * (double)(a->T + 1) / (2 * FN(flops)(a) + 1);
    job->steps = FN(clamp)(FN(chunk) / (a->B + 1) + 1, 1, a->T + 1);
    if ((double)job->steps > most)
        job->steps = most < 1 ? 1 : (int64_t)most;
    job->ring_rows = FN(chunk) + job->steps * a->B;
    job->ring_stride = FN(ring_stride)(a);
    at = FN(carve_plain_weights)(a, at, &job->w);
    job->zeros = carve(&at, FN(stride)(a->H), sizeof(real));
    job->ring = carve(&at, job->ring_rows * job->ring_stride, sizeof(real));
    if (a->d_w_ih)
        job->packed[0] = carve(&at, FN(packed_size)(FN(chunk), a->D), sizeof(real));
    if (a->d_w_hh)
        job->packed[1] = carve(&at, FN(packed_size)(FN(chunk), a->P), sizeof(real));
    if (a->d_w_hr || (a->d_w_hh && a->cell == FASTRNN_GRU_RESET_FIRST))
        job->packed[2] = carve(&at, FN(packed_size)(FN(chunk), a->H), sizeof(real));
    if (job->again)
        at = FN(lay_out_again)(job, members, at);
    job->members = at;
    job->member_bytes = FN(carve_backward)(job, members, at, &s) - at;
    return at + (size_t)members * job->member_bytes;
}

static struct FN(job) FN(backward_job)(const struct fastrnn_layer *a, struct stop *stop,
                                         struct FN(again) *again)
{
    /* One sequence has work for two: the weight gradients are one product over all steps. */
    struct FN(job) job = {.a = a, .flops = 2 * FN(flops)(a), .most = a->B == 1 ? 2 : a->B, .stop = stop};
    if (a->checkpoint && a->cell > FASTRNN_RNN_RELU) {
        *again = (struct FN(again)){.a = *a, .back = *a, .checkpoints = a->c};
        again->forward.a = &again->a;
        job.a = &again->back;
        job.again = again;
        job.flops += FN(flops)(a);
    }
    return job;
}

static int FN(layer_backward)(const struct fastrnn_call *call)
{
    const struct fastrnn_layer *a = (const void *)call;
    struct FN(again) again[2];
    struct stop stop = stop_for(call);
    struct FN(job) job = FN(backward_job)(a, &stop, &again[0]), beside;
    if (a->beside)
        beside = FN(backward_job)(a->beside, &stop, &again[1]);
    return FN(run)(&job, a->beside ? &beside : NULL, FN(backward_member), FN(lay_out_backward));
}
