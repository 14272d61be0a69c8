"""The command ``fastrnn gradients``: vanishing and exploding gradients, made visible.

A leaf: built on the public names, imported by nothing else but the command line.

*The error signal.* Networks as they are drawn, not trained, run over random sequences; the loss is
a weighted sum of the last h. `fastrnn.gradient_norms` is the norm of the loss's gradient with
respect to the state after each step, h and c together for an LSTM: the error signal on its way
back. At each step the median over the sequences is taken, and a straight line is fitted to its
logarithm over all steps, by least squares. The factor per step is exp(slope): below 1 gradients
vanish, above 1 they explode [1]_. An LSTM's forget gates are what can keep it near 1 [2]_.

*Clipping.* An Elman network whose recurrent weights are too large is trained twice from the same
weights on the same sequences, with its gradient clipped in norm [3]_ and without. As a control, the
network with the weights as they were drawn is trained without clipping: at this learning rate that
does no harm.

References
----------
.. [1] Y. Bengio, P. Simard, P. Frasconi, "Learning long-term dependencies with gradient descent is
   difficult", IEEE Transactions on Neural Networks 5 (1994), 157-166.
.. [2] F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget: continual prediction with LSTM",
   Neural Computation 12 (2000), 2451-2471.
.. [3] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
   ICML 2013.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import fastrnn

from .outputs import OutputError, check_plot, save_plot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Network = Callable[..., Any]  # called as the layers are

BATCH = 16  # sequences
FEATURES = 16  # numbers of an input, normally distributed
FORGET_BIAS = 3.0
TOO_LARGE = 3.0  # times PyTorch's recurrent weights, whose spectral radius is near 1 / sqrt(3)

SYMBOLS = 4
UPDATES = 200
RATE = 0.5
MAX_NORM = 1.0
LAST = 20  # updates whose median loss is called the loss at the end
NO_LIMIT = sys.float_info.max

# As the names of the curves, which are told apart by these colours (of Okabe and Ito: they differ
# for colour-blind eyes too).
ELMAN, EXPLODING = "Elman", f"Elman, W_hh × {TOO_LARGE:g}"
GRU, LSTM, REMEMBERING = "GRU", "LSTM", f"LSTM, forget_bias={FORGET_BIAS:g}"
COLOURS = {
    ELMAN: "black", GRU: "#CC79A7", LSTM: "#009E73", REMEMBERING: "#0072B2", EXPLODING: "#D55E00"
}  # fmt: skip


class GradientsError(Exception):
    """What the user can mend, in one line."""


@dataclass(frozen=True)
class Options:
    """The command line of ``fastrnn gradients``."""

    steps: int = 100
    hidden_size: int = 64
    seed: int = 0
    plot: str | None = None
    force: bool = False

    def check(self) -> None:
        """Raise GradientsError if something is out of range."""
        for name, minimum in (("steps", 2), ("hidden_size", 1), ("seed", 0)):
            if (value := getattr(self, name)) < minimum:
                raise GradientsError(f"{name} is {value}, expected at least {minimum}")
        if self.plot is not None:
            try:
                check_plot(self.plot, self.force)
            except OutputError as error:
                raise GradientsError(str(error)) from None


class Signal(NamedTuple):
    """The error signal in one network."""

    name: str
    norms: Array  # (T, B): of the gradient with respect to the state after each step

    @property
    def median(self) -> Array:
        """(T,): over the sequences."""
        return np.median(self.norms, axis=1)

    @property
    def ratio(self) -> float:
        """How much of the norm at the last step, where the loss is, arrives at the first one."""
        return float(self.median[0] / self.median[-1])

    @property
    def factor(self) -> float:
        """Per step: exp(slope) of the line through the logarithm of the median."""
        return fitted_factor(self.median)


class Run(NamedTuple):
    """One training; what came after the weights left the range of numbers is NaN."""

    name: str
    losses: Array  # (UPDATES,): before each update
    norms: Array  # (UPDATES,): of the whole gradient, before clipping


def main(options: Options) -> int:
    """Run ``fastrnn gradients``.

    Returns
    -------
    int
        The exit status, 0.

    Raises
    ------
    GradientsError
        With one line on what the user can mend.
    """
    options.check()
    signals = error_signals(options)
    print(signal_table(options, signals), flush=True)
    runs = training_runs(options)
    print(f"\n{training_table(options, runs)}")
    if options.plot is not None:
        try:
            save_plot(draw(options, signals, runs), options.plot)
        except OutputError as error:
            raise GradientsError(str(error)) from None
        print(f"\ndrawn to {options.plot}")
    return 0


# ------------------------------------------------------------------------------ the error signal


def fitted_factor(norms: Array) -> float:
    """By what factor norms (T,) change at a step back, fitted over all steps.

    exp of the slope of the least-squares line through log(norms[t]) over T - 1 - t. Norms whose
    squares are beyond the range of float64 are left out; with fewer than two others, NaN.
    """
    back = np.arange(len(norms))[::-1]
    usable = (norms > 1e-150) & (norms < 1e150)
    if usable.sum() < 2:
        return math.nan
    x, y = back[usable], np.log(norms[usable])
    x = x - x.mean()
    return float(np.exp((x * y).sum() / (x * x).sum()))


def error_signals(options: Options) -> list[Signal]:
    """Run the five networks over the same inputs and send the same gradient back."""
    size, seed = options.hidden_size, options.seed
    rng = np.random.default_rng([seed, 1])
    x = _sized(partial(rng.standard_normal, (options.steps, BATCH, FEATURES)))
    d_h_n = _sized(partial(rng.standard_normal, (1, BATCH, size)))  # the loss: (d_h_n * h_n).sum()
    networks: dict[str, Network] = {
        ELMAN: fastrnn.RNN,
        GRU: fastrnn.GRU,
        LSTM: fastrnn.LSTM,
        REMEMBERING: _remembering,
        EXPLODING: _too_large,
    }
    signals = []
    for name, network in networks.items():
        layer = _sized(partial(network, FEATURES, size, dtype="float64", rng=seed))
        _, _, tape = layer.forward(x)
        signals.append(Signal(name, fastrnn.gradient_norms(tape, d_h_n=d_h_n)[0]))
    return signals


def _remembering(*sizes: Any, **arguments: Any) -> fastrnn.LSTM:
    return fastrnn.LSTM(*sizes, forget_bias=FORGET_BIAS, **arguments)


def _too_large(*sizes: Any, **arguments: Any) -> fastrnn.RNN:
    """The Elman network of the same seed, but for its recurrent weights."""
    layer = fastrnn.RNN(*sizes, **arguments)
    layer.weights["weight_hh_l0"][...] *= TOO_LARGE
    return layer


def _sized(make: Callable[[], Any]) -> Any:
    """What `make` returns; sizes beyond the address space are the user's to mend."""
    try:
        return make()
    except (ValueError, OverflowError) as error:
        raise GradientsError(str(error)) from None


