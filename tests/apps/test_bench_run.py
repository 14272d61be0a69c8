"""fastrnn.bench: the peers, their processes, and whole runs on the smallest problems."""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import astuple, replace
from types import SimpleNamespace

import numpy as np
import pytest
from grids import beyond
from registry import VARIANTS

from fastrnn import bench, reference
from fastrnn.bench import peers, pool, shapes
from fastrnn.bench.onnx_peers import ONNX_CELLS, onnx_model, reorder_gates
from fastrnn.bench.peers import (
    OWN,
    PEERS,
    Compiled,
    NumpyReference,
    expected_results,
    find_peer,
    layer_run,
    missing_module,
    own_layer,
    step_run,
    ways_of,
)
from fastrnn.bench.report import Report
from fastrnn.bench.worker import first_results

RNN = bench.CELLS["rnn"]
TINY = bench.Shape(3, 2, 4, 5)
ONE = bench.Shape(1, 2, 4, 5)
ELSEWHERE = {variant.cell.name for variant in VARIANTS.values() if variant.elsewhere}
EXTRA_SHAPES = ["5,2,3,4 x2 both", "9,3,4,5 both ragged"]


def tiny_run(peers, **options):
    """The whole machinery on the smallest problem; returns the report and what it said."""
    said = []
    chosen = {"cells": ["rnn"], "shapes": ["3,2,4,5"], "rounds": 1, "min_time": 0.0, "threads": [1]}
    chosen |= options
    return bench.run(bench.Options(peers=peers, **chosen), said.append), said


class TestSteps:
    """One time step after the other, the state carried."""

    class Stream:
        """What `layer.stream` returns, over the reference."""

        def __init__(self, problem):
            self.forward = getattr(reference, f"{problem.cell.name}_forward")
            self.weights, self.extras = (
                problem.positional[1 + len(problem.states) :],
                problem.keywords,
            )
            self.two = len(problem.states) == 2
            self.states = None

        @property
        def state(self):
            return tuple(self.states) if self.two else self.states[0]

        @state.setter
        def state(self, value):
            self.states = [state.copy() for state in (value if self.two else (value,))]
            assert all(state.ndim == 3 for state in self.states)  # (layers·directions, B, H)

        def step(self, x_t, restart=None, out=None):
            before = (state[0] for state in self.states)
            output, *finals, _ = self.forward(
                x_t[None], *before, *self.weights, **self.extras, record=False
            )
            self.states = [final[None] for final in finals]
            y = np.empty_like(output[0]) if out is None else out
            y[...] = output[0]
            return y

    def agrees(self, run, problem):
        checked = shapes.checked_problem(problem, "step")
        expected = expected_results(checked)
        want = {name: expected[name] for name in problem.output_names}
        return shapes.disagreements(want, first_results(run, problem, "step"), checked) == []

    @pytest.mark.parametrize("cell", bench.CELLS)
    def test_reference(self, cell):
        problem = bench.make_problem(bench.CELLS[cell], ONE)
        given = [state.copy() for state in problem.states]
        assert self.agrees(NumpyReference.build(problem, "step", 1), problem)
        for state, before in zip(problem.states, given, strict=True):
            np.testing.assert_array_equal(state, before)

    @pytest.mark.parametrize("cell", bench.CELLS)
    @pytest.mark.parametrize("fresh", [False, True])
    def test_stream(self, cell, fresh):
        problem = bench.make_problem(bench.CELLS[cell], ONE)
        layer = SimpleNamespace(stream=lambda batch_size: self.Stream(problem))
        run = step_run(layer, problem, fresh)
        assert self.agrees(run, problem)
        assert (run.call() is run.call()) == (not fresh)

    @pytest.mark.parametrize("cell", bench.CELLS)
    def test_a_state_that_is_not_carried_is_seen(self, cell):
        problem = bench.make_problem(bench.CELLS[cell], ONE)
        assert not self.agrees(NumpyReference.build(problem, "forward", 1), problem)

    def test_one_way_has_no_name(self):
        run = NumpyReference.build(bench.make_problem(RNN, ONE), "step", 1)
        assert ways_of(run) == {"": run}
        assert ways_of({"a": run, "b": run}) == {"a": run, "b": run}


