/* The packed weights of a direction: where they lie, and their packing by the threads of a team. */

static const struct FN(cell) *FN(cell_of)(const struct fastrnn_direction *a) { return FN(cells)[a->cell]; }

/* ----------------------------------------------------------------------------------------- forward */

static const int FN(one_gate) = 0;

static uintptr_t FN(layout_extra)(const struct fastrnn_direction *a, int plain, uintptr_t at, struct FN(weights) *w)
{
    const struct fastrnn_cell *facts = &FN(cell_of)(a)->facts;
    for (int i = 0; i < facts->extras; i++) {
        if (!a->extra[i])
            continue;
        const struct fastrnn_extra *extra = &facts->extra[i];
        const int64_t rows = units_of(a, extra->shape[0]), columns = units_of(a, extra->shape[1]);
        if (extra->rank == 1)
            w->extra[i].packed = arena_take(&at, extra->shape[0].times * FN(stride)(a->H), sizeof(real));
        else if (plain)
            w->extra[i] = FN(matrix)(arena_take(&at, FN(packed_size)(rows, columns), sizeof(real)), rows, columns);
        else if (w->unpacked & FN(state_weights)) {
            w->extra[i] = FN(gate_matrix)(w->h[0].packed, columns, 1, rows);
            w->extra[i].source = (struct FN(gates)){a->extra[i], &FN(one_gate), rows};
        } else
            w->extra[i] = FN(gate_matrix)(arena_take(&at, columns * FN(columns)(1, rows), sizeof(real)), columns, 1,
                                          rows);
    }
    return at;
}

/* A matrix of `gates` of the slots of a layout, from slot `first` on. Where it does not fill them a panel is one group. */
static ALWAYS_INLINE void FN(place_matrix)(struct FN(matrix) *m, const struct gate_layout *layout, int gates, int first)
{
    if (gates < layout->slots) {
        m->panel = gates * W;
        m->spread = layout->slots * W;
        m->slot = first;
    }
}

/* `unpacked`: which matrices `threads` threads multiply by as they are. */
static uintptr_t FN(layout_weights)(const struct fastrnn_direction *a, int unpacked, int threads, uintptr_t at,
                                    struct FN(weights) *w)
{
    const struct FN(cell) *cell = FN(cell_of)(a);
    const int64_t D = multiplied_features(a), H = a->H, P = a->P;
    int64_t column = 0;
    w->unpacked = unpacked;
    w->panel = unpacked ? (D > H ? D : H) * PANEL : 0;
    real *const panel = arena_take(&at, threads * w->panel, sizeof(real));
    for (int i = 0; i < cell->products; i++) {
        const struct gate_layout *layout = &cell->layout[i];
        const int xs = layout->x_gates, hs = layout->h_gates;
        real *const x = unpacked & FN(input_weights) ? panel : arena_take(&at, D * FN(columns)(xs, H), sizeof(real));
        real *const h = unpacked & FN(state_weights) ? panel : arena_take(&at, P * FN(columns)(hs, H), sizeof(real));
        w->x[i] = FN(gate_matrix)(x, D, xs, H);
        w->h[i] = FN(gate_matrix)(h, P, hs, H);
        if (unpacked & FN(input_weights))
            w->x[i].source = (struct FN(gates)){a->w_ih, layout->x, H};
        if (unpacked & FN(state_weights))
            w->h[i].source = (struct FN(gates)){a->w_hh, layout->h, H};
        FN(place_matrix)(&w->x[i], layout, xs, 0);
        FN(place_matrix)(&w->h[i], layout, hs, layout->slots - hs);
        w->at[i] = column;
        column = FN(round_up)(column + FN(columns)(layout->slots, H), W);
    }
    w->width = FN(stride)(column);
    w->bias = arena_take(&at, w->width, sizeof(real));
    return FN(layout_extra)(a, 0, at, w);
}

/* The biases of every slot: b_ih of the gate that x has there, b_hh of that of h. */
static void FN(pack_bias)(const struct fastrnn_direction *a, const struct FN(weights) *w)
{
    const struct FN(cell) *cell = FN(cell_of)(a);
    const real *const b_ih = a->b_ih, *const b_hh = a->b_hh;
    memset(w->bias, 0, (size_t)w->width * sizeof(real));
    for (int i = 0; i < cell->products; i++) {
        const struct gate_layout *layout = &cell->layout[i];
        for (int slot = 0; slot < layout->slots; slot++) {
            const int h_slot = slot - (layout->slots - layout->h_gates);
            const real *p = b_ih && slot < layout->x_gates ? b_ih + layout->x[slot] * a->H : NULL;
            const real *q = b_hh && h_slot >= 0 ? b_hh + layout->h[h_slot] * a->H : NULL;
            for (int64_t j = 0; j < a->H; j += W) {
                const int n = FN(lanes)(j, a->H);
                const vec sum = vadd(p ? FN(load_lanes)(p + j, n) : vzero(), q ? FN(load_lanes)(q + j, n) : vzero());
                real *to = w->bias + w->at[i] + FN(column)(layout->slots, slot, j, a->H);
                FN(store_counting)(to, sum, FN(group_width)(j, a->H));
            }
        }
    }
}