def signal_table(options: Options, signals: list[Signal]) -> str:
    """The figures, and what they are."""
    elman = fastrnn.RNN(FEATURES, options.hidden_size, dtype="float64", rng=options.seed)
    radius = np.abs(np.linalg.eigvals(elman.weights["weight_hh_l0"])).max()
    lines = [
        f"Error signal from the last of {options.steps} steps back to the first: hidden size "
        f"{options.hidden_size}, {BATCH} random",
        f"sequences of {FEATURES} features, weights as drawn (seed {options.seed}).",
        "",
        f"{'':22}{'factor per step':>18}{'first step / last':>22}",
        *(f"  {s.name:20}{s.factor:>18.3f}{s.ratio:>22.1e}" for s in signals),
        "",
        "Of the norm of the loss's gradient with respect to the state after a step (LSTM: h and c",
        "together), the median over the sequences. The factor is exp of the slope of the straight",
        "line through its logarithm, least squares over all steps. W_hh as drawn has a spectral",
        f"radius of {radius:.2f}, W_hh × {TOO_LARGE:g} one of {TOO_LARGE * radius:.2f}.",
    ]
    return "\n".join(lines)


# ------------------------------------------------------------------------------ clipping


def training_runs(options: Options) -> list[Run]:
    """The control, the network with too large weights, and that one with clipping."""
    return [
        _train(ELMAN, fastrnn.RNN, NO_LIMIT, options),
        _train(EXPLODING, _too_large, NO_LIMIT, options),
        _train(f"{EXPLODING}, clipped", _too_large, MAX_NORM, options),
    ]


