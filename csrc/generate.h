/* Autoregressive generation: embedding, recurrent layers, output layer and the draw, step after step.
 *
 * The sums are those of the functions alone, so each state and each row of logits has their bits. Sequences know nothing
 * of each other: each thread has some of them, and makes one step of all that still go on at once. The input part of the
 * first layer depends on the index alone: a thread makes it once for every index that occurs. */

/* One layer: a forward of one step. */
struct FN(generate_layer) {
    struct fastrnn_direction a;
    struct FN(job) job;
};

struct FN(generate_job) {
    const struct fastrnn_generate *a;
    struct stop stop;
    _Atomic int64_t left; /* sequences that go on */
    int64_t rows;         /* of them, those of one thread, at most */
    int cached;           /* whether input projections are kept */
    int64_t width;        /* of a row of them */
    struct FN(generate_layer) *layers;
    struct fastrnn_linear output;
    struct FN(matrix) w_out;
    real *b_out;
    uintptr_t scratch; /* of the threads, each of scratch_bytes */
    size_t scratch_bytes;
};

/* One thread's. */
struct FN(generate_scratch) {
    struct FN(forward_scratch) *layers; /* (count,), whose rows are the sequences that go on */
    int64_t n, *rows, *read;            /* how many, which, and the index that each reads */
    const real **top;                   /* outputs of the last layer, from which logits are made */
    unsigned char *made;                /* (V,): whose input projections are kept */
    real *input_projections;            /* (V) rows */
    real *z;                            /* (n) rows of pre-activations of the first layer */
    real *logits, *e;                   /* (n) rows; one row */
    int64_t *order;                     /* (V,): see take_largest */
    int64_t *turn;                      /* which way the next step goes through the weights, also after a call */
};

/* Bytes that kept input projections may take. */
static const int64_t FN(max_cache) = (int64_t)16 << 20;

/* ------------------------------------------------------------------------------------------ memory */

static uintptr_t FN(layout_generate_layer)(struct FN(generate_layer) *l, const struct fastrnn_direction *a, int64_t B,
                                           int64_t rows, uintptr_t at)
{
    *l = (struct FN(generate_layer)){.a = *a};
    l->a.T = 1;
    l->a.B = B;
    FN(begin_job)(&l->job, &l->a, NULL);
    l->job.plan = (struct fastrnn_plan){.threads = 1, .rows = rows, .steps = 1, .blocks = 1, .packed = 1};
    if (a->packed)
        FN(layout_weights)(&l->a, 0, 0, (uintptr_t)a->packed, &l->job.w);
    else
        at = FN(layout_weights)(&l->a, 0, 0, at, &l->job.w);
    l->job.output.step_b = FN(stride)(l->a.P);
    l->job.output.data = arena_take(&at, B * l->job.output.step_b, sizeof(real));
    return at;
}

static uintptr_t FN(layout_generate_scratch)(const struct FN(generate_job) *job, uintptr_t at,
                                             struct FN(generate_scratch) *s)
{
    const int64_t V = job->a->V, wide = FN(class_stride)(V);
    s->layers = arena_take(&at, job->a->count, sizeof *s->layers);
    s->read = arena_take(&at, job->rows, sizeof *s->read);
    s->top = arena_take(&at, job->rows, sizeof *s->top);
    s->made = arena_take(&at, V, 1);
    s->input_projections = arena_take(&at, job->cached ? V * job->width : 0, sizeof(real));
    s->logits = arena_take(&at, job->rows * wide, sizeof(real));
    s->e = arena_take(&at, wide, sizeof(real));
    s->order = arena_take(&at, V, sizeof *s->order);
    s->turn = arena_take(&at, 1, sizeof *s->turn);
    return at;
}

