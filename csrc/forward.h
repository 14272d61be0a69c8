/* Forward: what each member of a team makes of a layer, and how jobs are laid out in scratch and run, which bptt.h
 * shares. Members have rows of their own, or units of few rows, or one makes the input part for the other.
 */

static void FN(forward_member)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct fastrnn_layer *a = job->a;
    if (!a->packed) {
        FN(pack_weights)(a, &job->w, FN(input_weights) | FN(state_weights), team->id, team->n);
        team_barrier(team);
    }
    struct FN(forward_scratch) s = FN(forward_scratch)(job, team->id);
    s.n = FN(deal)(job, team, s.rows);
    s.staged = team->n > 1 && !job->order;
    s.fused = FN(is_fused)(job, s.n);
    FN(begin_rows)(job, &s);
    for (int64_t begin = 0; begin < a->T; begin += job->steps) {
        const int64_t end = FN(block_end)(job, begin, a->T);
        FN(input_part)(job, &s, begin, end, 0);
        FN(recurrence)(job, &s, begin, end, 0);
        if (s.staged)
            FN(write_block)(job, &s, begin, end, team->id & 1);
        stop_poll(job->stop, team);
        if (stop_asked(job->stop))
            return;
    }
    FN(end_rows)(job, &s);
}

/* Few rows: the members take all of them together, and each makes some of the units, so that its share of the
 * weights stays in its own caches and its tiles have as many rows as there are. They wait for each other at
 * every step. For cells of one product a step, where all rows begin at once and run on. */
static int FN(sharers)(const struct fastrnn_layer *a)
{
    if (a->lengths || a->restart || a->w_hr || a->cell == FASTRNN_GRU_RESET_FIRST)
        return 1;
    const int gates = gates_of(a->cell);
    return team_size_in_step(2.0 * (double)a->B * (double)a->H * (double)a->H * gates, FN(pieces)(gates, a->H));
}

static int FN(is_shared)(const struct FN(job) *job, int members)
{
    return members > 1 && members <= job->sharers && 2 * job->a->B <= (int64_t)MR * members;
}

/* The units that a member makes, of s->sharing. */
static void FN(take_units)(const struct FN(job) *job, struct FN(weights) *w, struct FN(forward_scratch) *s, int gates)
{
    const int64_t H = job->a->H;
    s->begin = FN(first_unit)(gates, H, s->sharing->id, s->sharing->n);
    s->end = s->c_end = FN(first_unit)(gates, H, s->sharing->id + 1, s->sharing->n);
    w->x[0] = FN(units_of)(job->w.x[0], s->begin, s->end, H);
    w->h[0] = FN(units_of)(job->w.h[0], s->begin, s->end, H);
}

static void FN(sharing_member)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct fastrnn_layer *a = job->a;
    const int gates = gates_of(a->cell);
    const struct FN(forward_scratch) first = FN(forward_scratch)(job, 0);
    const struct team alone = {.n = 1, .mode = team->mode, .way_out = team->way_out};
    struct FN(weights) w = job->w;
    struct FN(forward_scratch) s = FN(forward_scratch)(job, team->id);
    s.w = &w;
    s.h = first.h;
    s.c = first.c;
    for (s.n = 0; s.n < a->B; s.n++)
        s.rows[s.n] = s.n;
    FN(begin_rows)(job, &s);
    if (!a->packed)
        FN(pack_weights)(a, &job->w, FN(input_weights) | FN(state_weights), team->id, team->n);
    for (int64_t begin = 0; begin < a->T; begin += job->steps) {
        /* Also the barrier after packing. Where two members have one processor, member 0 makes the block. */
        s.sharing = team_meets_apart(team) ? team : &alone;
        if (s.sharing == team || team->id == 0) {
            FN(take_units)(job, &w, &s, gates);
            const int64_t end = FN(block_end)(job, begin, a->T);
            s.running = s.counted = begin > 0 ? s.n : 0;
            s.now = (int)(begin & 1);
            FN(input_part)(job, &s, begin, end, 0);
            FN(recurrence)(job, &s, begin, end, 0);
        }
        if (stop_together(job->stop, team))
            return;
    }
    s.sharing = team;
    FN(take_units)(job, &w, &s, gates);
    FN(end_rows)(job, &s);
}

