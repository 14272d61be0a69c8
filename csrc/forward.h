/* Forward: what each thread of a team makes of a direction, in each of the ways of plan.h; and how jobs are laid out in
 * scratch and run, which bptt.h shares. */

static void FN(forward_by_rows)(const struct team *team, struct FN(job) *job)
{
    const struct fastrnn_direction *a = job->a;
    if (!a->packed) {
        FN(pack_weights)(a, &job->w, FN(all_weights), team->id, team->n);
        team_barrier(team);
    }
    struct FN(forward_scratch) s = FN(forward_scratch)(job, team->id);
    s.n = FN(partition_rows)(job, team, s.rows);
    s.staged = team->n > 1 && !job->order;
    s.takes_x = FN(steps_take_x)(job, s.n);
    s.turned = FN(turn)(a);
    FN(begin_rows)(job, &s);
    for (int64_t begin = 0; begin < a->T; begin += job->plan.steps) {
        const int64_t end = FN(block_end)(job, begin, a->T);
        FN(input_projection)(job, &s, begin, end, 0);
        FN(recurrence)(job, &s, begin, end, 0);
        if (s.staged)
            FN(write_staged)(job, &s, begin, end, team->id & 1);
        stop_poll(job->stop, team);
        if (stop_asked(job->stop))
            return;
    }
    FN(end_rows)(job, &s);
}

/* The units that a thread makes, of s->others. */
static void FN(take_units)(const struct FN(job) *job, struct FN(weights) *w, struct FN(forward_scratch) *s)
{
    const struct fastrnn_direction *a = job->a;
    /* Where this thread has room for a panel that is not packed. */
    const int64_t own = s->others->id * w->panel, own_x = w->unpacked & FN(input_weights) ? own : 0,
                  own_h = w->unpacked & FN(state_weights) ? own : 0;
    const struct FN(share) share = s->share = FN(share)(job, FN(unit_piece)(job->cell), s->others);
    for (int i = 0; i < job->cell->products; i++) {
        w->x[i] = FN(of_units)(job->w.x[i], share.c_begin, share.c_end, a->H);
        w->h[i] = FN(of_units)(job->w.h[i], share.c_begin, share.c_end, a->H);
        w->x[i].packed += own_x;
        w->h[i].packed += own_h;
    }
    for (int i = 0; i < job->cell->facts.extras; i++)
        if (job->cell->facts.extra[i].rank == 2 && a->extra[i]) {
            w->extra[i] = FN(of_units)(job->w.extra[i], share.begin, share.end, a->P);
            w->extra[i].packed += own_h;
        }
}

static void FN(forward_by_units)(const struct team *team, struct FN(job) *job)
{
    const struct fastrnn_direction *a = job->a;
    const struct FN(forward_scratch) first = FN(forward_scratch)(job, 0);
    const struct team alone = team_of_one(team);
    struct FN(weights) w = job->w;
    struct FN(forward_scratch) s = FN(forward_scratch)(job, team->id);
    s.w = &w;
    s.h = first.h;
    s.c = first.c;
    s.intermediate_rows = first.intermediate_rows;
    s.n = FN(partition_rows)(job, &alone, s.rows);
    s.turned = FN(turn)(a);
    s.others = team;
    FN(begin_rows)(job, &s);
    FN(take_units)(job, &w, &s);
    if (!a->packed)
        FN(pack_weights)(a, &job->w, FN(all_weights), team->id, team->n);
    for (int64_t begin = 0; begin < a->T; begin += job->plan.steps) {
        /* Also the barrier after packing. Where two threads have one processor, thread 0 makes the block. */
        s.others = team_meets_apart(team) ? team : &alone;
        if (s.others == team || team->id == 0) {
            FN(take_units)(job, &w, &s);
            const int64_t end = FN(block_end)(job, begin, a->T);
            s.running = s.counted = begin > 0 ? FN(active)(a, s.rows, s.n, 0, FN(time_of)(a, begin - 1)) : 0;
            s.now = (int)(begin & 1);
            s.takes_x = FN(steps_take_x)(job, s.n);
            FN(input_projection)(job, &s, begin, end, 0);
            FN(recurrence)(job, &s, begin, end, 0);
        }
        if (begin + job->plan.steps < a->T && stop_together(job->stop, team))
            return;
    }
    if (s.others == team || team->id == 0) /* who has made the last block: nobody waits for it */
        FN(end_rows)(job, &s);
}

/* Thread 1 of a pipeline: the input projections, block after block. */
static void FN(produce)(const struct team *team, struct FN(job) *job, struct FN(forward_scratch) *s)
{
    const struct fastrnn_plan *plan = &job->plan;
    for (int64_t block = 0; block * plan->steps < job->a->T; block++) {
        if (!count_reaches(&job->used, block + 1 - plan->blocks, team, job->stop))
            return;
        const int64_t begin = block * plan->steps;
        FN(input_projection)(job, s, begin, FN(block_end)(job, begin, job->a->T), block % plan->blocks);
        count_set(&job->made, block + 1);
    }
}