static uintptr_t FN(layout_generate)(void *shared, int threads, uintptr_t at)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    const int counting = at == 0;
    uintptr_t of_layers = 0; /* bytes of a thread */
    struct FN(forward_scratch) f;
    struct FN(generate_scratch) s;
    job->left = a->B;
    job->rows = (a->B + threads - 1) / threads;
    job->layers = arena_take(&at, a->count, sizeof *job->layers);
    for (int64_t i = 0; i < a->count; i++) {
        struct FN(generate_layer) spare, *l = counting ? &spare : &job->layers[i];
        at = FN(layout_generate_layer)(l, &a->layers[i], a->B, job->rows, at);
        of_layers += FN(layout_forward_scratch)(&l->job, 0, &f);
        if (i == 0) {
            job->width = l->job.w.width;
            /* What a step writes over cannot be kept. */
            job->cached = !l->job.cell->overwrites &&
                          (double)a->V * (double)job->width * threads * sizeof(real) <= (double)FN(max_cache);
        }
    }
    job->output = (struct fastrnn_linear){
        .D = a->layers[a->count - 1].P, .O = a->V, .weight = a->w_out, .bias = a->b_out, .packed = a->packed_out};
    if (a->packed_out)
        FN(layout_linear_weights)(&job->output, (uintptr_t)a->packed_out, &job->w_out, &job->b_out);
    else
        at = FN(layout_linear_weights)(&job->output, at, &job->w_out, &job->b_out);
    job->scratch = at;
    job->scratch_bytes = of_layers + FN(layout_generate_scratch)(job, 0, &s);
    return at + (size_t)threads * job->scratch_bytes;
}

/* ------------------------------------------------------------------------------------------ the draw */

/* The most probable index, the first of several; -1 where a logit is NaN. */
static int64_t FN(largest)(const real *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t j = 0; j < n; j++) {
        if (x[j] != x[j])
            return -1;
        if (x[j] > x[best])
            best = j;
    }
    return best;
}

/* Whether index i comes before j in the order of their logits: the most probable first, of several the lowest. */
static int FN(comes_before)(const real *x, int64_t i, int64_t j) { return x[i] > x[j] || (x[i] == x[j] && i < j); }

/* order[at ... n) is a heap but for its first, which goes where it belongs. */
static void FN(sift)(const real *x, int64_t *order, int64_t n, int64_t at)
{
    const int64_t index = order[at];
    for (int64_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && FN(comes_before)(x, order[child + 1], order[child]))
            child++;
        if (!FN(comes_before)(x, order[child], index))
            break;
        order[at] = order[child];
        at = child;
    }
    order[at] = index;
}

/* All indices, as a heap with the most probable on top. */
static void FN(begin_order)(const real *x, int64_t *order, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n / 2 - 1; i >= 0; i--)
        FN(sift)(x, order, n, i);
}

/* The most probable of the n that are left in the heap, which it leaves: it is put behind the others. */
static int64_t FN(take_largest)(const real *x, int64_t *order, int64_t n)
{
    const int64_t index = order[0];
    order[0] = order[n - 1];
    order[n - 1] = index;
    FN(sift)(x, order, n - 1, 0);
    return index;
}

/* Of n indices the fewest most probable whose share of `sum` reaches top_p; the others get e = 0. Returns the sum of
 * what is left. If `sorted`, the order is there already. */
static double FN(nucleus)(const struct fastrnn_generate *a, const real *x, real *e, int64_t *order, double sum,
                          int64_t n, int sorted)
{
    double running = 0;
    int64_t left = a->V;
    if (!sorted)
        FN(begin_order)(x, order, a->V);
    do {
        running += (double)e[sorted ? order[left - 1] : FN(take_largest)(x, order, left)];
        left--;
    } while (left > a->V - n && running < a->top_p * sum);
    for (int64_t i = 0; i < left; i++)
        e[order[i]] = 0;
    return running;
}

/* Among the top_k most probable, and of these among top_p, the first index at which the running sum of e passes u times
 * the whole; -1 where that is NaN. The others' logits are lost. */
static int64_t FN(draw)(const struct fastrnn_generate *a, struct FN(generate_scratch) *s, real *x, double u)
{
    const int64_t V = a->V, k = a->top_k < V ? a->top_k : V;
    real max;
    if (k < V) {
        if (FN(largest)(x, V) < 0)
            return -1;
        FN(begin_order)(x, s->order, V);
        for (int64_t taken = 0; taken < k; taken++)
            FN(take_largest)(x, s->order, V - taken);
        for (int64_t i = 0; i < V - k; i++)
            x[s->order[i]] = -INFINITY;
    }
    double sum = FN(exponentials)(x, V, (real)a->temperature, s->e, &max);
    if (sum != sum)
        return -1;
    if (a->top_p < 1)
        sum = FN(nucleus)(a, x, s->e, s->order, sum, k, k < V);
    double running = 0;
    int64_t last = 0; /* rounding may leave the running sum just short of u times the whole */
    for (int64_t j = 0; j < V; j++) {
        running += (double)s->e[j];
        if (running > u * sum)
            return j;
        if (s->e[j] > 0)
            last = j;
    }
    return last;
}

