/* The gradient of an embedding: d_W[v] = sum of d_y_n over the n with index v; each element is one chain of float64
 * additions from +0, n ascending, rounded once. (Forward copies rows, which NumPy does as fast.)
 * One thread groups the n by index, in a counting sort, which keeps their order. Then threads own columns, cache lines
 * of them, and nobody waits. No vector width enters: plain C, which the compiler vectorises. */

struct FN(embedding_job) {
    const struct fastrnn_embedding *a;
    struct stop stop;
    int64_t *order; /* (N + rows_ahead,): n by index, then zeros */
    int64_t *ends;  /* (V,): where in `order` those of an index end; they begin where those of the one before end */
};

enum {
    FN(rows_ahead) = 16,  /* a row is asked for so many before it is added: the next one may be anywhere */
    FN(strip) = 128,      /* columns at once, at most: their sums stay in registers where there are 32 of 64 bytes */
    FN(unasked) = 1 << 20 /* indices, or elements, between looks at the caller's signals */
};

/* Whether somebody asked to stop, looked up before some of the n. */
static int FN(leaves_grouping)(struct FN(embedding_job) *job, const struct team *team, int64_t n)
{
    if (n % FN(unasked) != 0)
        return 0;
    stop_poll(&job->stop, team);
    return stop_asked(&job->stop);
}

static void FN(group_by_index)(struct FN(embedding_job) *job, const struct team *team)
{
    const struct fastrnn_embedding *a = job->a;
    memset(job->ends, 0, (size_t)a->V * sizeof *job->ends);
    for (int64_t n = 0; n < a->N; n++) {
        job->ends[a->indices[n]]++;
        if (FN(leaves_grouping)(job, team, n))
            return;
    }
    for (int64_t v = 0, begin = 0; v < a->V; v++) {
        const int64_t count = job->ends[v];
        job->ends[v] = begin;
        begin += count;
    }
    for (int64_t n = 0; n < a->N; n++) {
        job->order[job->ends[a->indices[n]]++] = n; /* where they begin becomes where they end */
        if (FN(leaves_grouping)(job, team, n))
            return;
    }
    memset(job->order + a->N, 0, sizeof *job->order * FN(rows_ahead));
}

/* Asks for n elements of the row that is added `rows_ahead` after the k-th. */
static ALWAYS_INLINE void FN(ask_for_row)(const int n, const real *d, int64_t step, const int64_t *order, int64_t k)
{
    const real *const later = d + order[k + FN(rows_ahead)] * step;
    for (int j = 0; j < n; j += LINE)
        __builtin_prefetch(later + j);
}

/* to[j] = the sum of column col + j over rows order[begin] ... order[end - 1], of which there is one, j < n. */
static ALWAYS_INLINE void FN(strip_summed)(const int n, struct FN(embedding_job) *job, const struct team *team,
                                           int64_t begin, int64_t end, int64_t col, real *to)
{
    const real *const d = (const real *)job->a->d_output + col;
    const int64_t step = job->a->step_d, *const order = job->order;
    const real *const first = d + order[begin] * step;
    double sum[FN(strip)];
    FN(ask_for_row)(n, d, step, order, begin);
    for (int j = 0; j < n; j++)
        sum[j] = 0.0 + (double)first[j]; /* -0 becomes +0 */
    begin++;
    while (begin < end && !stop_asked(&job->stop)) {
        const int64_t some = end - begin < FN(unasked) / n ? end : begin + FN(unasked) / n;
        for (int64_t k = begin; k < some; k++) {
            const real *const row = d + order[k] * step;
            FN(ask_for_row)(n, d, step, order, k);
            for (int j = 0; j < n; j++)
                sum[j] += (double)row[j];
        }
        begin = some;
        if (begin < end)
            stop_poll(&job->stop, team);
    }
    for (int j = 0; j < n; j++)
        to[j] = (real)sum[j];
}

/* Of row v, which order[begin] ... order[end - 1] picked, n columns from col on. */
static void FN(some_summed)(struct FN(embedding_job) *job, const struct team *team, int64_t begin, int64_t end,
                            int64_t v, int64_t col, int64_t n)
{
    real *const to = (real *)job->a->d_weight + v * job->a->D + col;
#define CASE(n)                                                                                                        \
    case n: FN(strip_summed)(n, job, team, begin, end, col, to); break
    switch (n) {
        CASE(1);
        CASE(2);
        CASE(4);
        CASE(8);
        CASE(16);
        CASE(32);
        CASE(64);
        CASE(128);
    }
#undef CASE
}

/* The smallest power of two that is at least n, at most a strip. */
static int64_t FN(strip_for)(int64_t n)
{
    int64_t power = FN(strip);
    while (power / 2 >= n)
        power /= 2;
    return power;
}

static void FN(embedding_thread)(const struct team *team, void *shared)
{
    struct FN(embedding_job) *job = shared;
    const struct fastrnn_embedding *a = job->a;
    const int64_t D = a->D, lines = (D + LINE - 1) / LINE;
    const int64_t begin = lines * team->id / team->n * LINE;
    const int64_t last = lines * (team->id + 1) / team->n * LINE, end = last < D ? last : D;
    if (team->id == 0)
        FN(group_by_index)(job, team);
    team_barrier(team); /* the only one: from here on a thread may leave */
    if (stop_asked(&job->stop))
        return;
    /* Whole strips, and at the end a narrower one; of fewer columns than a strip the most that fit, and the same. The
     * last one begins where it ends with them, so it may make columns a second time. */
    int64_t whole = FN(strip_for)(end - begin);
    whole = whole > end - begin ? whole / 2 : whole;
    const int64_t behind_whole = begin + (end - begin) / whole * whole;
    const int64_t narrow = behind_whole < end ? FN(strip_for)(end - behind_whole) : 0;
    int64_t done = 0;
    for (int64_t v = 0, first = 0; v < a->V; v++) {
        const int64_t behind = job->ends[v];
        if (first == behind)
            memset((real *)a->d_weight + v * D + begin, 0, (size_t)(end - begin) * sizeof(real));
        else {
            for (int64_t col = begin; col < behind_whole; col += whole)
                FN(some_summed)(job, team, first, behind, v, col, whole);
            if (narrow)
                FN(some_summed)(job, team, first, behind, v, end - narrow, narrow);
        }
        done += (behind - first + 1) * (end - begin);
        first = behind;
        if (done >= FN(unasked)) {
            done = 0;
            stop_poll(&job->stop, team);
            if (stop_asked(&job->stop))
                return;
        }
    }
}

static uintptr_t FN(layout_embedding)(void *shared, int threads, uintptr_t at)
{
    struct FN(embedding_job) *job = shared;
    (void)threads;
    job->order = arena_take(&at, job->a->N + FN(rows_ahead), sizeof *job->order);
    job->ends = arena_take(&at, job->a->V, sizeof *job->ends);
    return at;
}

static int FN(embedding_backward)(const struct fastrnn_call *call)
{
    const struct fastrnn_embedding *a = (const void *)call;
    if (a->D == 0)
        return FASTRNN_OK;
    struct FN(embedding_job) job = {.a = a, .stop = stop_for(&a->call)};
    return stop_status(&job.stop, team_job(a->call.threads, fastrnn_embedding_flops(a), (a->D + LINE - 1) / LINE,
                                           FN(layout_embedding), FN(embedding_thread), &job));
}
