"""What the examples of the estimators share: options, seeds, a table of results, pictures.

Each example fits its baselines once, and its network, with other random weights, once for each
seed; where PyTorch is installed, the same network by PyTorch after each, on as many threads
(torch_peers.py). The table has scores on data that nothing was fitted on.
"""

import argparse
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

import fastrnn

PYTORCH = "the same in PyTorch"
PICTURES = (".pdf", ".png", ".svg")

# Told apart without colours too: cividis, dark to light, and other lines and markers.
STYLES = [
    {"color": "#00224e", "linestyle": "-", "marker": "o"},
    {"color": "#b0851c", "linestyle": "--", "marker": "s"},
    {"color": "#7d7c78", "linestyle": "-.", "marker": "^"},
    {"color": "#a89a50", "linestyle": ":", "marker": "D"},
]


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def parse(
    arguments: Sequence[str] | None,
    description: str | None,
    *,
    torch: bool = True,
    long: bool = False,
    numbers: Mapping[str, tuple[int, str]] | None = None,
) -> argparse.Namespace:
    """The options that the examples have in common; `torch`: whether there is a peer in PyTorch.

    An example that takes `long` is run for one seed, on all cores and without PyTorch where nothing
    else is said.
    `numbers` has options of its own: defaults and what they are.
    """

    def at_least_1(text: str) -> int:
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError("must be at least 1")
        return value

    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    for name, (default, what) in (numbers or {}).items():
        add(f"--{name}", metavar="N", type=at_least_1, default=default,
            help=f"{what} (default: {default})")  # fmt: skip
    seeds = 1 if long else 3
    add("--seeds", metavar="N", type=at_least_1, default=seeds,
        help=f"fits of the network (default: {seeds})")  # fmt: skip
    # On more than one thread PyTorch runs small networks slower, above all where others run too.
    threads = fastrnn.get_num_threads() if long else 1
    add("--threads", metavar="N", type=at_least_1, default=threads,
        help="of fastrnn, PyTorch and scikit-learn's linear algebra "
        f"(default: {'all cores' if long else 1})")  # fmt: skip
    add("--plot", metavar="FILE", help=f"draw a picture: {', '.join(PICTURES)}")
    add("--smoke", action="store_true", help="tiny and short, only to see that it runs")
    if torch:
        add(
            "--torch", action=argparse.BooleanOptionalAction,
            default=installed("torch") and not long,
            help="fit the same network by PyTorch too"
            f" (default: {'no' if long else 'where it is installed'})",
        )  # fmt: skip
    options = parser.parse_args(arguments)
    # What cannot be drawn is better known now than after the fits.
    if options.plot is not None:
        if not installed("matplotlib"):
            parser.error("--plot needs matplotlib: pip install matplotlib")
        if Path(options.plot).suffix.lower() not in PICTURES:
            parser.error(f"--plot is {options.plot}, expected one of {', '.join(PICTURES)}")
        if not Path(options.plot).parent.is_dir():
            parser.error(f"--plot is {options.plot}, but there is no such folder")
    options.torch = torch and options.torch
    if options.torch and not installed("torch"):
        parser.error("--torch needs PyTorch: pip install torch")
    if options.smoke:
        options.seeds = min(options.seeds, 2)
    fastrnn.set_num_threads(options.threads)
    threadpool_limits(options.threads, "blas")
    return options


@dataclass
class Result:
    """Of one way to do it: a score and the seconds of its fit, of each seed."""

    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float:
        """From the least to the largest."""
        return max(self.scores) - min(self.scores)

    def fit(self, model: Any, X: Any, y: Any, score: Callable[[Any], float]) -> None:
        start = time.perf_counter()
        model.fit(X, y)
        self.seconds.append(time.perf_counter() - start)
        self.scores.append(score(model))
        self.models.append(model)


def run(
    options: argparse.Namespace,
    X: Any,
    y: Any,
    score: Callable[[Any], float],
    *,
    baselines: Mapping[str, Any],
    network: Callable[[int], Any],
    measure: str = "accuracy",
    larger_is_better: bool = True,
) -> dict[str, Result]:
    """Fit all of them on X and y, print the table, and return what it is made of.

    baselines have ``fit(X, y)``; `network` makes an estimator from a seed; `score` is of what was
    fitted, on held-out data, and `measure` its name.
    """
    torch_peers = _torch() if options.torch else None
    threads = f"{fastrnn.get_num_threads()} thread{'s' * (fastrnn.get_num_threads() > 1)}"
    print(f"{'':32}{measure:>10}   {f'of {options.seeds} seeds':16}  fit, seconds on {threads}")
    results: dict[str, Result] = {}
    for name, model in baselines.items():
        results[name] = Result()
        results[name].fit(model, X, y, score)
        print(_row(name, results[name]), flush=True)
    strongest = (max if larger_is_better else min)(results, key=lambda name: results[name].mean)

    ours, peers = Result(), Result()
    for seed in range(options.seeds):
        ours.fit(network(seed), X, y, score)
        if torch_peers:
            peers.fit(torch_peers.peer(network(seed)), X, y, score)
    name = type(ours.models[0]).__name__
    results[name] = ours
    print(_row(name, ours))
    if torch_peers:
        results[PYTORCH] = peers
        ratio = statistics.median(peers.seconds) / statistics.median(ours.seconds)
        print(f"{_row(PYTORCH, peers)}: {ratio:.2f} times as long")
    ahead = (ours.mean - results[strongest].mean) * (1 if larger_is_better else -1)
    print(
        f"{name} is {abs(ahead):.3f} {'better' if ahead > 0 else 'worse'} than the strongest "
        f"baseline, {strongest}; its seeds spread by {ours.spread:.3f}",
        flush=True,
    )
    return results


def _torch() -> Any:
    """torch_peers.py, with as many threads as fastrnn has."""
    importlib.import_module("torch").set_num_threads(fastrnn.get_num_threads())
    return importlib.import_module("torch_peers")


def _row(name: str, result: Result) -> str:
    scores = result.scores
    spread = f"{min(scores):.3f} to {max(scores):.3f}" if len(scores) > 1 else ""
    seconds = statistics.median(result.seconds)
    return f"  {name:30}{result.mean:10.3f}   {spread:16}{seconds:8.2f}"


@contextmanager
def picture(path: str, width: float = 7.0, height: float = 4.5, **keywords: Any) -> Iterator[Any]:
    """Axes to draw on, width by height inches, or an array of them as `subplots` is asked for."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure.subplots(**keywords)
    figure.savefig(path, dpi=150)
    print(f"drawn: {path}")


def confusion(axes: Any, y: Any, said: Any, classes: Sequence[str]) -> None:
    """Draw how many per cent of each class the network took for which."""
    from sklearn.metrics import confusion_matrix

    shares = 100 * confusion_matrix(y, said, labels=classes, normalize="true")
    axes.imshow(shares**0.5, cmap="cividis")  # the root: so that a few per cent are seen too
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            colour = "black" if share > 25 else "white"
            axes.text(j, i, f"{share:.0f}", color=colour, ha="center", va="center")
    places = range(len(classes))
    turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(places, classes, **(turned if max(map(len, classes)) > 4 else {}))
    axes.set_yticks(places, classes)
    axes.set_xlabel("what the network said")
