/* Writing on: embedding, Elman layer, output layer and the draw, step after step, one sequence.
 *
 * The sums are those of the functions alone, so each state and each row of logits has their bits. The input
 * part of a step depends on the index alone: it is made once for every index that occurs. */

struct FN(generate_job) {
    const struct fastrnn_generate *a;
    struct stop stop;
    int status;
    int tabled;             /* whether input parts are kept */
    unsigned char *made;    /* (V,): which are */
    real *input_parts;      /* (V or 1) rows */
    real *w_ih, *w_hh, *w_out, *bias, *b_out;
    real *state[2], *output, *logits, *e;
};

/* As much memory as kept input parts may take. */
static const int64_t FN(most_table) = (int64_t)16 << 20;

static uintptr_t FN(lay_out_generate)(void *shared, int members, uintptr_t at)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    const int64_t stride = FN(stride)(a->H), wide = FN(class_stride)(a->V);
    (void)members;
    job->tabled = (double)a->V * (double)stride * sizeof(real) <= (double)FN(most_table);
    job->made = carve(&at, a->V, 1);
    job->input_parts = carve(&at, (job->tabled ? a->V : 1) * stride, sizeof(real));
    job->w_ih = carve(&at, FN(packed_size)(a->D, a->H), sizeof(real));
    job->w_hh = carve(&at, FN(packed_size)(a->H, a->H), sizeof(real));
    job->w_out = carve(&at, FN(packed_size)(a->H, a->V), sizeof(real));
    job->bias = carve(&at, stride, sizeof(real));
    job->b_out = carve(&at, wide, sizeof(real));
    job->state[0] = carve(&at, stride, sizeof(real));
    job->state[1] = carve(&at, stride, sizeof(real));
    job->output = carve(&at, stride, sizeof(real));
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

static void FN(generate_member)(const struct team *team, void *shared)
{
    struct FN(generate_job) *job = shared;
    const struct fastrnn_generate *a = job->a;
    const int64_t D = a->D, H = a->H, V = a->V, stride = FN(stride)(H);
    FN(pack_transposed)(a->w_ih, D, H, job->w_ih, 0, 1);
    FN(pack_transposed)(a->w_hh, H, H, job->w_hh, 0, 1);
    FN(pack_transposed)(a->w_out, H, V, job->w_out, 0, 1);
    FN(add_biases)(a->b_ih, a->b_hh, H, job->bias);
    FN(copy_or_zero)(job->b_out, NULL, FN(class_stride)(V));
    if (a->b_out)
        FN(copy_or_zero)(job->b_out, a->b_out, V);
    FN(copy_or_zero)(job->state[0], a->h, H);
    memset(job->made, 0, (size_t)V);

    FN(finish) *finish = a->nonlinearity == FASTRNN_TANH ? FN(rnn_finish_tanh) : FN(rnn_finish_relu);
    int now = 0;
    const double work = (double)H * (double)(D + H + V); /* of a step; signals are looked for now and then */
    double done = 0;
    const int64_t steps = a->fed + (a->length ? a->length - 1 : 0); /* the last index is not fed */
    for (int64_t step = 0; step < steps; step++) {
        const int64_t index = step < a->fed ? a->prompt[step] : a->indices[step - a->fed];
        real *z = job->input_parts + (job->tabled ? index * stride : 0);
        if (!job->tabled || !job->made[index]) {
            const real *x = (const real *)a->embedding + index * D;
            FN(product)(&x, 1, D, job->w_ih, H, 0, job->bias, 0, z, stride, NULL, NULL);
            job->made[index] = 1;
        }
        struct FN(rnn_step) s = {.H = H, .state = &job->state[!now], .output = &job->output};
        const real *h = job->state[now];
        FN(product)(&h, 1, H, job->w_hh, H, now, z, stride, NULL, 0, finish, &s);
        now = !now;
        if (step + 1 >= a->fed && a->length) {
            const int64_t n = step + 1 - a->fed;
            h = job->state[now];
            FN(product)(&h, 1, H, job->w_out, V, now, job->b_out, 0, job->logits, FN(class_stride)(V), NULL,
                        NULL);
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
    FN(copy_or_zero)(a->h, job->state[now], H);
}

static int FN(generate)(const struct fastrnn_call *call)
{
    const struct fastrnn_generate *a = (const void *)call;
    struct FN(generate_job) job = {.a = a, .stop = stop_for(&a->call), .status = FASTRNN_OK};
    const int status = stop_status(&job.stop, team_job(1, FN(lay_out_generate), FN(generate_member), &job));
    return status == FASTRNN_OK ? job.status : status;
}