/* One sequence by two members: member 1 makes the input parts, in short blocks because member 0 waits for
 * the first one, and member 0 follows with the recurrence. */
enum { FN(fed_steps) = MR };

static int FN(is_fed)(const struct fastrnn_layer *a, int members) { return a->B == 1 && members > 1; }

static void FN(fed_member)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    const struct fastrnn_layer *a = job->a;
    struct FN(forward_scratch) s = FN(forward_scratch)(job, 0);
    int64_t row = 0;
    s.rows = &row;
    s.n = 1;
    if (!a->packed)
        FN(pack_weights)(a, &job->w, team->id ? FN(input_weights) : FN(state_weights), 0, 1);
    const int apart = team_meets_apart(team);
    if (team->id == 1) {
        for (int64_t block = 0; apart && block * job->steps < a->T; block++) {
            if (!count_reaches(&job->used, block + 1 - job->blocks, team, job->stop))
                return;
            const int64_t begin = block * job->steps;
            FN(input_part)(job, &s, begin, FN(block_end)(job, begin, a->T), block % job->blocks);
            count_set(&job->made, block + 1);
        }
        return;
    }
    FN(begin_rows)(job, &s);
    for (int64_t block = 0; block * job->steps < a->T; block++) {
        const int64_t begin = block * job->steps, end = FN(block_end)(job, begin, a->T);
        if (apart)
            count_reaches(&job->made, block + 1, team, job->stop);
        else
            FN(input_part)(job, &s, begin, end, block % job->blocks);
        FN(recurrence)(job, &s, begin, end, block % job->blocks);
        if (block % job->blocks == 0)
            stop_poll(job->stop, team);
        const int stopped = stop_asked(job->stop);
        count_set(&job->used, stopped ? INT64_MAX : block + 1); /* member 1 may sleep on it */
        if (stopped)
            return;
    }
    FN(end_rows)(job, &s);
}

/* Two jobs side by side, each done by one member. */
struct FN(pair) {
    struct FN(job) *jobs[2];
    void (*member)(const struct team *, void *);
    uintptr_t (*lay_out)(void *job, int members, uintptr_t at);
};

static void FN(pair_member)(const struct team *team, void *shared)
{
    const struct FN(pair) *pair = shared;
    const struct team alone = {.n = 1, .mode = team->mode, .deaf = team->id != 0, .way_out = team->way_out};
    for (int i = team->id; i < 2; i += team->n)
        pair->member(&alone, pair->jobs[i]);
}

static uintptr_t FN(lay_out_pair)(void *shared, int members, uintptr_t at)
{
    const struct FN(pair) *pair = shared;
    uintptr_t bytes = 0;
    (void)members;
    for (int i = 0; i < 2; i++) {
        const uintptr_t size = pair->lay_out(pair->jobs[i], 1, 0);
        if (at)
            pair->lay_out(pair->jobs[i], 1, at + bytes);
        bytes += size;
    }
    return at + bytes;
}

/* Runs a job, and another one beside it or after it, or NULL. Side by side are jobs of so few rows that a team of their
 * own would have no more than two members, whose tiles would not be full. */
