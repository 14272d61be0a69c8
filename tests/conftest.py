"""Shared by the tests: settings go back after each one, and problems of any size are drawn here."""

import importlib
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# The reference is small products: threads of BLAS only get in the way of the threads under test.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import bounds
import grids
import numpy as np
import pytest
from language_model import TEXT

import fastrnn
from fastrnn import _core

EXAMPLES = Path(__file__).parents[1] / "examples"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="whole grids, not every two values")


def pytest_configure(config: pytest.Config) -> None:
    # What a script starts in the background ignores Ctrl-C, and so would the tests of it and the
    # programs that they start. Those have a default again where this process has a handler.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A case that is named is made, whichever it is.
    grids.whole = config.getoption("--full") or any("[" in argument for argument in config.args)
    if importlib.util.find_spec("hypothesis"):
        import hypothesis

        examples = 1500 if config.getoption("--full") else 750
        hypothesis.settings.register_profile("run", max_examples=examples)
        hypothesis.settings.load_profile("run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if grids.whole:
        return
    left_out = {item for item in items if item.get_closest_marker("full")}
    stacked: dict[Any, list[Any]] = {}
    for item in items:
        if hasattr(item, "callspec") and item not in left_out:
            stacked.setdefault(item.function, []).append(item)  # type: ignore[attr-defined]
    for cases in stacked.values():
        # One name from each parametrize, by which its values are told apart.
        rows = [tuple(case.callspec._idlist) for case in cases]
        values = [list(dict.fromkeys(column)) for column in zip(*rows, strict=True)]
        chosen = grids.pairwise([len(v) for v in values])
        names = {tuple(v[i] for v, i in zip(values, row, strict=True)) for row in chosen}
        left_out |= {case for case, row in zip(cases, rows, strict=True) if row not in names}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


@pytest.fixture(autouse=True)
def settings_restored() -> Iterator[tuple[float, float]]:
    """Yields the policy of teams that users have."""
    threads, isa = fastrnn.get_num_threads(), fastrnn.get_isa()
    # However small a problem is, and however long ago the last one was: threads are under test.
    policy = _core.swap_team_policy(0, 0)
    yield policy
    _core.swap_team_policy(*policy)
    fastrnn.set_num_threads(threads)
    fastrnn.set_isa(isa)


@pytest.fixture
def one_thread(settings_restored: Any) -> None:
    """For many small calls under which no thread is under test: teams of them would take long."""
    fastrnn.set_num_threads(1)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Callable[[str], ModuleType]:
    """Imports an example by its name."""
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script there
    return importlib.import_module


@pytest.fixture
def text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The text of language_model.py in the current folder, which holds nothing else."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return path


@pytest.fixture
def problem() -> Callable[..., dict[str, Any]]:
    return draw_problem


def draw_problem(
    T: int = 5, B: int = 3, D: int = 4, H: int = 6, dtype: Any = np.float64, seed: int = 0
) -> dict[str, Any]:
    """The arrays of rnn_forward by name; weights small enough to keep tanh away from flat parts."""
    rng = np.random.default_rng(seed)
    shapes = {"x": (T, B, D), "h_0": (B, H), "w_ih": (H, D), "w_hh": (H, H)}
    shapes |= {"b_ih": (H,), "b_hh": (H,)}
    scale = {"x": 1.0, "h_0": 1.0}
    return {
        name: (scale.get(name, 0.5) * rng.standard_normal(shape)).astype(dtype)
        for name, shape in shapes.items()
    }


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in bounds.summary_lines():
        terminalreporter.write_line(line)