/* Thread 0: the recurrence, and where it is alone on its processor with thread 1 the input projections too. */
static void FN(consume)(const struct team *team, struct FN(job) *job, struct FN(forward_scratch) *s, int produced)
{
    const struct fastrnn_plan *plan = &job->plan;
    FN(begin_rows)(job, s);
    for (int64_t block = 0; block * plan->steps < job->a->T; block++) {
        const int64_t begin = block * plan->steps, end = FN(block_end)(job, begin, job->a->T);
        if (produced)
            count_reaches(&job->made, block + 1, team, job->stop);
        else
            FN(input_projection)(job, s, begin, end, block % plan->blocks);
        FN(recurrence)(job, s, begin, end, block % plan->blocks);
        if (block % plan->blocks == 0)
            stop_poll(job->stop, team);
        const int stopped = stop_asked(job->stop);
        count_set(&job->used, stopped ? INT64_MAX : block + 1); /* thread 1 may sleep on it */
        if (stopped)
            return;
    }
    FN(end_rows)(job, s);
}

static void FN(forward_pipeline)(const struct team *team, struct FN(job) *job)
{
    struct FN(forward_scratch) s = FN(forward_scratch)(job, 0);
    int64_t row = 0;
    s.rows = &row;
    s.n = 1;
    if (!job->a->packed)
        FN(pack_weights)(job->a, &job->w, team->id ? FN(input_weights) : FN(state_weights), 0, 1);
    const int apart = team_meets_apart(team);
    if (team->id == 0)
        FN(consume)(team, job, &s, apart);
    else if (apart)
        FN(produce)(team, job, &s);
}

static void FN(forward_thread)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    switch (job->plan.way) {
    case FASTRNN_BY_UNITS: FN(forward_by_units)(team, job); break;
    case FASTRNN_PIPELINE: FN(forward_pipeline)(team, job); break;
    default: FN(forward_by_rows)(team, job); break;
    }
}

/* The scratch of each thread, as the plan says. */
static uintptr_t FN(layout_threads)(struct FN(job) *job, uintptr_t at)
{
    struct FN(forward_scratch) s;
    job->scratch = at;
    job->scratch_bytes = FN(layout_forward_scratch)(job, at, &s) - at;
    return at + (size_t)job->plan.threads * job->scratch_bytes;
}

static uintptr_t FN(layout_forward)(void *shared, int threads, uintptr_t at)
{
    struct FN(job) *job = shared;
    const struct fastrnn_direction *a = job->a;
    at = FN(layout_order)(job, at);
    const uintptr_t weights = a->packed ? (uintptr_t)a->packed : at;
    const int unpacked = a->packed || FN(packs)(job, threads) ? 0 : FN(all_weights);
    uintptr_t end = FN(layout_weights)(a, unpacked, threads, weights, &job->w);
    FN(plan_forward)(job, threads);
    if (FN(packs_input_late)(job))
        end = FN(layout_weights)(a, FN(input_weights), threads, weights, &job->w);
    if (!a->packed)
        at = end;
    return FN(layout_threads)(job, at);
}

/* ------------------------------------------------------------------------------- running, both ways */

/* Two jobs side by side, each done by one thread. */
struct FN(pair) {
    struct FN(job) *jobs;
    void (*work)(const struct team *, void *);
    uintptr_t (*layout)(void *job, int threads, uintptr_t at);
    int threads;
};

static void FN(pair_thread)(const struct team *team, void *shared)
{
    const struct FN(pair) *pair = shared;
    const struct team alone = team_of_one(team);
    for (int i = team->id; i < 2; i += team->n)
        pair->work(&alone, &pair->jobs[i]);
}

static uintptr_t FN(layout_pair)(void *shared, int threads, uintptr_t at)
{
    struct FN(pair) *pair = shared;
    uintptr_t bytes = 0;
    pair->threads = threads;
    for (int i = 0; i < 2; i++) {
        const uintptr_t size = pair->layout(&pair->jobs[i], 1, 0);
        if (at)
            pair->layout(&pair->jobs[i], 1, at + bytes);
        bytes += size;
    }
    return at + bytes;
}

/* Runs the job of each direction, side by side or one after the other. */
static int FN(run)(const struct fastrnn_directions *call, struct FN(job) *jobs,
                   void (*work)(const struct team *, void *), uintptr_t (*layout)(void *job, int threads, uintptr_t at))
{
    struct stop *const stop = jobs->stop;
    if (FN(are_concurrent)(call)) {
        struct FN(pair) pair = {jobs, work, layout, 1};
        const double flops = fastrnn_flops(&jobs[0].cell->facts, jobs[0].a, 0) +
                             fastrnn_flops(&jobs[1].cell->facts, jobs[1].a, 0);
        const int status = team_job(call->call.threads, flops, 2, FN(layout_pair), FN(pair_thread), &pair);
        struct fastrnn_plan plan = jobs[0].plan;
        plan.way = FASTRNN_CONCURRENT;
        plan.threads = pair.threads;
        plan_made(&plan);
        return stop_status(stop, status);
    }
    int status = FASTRNN_OK;
    for (int i = 0; i < call->count && status == FASTRNN_OK; i++) {
        struct FN(job) *const job = &jobs[i];
        status = stop_status(stop, team_job(call->call.threads, job->flops, job->max_threads, layout, work, job));
        plan_made(&job->plan);
    }
    return status;
}

static int FN(forward)(const struct fastrnn_call *shared)
{
    const struct fastrnn_directions *call = (const void *)shared;
    struct stop stop = stop_for(shared);
    struct FN(job) jobs[2];
    for (int i = 0; i < call->count; i++) {
        FN(begin_job)(&jobs[i], &call->directions[i], &stop);
        FN(plan_team)(&jobs[i]);
    }
    return FN(run)(call, jobs, FN(forward_thread), FN(layout_forward));
}
