/* The next contract of fastrnn.h over today's, until csrc/ has it. */
#define fastrnn_cell fastrnn_cell_before
#define fastrnn_kernels fastrnn_kernels_before
#define fastrnn_generate fastrnn_generate_before
#include "fastrnn.h"
#undef fastrnn_cell
#undef fastrnn_kernels
#undef fastrnn_generate
#include <stdlib.h>
#include <string.h>

enum { FASTRNN_MAX_EXTRA = 4 };
struct fastrnn_size { int times; char of; };
struct fastrnn_extra { const char *name; int rank; struct fastrnn_size shape[2]; };
struct fastrnn_cell {
    const char *name;
    int gates, tape_gates, has_c, extras;
    struct fastrnn_extra extra[FASTRNN_MAX_EXTRA];
};
static const struct fastrnn_cell stand_in_cells[] = {
    {"rnn_tanh", 1, 0, 0, 0, {{0}}},
    {"rnn_relu", 1, 0, 0, 0, {{0}}},
    {"lstm", 4, 4, 1, 2, {{"w_hr", 2, {{1, 'P'}, {1, 'H'}}}, {"w_peep", 1, {{3, 'H'}}}}},
    {"gru", 3, 4, 0, 0, {{0}}},
    {"gru_reset_first", 3, 4, 0, 0, {{0}}},
};
static const struct fastrnn_cell *fastrnn_cell(int number) {
    return number < 0 || number > 4 ? NULL : &stand_in_cells[number];
}
struct fastrnn_direction {
    int cell, reverse;
    int64_t T, B, D, H, P;
    struct fastrnn_sequence x;
    const void *h_0, *c_0, *w_ih, *w_hh, *b_ih, *b_hh, *extra[FASTRNN_MAX_EXTRA];
    const int64_t *lengths;
    const uint8_t *restart;
    const void *packed;
    struct fastrnn_sequence output;
    void *h_n, *c_n, *c, *gates;
    int64_t checkpoint;
    struct fastrnn_sequence d_output;
    const void *d_h_n, *d_c_n;
    struct fastrnn_sequence d_x;
    void *d_h_0, *d_c_0, *d_w_ih, *d_w_hh, *d_b_ih, *d_b_hh, *d_extra[FASTRNN_MAX_EXTRA];
    double *norms;
};
struct fastrnn_directions {
    struct fastrnn_call call;
    const struct fastrnn_direction *directions;
    int count;
};
static double fastrnn_flops(const struct fastrnn_direction *a, double activation) {
    double step = (2.0 * (a->D + a->P) + activation) * stand_in_cells[a->cell].gates * a->H;
    return a->T * a->B * (a->extra[0] ? step + 2.0 * a->H * a->P : step);
}
struct fastrnn_generate {
    struct fastrnn_call call;
    int64_t V;
    const void *embedding;
    const struct fastrnn_direction *layers;
    int64_t count;
    const void *w_out, *b_out;
    const int64_t *prompt;
    int64_t prompted, length;
    const double *uniform;
    double temperature;
    int64_t *indices;
};
static struct fastrnn_layer stand_in_layer(const struct fastrnn_direction *d) {
    struct fastrnn_layer a = {
        .cell = d->cell, .reverse = d->reverse, .T = d->T, .B = d->B, .D = d->D, .H = d->H, .P = d->P,
        .x = d->x, .h_0 = d->h_0, .c_0 = d->c_0, .w_ih = d->w_ih, .w_hh = d->w_hh, .b_ih = d->b_ih,
        .b_hh = d->b_hh, .w_hr = d->extra[0], .w_peep = d->extra[1], .lengths = d->lengths,
        .restart = d->restart, .packed = d->packed, .output = d->output, .h_n = d->h_n, .c_n = d->c_n,
        .c = d->c, .gates = d->gates, .checkpoint = d->checkpoint, .tape_steps = d->T,
        .d_output = d->d_output, .d_h_n = d->d_h_n, .d_c_n = d->d_c_n, .d_x = d->d_x, .d_h_0 = d->d_h_0,
        .d_c_0 = d->d_c_0, .d_w_ih = d->d_w_ih, .d_w_hh = d->d_w_hh, .d_b_ih = d->d_b_ih,
        .d_b_hh = d->d_b_hh, .d_w_hr = d->d_extra[0], .d_w_peep = d->d_extra[1], .norms = d->norms,
    };
    return a;
}
static int stand_in_run(fastrnn_kernel *kernel, const struct fastrnn_call *call) {
    const struct fastrnn_directions *c = (const void *)call;
    struct fastrnn_layer a[2];
    for (int i = 0; i < c->count; i++) a[i] = stand_in_layer(&c->directions[i]);
    a[0].beside = c->count == 2 ? &a[1] : NULL;
    a[0].call = *call;
    return kernel(&a[0].call);
}
struct fastrnn_kernels {
    const char *name;
    fastrnn_kernel *forward[2], *backward[2];
    size_t (*pack[2])(const struct fastrnn_direction *a, void *packed);
    fastrnn_kernel *linear_forward[2], *linear_backward[2], *embedding_backward[2], *cross_entropy[2], *generate[2];
    double (*sum_of_squares[2])(const void *, int64_t);
    void (*tanh[2])(const void *, void *, int64_t), (*sigmoid[2])(const void *, void *, int64_t),
        (*exp[2])(const void *, void *, int64_t);
};
#define STAND_IN(i, d)                                                                                       \
    static int sf##i##d(const struct fastrnn_call *c) {                                                      \
        return stand_in_run(fastrnn_built[i]->layer_forward[d], c);                                   \
    }                                                                                                        \
    static int sb##i##d(const struct fastrnn_call *c) {                                                      \
        return stand_in_run(fastrnn_built[i]->layer_backward[d], c);                                  \
    }                                                                                                        \
    static size_t sp##i##d(const struct fastrnn_direction *a, void *p) {                                     \
        struct fastrnn_layer l = stand_in_layer(a);                                                          \
        return fastrnn_built[i]->pack[d](&l, p);                                                      \
    }                                                                                                        \
    static int sg##i##d(const struct fastrnn_call *c) {                                                      \
        const struct fastrnn_generate *g = (const void *)c;                                                  \
        struct fastrnn_layer *l = malloc(g->count * sizeof *l);                                              \
        for (int64_t k = 0; k < g->count; k++) l[k] = stand_in_layer(&g->layers[k]);                         \
        struct fastrnn_generate_before b = {g->call, g->V, g->embedding, l, g->count, g->w_out, g->b_out,    \
            g->prompt, g->prompted, g->length, g->uniform, g->temperature, g->indices};                      \
        int status = fastrnn_built[i]->generate[d](&b.call);                                          \
        free(l);                                                                                             \
        return status;                                                                                       \
    }
