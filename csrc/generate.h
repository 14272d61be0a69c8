/* Autoregressive generation: embedding, recurrent layers, output layer and the draw, step after step, one sequence.
 *
 * The sums are those of the functions alone, so each state and each row of logits has their bits. The input
 * part of the first layer depends on the index alone: it is made once for every index that occurs. */

/* One layer: a forward of one step of one row, whose state stays in its scratch. */
struct FN(generate_layer) {
    struct fastrnn_direction a;
    struct FN(job) job;
    struct FN(forward_scratch) s;
};

struct FN(generate_job) {
    const struct fastrnn_generate *a;
    struct stop stop;
    int status;
    struct FN(generate_layer) *layers;
    int cached;          /* whether input projections are kept */
    unsigned char *made; /* (V,): which are */
    real *input_projections;   /* (V or 1) rows */
    struct FN(matrix) w_out;
    real *b_out, *logits, *e;
};

/* Bytes that kept input projections may take. */
static const int64_t FN(max_cache) = (int64_t)16 << 20;

static uintptr_t FN(layout_generate_layer)(struct FN(generate_layer) *l, const struct fastrnn_direction *a,
                                           uintptr_t at)
{
    *l = (struct FN(generate_layer)){.a = *a};
    l->a.T = l->a.B = 1;
    l->a.h_0 = l->a.h_n;
    l->a.c_0 = l->a.c_n;
    FN(begin_job)(&l->job, &l->a, NULL);
    l->job.plan = (struct fastrnn_plan){.threads = 1, .rows = 1, .steps = 1, .blocks = 1, .packed = 1};
    at = FN(layout_weights)(&l->a, 0, at, &l->job.w);
    l->job.output.data = arena_take(&at, FN(stride)(l->a.P), sizeof(real));
    return FN(layout_forward_scratch)(&l->job, at, &l->s);
}

static uintptr_t FN(layout_generate)(void *shared, int threads, uintptr_t at)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    const int counting = at == 0;
    const int64_t wide = FN(class_stride)(a->V), last = a->layers[a->count - 1].P;
    int64_t width = 0;
    (void)threads;
    job->layers = arena_take(&at, a->count, sizeof *job->layers);
    for (int64_t i = 0; i < a->count; i++) {
        struct FN(generate_layer) spare, *l = counting ? &spare : &job->layers[i];
        at = FN(layout_generate_layer)(l, &a->layers[i], at);
        if (i == 0) {
            width = l->job.w.width;
            /* What a step writes over cannot be kept. */
            job->cached = !l->job.cell->overwrites &&
                          (double)a->V * (double)width * sizeof(real) <= (double)FN(max_cache);
        }
    }
    job->made = arena_take(&at, a->V, 1);
    job->input_projections = arena_take(&at, (job->cached ? a->V : 1) * width, sizeof(real));
    job->w_out = FN(matrix)(arena_take(&at, FN(packed_size)(last, a->V), sizeof(real)), last, a->V);
    job->b_out = arena_take(&at, wide, sizeof(real));
    job->logits = arena_take(&at, wide, sizeof(real));
    job->e = arena_take(&at, wide, sizeof(real));
    return at;
}

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

/* The first index at which the running sum of e passes u times the whole; -1 where that is NaN. */
static int64_t FN(draw)(struct FN(generate_job) *job, double u)
{
    real max;
    const real *e = job->e;
    const double sum = FN(exponentials)(job->logits, job->a->V, (real)job->a->temperature, job->e, &max);
    if (sum != sum)
        return -1;
    double running = 0;
    int64_t last = 0; /* rounding may leave the running sum just short of u times the whole */
    for (int64_t j = 0; j < job->a->V; j++) {
        running += (double)e[j];
        if (running > u * sum)
            return j;
        if (e[j] > 0)
            last = j;
    }
    return last;
}

/* Lets the layers read an index; returns the output of the last. */
static const real *FN(read_index)(struct FN(generate_job) *job, int64_t index)
{
    const struct fastrnn_generate *a = job->a;
    for (int64_t i = 0; i < a->count; i++) {
        struct FN(generate_layer) *l = &job->layers[i];
        const real *x = i ? job->layers[i - 1].job.output.data : (const real *)a->embedding + index * l->a.D;
        int made = 0;
        if (i == 0) {
            l->s.z = job->input_projections + (job->cached ? index * l->job.w.width : 0);
            made = job->cached && job->made[index];
            job->made[index] = 1;
        }
        if (!made)
            FN(input_products)(&l->job, &l->s, &x, 1, l->s.z);
        FN(recurrence)(&l->job, &l->s, 0, 1, 0);
    }
    return job->layers[a->count - 1].job.output.data;
}

static void FN(begin_generate)(struct FN(generate_job) *job)
{
    const struct fastrnn_generate *a = job->a;
    for (int64_t i = 0; i < a->count; i++) {
        struct FN(generate_layer) *l = &job->layers[i];
        FN(pack_weights)(&l->a, &l->job.w, FN(all_weights), 0, 1);
        l->s.n = l->s.active[0] = 1;
        l->s.rows[0] = 0;
        FN(begin_rows)(&l->job, &l->s);
    }
    FN(pack_transposed)(a->w_out, job->w_out.K, a->V, job->w_out.packed, 0, 1);
    FN(copy_or_zero)(job->b_out, NULL, FN(class_stride)(a->V));
    if (a->b_out)
        FN(copy_or_zero)(job->b_out, a->b_out, a->V);
    memset(job->made, 0, (size_t)a->V);
}

static void FN(generate_thread)(const struct team *team, void *shared)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    const int64_t V = a->V, steps = a->prompted + (a->length ? a->length - 1 : 0); /* the last index is not read */
    const double work = fastrnn_generate_flops(a) / (double)(a->prompted + a->length) / 2;
    double done = 0; /* signals are looked for now and then */
    FN(begin_generate)(job);
    for (int64_t step = 0; step < steps; step++) {
        const real *h = FN(read_index)(job, step < a->prompted ? a->prompt[step] : a->indices[step - a->prompted]);
        if (step + 1 >= a->prompted && a->length) {
            const int64_t n = step + 1 - a->prompted;
            FN(gemm)(&h, 1, &job->w_out, (int)(step & 1), job->b_out, 0, job->logits, FN(class_stride)(V), NULL, NULL);
            a->indices[n] = a->uniform ? FN(draw)(job, a->uniform[n]) : FN(largest)(job->logits, V);
            if (a->indices[n] < 0) {
                job->status = FASTRNN_NOT_FINITE;
                return;
            }
        }
        done += work;
        if (done > 1e7) {
            done = 0;
            stop_poll(&job->stop, team);
            if (stop_asked(&job->stop))
                return;
        }
    }
    for (int64_t i = 0; i < a->count; i++)
        FN(end_rows)(&job->layers[i].job, &job->layers[i].s);
}

static int FN(generate)(const struct fastrnn_call *call)
{
    const struct fastrnn_generate *a = (const void *)call;
    struct FN(generate_job) job = {.a = a, .stop = stop_for(&a->call), .status = FASTRNN_OK};
    const int status = stop_status(&job.stop, team_job(1, 0, 1, FN(layout_generate), FN(generate_thread), &job));
    return status == FASTRNN_OK ? job.status : status;
}
