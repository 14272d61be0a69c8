/* The gradient of an embedding: d_W[v] = sum of d_y_n over the n with index v, one chain from +0, n ascending.
 * (Forward copies rows, which NumPy does as fast.) Members own columns, cache lines of them, so every
 * member visits every row in its order and nobody waits. */

struct FN(embedding_job) {
    const struct fastrnn_embedding *a;
    struct stop stop;
};

static void FN(embedding_member)(const struct team *team, void *shared)
{
    struct FN(embedding_job) *job = shared;
    const struct fastrnn_embedding *a = job->a;
    const int64_t D = a->D, lines = (D + LINE - 1) / LINE;
    const int64_t begin = lines * team->id / team->n * LINE;
    const int64_t last = lines * (team->id + 1) / team->n * LINE, end = last < D ? last : D;
    for (int64_t v = 0; v < a->V; v++)
        memset((real *)a->d_weight + v * D + begin, 0, (size_t)(end - begin) * sizeof(real));
    const int64_t brief = ((int64_t)1 << 20) / (D + 1) + 1; /* rows between looks at the caller's signals */
    for (int64_t n = 0; n < a->N; n++) {
        const real *from = (const real *)a->d_output + n * a->step_d;
        real *to = (real *)a->d_weight + a->indices[n] * D;
        int64_t j = begin;
        for (; j + W <= end; j += W)
            vstore(to + j, vadd(vload(to + j), vload(from + j)));
        if (j < end) {
            const int left = (int)(end - j);
            vstore_n(to + j, vadd(vload_n(to + j, left), vload_n(from + j, left)), left);
        }
        if (n % brief == 0) {
            stop_poll(&job->stop, team);
            if (stop_asked(&job->stop))
                return;
        }
    }
}

static uintptr_t FN(lay_out_nothing)(void *job, int members, uintptr_t at)
{
    (void)job, (void)members;
    return at;
}

static int FN(embedding_backward)(const struct fastrnn_call *call)
{
    const struct fastrnn_embedding *a = (const void *)call;
    struct FN(embedding_job) job = {.a = a, .stop = stop_for(&a->call)};
    /* An addition with its loads and store costs about ten multiply-adds of a product. */
    const double flops = 20.0 * (double)(a->N + a->V) * (double)a->D;
    const int members = team_size(a->call.threads, flops, (a->D + LINE - 1) / LINE);
    return stop_status(&job.stop, team_job(members, FN(lay_out_nothing), FN(embedding_member), &job));
}
