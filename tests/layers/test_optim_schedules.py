"""Schedules of learning rates: PyTorch's values, and runs that go on where they were."""

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import optim
from fastrnn.optim import (
    SGD,
    Adam,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

RATES = (0.5, 0.1)  # of the two groups
EPOCHS = 60

# A schedule of an optimiser, from the module that has it: ours or PyTorch's.
SCHEDULES: dict[str, Any] = {
    "step": lambda m, o: m.StepLR(o, step_size=7),
    "step of 1": lambda m, o: m.StepLR(o, 1, gamma=0.9),
    "exponential": lambda m, o: m.ExponentialLR(o, gamma=0.9),
    "warm-up": lambda m, o: m.LinearLR(o),
    "warm-up to a half": lambda m, o: m.LinearLR(o, 0.01, 0.5, total_iters=20),
    "down to zero": lambda m, o: m.LinearLR(o, 1.0, 0.0, total_iters=30),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, T_max=60),
    "cosine, again and again": lambda m, o: m.CosineAnnealingLR(o, T_max=7, eta_min=0.01),
    "cosine of 1": lambda m, o: m.CosineAnnealingLR(o, T_max=1),
    "cosine from below": lambda m, o: m.CosineAnnealingLR(o, T_max=9, eta_min=0.7),
    "warm-up and cosine": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, T_max=55)], milestones=[5]
    ),
    "three, the second from the start": lambda m, o: m.SequentialLR(
        o,
        [m.ExponentialLR(o, 0.5), m.LinearLR(o, 0.5, total_iters=3), m.StepLR(o, 4)],
        milestones=[3, 20],
    ),
}

each = pytest.mark.parametrize("name", SCHEDULES)


def ours() -> SGD:
    return SGD([{"params": [np.ones(2)], "lr": RATES[0]}, {"params": [np.ones(3)]}], lr=RATES[1])


def rates(optimiser: Any) -> list[float]:
    return [group["lr"] for group in optimiser.param_groups]


def theirs() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in RATES]
    optimiser = torch.optim.SGD(groups, lr=1.0)
    optimiser.step()  # before a schedule's, or it warns
    return torch.optim.lr_scheduler, optimiser


# ------------------------------------------------------------------------------------ PyTorch


@each
@pytest.mark.filterwarnings("ignore:Detected call:UserWarning")  # it asks for steps in between
def test_torch(name: str) -> None:
    module, other = theirs()
    sgd = ours()
    schedule, want = SCHEDULES[name](optim, sgd), SCHEDULES[name](module, other)
    for _ in range(EPOCHS):
        assert schedule.get_last_lr() == rates(sgd)
        # Of a cosine the ratio to the rate before is off by 2^-53 / (1 + cos), at most 2^-53 730.
        np.testing.assert_allclose(rates(sgd), rates(other), rtol=1e-12, atol=0)
        schedule.step()
        want.step()
        assert schedule.last_epoch == want.last_epoch


PLATEAUS: tuple[dict[str, Any], ...] = (
    {},
    {"patience": 2, "factor": 0.5},
    {"mode": "max", "patience": 0, "threshold": 0.1},
    {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "cooldown": 3},
    {"mode": "max", "patience": 1, "threshold_mode": "abs", "factor": 0.7, "min_lr": 0.05},
    {"patience": 1, "min_lr": [0.2, 0.001], "factor": 0.3},
    {"patience": 0, "factor": 0.1, "eps": 1e-3},
)


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_torch_on_plateaus(options: dict[str, Any]) -> None:
    module, other = theirs()
    sgd = ours()
    schedule, want = ReduceLROnPlateau(sgd, **options), module.ReduceLROnPlateau(other, **options)
    rng, metric = np.random.default_rng(0), 3.0
    changes = set()
    for i in range(200):
        metric = np.nan if i % 31 == 5 else np.inf if i < 2 else 1 + rng.standard_normal() / (i + 1)
        schedule.step(metric)
        want.step(metric)
        assert rates(sgd) == rates(other) == schedule.get_last_lr()
        for name in ("num_bad_epochs", "cooldown_counter", "last_epoch"):
            assert getattr(schedule, name) == getattr(want, name)
        changes.add(sgd.param_groups[0]["lr"])
    assert len(changes) > 1