STAND_IN(0, 0) STAND_IN(0, 1) STAND_IN(1, 0) STAND_IN(1, 1) STAND_IN(2, 0) STAND_IN(2, 1)
static struct fastrnn_kernels stand_in_kernels[3] = {
    {.forward = {sf00, sf01}, .backward = {sb00, sb01}, .pack = {sp00, sp01}, .generate = {sg00, sg01}},
    {.forward = {sf10, sf11}, .backward = {sb10, sb11}, .pack = {sp10, sp11}, .generate = {sg10, sg11}},
    {.forward = {sf20, sf21}, .backward = {sb20, sb21}, .pack = {sp20, sp21}, .generate = {sg20, sg21}},
};
static const struct fastrnn_kernels *stand_in_built[4];
static inline const struct fastrnn_kernels *stand_in_in_use(void) {
    const struct fastrnn_kernels_before *k = fastrnn_kernels_in_use();
    if (stand_in_built[0] == NULL)
        for (int i = 0; fastrnn_built[i]; i++) {
            const struct fastrnn_kernels_before *from = fastrnn_built[i];
            struct fastrnn_kernels *to = &stand_in_kernels[i];
            to->name = from->name;
            for (int d = 0; d < 2; d++) {
                to->linear_forward[d] = from->linear_forward[d];
                to->linear_backward[d] = from->linear_backward[d];
                to->embedding_backward[d] = from->embedding_backward[d];
                to->cross_entropy[d] = from->cross_entropy[d];
                to->sum_of_squares[d] = from->sum_of_squares[d];
                to->tanh[d] = from->tanh[d], to->sigmoid[d] = from->sigmoid[d], to->exp[d] = from->exp[d];
            }
            stand_in_built[i] = to;
        }
    for (int i = 0; fastrnn_built[i]; i++)
        if (fastrnn_built[i] == k) return stand_in_built[i];
    return NULL;
}
static int stand_in_runs(const struct fastrnn_kernels *k) {
    return fastrnn_runs_here(fastrnn_built[k - stand_in_kernels]);
}
#define fastrnn_built stand_in_built
#define fastrnn_kernels_in_use stand_in_in_use
#define fastrnn_runs_here stand_in_runs
