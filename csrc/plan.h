/* How a call of directions is run. That is decided here, once the number of its threads is known, and kept in the job:
 * rows of the batch for each thread; or, of few rows or of weights that no cache holds, hidden units for each thread;
 * or, of one sequence, a pipeline of two threads; or two directions side by side. And how many time steps are made at
 * once.
 */

static const int64_t FN(block_bytes) = 1 << 17; /* of pre-activations in a block: half a small L2 */
static const double FN(block_flops) = 1e9;      /* max operations in a block of backward */
static const double FN(far_block_flops) = 6e9;  /* and of one where W_ih is far */
/* Where it is, a block of the input projection has about so many rows at least, so that to read W_ih is little beside
 * multiplying by it. */
enum { FN(rows_of_far) = 96 };
/* The pipeline has short blocks, because the consumer waits for the first one. */
enum { FN(pipeline_steps) = MR };

struct FN(job) {
    const struct fastrnn_direction *a;
    const struct FN(cell) *cell;
    struct stop *stop;
    int intermediate; /* whether a step has a second product */
    int far_state, far_input; /* whether W_hh is far (policy.c), and W_ih: asked once */
    /* What the number of threads depends on: */
    double flops, flops_to_read; /* of one step: see plan_team */
    int64_t max_threads;
    int unit_threads; /* max threads over which it pays to split the units of a step */
    struct fastrnn_plan plan;
    /* The memory of the call: */
    struct FN(weights) w;
    struct FN(tape) tape;
    struct fastrnn_sequence output;
    const int64_t *order; /* with lengths: the rows by descending length; else NULL */
    uintptr_t scratch;    /* of the threads, each of scratch_bytes */
    size_t scratch_bytes;
    _Alignas(64) struct count made; /* blocks, by the producer of a pipeline */
    _Alignas(64) struct count used; /* and by its consumer */
    /* backward, shared by the team: */
    struct FN(job) *recompute; /* with a short tape: the forward that makes the rest; else NULL */
    real *dz;                  /* circular buffer: row r of all T*B, the last step first, at r % dz_rows */
    int64_t dz_rows, dz_stride;
    struct FN(source) *sources; /* (count,) of the weight gradients; each thread has rows of its own */
    int count;
    struct FN(start) start;
};

static int64_t FN(clamp)(int64_t n, int64_t min, int64_t max) { return n < min ? min : n > max ? max : n; }

static ALWAYS_INLINE void FN(begin_job)(struct FN(job) *job, const struct fastrnn_direction *a, struct stop *stop)
{
    const struct FN(cell) *cell = FN(cell_of)(a);
    const double bytes = (double)a->H * cell->facts.gates * sizeof(real);
    const double of_state = (double)a->P * bytes, of_input = (double)multiplied_features(a) * bytes;
    const double of_step = of_state + (a->T == 1 ? of_input : 0);
    *job = (struct FN(job)){
        .a = a,
        .cell = cell,
        .stop = stop,
        .intermediate = FN(has_intermediate)(a, cell),
        .far_state = is_far(of_state),
        .far_input = is_far(of_input),
        .flops_to_read = is_far(2 * of_step) ? 2 * of_step : 0,
        .flops = fastrnn_flops(&cell->facts, a, 0),
        .max_threads = a->B,
        .tape = FN(tape)(a, cell),
        .output = a->output,
    };
}

/* ----------------------------------------------------------------------------------- units or rows */

/* Threads may take all rows together, and each makes some of the units: it then reads its share of the weights only,
 * and its tiles have as many rows as there are. They wait for each other at every step. That is for few rows, whose
 * weights then stay in the threads' own caches; and for weights that stay in nobody's.
 *
 * The piece of H by which units are split: the panels of every product are whole. */
static int64_t FN(unit_piece)(const struct FN(cell) *cell)
{
    const int64_t first = FN(piece)(cell->layout[0].slots);
    return cell->products > 1 ? FN(piece)(1) : first;
}

/* Whether h is a second product of all of c's units, by a matrix of its own. */
static int FN(projects)(const struct FN(job) *job) { return job->intermediate && job->cell->products == 1; }

/* Over how many threads it pays to split them; `piece` of H, whole pieces of one gate of P. */
static int FN(unit_threads)(const struct FN(job) *job, int64_t piece)
{
    const struct fastrnn_direction *a = job->a;
    int64_t pieces = FN(pieces)(piece, a->H);
    if (FN(projects)(job))
        pieces = FN(clamp)(FN(pieces)(FN(piece)(1), a->P), 1, pieces);
    const double flops = 2.0 * (double)a->B * (double)a->H * (double)a->P * job->cell->facts.gates;
    return team_size_in_step(fmax(flops, job->flops_to_read), pieces);
}

static int FN(splits_units)(const struct FN(job) *job, int threads)
{
    return threads > 1 && threads <= job->unit_threads && (2 * job->a->B <= (int64_t)MR * threads || job->far_state);
}

/* The share of a thread. */
static struct FN(share) FN(share)(const struct FN(job) *job, int64_t piece, const struct team *team)
{
    const struct fastrnn_direction *a = job->a;
    const int id = team->id, n = team->n;
    const int64_t begin = FN(first_unit)(piece, a->H, id, n), end = FN(first_unit)(piece, a->H, id + 1, n);
    if (!FN(projects)(job))
        return (struct FN(share)){begin, end, begin, end};
    const int64_t whole = FN(piece)(1);
    return (struct FN(share)){FN(first_unit)(whole, a->P, id, n), FN(first_unit)(whole, a->P, id + 1, n), begin, end};
}

/* ----------------------------------------------------------------------------------------- forward */