def test_names_and_defaults_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for name in ("StepLR", "ExponentialLR", "LinearLR", "CosineAnnealingLR", "ReduceLROnPlateau"):
        ours, theirs = (
            {n: p.default for n, p in inspect.signature(getattr(module, name)).parameters.items()}
            for module in (optim, torch.optim.lr_scheduler)
        )
        theirs.pop("last_epoch", None)  # load_state_dict is the way
        assert ours == theirs
        assert list(ours) == list(theirs)


# ---------------------------------------------------------------------------------- going on


@each
def test_a_run_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    sgd = ours()
    schedule = SCHEDULES[name](optim, sgd)
    for t in range(25):
        fastrnn.save(tmp_path / "run.safetensors", {"sgd": sgd, "schedule": schedule})
        file = fastrnn.load(tmp_path / "run.safetensors")
        runs = []
        for order in (1, -1):  # the optimiser's state first, or the schedule's
            other = ours()
            again = SCHEDULES[name](optim, other)
            for one, key in ((other, "sgd"), (again, "schedule"))[::order]:
                one.load_state_dict(file[key])
            runs.append((other, again))
        late = ours()  # the schedule is made after the state was loaded
        late.load_state_dict(file["sgd"])
        again = SCHEDULES[name](optim, late)
        again.load_state_dict(file["schedule"])
        runs += [(late, again), copy.deepcopy((sgd, schedule))]
        runs.append(pickle.loads(pickle.dumps((sgd, schedule))))
        expected = copy.deepcopy((sgd, schedule))
        for _ in range(8):
            expected[1].step()
            for other, again in runs:
                again.step()
                assert rates(other) == rates(expected[0])
                assert again.last_epoch == expected[1].last_epoch
        assert again.state_dict() == expected[1].state_dict()
        schedule.step()
        assert schedule.last_epoch == t + 1


def test_a_plateau_goes_on(tmp_path: Path) -> None:
    sgd = ours()
    schedule = ReduceLROnPlateau(sgd, patience=1, cooldown=1, factor=0.5, min_lr=[0.1, 0.01])
    fresh = ReduceLROnPlateau(ours())
    fresh.load_state_dict(schedule.state_dict())  # with no best yet
    metrics = [1.0, 0.9, 0.95, 0.95, 0.95, 0.94, 0.93, 0.92, 0.95, 0.96]
    for cut in range(len(metrics)):
        schedule.step(metrics[cut])
        fastrnn.save(tmp_path / "run.safetensors", {"schedule": schedule})
        other = ours()
        again = ReduceLROnPlateau(other)
        again.load_state_dict(fastrnn.load(tmp_path / "run.safetensors")["schedule"])
        assert again.state_dict() == schedule.state_dict()
        assert rates(other) == rates(sgd)


# ------------------------------------------------------------------------------ several things


def test_who_else_changes_a_rate() -> None:
    # As in PyTorch: the next rate follows from the one there is.
    sgd = SGD([np.ones(2)], lr=1.0)
    step, exponential = StepLR(sgd, 2, gamma=0.5), ExponentialLR(sgd, gamma=0.25)
    for _ in range(2):
        step.step()
        exponential.step()
    assert sgd.lr == 0.5 * 0.25**2
    sgd.lr = 1.0
    exponential.step()
    assert sgd.lr == 0.25
    warmup = LinearLR(sgd, start_factor=0.5, total_iters=1)
    assert (sgd.lr, warmup.base_lrs) == (0.125, [0.25])
    sgd.lr = 2.0
    assert CosineAnnealingLR(sgd, 10).base_lrs == [2.0]  # what was set by hand is a new start
    assert StepLR(sgd, 10).base_lrs == [2.0]