static int FN(run)(struct FN(job) *job, struct FN(job) *beside, void (*member)(const struct team *, void *),
                   uintptr_t (*lay_out)(void *job, int members, uintptr_t at))
{
    const struct fastrnn_layer *a = job->a;
    const int threads = a->call.threads;
    struct FN(pair) pair = {{job, beside}, member, lay_out};
    if (beside && a->B <= MR && (a->B <= 2 || (threads ? threads : fastrnn_get_num_threads()) <= 2)) {
        const double flops = FN(flops)(a) + FN(flops)(beside->a);
        return stop_status(job->stop, team_job(threads, flops, 2, FN(lay_out_pair), FN(pair_member), &pair));
    }
    int status = FASTRNN_OK;
    for (int i = 0; i < (beside ? 2 : 1) && status == FASTRNN_OK; i++) {
        struct FN(job) *const one = pair.jobs[i];
        status = stop_status(job->stop, team_job(threads, one->flops, one->most, lay_out, member, one));
    }
    return status;
}

static uintptr_t FN(lay_out_rows)(struct FN(job) *job, int members, uintptr_t at)
{
    const struct fastrnn_layer *a = job->a;
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

static uintptr_t FN(lay_out_scratch)(struct FN(job) *job, int members, uintptr_t at)
{
    struct FN(forward_scratch) s;
    job->members = at;
    job->member_bytes = FN(carve_forward)(job, at, &s) - at;
    return at + (size_t)members * job->member_bytes;
}

/* Of members with as many rows as the job says. */
static uintptr_t FN(lay_out_members)(struct FN(job) *job, int members, uintptr_t at)
{
    const int64_t row_bytes = job->w.width * (int64_t)sizeof(real);
    job->blocks = 1;
    job->steps = FN(clamp)(FN(block) / (row_bytes * (job->most_rows + 1)), 1, job->a->T + 1);
    return FN(lay_out_scratch)(job, members, at);
}

static uintptr_t FN(lay_out_forward)(void *shared, int members, uintptr_t at)
{
    struct FN(job) *job = shared;
    const struct fastrnn_layer *a = job->a;
    at = FN(lay_out_rows)(job, members, at);
    if (a->packed)
        FN(carve_weights)(a, (uintptr_t)a->packed, &job->w);
    else
        at = FN(carve_weights)(a, at, &job->w);
    const int sharing = FN(is_shared)(job, members), fed = !sharing && FN(is_fed)(a, members);
    if (sharing)
        job->most_rows = a->B;
    if (!fed)
        return FN(lay_out_members)(job, members, at);
    /* So many that a member that has lost its processor, or shares it with the other, finds much to do. */
    job->steps = FN(fed_steps);
    job->blocks = FN(clamp)(FN(block) / (job->w.width * (int64_t)sizeof(real) * job->steps), 8, a->T / job->steps + 1);
    return FN(lay_out_scratch)(job, members, at);
}

static void FN(forward)(const struct team *team, void *shared)
{
    struct FN(job) *job = shared;
    if (FN(is_shared)(job, team->n))
        FN(sharing_member)(team, job);
    else if (FN(is_fed)(job->a, team->n))
        FN(fed_member)(team, job);
    else
        FN(forward_member)(team, job);
}

static struct FN(job) FN(forward_job)(const struct fastrnn_layer *a, struct stop *stop)
{
    struct FN(job) job = {.a = a, .flops = FN(flops)(a), .most = a->B, .sharers = FN(sharers)(a), .stop = stop};
    if (FN(is_shared)(&job, job.sharers))
        job.most = job.sharers > job.most ? job.sharers : job.most;
    else if (a->B == 1) { /* a second member takes the input part, which therefore has to be worth it */
        const double input = 2.0 * (double)a->D * (double)a->H * gates_of(a->cell);
        job.flops = 2 * input * (double)a->T;
        job.most = team_size_in_step(3 * input * FN(fed_steps), 2); /* they meet at every block */
    }
    return job;
}

static int FN(layer_forward)(const struct fastrnn_call *call)
{
    const struct fastrnn_layer *a = (const void *)call;
    struct stop stop = stop_for(call);
    struct FN(job) job = FN(forward_job)(a, &stop), beside;
    if (a->beside)
        beside = FN(forward_job)(a->beside, &stop);
    return FN(run)(&job, a->beside ? &beside : NULL, FN(forward), FN(lay_out_forward));
}