/* ------------------------------------------------------------------------------------------ one step */

static int64_t FN(prompted)(const struct fastrnn_generate *a, int64_t b) { return a->begins[b + 1] - a->begins[b]; }

/* What the first layer's step begins with, for the indices that are read. */
static real *FN(read_indices)(const struct FN(generate_job) *job, struct FN(generate_scratch) *s)
{
    const struct FN(generate_layer) *l = job->layers;
    const struct FN(forward_scratch) *f = s->layers;
    for (int64_t row = 0; row < s->n; row++)
        f->x[row] = (const real *)job->a->embedding + s->read[row] * l->a.D;
    if (!job->cached) {
        FN(input_products)(&l->job, f, f->x, s->n, s->z);
        return s->z;
    }
    for (int64_t row = 0; row < s->n; row++) {
        const int64_t index = s->read[row];
        real *const kept = s->input_projections + index * job->width;
        if (!s->made[index])
            FN(input_products)(&l->job, f, f->x + row, 1, kept);
        s->made[index] = 1;
        if (s->n == 1)
            return kept;
        memcpy(s->z + row * job->width, kept, (size_t)job->width * sizeof(real));
    }
    return s->z;
}

/* Lets the layers take a step. */
static void FN(step_layers)(const struct FN(generate_job) *job, struct FN(generate_scratch) *s)
{
    for (int64_t i = 0; i < job->a->count; i++) {
        const struct FN(generate_layer) *l = &job->layers[i];
        struct FN(forward_scratch) *f = &s->layers[i];
        if (i == 0)
            f->z = FN(read_indices)(job, s);
        else
            FN(input_products)(&l->job, f, (const real *const *)s->layers[i - 1].output, s->n, f->z);
        f->n = f->active[0] = s->n;
        FN(recurrence)(&l->job, f, 0, 1, 0);
    }
}

/* A sequence ends: its state is a result, and the last one takes its place. */
static void FN(end_sequence)(struct FN(generate_job) *job, struct FN(generate_scratch) *s, int64_t row)
{
    const int64_t last = --s->n, b = s->rows[row];
    for (int64_t i = 0; i < job->a->count; i++) {
        const struct fastrnn_direction *a = &job->layers[i].a;
        struct FN(forward_scratch) *f = &s->layers[i];
        const int64_t wide = FN(stride)(a->H);
        /* Of one that has failed it stays as it was. */
        if (a->h_n && job->a->written[b] >= 0)
            FN(copy_or_zero)((real *)a->h_n + b * a->P, f->state[f->now][row], a->P);
        if (a->c_n && job->a->written[b] >= 0)
            FN(copy_or_zero)((real *)a->c_n + b * a->H, f->c + row * wide, a->H);
        if (row == last)
            continue;
        f->state[0][row] = f->state[0][last];
        f->state[1][row] = f->state[1][last];
        if (f->c)
            memcpy(f->c + row * wide, f->c + last * wide, (size_t)wide * sizeof(real));
    }
    s->rows[row] = s->rows[last];
    job->left--;
}

/* Writes the next index of sequence b and returns whether it ends with it. */
static int FN(write_index)(const struct fastrnn_generate *a, struct FN(generate_scratch) *s, int64_t b, real *logits)
{
    const int64_t n = a->written[b]++;
    const int64_t index = a->uniform ? FN(draw)(a, s, logits, a->uniform[n * a->B + b]) : FN(largest)(logits, a->V);
    if (index < 0) {
        a->written[b] = -1;
        return 1;
    }
    a->indices[b * a->length + n] = index;
    return n + 1 == a->length || (a->stop && a->stop[index]);
}

static void FN(generate_step)(struct FN(generate_job) *job, struct FN(generate_scratch) *s, int64_t step)
{
    const struct fastrnn_generate *a = job->a;
    const int64_t wide = FN(class_stride)(a->V);
    for (int64_t row = 0; row < s->n; row++) {
        const int64_t b = s->rows[row], written = step - FN(prompted)(a, b);
        s->read[row] = written < 0 ? a->prompts[a->begins[b] + step] : a->indices[b * a->length + written];
    }
    FN(step_layers)(job, s);
    *s->turn = s->layers[0].now;
    int64_t writing = 0;
    for (int64_t row = 0; a->length && row < s->n; row++)
        if (step + 1 >= FN(prompted)(a, s->rows[row]))
            s->top[writing++] = s->layers[a->count - 1].output[row];
    if (writing)
        FN(gemm)(s->top, writing, &job->w_out, (int)*s->turn, job->b_out, 0, s->logits, wide, NULL, NULL);
    for (int64_t row = s->n - 1; row >= 0; row--) {
        const int64_t b = s->rows[row];
        if (step + 1 >= FN(prompted)(a, b) && (!a->length || FN(write_index)(a, s, b, s->logits + --writing * wide)))
            FN(end_sequence)(job, s, row);
    }
}