def test_a_copied_optimiser_knows_the_rates_before_any_schedule() -> None:
    sgd = SGD([{"params": np.ones(2)}, {"params": np.ones(3), "lr": 0.25}], lr=1.0)
    ExponentialLR(sgd, gamma=0.5).step()
    for copied in (copy.deepcopy(sgd), copy.copy(sgd), pickle.loads(pickle.dumps(sgd))):
        assert copied.param_groups[0]["lr"] == 0.5
        assert CosineAnnealingLR(copied, T_max=4).base_lrs == [1.0, 0.25]


def test_steps_are_made_with_the_rate_of_the_schedule() -> None:
    p = np.zeros(1)
    sgd = SGD([p], lr=1.0)
    schedule = ExponentialLR(sgd, gamma=0.5)
    for _ in range(4):
        sgd.step([-np.ones(1)])
        schedule.step()
    assert p.tolist() == [1 + 0.5 + 0.25 + 0.125]


BAD: tuple[tuple[Any, Any, str], ...] = (
    (lambda o: StepLR(o, 0), ValueError, "step_size is 0, expected at least 1"),
    (lambda o: StepLR(o, 2.5), TypeError, "step_size is 2.5"),
    (lambda o: StepLR(o, 2, gamma=-1), ValueError, "gamma is -1"),
    (lambda o: ExponentialLR(o, np.nan), ValueError, "gamma is nan"),
    (lambda o: LinearLR(o, start_factor=0), ValueError, "start_factor is 0"),
    (lambda o: LinearLR(o, start_factor=1.5), ValueError, "start_factor is 1.5, expected at most"),
    (lambda o: LinearLR(o, end_factor=2), ValueError, "end_factor is 2"),
    (lambda o: LinearLR(o, total_iters=0), ValueError, "total_iters is 0"),
    (lambda o: CosineAnnealingLR(o, 0), ValueError, "T_max is 0"),
    (lambda o: CosineAnnealingLR(o, 5, eta_min="low"), TypeError, "eta_min is 'low'"),
    (lambda o: StepLR(np.ones(3), 2), TypeError, "optimizer is an ndarray"),
    (lambda o: StepLR(SGD, 2), TypeError, "optimizer is the class SGD"),
    (lambda o: ReduceLROnPlateau(o, mode="lowest"), ValueError, "mode is 'lowest'"),
    (lambda o: ReduceLROnPlateau(o, factor=1.0), ValueError, "factor is 1.0"),
    (lambda o: ReduceLROnPlateau(o, patience=-1), ValueError, "patience is -1"),
    (lambda o: ReduceLROnPlateau(o, min_lr=[0.1]), ValueError, "min_lr has 1 rates, expected 2"),
    (lambda o: ReduceLROnPlateau(o, min_lr=[0.1, -1]), ValueError, "min_lr[1] is -1"),
    (lambda o: ReduceLROnPlateau(o).step(None), TypeError, "metrics is None"),
    (lambda o: ReduceLROnPlateau(o).step([1.0]), TypeError, "metrics is [1.0]"),
    (lambda o: SequentialLR(o, [], []), ValueError, "milestones has 0 epochs for 0 schedulers"),
    (lambda o: SequentialLR(o, [StepLR(o, 1)], [2]), ValueError, "milestones has 1 epochs for 1"),
    (lambda o: SequentialLR(o, [StepLR(o, 1), StepLR(o, 1)], [0]), ValueError, "[0] is 0"),
    (lambda o: SequentialLR(o, [StepLR(o, 1)] * 3, [2, 2]), ValueError, "milestones is [2, 2]"),
    (lambda o: SequentialLR(o, [StepLR(o, 1)] * 2, [2]), ValueError, "one schedule twice"),
    (lambda o: SequentialLR(o, [StepLR(ours(), 1)], []), ValueError, "is of another optimiser"),
    (lambda o: SequentialLR(o, [ReduceLROnPlateau(o)], []), TypeError, "it steps with a metric"),
    (lambda o: SequentialLR(o, [o], []), TypeError, "schedulers[0] is an SGD"),
    (lambda o: StepLR(Adam([np.ones(2)], lr=lambda step: 1.0), 2), ValueError, "is a function"),
)  # fmt: skip


