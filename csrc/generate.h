/* Writing on: embedding, recurrent layers, output layer and the draw, step after step, one sequence.
 *
 * The sums are those of the functions alone, so each state and each row of logits has their bits. The input
 * part of the first layer depends on the index alone: it is made once for every index that occurs. */

/* One layer: a forward of one step of one row, whose state stays in its scratch. */
struct FN(generate_layer) {
    struct fastrnn_layer a;
    struct FN(job) job;
    struct FN(forward_scratch) s;
};

struct FN(generate_job) {
    const struct fastrnn_generate *a;
    struct stop stop;
    int status;
    struct FN(generate_layer) *layers;
    int tabled;          /* whether input parts are kept */
    unsigned char *made; /* (V,): which are */
    real *input_parts;   /* (V or 1) rows */
    struct FN(matrix) w_out;
    real *b_out, *logits, *e;
};

/* As much memory as kept input parts may take. */
static const int64_t FN(most_table) = (int64_t)16 << 20;

static uintptr_t FN(lay_out_generate)(void *shared, int members, uintptr_t at)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    const int counting = at == 0;
    const int64_t wide = FN(class_stride)(a->V), last = a->layers[a->count - 1].P;
    int64_t width = 0;
    (void)members;
    job->layers = carve(&at, a->count, sizeof *job->layers);
    for (int64_t i = 0; i < a->count; i++) {
        struct FN(generate_layer) spare, *l = counting ? &spare : &job->layers[i];
        *l = (struct FN(generate_layer)){.a = a->layers[i]};
        l->a.T = l->a.B = 1;
        l->a.h_0 = l->a.h_n;
        l->a.c_0 = l->a.c_n;
        l->job.a = &l->a;
        l->job.most_rows = l->job.steps = l->job.blocks = 1;
        at = FN(carve_weights)(&l->a, at, &l->job.w);
        l->a.output.data = carve(&at, FN(stride)(l->a.P), sizeof(real));
        at = FN(carve_forward)(&l->job, at, &l->s);
        if (i == 0)
            width = l->job.w.width;
    }
    /* With the reset gate first, a step writes over its pre-activations: they cannot be kept. */
    job->tabled = a->layers[0].cell != FASTRNN_GRU_RESET_FIRST &&
                  (double)a->V * (double)width * sizeof(real) <= (double)FN(most_table);
    job->made = carve(&at, a->V, 1);
    job->input_parts = carve(&at, (job->tabled ? a->V : 1) * width, sizeof(real));
    job->w_out = FN(matrix)(carve(&at, FN(packed_size)(last, a->V), sizeof(real)), last, a->V);
    job->b_out = carve(&at, wide, sizeof(real));
    job->logits = carve(&at, wide, sizeof(real));
    job->e = carve(&at, wide, sizeof(real));
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
    const double sum =
        FN(exponentials)(job->logits, job->a->V, (real)job->a->temperature, job->e, &max);
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

/* Feeds an index to the layers; returns the output of the last. */
static const real *FN(feed)(struct FN(generate_job) *job, int64_t index)
{
    const struct fastrnn_generate *a = job->a;
    for (int64_t i = 0; i < a->count; i++) {
        struct FN(generate_layer) *l = &job->layers[i];
        const real *x = i ? job->layers[i - 1].a.output.data : (const real *)a->embedding + index * l->a.D;
        int made = 0;
        if (i == 0) {
            l->s.z = job->input_parts + (job->tabled ? index * l->job.w.width : 0);
            made = job->tabled && job->made[index];
            job->made[index] = 1;
        }
        if (!made)
            FN(input_products)(&l->job, &l->s, &x, 1, l->s.z);
        FN(recurrence)(&l->job, &l->s, 0, 1, 0);
    }
    return job->layers[a->count - 1].a.output.data;
}

static void FN(generate_member)(const struct team *team, void *shared)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    const int64_t V = a->V;
    double work = (double)job->w_out.K * (double)V; /* of a step; signals are looked for now and then */
    for (int64_t i = 0; i < a->count; i++) {
        struct FN(generate_layer) *l = &job->layers[i];
        FN(pack_weights)(&l->a, &l->job.w, FN(input_weights) | FN(state_weights), 0, 1);
        l->s.n = l->s.active[0] = 1;
        l->s.rows[0] = 0;
        FN(begin_rows)(&l->job, &l->s);
        work += FN(flops)(&l->a) / 2;
    }
    FN(pack_transposed)(a->w_out, job->w_out.K, V, job->w_out.packed, 0, 1);
    FN(copy_or_zero)(job->b_out, NULL, FN(class_stride)(V));
    if (a->b_out)
        FN(copy_or_zero)(job->b_out, a->b_out, V);
    memset(job->made, 0, (size_t)V);

    double done = 0;
    const int64_t steps = a->fed + (a->length ? a->length - 1 : 0); /* the last index is not fed */
    for (int64_t step = 0; step < steps; step++) {
        const real *h = FN(feed)(job, step < a->fed ? a->prompt[step] : a->indices[step - a->fed]);
        if (step + 1 >= a->fed && a->length) {
            const int64_t n = step + 1 - a->fed;
            FN(product)(&h, 1, &job->w_out, (int)(step & 1), job->b_out, 0, job->logits, FN(class_stride)(V),
                        NULL, NULL);
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
    const int status = stop_status(&job.stop, team_job(1, 0, 1, FN(lay_out_generate), FN(generate_member), &job));
    return status == FASTRNN_OK ? job.status : status;
}