class TestOnnx:
    def test_order_of_gates(self):
        """ONNX: i, o, f, c (c is our g) and z, r, h (h is our n)."""
        for cell, ours, theirs in (("lstm", "ifgo", "iofg"), ("gru", "rzn", "zrn")):
            rows = np.repeat(list(ours), 3)
            order = ONNX_CELLS[cell].gates
            assert "".join(reorder_gates(rows, order)[::3]) == theirs
            matrix = np.stack([rows, np.arange(len(rows)).astype(str)], axis=1)
            np.testing.assert_array_equal(
                reorder_gates(matrix, order)[:, 0], np.repeat(list(theirs), 3)
            )
        assert set(ONNX_CELLS) == ELSEWHERE

    @pytest.mark.parametrize("cell", ONNX_CELLS)
    def test_model_means_what_the_reference_says(self, cell):
        """By ONNX's own evaluator, in NumPy, without a runtime."""
        pytest.importorskip("onnx")
        from onnx.reference import ReferenceEvaluator

        problem = bench.make_problem(bench.CELLS[cell], TINY)
        evaluator = ReferenceEvaluator(onnx_model(problem))
        states = zip(problem.cell.states, problem.states, strict=True)
        found = evaluator.run(None, {"x": problem.x, **{name: a[None] for name, a in states}})
        found = [found[0][:, 0], *(final[0] for final in found[1:])]
        got = dict(zip(problem.output_names, found, strict=True))
        expected = {name: a for name, a in expected_results(problem).items() if name in got}
        assert shapes.disagreements(expected, got, problem) == []


class TestPeers:
    @pytest.mark.parametrize("name", PEERS)
    def test_each_is_found_and_says_what_it_needs(self, name):
        peer = find_peer(name)
        assert peer.name == name
        assert missing_module(peer) in ("", *peer.modules)

    @pytest.mark.parametrize("name", PEERS)
    @pytest.mark.parametrize("cell", bench.CELLS)
    def test_each_has_every_cell(self, name, cell):
        peer = find_peer(name)
        known = cell in ELSEWHERE or name not in ("onnxruntime", "openvino")
        refusal = "" if known else f"no {cell} cell"
        assert peer.unsupported(cell, "forward", "float32") == refusal
        if name != OWN:
            assert peer.unsupported(cell, "step", "float32") == refusal

    @pytest.mark.parametrize("cell", bench.CELLS)
    def test_we_have_every_mode(self, cell):
        assert all(find_peer(OWN).unsupported(cell, mode, "float32") == "" for mode in bench.MODES)

    @pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
    def test_inference_only(self, name):
        peer = find_peer(name)
        assert peer.unsupported("lstm", "training", "float32") == "inference only"
        assert peer.unsupported("lstm", "forward", "float64") == "no float64"
        assert peer.unsupported("other", "forward", "float32") == "no other cell"

    @pytest.mark.parametrize(
        "spec", ["tensorflow", "nowhere:Peer", "fastrnn.bench.peers:Nobody", ":"]
    )
    def test_unknown(self, spec):
        with pytest.raises(bench.BenchError, match="unknown peer"):
            find_peer(spec)