@pytest.mark.parametrize(("make", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_refused(make: Any, error: Any, text: str) -> None:
    sgd = ours()
    with pytest.raises(error) as caught:
        make(sgd)
    assert text in str(caught.value)


def test_what_is_refused_changes_no_rate() -> None:
    sgd = ours()
    for make in (
        lambda: LinearLR(sgd, end_factor=2), lambda: CosineAnnealingLR(sgd, 0),
        lambda: SequentialLR(sgd, [StepLR(ours(), 1)], []),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            make()
        assert tuple(rates(sgd)) == RATES
    growing = ExponentialLR(sgd, gamma=1e200)
    growing.step()
    before = rates(sgd)
    with pytest.raises(ValueError, match="lr is inf"):
        growing.step()
    assert rates(sgd) == before
    assert growing.last_epoch == 1
    sgd.lr = lambda step: 1.0
    with pytest.raises(ValueError, match="is a function"):
        growing.step()


@each
def test_states_of_others_are_refused(name: str) -> None:
    sgd = ours()
    schedule = SCHEDULES[name](optim, sgd)
    state, before = schedule.state_dict(), rates(sgd)
    wrong: list[Any] = [
        {}, None, schedule, state | {"other": 1}, state | {"lr": [0.5]}, state | {"lr": 0.5},
        state | {"lr": [0.5, -1]}, state | {"last_epoch": -1}, state | {"base_lrs": [1.0] * 3},
        ReduceLROnPlateau(ours()).state_dict(), ours().state_dict(),
    ]  # fmt: skip
    wrong += [make(optim, ours()).state_dict() for other, make in SCHEDULES.items()
              if type(make(optim, ours())) is not type(schedule)]  # fmt: skip
    if isinstance(schedule, SequentialLR):
        inside = state["schedulers"]
        wrong += [state | {"schedulers": value} for value in (inside[:1], None, inside[::-1])]
        wrong += [state | {"milestones": value} for value in ([], [0], ["a"], 5)]
    for d in wrong:
        with pytest.raises((TypeError, ValueError), match=r"^d(\[| has | is )"):
            schedule.load_state_dict(d)
        assert schedule.state_dict() == state
        assert rates(sgd) == before


def test_attributes_are_fixed() -> None:
    sgd = ours()
    schedule = SCHEDULES["warm-up and cosine"](optim, sgd)
    for one, name in (
        (schedule, "optimizer"), (schedule, "schedulers"), (schedule, "milestones"),
        (schedule, "last_epoch"), (schedule.schedulers[0], "total_iters"),
        (schedule.schedulers[0], "base_lrs"), (schedule, "gamma"),
    ):  # fmt: skip
        with pytest.raises(AttributeError, match=name):
            setattr(one, name, 1)


def test_the_formulas_of_the_docstrings() -> None:
    lr, n, low = 0.5, 20, 0.05
    formulas: tuple[tuple[Any, Any], ...] = (
        (lambda o: StepLR(o, 7, gamma=0.5), lambda t: lr * 0.5 ** (t // 7)),
        (lambda o: ExponentialLR(o, 0.5), lambda t: lr * 0.5**t),
        (lambda o: LinearLR(o, 0.1, 0.7, n), lambda t: lr * (0.1 + 0.6 * min(t, n) / n)),
        (
            lambda o: CosineAnnealingLR(o, n, low),
            lambda t: low + (lr - low) * (1 + np.cos(np.pi * t / n)) / 2,
        ),
    )
    for make, formula in formulas:
        schedule = make(SGD([np.ones(2)], lr=lr))
        for t in range(3 * n):
            # 60 rounded factors, and the ratios of cosines as above.
            np.testing.assert_allclose(schedule.get_last_lr(), [formula(t)], rtol=1e-12)
            schedule.step()
