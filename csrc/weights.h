/* The packed weights of a layer: where they lie, and their packing by the members of a team. */

/* ----------------------------------------------------------------------------------------- forward */

static uintptr_t FN(carve_weights)(const struct fastrnn_layer *a, uintptr_t at, struct FN(weights) *w)
{
    const int64_t D = a->D, H = a->H, P = a->P;
    const int gates = gates_of(a->cell), split = a->cell == FASTRNN_GRU_RESET_FIRST;
    const int first = split ? 2 : gates; /* gates of the first product; the second, if any, has one */
    w->x_count = split ? 2 : 1;
    w->x_at[0] = 0;
    w->x_at[1] = FN(round_up)(FN(columns)(2, H), W);
    const int64_t columns = split                     ? w->x_at[1] + FN(columns)(1, H)
                            : a->cell == FASTRNN_GRU ? FN(columns)(FN(gru_slots), H)
                                                      : FN(columns)(gates, H);
    w->width = FN(stride)(columns);
    for (int i = 0; i < w->x_count; i++) {
        const int n = i ? 1 : first;
        real *packed = carve(&at, D * FN(columns)(n, H), sizeof(real));
        w->x[i] = FN(gate_matrix)(packed, D, n, H);
        packed = carve(&at, P * FN(columns)(n, H), sizeof(real));
        w->h[i] = FN(gate_matrix)(packed, P, n, H);
    }
    if (a->cell == FASTRNN_GRU) {
        w->x[0].spread = w->h[0].spread = FN(gru_slots) * W;
        w->h[0].slot = 1;
    }
    w->bias = carve(&at, w->width, sizeof(real));
    w->w_hr = FN(gate_matrix)(a->w_hr ? carve(&at, H * FN(columns)(1, P), sizeof(real)) : NULL, H, 1, P);
    w->peep = a->w_peep ? carve(&at, 3 * FN(stride)(H), sizeof(real)) : NULL;
    return at;
}

/* Adds up to two biases, NULL or those of gate `gate` of (G, H), at slot `slot` of groups of `slots`. */
static void FN(put_bias)(const struct fastrnn_layer *a, int gate, const void *b, const void *b2, real *bias,
                         int slots, int slot)
{
    const real *p = b ? (const real *)b + gate * a->H : NULL, *q = b2 ? (const real *)b2 + gate * a->H : NULL;
    for (int64_t j = 0; j < a->H; j++)
        bias[FN(column)(slots, slot, j, a->H)] = (p ? p[j] : 0) + (q ? q[j] : 0);
}

static void FN(pack_bias)(const struct fastrnn_layer *a, const struct FN(weights) *w)
{
    memset(w->bias, 0, (size_t)w->width * sizeof(real));
    const int gates = gates_of(a->cell);
    if (a->cell == FASTRNN_GRU) {
        FN(put_bias)(a, 2, a->b_ih, NULL, w->bias, FN(gru_slots), 0);
        FN(put_bias)(a, 0, a->b_ih, a->b_hh, w->bias, FN(gru_slots), 1);
        FN(put_bias)(a, 1, a->b_ih, a->b_hh, w->bias, FN(gru_slots), 2);
        FN(put_bias)(a, 2, a->b_hh, NULL, w->bias, FN(gru_slots), 3);
    } else if (a->cell == FASTRNN_GRU_RESET_FIRST) {
        FN(put_bias)(a, 0, a->b_ih, a->b_hh, w->bias, 2, 0);
        FN(put_bias)(a, 1, a->b_ih, a->b_hh, w->bias, 2, 1);
        FN(put_bias)(a, 2, a->b_ih, a->b_hh, w->bias + w->x_at[1], 1, 0);
    } else
        for (int gate = 0; gate < gates; gate++)
            FN(put_bias)(a, gate, a->b_ih, a->b_hh, w->bias, gates, gate);
}

static void FN(pack_peepholes)(const struct fastrnn_layer *a, const struct FN(weights) *w)
{
    const int64_t stride = FN(stride)(a->H);
    memset(w->peep, 0, (size_t)(3 * stride) * sizeof(real));
    for (int i = 0; i < 3; i++)
        memcpy(w->peep + i * stride, (const real *)a->w_peep + i * a->H, (size_t)a->H * sizeof(real));
}

enum { FN(input_weights) = 1, FN(state_weights) = 2 };