/* For how many threads forward has work, and how much. Few rows are multiplied as fast as their weights are read; from
 * where two processors hold what one does not, a byte takes as long as two operations. A single step reads W_ih too. */
static void FN(plan_team)(struct FN(job) *job)
{
    const struct fastrnn_direction *a = job->a;
    job->unit_threads = FN(unit_threads)(job, FN(unit_piece)(job->cell));
    if (FN(splits_units)(job, job->unit_threads)) {
        if (job->unit_threads > job->max_threads)
            job->max_threads = job->unit_threads;
        job->flops = fmax(job->flops, (double)a->T * job->flops_to_read);
    } else if (a->B == 1 && a->T > 1 && !a->given) {
        /* A second thread takes the input projection, which therefore has to be worth it. */
        const double input = 2.0 * (double)a->D * (double)a->H * job->cell->facts.gates;
        job->flops = 2 * input * (double)a->T;
        job->max_threads = team_size_in_step(3 * input * FN(pipeline_steps), 2); /* they meet at every block */
    }
}

/* A single step uses its weights once: whoever has all rows of a panel packs that panel, and of one row nothing. */
static int FN(packs)(const struct FN(job) *job, int threads)
{
    return job->a->T > 1 || (threads > 1 && !FN(splits_units)(job, threads));
}

/* For so many threads, each with `rows` rows of the batch. */
static ALWAYS_INLINE void FN(plan_rows)(struct FN(job) *job, int threads, int64_t rows)
{
    const struct fastrnn_direction *a = job->a;
    const int64_t bytes = job->w.width * (int64_t)sizeof(real);
    const int64_t fit = FN(block_bytes) / (bytes * (rows + 1)), far = job->far_input ? FN(rows_of_far) / (rows + 1) : 0;
    job->plan.way = FASTRNN_BY_ROWS;
    job->plan.threads = threads;
    job->plan.rows = rows;
    job->plan.steps = FN(clamp)(fit > far ? fit : far, 1, a->T + 1);
    job->plan.blocks = 1;
    job->plan.packed = 1;
}

static void FN(plan_forward)(struct FN(job) *job, int threads)
{
    const struct fastrnn_direction *a = job->a;
    const int packed = a->packed || FN(packs)(job, threads);
    if (FN(splits_units)(job, threads)) {
        FN(plan_rows)(job, threads, a->B);
        job->plan.way = FASTRNN_BY_UNITS;
        job->plan.packed = packed;
        return;
    }
    FN(plan_rows)(job, threads, threads == 1 ? a->B : (a->B + threads - 1) / threads);
    job->plan.packed = packed;
    if (a->B == 1 && threads > 1) {
        job->plan.way = FASTRNN_PIPELINE;
        job->plan.steps = FN(pipeline_steps);
        /* So many blocks that a thread that has lost its processor, or shares it with the other, finds much to do. */
        const int64_t bytes = job->w.width * (int64_t)sizeof(real) * FN(pipeline_steps);
        job->plan.blocks = FN(clamp)(FN(block_bytes) / bytes, 8, a->T / FN(pipeline_steps) + 1);
    }
}

/* Whether each panel of W_ih is packed just before the rows of a block use it, and not kept: by threads that split units,
 * each of which has panels of its own, and for so few blocks that to write and to read it would take as long. */
static int FN(packs_input_late)(const struct FN(job) *job)
{
    const struct fastrnn_direction *a = job->a;
    return !a->packed && job->far_input && job->plan.way == FASTRNN_BY_UNITS && a->T > 1 && a->T <= 2 * job->plan.steps;
}

/* One row, full panels, and an input projection so small that to store it and to load it again would take as long; a
 * step then reads its weights again, which stay in L1D or not far from it. Or weights that are not packed. */
static int FN(steps_take_x)(const struct FN(job) *job, int64_t rows)
{
    const struct fastrnn_direction *a = job->a;
    const struct FN(matrix) *x = &job->w.x[0];
    const int64_t row = x->N * (int64_t)sizeof(real);
    if (rows != 1 || a->given || !job->cell->takes_x || !job->cell->takes_x(a))
        return 0;
    return !job->plan.packed || (x->N % x->panel == 0 && (a->T == 1 || a->D * row <= L1D / 8));
}

/* ---------------------------------------------------------------------------------------- backward */

static void FN(plan_backward)(struct FN(job) *job, int threads)
{
    const struct fastrnn_direction *a = job->a;
    /* A chunk's rows, but no more work than tens of milliseconds: signals are looked for in between. Where W_ih is far
     * d_x is made of more rows at once. */
    const double work = job->far_input ? FN(far_block_flops) : FN(block_flops);
    const double max = (double)(a->T + 1) * work / (2 * fastrnn_flops(&job->cell->facts, a, 0) + 1);
    const int64_t steps = FN(clamp)(FN(chunk) / (a->B + 1) + 1, 1, a->T + 1);
    const int by_units = FN(splits_units)(job, threads);
    job->plan.way = by_units ? FASTRNN_BY_UNITS : FASTRNN_BY_ROWS;
    job->plan.threads = threads;
    job->plan.rows = by_units ? a->B : (a->B + threads - 1) / threads;
    job->plan.steps = (double)steps > max ? (max < 1 ? 1 : (int64_t)max) : steps;
    job->plan.blocks = 1;
    job->plan.packed = 1;
}

/* ------------------------------------------------------------------------------------ two directions */

/* Side by side are jobs of so few rows that a team of their own would have no more than two threads, whose tiles would
 * not be full. */
static int FN(are_concurrent)(const struct fastrnn_directions *call)
{
    const int64_t B = call->directions[0].B;
    if (call->count < 2 || B > MR)
        return 0;
    return B <= 2 || (call->call.threads ? call->call.threads : fastrnn_get_num_threads()) <= 2;
}
