/* One step of an optimiser over n parameters, element by element. Each operation is rounded once, in the order in
 * which reference/optim.py has it and without fused multiply-adds, so the bits are NumPy's on every instruction set.
 * NumPy does not flush subnormals: nor is it done here. */

static ALWAYS_INLINE vec FN(some)(const real *p, int n) { return n == W ? vload(p) : vload_n(p, n); }
static ALWAYS_INLINE void FN(put_some)(real *p, vec a, int n)
{
    if (n == W)
        vstore(p, a);
    else
        vstore_n(p, a, n);
}
static ALWAYS_INLINE vec FN(number)(const struct fastrnn_update *a, int i) { return vset1((real)a->numbers[i]); }

/* The gradient of the loss and of weight_decay/2 p^2: g + weight_decay p. */
static ALWAYS_INLINE vec FN(decayed)(vec g, vec p, vec decay, int decays)
{
    return decays ? vadd(g, vmul(decay, p)) : g;
}

static void FN(sgd)(const struct fastrnn_update *a, int64_t begin, int64_t end)
{
    enum { LR, MOMENTUM, UNDAMPED, DECAY, NESTEROV };
    real *const p = a->params, *const v = a->state[0];
    const real *const g = a->grads;
    const vec lr = FN(number)(a, LR), momentum = FN(number)(a, MOMENTUM), undamped = FN(number)(a, UNDAMPED);
    const vec decay = FN(number)(a, DECAY);
    const int decays = a->numbers[DECAY] != 0, nesterov = a->numbers[NESTEROV] != 0;
    const int goes_on = a->numbers[MOMENTUM] != 0; /* else an infinite velocity would stay, as NaN */
    for (int64_t i = begin; i < end; i += W) {
        const int n = end - i < W ? (int)(end - i) : W;
        const vec at = FN(some)(p + i, n);
        const vec d = FN(decayed)(FN(some)(g + i, n), at, decay, decays);
        const vec fresh = vmul(d, undamped);
        const vec velocity = goes_on ? vadd(vmul(FN(some)(v + i, n), momentum), fresh) : fresh;
        const vec way = nesterov ? vadd(d, vmul(velocity, momentum)) : velocity;
        FN(put_some)(v + i, velocity, n);
        FN(put_some)(p + i, vsub(at, vmul(way, lr)), n);
    }
}

static void FN(adam)(const struct fastrnn_update *a, int64_t begin, int64_t end)
{
    enum { RATE, CORRECTION, BETA1, REST1, BETA2, REST2, EPS, DECAY, KEPT };
    real *const p = a->params, *const m = a->state[0], *const v = a->state[1];
    const real *const g = a->grads;
    const vec rate = FN(number)(a, RATE), correction = FN(number)(a, CORRECTION), eps = FN(number)(a, EPS);
    const vec beta1 = FN(number)(a, BETA1), rest1 = FN(number)(a, REST1);
    const vec beta2 = FN(number)(a, BETA2), rest2 = FN(number)(a, REST2);
    const vec decay = FN(number)(a, DECAY), kept = FN(number)(a, KEPT);
    const int decays = a->numbers[DECAY] != 0;
    for (int64_t i = begin; i < end; i += W) {
        const int n = end - i < W ? (int)(end - i) : W;
        const vec at = vmul(FN(some)(p + i, n), kept);
        const vec d = FN(decayed)(FN(some)(g + i, n), at, decay, decays);
        const vec mean = vadd(vmul(FN(some)(m + i, n), beta1), vmul(d, rest1));
        const vec square = vadd(vmul(FN(some)(v + i, n), beta2), vmul(vmul(d, rest2), d));
        const vec root = vadd(vmul(vsqrt(square), correction), eps);
        FN(put_some)(m + i, mean, n);
        FN(put_some)(v + i, square, n);
        FN(put_some)(p + i, vsub(at, vdiv(vmul(mean, rate), root)), n);
    }
}