def _train(name: str, network: Network, max_norm: float, options: Options) -> Run:
    """Train to name, at each step of a sequence of symbols, the symbol before."""
    rng = np.random.default_rng([options.seed, 2])
    rnn = network(SYMBOLS, options.hidden_size, dtype="float64", rng=options.seed)
    head: Any = fastrnn.Linear(options.hidden_size, SYMBOLS, dtype="float64", rng=rng)
    sgd = fastrnn.optim.SGD([rnn.flat_weights, head.flat_weights], lr=RATE)
    one_hot = np.eye(SYMBOLS)
    asked = np.ones((options.steps, BATCH), bool)
    asked[0] = False  # nothing comes before the first step
    losses, norms = np.full((2, UPDATES), math.nan)
    for update in range(UPDATES):
        symbols = rng.integers(SYMBOLS, size=(options.steps, BATCH))
        before = np.roll(symbols, 1, axis=0)
        output, _, rnn_tape = rnn.forward(one_hot[symbols])
        logits, head_tape = head.forward(output)
        loss, d_logits = fastrnn.softmax_cross_entropy(logits, before, mask=asked)
        head_grads = head.backward(head_tape, d_logits)
        rnn_grads = rnn.backward(rnn_tape, head_grads.x, wrt=["weights"])
        grads = [rnn_grads.flat_weights, head_grads.flat_weights]
        norm = fastrnn.clip_grad_norm(grads, max_norm)
        if not math.isfinite(loss + norm):
            break
        losses[update], norms[update] = loss, norm
        sgd.step(grads)
    return Run(name, losses, norms)


def training_table(options: Options, runs: list[Run]) -> str:
    """The figures, and what they are."""
    guess = math.log(SYMBOLS)
    lines = [
        f"Training: name the symbol before, one of {SYMBOLS} (guessing has a loss of {guess:.2f}); "
        f"{UPDATES} updates",
        f"by SGD at {RATE:g}, each on {BATCH} new sequences of {options.steps} steps.",
        "",
        f"{'':25}{'loss: first':>14}{'highest':>10}{'at the end':>12}{'gradient: first':>18}"
        f"{'largest':>10}",
    ]
    for run in runs:
        losses = (run.losses[0], np.fmax.reduce(run.losses), np.median(run.losses[-LAST:]))
        lines.append(
            f"  {run.name:25}{losses[0]:>12.2f}{losses[1]:>10.2f}{losses[2]:>12.4f}"
            f"{run.norms[0]:>18.2g}{np.fmax.reduce(run.norms):>10.2g}"
        )
    lines += [
        "",
        f"Clipped: a gradient whose norm is above {MAX_NORM:g} is scaled to that norm, so that no "
        "update moves the",
        f"weights by more than {RATE * MAX_NORM:g}. The norms are those before clipping, of all "
        "weights together; the loss",
        f"at the end is the median of the last {LAST} updates, nan where the weights became NaN.",
    ]
    return "\n".join(lines)


# ------------------------------------------------------------------------------ the plot


