/* The registry. A cell's number is its place here; callers find it by its name. */
#include "rnn.h"
#include "lstm.h"
#include "gru.h"
#include "leaky.h"

#undef PLACE_OF_RNN
#define PLACE_OF_RNN(f) &FN(rnn_##f),
#undef PLACES_OF_LEAKY
#define PLACES_OF_LEAKY(f) &FN(leaky_rate_##f), &FN(leaky_potential_##f),

/* clang-format off */
static const struct FN(cell) *const FN(cells)[] = {
    &FN(lstm),
    &FN(gru),
    &FN(gru_reset_first),
    FASTRNN_NONLINEARITIES(PLACE_OF_RNN)
    FASTRNN_NONLINEARITIES(PLACES_OF_LEAKY)
};
/* clang-format on */

#if REAL_BITS == 32 /* the facts are those of both types */
static const struct fastrnn_cell *cell_facts(int number)
{
    const int count = (int)(sizeof FN(cells) / sizeof *FN(cells));
    return number >= 0 && number < count ? &FN(cells)[number]->facts : NULL;
}
#endif