class TestWorker:
    def test_is_stopped_between_turns(self):
        worker = pool.WorkerHandle("numpy", 1)
        try:
            worker.ask("build", astuple(RNN), str(TINY), "float32", "forward", 0)
            if os.path.exists("/proc/self/stat"):
                # The signal is sent before ask returns; it is carried out soon after.
                os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
                with open(f"/proc/{worker.pid}/stat") as file:
                    assert file.read().rpartition(")")[2].split()[0] == "T"
            assert worker.ask("time", "", 0.0, 3)["calls"] >= 3
        finally:
            worker.close()
        assert not worker.alive

    def test_an_error_is_told_and_the_worker_lives(self):
        worker = pool.WorkerHandle("numpy", 1)
        try:
            with pytest.raises(pool.WorkerError, match="AttributeError"):
                worker.ask(
                    "build",
                    ("nonsense", 1, ("h_0",), "None", ()),
                    str(TINY),
                    "float32",
                    "forward",
                    0,
                )
            assert worker.ask("drop") is None
        finally:
            worker.close()

    def test_no_answer_in_time(self):
        worker = pool.WorkerHandle("numpy", 1)
        try:
            worker.ask("build", astuple(RNN), str(TINY), "float32", "forward", 0)
            with pytest.raises(pool.WorkerError, match="no answer within"):
                worker.ask("time", "", 60.0, 3, timeout=0.02)
        finally:
            worker.close()