def draw(options: Options, signals: list[Signal], runs: list[Run]) -> Any:
    """A matplotlib Figure: the error signal on the left, training on the right."""
    from matplotlib.figure import Figure  # without pyplot: no display and no global state

    figure = Figure(figsize=(12.5, 6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    left, right = halves
    _draw_signals(left.subplots(), options, signals)
    _draw_training(right.subplots(2, 1, sharex=True), runs)
    return figure


def _draw_signals(axes: Any, options: Options, signals: list[Signal]) -> None:
    back = np.arange(options.steps)[::-1]
    ends = []
    for s in signals:
        colour, loss = COLOURS[s.name], s.median[-1]
        low, middle, high = (
            _drawable(a / loss) for a in (s.norms.min(axis=1), s.median, s.norms.max(axis=1))
        )
        axes.fill_between(back, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(back, middle, color=colour, linewidth=1.8)
        ends.append((middle[::-1], f"{s.name}\n× {s.factor:.3f} a step", colour))
    axes.set_yscale("log")
    axes.set(
        xlabel="steps back from the loss\n"
        f"(median of {BATCH} sequences, smallest to largest shaded; × a step: fitted)",
        ylabel="norm of the gradient, relative to the last step's",
        title=f"Error signal in untrained networks, hidden size {options.hidden_size}",
        xlim=(0, options.steps - 1),
    )
    axes.grid(alpha=0.3)
    _label_ends(axes, ends, 0.085)


def _draw_training(panels: Any, runs: list[Run]) -> None:
    above, below = panels
    names = ("as drawn,\nnot clipped", f"W_hh × {TOO_LARGE:g},\nnot clipped",
             f"W_hh × {TOO_LARGE:g},\nclipped")  # fmt: skip
    colours = (COLOURS[ELMAN], COLOURS[EXPLODING], "#56B4E9")
    for axes, field, level, what in (
        (above, "norms", MAX_NORM, f"clipped to {MAX_NORM:g}"),
        (below, "losses", math.log(SYMBOLS), "guessing"),
    ):
        axes.axhline(level, color="0.35", linestyle="--", linewidth=1)
        axes.annotate(what, (UPDATES - 1, level), xytext=(-4, -3), textcoords="offset points",
                      ha="right", va="top", fontsize=9, color="0.2")  # fmt: skip
        ends = []
        for run, name, colour in zip(runs, names, colours, strict=True):
            curve = _drawable(getattr(run, field))
            axes.plot(curve, color=colour, linewidth=1.3)
            ends.append((curve, name, colour))
        axes.set_yscale("log")
        axes.set_xlim(0, UPDATES - 1)
        axes.grid(alpha=0.3)
        _label_ends(axes, ends, 0.17)
    above.set(
        ylabel="norm of the gradient,\nbefore clipping",
        title="Training an Elman network, with and without clipping",
    )
    below.set(ylabel="loss", xlabel=f"updates (SGD at {RATE:g})")


def _drawable(a: Array) -> Array:
    """What a logarithmic axis and its margins can show; NaN for the rest."""
    return np.where((a > 1e-200) & (a < 1e200), a, np.nan)


def _label_ends(axes: Any, curves: list[tuple[Array, str, str]], gap: float) -> None:
    """Write the curves' names on the right, by their last values, at least `gap` apart."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    places = []
    for curve, text, colour in curves:
        drawn = curve[np.isfinite(curve)]
        place = (math.log(drawn[-1]) - low) / (high - low) if len(drawn) else 0.0
        places.append((place, text, colour))
    places.sort()
    heights: list[float] = []
    for place, _, _ in places:
        heights.append(max([place, *(h + gap for h in heights[-1:])]))
    for i in reversed(range(len(heights))):  # what was pushed out at the top
        heights[i] = min([heights[i], 1.0, *(h - gap for h in heights[i + 1 : i + 2])])
    for (place, text, colour), height in zip(places, heights, strict=True):
        axes.annotate(
            text, (1, place), xytext=(1.035, height), xycoords="axes fraction",
            textcoords="axes fraction", color=colour, fontsize=9, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 0,
                        "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip
