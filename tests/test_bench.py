"""fastrnn.bench: what can be tested without depending on anyone's speed."""

from __future__ import annotations

import json
import os
import textwrap

import numpy as np
import pytest

from fastrnn import bench
from fastrnn.bench import plot, pool, report, session, shapes, tables
from fastrnn.bench.peers import OWN, PEERS, expected_results, find_peer, missing_module
from fastrnn.bench.report import Report, Row, Timing
from fastrnn.bench.timer import time_calls

RNN = bench.CELLS["rnn"]
TINY = bench.Shape(3, 2, 4, 5)


def tiny_run(peers, **options):
    """The whole machinery on the smallest problem; returns the report and what it said."""
    said = []
    chosen = {"shapes": ["3,2,4,5"], "rounds": 1, "min_time": 0.0, "threads": [1], **options}
    return bench.run(bench.Options(peers=peers, **chosen), said.append), said


def made_report(ours=2e6, theirs=3e6):
    """A report as if measured: one row of a sequence, one of a single step."""

    def timing(peer, threads, *values):
        rounds = [{"best": 0.9 * value, "median": value, "calls": 7} for value in values]
        return Timing(peer, threads, rounds)

    rows = [
        Row(
            "rnn",
            "forward",
            "float32",
            (100, 32, 64, 128),
            [
                timing("numpy", 1, 9e6, 8e6),
                timing("numpy", 2, theirs, 9e6),
                timing(OWN, 1, 2.5e6, 2.6e6),
                timing(OWN, 2, 2.1e6, ours),
            ],
        ),
        Row(
            "rnn",
            "forward",
            "float32",
            (1, 1, 64, 64),
            [
                timing("numpy", 1, 4000.0),
                timing(OWN, 1, 1000.0),
            ],
            ["torch (threads=1) failed: it broke"],
        ),
    ]
    return Report(
        machine=session.describe("avx2", ["--rounds", "2"]),
        versions={"numpy": "2.0", OWN: "0"},
        settings={"statistic": "median", "rounds": 2, "min_time": 0.05},
        peers=["numpy", "torch", OWN],
        missing={"jax": "jax is not installed"},
        peak={"float32": {"1": 100.0, "2": 200.0}},
        rows=rows,
    )


class TestShapes:
    @pytest.mark.parametrize(
        ("sizes", "forward"),
        [
            ((1, 1, 64, 64), 2 * 64 * 128),
            ((100, 32, 64, 128), 2 * 3200 * 128 * 192),
            ((3, 2, 4, 5), 540),
        ],
    )
    def test_flops(self, sizes, forward):
        assert bench.flops(RNN, bench.Shape(*sizes)) == forward
        assert bench.flops(RNN, bench.Shape(*sizes), "training") == 3 * forward

    def test_flops_count_gates(self):
        four = shapes.Cell("lstm", 4, ("h_0", "c_0"))
        assert bench.flops(four, TINY) == 4 * bench.flops(RNN, TINY)

    def test_parse(self):
        assert shapes.parse_shape("3,2,4,5") == TINY
        assert shapes.parse_shape("(3, 2, 4, 5)") == TINY
        for name, shape in bench.SHAPES.items():
            assert shapes.parse_shape(name) == shape == shapes.parse_shape(str(shape))
            assert shape.name == name

    @pytest.mark.parametrize(
        "text", ["", "3,2,4", "3,2,4,5,6", "3,2,4,0", "3,2,4,-5", "tiny", "3,2,4,x"]
    )
    def test_parse_refuses(self, text):
        with pytest.raises(bench.BenchError, match="neither T,B,D,H"):
            shapes.parse_shape(text)

    @pytest.mark.parametrize("dtype", shapes.DTYPES)
    def test_problem_is_the_same_in_every_process(self, dtype):
        one, two = (bench.make_problem(RNN, TINY, dtype) for _ in range(2))
        for a, b in zip(one.inputs, two.inputs, strict=True):
            assert a.dtype == dtype
            np.testing.assert_array_equal(a, b)
        assert one.input_names == ("x", "h_0", "w_ih", "w_hh", "b_ih", "b_hh")
        assert one.output_names == ("output", "h_n")

    def test_problem_has_two_states_where_the_cell_has(self):
        problem = bench.make_problem(shapes.Cell("lstm", 4, ("h_0", "c_0")), TINY)
        assert problem.weights["w_ih"].shape == (20, 4)
        assert problem.output_names == ("output", "h_n", "c_n")


class TestDisagreements:
    @pytest.fixture
    def problem(self):
        return bench.make_problem(RNN, TINY)

    @pytest.fixture
    def expected(self, problem):
        return expected_results(problem)

    def rounded(self, expected):
        return {name: array.astype(np.float32) for name, array in expected.items()}

    def test_rounding_passes(self, problem, expected):
        assert expected["output"].dtype == np.float64
        assert shapes.disagreements(expected, self.rounded(expected), problem) == []

    @pytest.mark.parametrize(
        "name", ["output", "h_n", "d_x", "d_h_0", "d_w_ih", "d_w_hh", "d_b_ih", "d_b_hh"]
    )
    @pytest.mark.parametrize("wrong", [1e-3, np.nan, np.inf])
    def test_one_wrong_value_is_seen(self, problem, expected, name, wrong):
        got = self.rounded(expected)
        got[name].flat[0] += wrong * np.abs(expected[name]).max()
        (line,) = shapes.disagreements(expected, got, problem)
        assert line.startswith(f"{name} differs by")

    def test_other_differences(self, problem, expected):
        got = self.rounded(expected)
        del got["d_x"]
        got["output"] = got["output"].swapaxes(0, 1)
        got["h_n"] = got["h_n"].astype(np.float64)
        lines = shapes.disagreements(expected, got, problem)
        assert sorted(line.split()[0] for line in lines) == ["d_x", "h_n", "output"]

    def test_bfloat16_products_do_not_pass_for_float32(self):
        """Inputs cut to 8 bits of mantissa, at a shape with a wide tolerance."""
        problem = bench.make_problem(RNN, bench.SHAPES["small"])
        cut = [(a.view(np.uint32) & 0xFFFF0000).view(np.float32) for a in problem.inputs]
        from fastrnn import reference

        output, h_n, _ = reference.rnn_forward(*cut, record=False)
        expected = {
            name: array
            for name, array in expected_results(problem).items()
            if name in ("output", "h_n")
        }
        lines = shapes.disagreements(expected, {"output": output, "h_n": h_n}, problem)
        assert len(lines) == 2


class TestTimer:
    def test_calls_at_least(self):
        calls = []
        batch = time_calls(lambda: calls.append(1), min_time=0.0, min_calls=4)
        assert batch["calls"] >= 4
        assert len(calls) > batch["calls"]  # the untimed ones came first
        assert 0.0 < batch["best"] <= batch["median"]

    def test_collector_comes_back(self):
        import gc

        def fail():
            assert not gc.isenabled()
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            time_calls(fail, min_time=0.0)
        assert gc.isenabled()


class TestReport:
    def test_takes_the_better_thread_count(self):
        row = made_report().rows[0]
        assert row.taken("numpy", "median").threads == 2
        assert row.taken("numpy", "median").nanoseconds("median") == 3e6
        assert row.taken(OWN, "best").nanoseconds("best") == pytest.approx(1.8e6)
        assert row.taken("torch", "median") is None
        assert row.best_peer("median").peer == "numpy"
        assert row.ratio("median") == pytest.approx(1.5)
        assert row.rate("median") == pytest.approx(row.flops / 2e6)

    def test_share_is_of_as_many_threads(self):
        made = made_report()
        assert made.share_of_peak(made.rows[0]) == pytest.approx(made.rows[0].flops / 2e6 / 200)
        assert made.share_of_peak(made.rows[1]) == pytest.approx(made.rows[1].flops / 1e3 / 100)
        made.peak.clear()
        assert made.share_of_peak(made.rows[0]) is None

    def test_json_round_trip(self):
        made = made_report()
        again = Report.from_json(made.to_json())
        assert again == made
        assert again.to_json() == made.to_json()
        entry = json.loads(made.to_json())["rows"][0]
        assert entry["summary"]["median"]["milliseconds"] == {"numpy": 3.0, OWN: 2.0}
        assert entry["summary"]["median"]["ratio"] == pytest.approx(1.5)
        assert entry["name"] == "small"

    def test_other_format_is_refused(self):
        with pytest.raises(ValueError, match="format 99"):
            Report.from_json('{"format": 99}')

    def test_write_is_whole_or_not_at_all(self, tmp_path):
        file = tmp_path / "out.json"
        report.write_text(str(file), "one")
        with pytest.raises(TypeError):
            report.write_text(str(file), None)
        assert file.read_text() == "one"
        assert os.listdir(tmp_path) == ["out.json"]


class TestTables:
    @pytest.mark.parametrize(
        ("nanoseconds", "text"),
        [
            (1234.0, "0.00123"),
            (5.9e3, "0.00590"),
            (3.5e6, "3.50"),
            (53.44e6, "53.4"),
            (438e6, "438"),
            (0, "0"),
        ],
    )
    def test_milliseconds(self, nanoseconds, text):
        assert tables.milliseconds(nanoseconds) == text

    def test_geometric_mean(self):
        assert tables.geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
        assert tables.geometric_mean([]) is None

    def test_plain(self):
        text = bench.format_report(made_report())
        row = next(line for line in text.splitlines() if line.startswith("(100,32,64,128)"))
        assert row.split() == [
            "(100,32,64,128)",
            "3.00",
            "(2)",
            "-",
            "2.00",
            "(2)",
            "78.6",
            "1.50",
            "39%",
        ]
        assert "geometric mean 1.50, one step 4.00, rows lost: 0 of 2" in text
        assert "not timed: jax (jax is not installed)" in text
        assert "EXCLUDED:\n- rnn forward (1,1,64,64): torch (threads=1) failed: it broke" in text
        assert "fastrnn bench --rounds 2" in text

    def test_lost_rows_are_marked(self):
        text = bench.format_report(made_report(ours=2e6, theirs=1e6))
        assert f"0.50 {tables.LOST}" in text
        assert "rows lost: 1 of 2" in text

    def test_markdown(self):
        text = bench.format_report(made_report(), markdown=True)
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) == 4
        assert len({line.count("|") for line in lines}) == 1
        assert set(lines[1]) <= set("|-: ")

    def test_without_peers_or_ourselves(self):
        made = made_report()
        for row in made.rows:
            row.timings = [timing for timing in row.timings if timing.peer == OWN]
        assert "geometric mean" not in bench.format_report(made)
        for row in made.rows:
            row.timings.clear()
        assert "100,32" in bench.format_report(made)