/* The extra parameters that are rows of H. */
static void FN(pack_rows_of_units)(const struct fastrnn_direction *a, const struct FN(weights) *w)
{
    const struct fastrnn_cell *facts = &FN(cell_of)(a)->facts;
    const int64_t stride = FN(stride)(a->H);
    for (int i = 0; i < facts->extras; i++)
        for (int row = 0; a->extra[i] && facts->extra[i].rank == 1 && row < facts->extra[i].shape[0].times; row++) {
            real *to = w->extra[i].packed + row * stride;
            memset(to, 0, (size_t)stride * sizeof(real));
            memcpy(to, (const real *)a->extra[i] + row * a->H, (size_t)a->H * sizeof(real));
        }
}

/* Packs the weights of the input projection with the biases, the others, or both: a thread's share. Where matrices are
 * not packed there are still biases and rows of units. */
static void FN(pack_weights)(const struct fastrnn_direction *a, const struct FN(weights) *w, int which, int id,
                             int threads)
{
    const struct FN(cell) *cell = FN(cell_of)(a);
    for (int i = 0; i < cell->products; i++) {
        const struct gate_layout *layout = &cell->layout[i];
        if ((which & ~w->unpacked & FN(input_weights)) && !a->given)
            FN(pack_gates)(a->w_ih, layout->x, &w->x[i], a->H, id, threads);
        if (which & ~w->unpacked & FN(state_weights))
            FN(pack_gates)(a->w_hh, layout->h, &w->h[i], a->H, id, threads);
    }
    if (id == 0 && (which & FN(input_weights)))
        FN(pack_bias)(a, w);
    if (!(which & FN(state_weights)))
        return;
    for (int i = 0; i < cell->facts.extras; i++)
        if (cell->facts.extra[i].rank == 2 && a->extra[i] && !(w->unpacked & FN(state_weights)))
            FN(pack_gates)(a->extra[i], &(int){0}, &w->extra[i], units_of(a, cell->facts.extra[i].shape[0]), id,
                           threads);
    if (id == 0)
        FN(pack_rows_of_units)(a, w);
}

struct FN(pack_job) {
    const struct fastrnn_direction *a;
    struct FN(weights) w;
};

static void FN(pack_thread)(const struct team *team, void *shared)
{
    const struct FN(pack_job) *job = shared;
    FN(pack_weights)(job->a, &job->w, FN(all_weights), team->id, team->n);
}

static size_t FN(pack)(const struct fastrnn_direction *a, void *packed)
{
    struct FN(pack_job) job = {.a = a};
    const uintptr_t begin = (uintptr_t)packed, end = FN(layout_weights)(a, 0, 0, begin, &job.w);
    if (packed)
        team_run(1, 0, FN(pack_thread), &job); /* in the floating-point mode of the kernels: biases are added */
    return end - begin;
}

/* ---------------------------------------------------------------------------------------- backward */

/* x[0], where d_x is a product, has all gates; h[i] those of product i, which are neighbouring rows of w_hh. */
static uintptr_t FN(layout_plain_weights)(const struct fastrnn_direction *a, uintptr_t at, struct FN(weights) *w)
{
    const struct FN(cell) *cell = FN(cell_of)(a);
    *w = (struct FN(weights)){.width = 0};
    for (int i = 0; i < cell->products; i++) {
        const int64_t rows = cell->layout[i].h_gates * a->H;
        w->h[i] = FN(matrix)(arena_take(&at, FN(packed_size)(rows, a->P), sizeof(real)), rows, a->P);
    }
    const int64_t rows = cell->facts.gates * a->H;
    if (a->d_x.data && !a->given)
        w->x[0] = FN(matrix)(arena_take(&at, FN(packed_size)(rows, a->D), sizeof(real)), rows, a->D);
    return FN(layout_extra)(a, 1, at, w);
}

/* Packs a thread's share of the rows of a matrix; `pointers`, the thread's own, has room for them all. */
static void FN(pack_plain)(const void *matrix, int64_t first_row, const struct FN(matrix) *m, const real **pointers,
                           int id, int threads)
{
    const int64_t begin = m->K * id / threads, end = m->K * (id + 1) / threads;
    for (int64_t k = begin; k < end; k++)
        pointers[k] = (const real *)matrix + (first_row + k) * m->N;
    FN(pack_rows)(pointers, begin, end, m->K, m->N, m->packed);
}

static void FN(pack_plain_weights)(const struct fastrnn_direction *a, const struct FN(weights) *w,
                                   const real **pointers, int id, int threads)
{
    const struct FN(cell) *cell = FN(cell_of)(a);
    for (int64_t i = 0, row = 0; i < cell->products; row += w->h[i++].K)
        FN(pack_plain)(a->w_hh, row, &w->h[i], pointers, id, threads);
    if (a->d_x.data && !a->given)
        FN(pack_plain)(a->w_ih, 0, &w->x[0], pointers, id, threads);
    for (int i = 0; i < cell->facts.extras; i++)
        if (cell->facts.extra[i].rank == 2 && a->extra[i])
            FN(pack_plain)(a->extra[i], 0, &w->extra[i], pointers, id, threads);
    if (id == 0)
        FN(pack_rows_of_units)(a, w);
}
