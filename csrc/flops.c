/* How much work a call is: for the number of its threads, and for whether to release the interpreter's lock. */
#include "fastrnn.h"

double fastrnn_flops(const struct fastrnn_cell *cell, const struct fastrnn_direction *a, double activation)
{
    double step = (double)a->H * cell->gates * (2.0 * (double)(multiplied_features(a) + a->P) + activation);
    for (int i = 0; i < cell->extras; i++)
        if (cell->extra[i].rank == 2 && a->extra[i])
            step += 2.0 * (double)units_of(a, cell->extra[i].shape[0]) * (double)units_of(a, cell->extra[i].shape[1]);
    return (double)a->T * (double)a->B * step;
}

double fastrnn_linear_flops(const struct fastrnn_linear *a) { return 2.0 * (double)a->N * (double)a->D * (double)a->O; }

/* An addition with its loads and store costs about ten multiply-adds of a product. */
double fastrnn_embedding_flops(const struct fastrnn_embedding *a)
{
    return 20.0 * (double)(a->N + a->V) * (double)a->D;
}

/* An exponential and its row's share of the rest cost about twenty multiply-adds of a product. */
double fastrnn_softmax_flops(int64_t N, int64_t C) { return 40.0 * (double)N * (double)C; }

/* A root and a division cost about forty multiply-adds of a product, the few operations of SGD with their loads ten. */
double fastrnn_update_flops(const struct fastrnn_update *a)
{
    return (a->rule == FASTRNN_SGD ? 10.0 : 40.0) * (double)a->n;
}

double fastrnn_generate_flops(const struct fastrnn_generate *a)
{
    double step = 2.0 * (double)a->V * (double)a->layers[a->count - 1].P;
    for (int64_t i = 0; i < a->count; i++)
        step += fastrnn_flops(fastrnn_cell(a->layers[i].cell), &a->layers[i], 0);
    return step * (double)(a->begins[a->B] + a->B * a->length);
}