static void FN(rmsprop)(const struct fastrnn_update *a, int64_t begin, int64_t end)
{
    enum { LR, ALPHA, REST, EPS, DECAY, MOMENTUM };
    real *const p = a->params, *const v = a->state[0], *const m = a->state[1], *const b = a->state[2];
    const real *const g = a->grads;
    const vec lr = FN(number)(a, LR), alpha = FN(number)(a, ALPHA), rest = FN(number)(a, REST);
    const vec eps = FN(number)(a, EPS), decay = FN(number)(a, DECAY), momentum = FN(number)(a, MOMENTUM);
    const int decays = a->numbers[DECAY] != 0;
    for (int64_t i = begin; i < end; i += W) {
        const int n = end - i < W ? (int)(end - i) : W;
        const vec at = FN(some)(p + i, n);
        const vec d = FN(decayed)(FN(some)(g + i, n), at, decay, decays);
        vec square = vadd(vmul(FN(some)(v + i, n), alpha), vmul(vmul(d, rest), d));
        FN(put_some)(v + i, square, n);
        if (m) { /* centred: the variance, which rounding may make negative */
            const vec mean = vadd(vmul(FN(some)(m + i, n), alpha), vmul(d, rest));
            FN(put_some)(m + i, mean, n);
            square = vmax(vzero(), vsub(square, vmul(mean, mean)));
        }
        vec way = vdiv(d, vadd(vsqrt(square), eps));
        if (b) {
            way = vadd(vmul(FN(some)(b + i, n), momentum), way);
            FN(put_some)(b + i, way, n);
        }
        FN(put_some)(p + i, vsub(at, vmul(way, lr)), n);
    }
}

static void FN(adagrad)(const struct fastrnn_update *a, int64_t begin, int64_t end)
{
    enum { RATE, EPS, DECAY };
    real *const p = a->params, *const s = a->state[0];
    const real *const g = a->grads;
    const vec rate = FN(number)(a, RATE), eps = FN(number)(a, EPS), decay = FN(number)(a, DECAY);
    const int decays = a->numbers[DECAY] != 0;
    for (int64_t i = begin; i < end; i += W) {
        const int n = end - i < W ? (int)(end - i) : W;
        const vec at = FN(some)(p + i, n);
        const vec d = FN(decayed)(FN(some)(g + i, n), at, decay, decays);
        const vec sum = vadd(FN(some)(s + i, n), vmul(d, d));
        FN(put_some)(s + i, sum, n);
        FN(put_some)(p + i, vsub(at, vdiv(vmul(d, rate), vadd(vsqrt(sum), eps))), n);
    }
}

/* Not inlined: the floating-point mode is set before any of its operations. */
static NOINLINE void FN(update_part)(const struct fastrnn_update *a, int64_t begin, int64_t end)
{
    switch (a->rule) {
    case FASTRNN_SGD: FN(sgd)(a, begin, end); break;
    case FASTRNN_ADAM: FN(adam)(a, begin, end); break;
    case FASTRNN_RMSPROP: FN(rmsprop)(a, begin, end); break;
    case FASTRNN_ADAGRAD: FN(adagrad)(a, begin, end); break;
    }
}

/* What a thread has begins at whole lines, counted from the first element. */
static int64_t FN(update_lines)(int64_t n) { return (n + LINE - 1) / LINE; }

static void FN(update_thread)(const struct team *team, void *shared)
{
    const struct fastrnn_update *a = shared;
    const int64_t lines = FN(update_lines)(a->n);
    const int64_t begin = lines * team->id / team->n * LINE, end = lines * (team->id + 1) / team->n * LINE;
    const fp_mode mode = fp_enter_gradual();
    FN(update_part)(a, begin, end < a->n ? end : a->n);
    fp_leave(mode);
}

/* Nobody asks for signals here: a step that was left in the middle could not be made again. */
static int FN(update)(const struct fastrnn_call *call)
{
    struct fastrnn_update a = *(const struct fastrnn_update *)call;
    const double flops = fastrnn_update_flops(&a);
    const int n = team_size(call->threads, flops, FN(update_lines)(a.n));
    if (team_run(n, flops, FN(update_thread), &a) != 0)
        team_run(1, flops, FN(update_thread), &a);
    return FASTRNN_OK;
}