class TestPeers:
    @pytest.mark.parametrize("name", PEERS)
    def test_each_is_found_and_says_what_it_needs(self, name):
        peer = find_peer(name)
        assert peer.name == name
        assert peer.unsupported("rnn", "forward", "float32") == ""
        assert missing_module(peer) in ("", *peer.modules)

    @pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
    def test_inference_only(self, name):
        peer = find_peer(name)
        assert peer.unsupported("rnn", "training", "float32") == "inference only"
        assert peer.unsupported("rnn", "forward", "float64") == "no float64"
        assert "no" in peer.unsupported("other", "forward", "float32")

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
            worker.ask("build", "rnn", TINY.sizes, "float32", "forward", 0)
            if os.path.exists("/proc/self/stat"):
                # The signal is sent before ask returns; it is carried out soon after.
                os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
                with open(f"/proc/{worker.pid}/stat") as file:
                    assert file.read().rpartition(")")[2].split()[0] == "T"
            assert worker.ask("time", 0.0, 3)["calls"] >= 3
        finally:
            worker.close()
        assert not worker.alive

    def test_an_error_is_told_and_the_worker_lives(self):
        worker = pool.WorkerHandle("numpy", 1)
        try:
            with pytest.raises(pool.WorkerError, match="KeyError"):
                worker.ask("build", "nonsense", TINY.sizes, "float32", "forward", 0)
            assert worker.ask("drop") is None
        finally:
            worker.close()

    def test_no_answer_in_time(self):
        worker = pool.WorkerHandle("numpy", 1)
        try:
            worker.ask("build", "rnn", TINY.sizes, "float32", "forward", 0)
            with pytest.raises(pool.WorkerError, match="no answer within"):
                worker.ask("time", 60.0, 3, timeout=0.02)
        finally:
            worker.close()


class TestRun:
    @pytest.mark.parametrize("dtype", shapes.DTYPES)
    def test_numpy(self, dtype):
        made, said = tiny_run(["numpy"], dtype=dtype)
        assert made.problems == []
        assert made.peers == ["numpy", OWN]
        assert [(row.mode, row.sizes) for row in made.rows] == [
            ("forward", TINY.sizes),
            ("training", TINY.sizes),
        ]
        for row in made.rows:
            assert {timing.peer for timing in row.timings} == {"numpy", OWN}
            assert all(len(timing.rounds) == 1 for timing in row.timings)
        assert set(made.peak[dtype]) == {"1"}
        assert Report.from_json(made.to_json()).to_json() == made.to_json()
        assert len([line for line in said if "timed" in line]) == 2

    @pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino", "jax"])
    def test_framework(self, name):
        if module := missing_module(find_peer(name)):
            pytest.skip(f"{module} is not installed")
        made, said = tiny_run([name])
        assert made.problems == [], said
        modes = [row.mode for row in made.rows if row.taken(name, "median") is not None]
        assert modes == ["forward"] + ["training"] * (name in ("torch", "jax"))

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

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("Wrong", "output differs by"),
            ("Raises", "RuntimeError: broken on purpose"),
            ("Dies", "ended with status 7"),
        ],
    )
    def test_a_wrong_peer_is_excluded_loudly(self, own_peers, name, why):
        made, said = tiny_run([f"own_peers:{name}"], modes=["forward"])
        (row,) = made.rows
        assert {timing.peer for timing in row.timings} == {OWN}
        assert row.ratio("median") is None
        assert any(why in line for line in row.problems)
        assert any(line.startswith("EXCLUDED") and why in line for line in said)
        assert "EXCLUDED" in bench.format_report(made)

    def test_what_a_peer_prints_is_harmless(self, own_peers):
        made, _ = tiny_run(["own_peers:Prints"], modes=["forward"])
        assert made.problems == []
        assert made.rows[0].taken("prints", "median") is not None


class TestPlot:
    def test_name(self):
        pytest.importorskip("matplotlib")
        with pytest.raises(bench.BenchError, match="must end in"):
            plot.check_plot("out.txt")

    def test_missing_library(self, monkeypatch):
        monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(bench.BenchError, match="needs matplotlib"):
            plot.check_plot("out.png")

    def test_file(self, tmp_path):
        pytest.importorskip("matplotlib")
        file = tmp_path / "out.svg"
        plot.save_plot(made_report(), str(file))
        assert "<svg" in file.read_text()