/* ------------------------------------------------------------------------------------------ threads */

/* A thread's share of the packing. */
static void FN(pack_network)(const struct team *team, void *shared)
{
    const struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    struct FN(generate_scratch) s;
    FN(layout_generate_scratch)(job, job->scratch + (size_t)team->id * job->scratch_bytes, &s);
    memset(s.made, 0, (size_t)a->V);
    *s.turn = 0;
    for (int64_t i = 0; i < a->count; i++)
        if (!a->layers[i].packed)
            FN(pack_weights)(&job->layers[i].a, &job->layers[i].job.w, FN(all_weights), team->id, team->n);
    if (!a->packed_out) {
        FN(pack_transposed)(a->w_out, job->w_out.K, a->V, job->w_out.packed, team->id, team->n);
        if (team->id == 0)
            FN(pack_linear_bias)(&job->output, job->b_out, 0, a->V);
    }
    team_barrier(team);
}

static struct FN(generate_scratch) FN(generate_scratch)(const struct FN(generate_job) *job, const struct team *team)
{
    const int64_t B = job->a->B;
    struct FN(generate_scratch) s = {.n = 0};
    uintptr_t at = job->scratch + (size_t)team->id * job->scratch_bytes;
    at = FN(layout_generate_scratch)(job, at, &s);
    for (int64_t i = 0; i < job->a->count; i++) {
        struct FN(forward_scratch) *f = &s.layers[i];
        *f = (struct FN(forward_scratch)){.n = job->rows, .now = (int)*s.turn};
        at = FN(layout_forward_scratch)(&job->layers[i].job, at, f);
        FN(begin_rows)(&job->layers[i].job, f);
        f->rows = s.layers[0].rows;
    }
    s.rows = s.layers[0].rows;
    s.z = s.layers[0].z;
    for (int64_t b = B * team->id / team->n; b < B * (team->id + 1) / team->n; b++) {
        s.rows[s.n++] = b;
        job->a->written[b] = 0;
    }
    return s;
}

static void FN(generate_thread)(const struct team *team, void *shared)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    /* Threads meet after some work, because one of them alone looks for signals, also when its sequences are done. */
    const double work = fastrnn_generate_flops(a) / (double)(a->begins[a->B] + a->B * a->length);
    const double brief = 2e7 / (work * (double)job->rows + 1);
    const int64_t steps = brief < 1 ? 1 : (int64_t)brief;
    if (!a->kept)
        FN(pack_network)(team, job);
    struct FN(generate_scratch) s = FN(generate_scratch)(job, team);
    for (int64_t step = 0;;) {
        for (const int64_t end = step + steps; step < end && s.n; step++)
            FN(generate_step)(job, &s, step);
        team_barrier(team); /* nobody goes on before the broadcast */
        const int done = !job->left;
        if (!done) /* else the states are written too: too late to stop */
            stop_poll(&job->stop, team);
        if (team_broadcast(team, done || stop_asked(&job->stop)))
            return;
    }
}

static int FN(generate)(const struct fastrnn_call *call)
{
    const struct fastrnn_generate *a = (const void *)call;
    struct FN(generate_job) job = {.a = a, .stop = stop_for(&a->call)};
    int status = FASTRNN_OK;
    if (a->kept) {
        FN(layout_generate)(&job, 1, (uintptr_t)a->kept);
        team_run(1, 0, FN(generate_thread), &job);
    } else
        status = team_job(a->call.threads, fastrnn_generate_flops(a), a->B, FN(layout_generate), FN(generate_thread),
                          &job);
    return stop_status(&job.stop, status);
}

static size_t FN(pack_generate)(const struct fastrnn_generate *a, void *kept)
{
    struct FN(generate_job) job = {.a = a};
    const uintptr_t begin = (uintptr_t)kept, end = FN(layout_generate)(&job, 1, begin);
    if (kept)
        team_run(1, 0, FN(pack_network), &job);
    return end - begin;
}