/* Packs the weights of the input part with the biases, the others, or both: a member's share. */
static void FN(pack_weights)(const struct fastrnn_layer *a, const struct FN(weights) *w, int which, int id,
                             int members)
{
    /* The order of gates: GRU's input part has n first. */
    static const int in_order[] = {0, 1, 2, 3}, n_first[] = {2, 0, 1}, only_n[] = {2};
    for (int i = 0; i < w->x_count; i++) {
        const int *order = i ? only_n : in_order, *x_order = a->cell == FASTRNN_GRU ? n_first : order;
        if (which & FN(input_weights))
            FN(pack_gates)(a->w_ih, x_order, w->x[i].slots, a->D, a->H, w->x[i].packed, id, members);
        if (which & FN(state_weights))
            FN(pack_gates)(a->w_hh, order, w->h[i].slots, a->P, a->H, w->h[i].packed, id, members);
    }
    if (which & FN(input_weights) && id == 0)
        FN(pack_bias)(a, w);
    if (which & FN(state_weights) && a->w_hr)
        FN(pack_transposed)(a->w_hr, a->H, a->P, w->w_hr.packed, id, members);
    if (which & FN(state_weights) && a->w_peep && id == 0)
        FN(pack_peepholes)(a, w);
}

struct FN(pack_job) {
    const struct fastrnn_layer *a;
    struct FN(weights) w;
};

static void FN(pack_member)(const struct team *team, void *shared)
{
    const struct FN(pack_job) *job = shared;
    FN(pack_weights)(job->a, &job->w, FN(input_weights) | FN(state_weights), team->id, team->n);
}

static size_t FN(pack)(const struct fastrnn_layer *a, void *packed)
{
    struct FN(pack_job) job = {.a = a};
    const uintptr_t begin = (uintptr_t)packed, end = FN(carve_weights)(a, begin, &job.w);
    if (packed)
        team_run(1, 0, FN(pack_member), &job); /* in the floating-point mode of the kernels: biases are added */
    return end - begin;
}

/* ---------------------------------------------------------------------------------------- backward */

static uintptr_t FN(carve_plain_weights)(const struct fastrnn_layer *a, uintptr_t at, struct FN(weights) *w)
{
    const int64_t D = a->D, H = a->H, P = a->P, rows = gates_of(a->cell) * H;
    const int64_t first = a->cell == FASTRNN_GRU_RESET_FIRST ? 2 * H : rows; /* rows of the first product */
    *w = (struct FN(weights)){.x_count = a->d_x.data != NULL};
    w->h[0] = FN(matrix)(carve(&at, FN(packed_size)(first, P), sizeof(real)), first, P);
    if (first < rows)
        w->h[1] = FN(matrix)(carve(&at, FN(packed_size)(rows - first, P), sizeof(real)), rows - first, P);
    if (w->x_count)
        w->x[0] = FN(matrix)(carve(&at, FN(packed_size)(rows, D), sizeof(real)), rows, D);
    if (a->w_hr)
        w->w_hr = FN(matrix)(carve(&at, FN(packed_size)(P, H), sizeof(real)), P, H);
    w->peep = a->w_peep ? carve(&at, 3 * FN(stride)(H), sizeof(real)) : NULL;
    return at;
}

/* Packs a member's share of the rows of a matrix; `pointers`, the member's own, has room for them all. */
static void FN(pack_plain)(const void *matrix, int64_t first_row, const struct FN(matrix) *m,
                           const real **pointers, int id, int members)
{
    const int64_t begin = m->K * id / members, end = m->K * (id + 1) / members;
    for (int64_t k = begin; k < end; k++)
        pointers[k] = (const real *)matrix + (first_row + k) * m->N;
    FN(pack_rows)(pointers, begin, end, m->K, m->N, m->packed);
}

static void FN(pack_plain_weights)(const struct fastrnn_layer *a, const struct FN(weights) *w,
                                   const real **pointers, int id, int members)
{
    FN(pack_plain)(a->w_hh, 0, &w->h[0], pointers, id, members);
    if (w->h[1].packed)
        FN(pack_plain)(a->w_hh, w->h[0].K, &w->h[1], pointers, id, members);
    if (w->x_count)
        FN(pack_plain)(a->w_ih, 0, &w->x[0], pointers, id, members);
    if (a->w_hr)
        FN(pack_plain)(a->w_hr, 0, &w->w_hr, pointers, id, members);
    if (a->w_peep && id == 0)
        FN(pack_peepholes)(a, w);
}