class TestRun:
    @pytest.mark.parametrize("dtype", shapes.DTYPES)
    def test_numpy(self, dtype):
        made, said = tiny_run(["numpy"], cells=list(bench.CELLS), dtype=dtype)
        assert made.problems == []
        assert made.peers == ["numpy", OWN]
        assert [(row.cell, row.mode, row.shape) for row in made.rows] == [
            (cell, mode, TINY) for cell in bench.CELLS for mode in ("forward", "training")
        ]
        for row in made.rows:
            assert {timing.peer for timing in row.timings} == {"numpy", OWN}
            assert all(len(timing.rounds) == 1 for timing in row.timings)
        assert set(made.peak[dtype]) == {"1"}
        assert made.bandwidth == {}
        assert Report.from_json(made.to_json()).to_json() == made.to_json()
        assert len([line for line in said if "timed" in line]) == 2 * len(bench.CELLS)

    @pytest.mark.parametrize("name", ["onnxruntime", *beyond(["torch", "openvino", "jax"])])
    def test_framework(self, name):
        if module := missing_module(find_peer(name)):
            pytest.skip(f"{module} is not installed")
        options = {"cells": list(bench.CELLS), "modes": ["forward", "training", "tape", "step"]}
        made, said = tiny_run([name], **options, shapes=["3,2,4,5", "1,2,4,5", *EXTRA_SHAPES])
        assert made.problems == [], said
        modes = {"forward"} | ({"training"} if name in ("torch", "jax") else set())
        modes |= {"tape"} if name == "torch" else set()
        plain = {(mode, shape) for mode in modes for shape in (TINY, ONE)}
        extra = {(mode, shapes.parse_shape(text)) for mode in modes for text in EXTRA_SHAPES}
        for cell in bench.CELLS:
            if find_peer(name).unsupported(cell, "forward", "float32"):
                continue
            timed = {
                (row.mode, row.shape)
                for row in made.rows
                if row.cell == cell and row.taken(name, "median") is not None
            }
            assert timed == plain | extra | {("step", ONE)}

    @pytest.mark.full
    def test_several_cells_and_lengths(self):
        """Ours by layers, NumPy's by layers on the reference; every mode that has the shape."""
        cells, modes = list(bench.CELLS), ["forward", "training", "tape", "stream", "frozen"]
        texts = [*EXTRA_SHAPES, "3,2,4,5 x2"]
        made, said = tiny_run(["numpy"], cells=cells, modes=modes, shapes=texts)
        assert made.problems == [], said
        assert [(row.cell, row.mode, row.shape) for row in made.rows] == [
            (cell, mode, shape)
            for cell in cells
            for shape in map(shapes.parse_shape, texts)
            for mode in modes
            if mode != "stream" or shape.directions == 1
        ]
        for row in made.rows:
            timed = {timing.peer for timing in row.timings}
            assert timed == ({OWN} if row.mode == "tape" else {OWN, "numpy"})

    def test_frozen(self):
        texts = ["3,2,4,5", *EXTRA_SHAPES]
        made, said = tiny_run(["numpy"], cells=["lstm"], modes=["frozen"], shapes=texts)
        assert made.problems == [], said
        assert [(row.mode, row.shape) for row in made.rows] == [
            ("frozen", shapes.parse_shape(text)) for text in texts
        ]
        for row in made.rows:
            assert {timing.peer for timing in row.timings} == {OWN, "numpy"}
        assert "a layer of fastrnn that was frozen before" in bench.format_report(made)

    @pytest.mark.parametrize("cell", bench.CELLS)
    def test_a_layer_is_frozen_once(self, cell, monkeypatch):
        problem = bench.make_problem(bench.CELLS[cell], TINY)
        layer, frozen = own_layer(problem), []

        def freeze():
            frozen.append(layer)
            return layer

        monkeypatch.setattr(peers, "own_layer", lambda _: SimpleNamespace(freeze=freeze))
        run = Compiled.build(problem, "frozen", 1)
        expected = expected_results(problem)
        want = {name: expected[name] for name in problem.output_names}
        with run.context():
            for _ in range(3):
                got = run.results(run.call())
        assert shapes.disagreements(want, got, problem) == []
        assert len(frozen) == 1

    def test_one_sequence_has_two_limits(self):
        made, _ = tiny_run([], modes=["forward"], shapes=["9,1,4,8"], dtype="float64")
        (row,) = made.rows
        assert list(made.bandwidth["float64"]) == [str(8 * 8 * 8)]
        shares = made.shares(row)
        assert set(shares) == {"fma", "cache"}
        assert all(0.0 < share < 1.0 for share in shares.values())

    def test_a_call_that_is_faster_than_the_loops_is_the_limit(self, monkeypatch):
        ask = pool.WorkerHandle.ask

        def slow_loops(worker, name, *arguments, **options):
            found = ask(worker, name, *arguments, **options)
            return 1e-9 if name in ("peak", "bandwidth") else found

        monkeypatch.setattr(pool.WorkerHandle, "ask", slow_loops)
        made, _ = tiny_run([], shapes=["9,1,4,8", "5,1,4,8"])
        shares = [made.shares(row) for row in made.rows]
        for limit in ("fma", "cache"):
            assert max(share[limit] for share in shares) == pytest.approx(1)
        table = bench.format_report(made)
        assert "100%" in table
        assert not re.search(r"(10[1-9]|[2-9]\d\d|\d{4,})%", table)

    @pytest.mark.parametrize("cell", bench.CELLS)
    def test_a_length_or_an_order_of_states_that_is_wrong_is_seen(self, cell):
        problem = bench.make_problem(bench.CELLS[cell], shapes.parse_shape("9,3,4,5 both ragged"))
        expected = expected_results(problem)
        run = layer_run(problem, "training", "compiled")
        got = run.results(run.call())
        assert shapes.disagreements(expected, got, problem) == []
        padded = replace(problem, shape=replace(problem.shape, ragged=False))
        run = layer_run(padded, "training", "compiled")
        lines = shapes.disagreements(expected, run.results(run.call()), problem)
        assert len(lines) == len(expected)
        turned = got | {"h_n": got["h_n"][::-1]}
        (line,) = shapes.disagreements(expected, turned, problem)
        assert line.startswith("h_n differs")

    @pytest.mark.parametrize("cell", ["rnn", *beyond(c for c in bench.CELLS if c != "rnn")])
    def test_step(self, cell):
        made, said = tiny_run(["numpy"], cells=[cell], modes=["step"], shapes=["1,2,4,5"])
        assert made.problems == [], said
        (row,) = made.rows
        assert (row.mode, row.shape) == ("step", ONE)
        assert row.taken("numpy", "median").way == ""
        assert row.ways(OWN) == ["out=", "fresh array"]

    def test_missing_peer_is_said(self, monkeypatch):
        monkeypatch.setattr(find_peer("torch"), "modules", ("no_such_module",))
        made, said = tiny_run(["torch"], modes=["forward"])
        assert "torch is not timed: no_such_module is not installed" in said
        assert made.peers == [OWN]
        assert "not timed: torch" in bench.format_report(made)

    @pytest.fixture
    def own_peers(self, tmp_path, monkeypatch):
        """Peers of one's own that are wrong each in its way."""
        (tmp_path / "own_peers.py").write_text(
            textwrap.dedent("""
            import importlib, os

            class Wrong:
                name = "wrong"
                modules = ()
                @staticmethod
                def unsupported(cell, mode, dtype):
                    return ""
                @staticmethod
                def prepare(threads):
                    pass
                @classmethod
                def build(cls, problem, mode, threads):
                    peers = importlib.import_module("fastrnn.bench.peers")
                    run = peers.NumpyReference.build(problem, mode, threads)
                    return cls.spoil(run)
                @staticmethod
                def spoil(run):
                    right = run.results
                    run.results = lambda r: {n: a * a.dtype.type(1.01) for n, a in right(r).items()}
                    return run

            class Forgets(Wrong):
                name = "forgets"
                @classmethod
                def build(cls, problem, mode, threads):
                    peers = importlib.import_module("fastrnn.bench.peers")
                    right = peers.NumpyReference.build(problem, mode, threads)
                    wrong = peers.NumpyReference.build(problem, "forward", threads)
                    return {"carried": right, "from the start": wrong}

            class Raises(Wrong):
                name = "raises"
                @staticmethod
                def spoil(run):
                    raise RuntimeError("broken on purpose")

            class Dies(Wrong):
                name = "dies"
                @staticmethod
                def spoil(run):
                    calls = []
                    right = run.call
                    def call():
                        calls.append(1)
                        if len(calls) > 1:
                            os._exit(7)
                        return right()
                    run.call = call
                    return run

            class Prints(Wrong):
                name = "prints"
                @staticmethod
                def spoil(run):
                    print("this must not reach the answers", flush=True)
                    os.write(1, b"nor this")
                    return run
            """)
        )
        monkeypatch.syspath_prepend(str(tmp_path))

    def test_a_wrong_peer_is_excluded_loudly(self, own_peers):
        reasons = {
            "Wrong": "output differs by",
            "Raises": "RuntimeError: broken on purpose",
            "Dies": "ended with status 7",
        }
        made, said = tiny_run([f"own_peers:{name}" for name in reasons], modes=["forward"])
        (row,) = made.rows
        assert {timing.peer for timing in row.timings} == {OWN}
        assert row.ratio("median") is None
        for name, why in reasons.items():
            told = [line for line in row.problems if line.startswith(name.lower())]
            assert any(why in line for line in told), (name, row.problems)
            loud = [line for line in said if line.startswith("EXCLUDED")]
            assert any(name.lower() in line and why in line for line in loud), said
        assert "EXCLUDED" in bench.format_report(made)

    def test_a_wrong_way_is_excluded_and_the_other_timed(self, own_peers):
        made, said = tiny_run(["own_peers:Forgets"], modes=["step"], shapes=["1,2,4,5"])
        (row,) = made.rows
        assert row.ways("forgets") == ["carried"]
        assert [line.partition(" differs")[0] for line in row.problems] == [
            "forgets (threads=1, from the start) output",
            "forgets (threads=1, from the start) h_n",
        ]
        assert len([line for line in said if line.startswith("EXCLUDED")]) == 2

    def test_what_a_peer_prints_is_harmless(self, own_peers):
        made, _ = tiny_run(["own_peers:Prints"], modes=["forward"])
        assert made.problems == []
        assert made.rows[0].taken("prints", "median") is not None
