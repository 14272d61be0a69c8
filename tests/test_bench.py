"""fastrnn.bench: what can be tested without depending on anyone's speed."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from fastrnn import _core, bench, cli, reference
from fastrnn.bench import compare, plot, report, session, shapes, tables
from fastrnn.bench.peers import EXTRAS, OWN, expected_results
from fastrnn.bench.report import Report, Row, Timing
from fastrnn.bench.timer import time_calls

RNN = bench.CELLS["rnn"]
TINY = bench.Shape(3, 2, 4, 5)
ONE = bench.Shape(1, 2, 4, 5)


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
            bench.SHAPES["small"],
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
            bench.SHAPES["one-step"],
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
        bandwidth={"float32": {str(2 * 64 * 64 * 4): {"1": 80.0}}},
        rows=rows,
    )


def steps_report():
    """A report as if measured: one step, in several ways."""

    def timing(peer, threads, nanoseconds, way=""):
        batch = {"best": nanoseconds, "median": nanoseconds, "calls": 7}
        return Timing(peer, threads, [batch], way)

    made = made_report()
    made.peers = ["numpy", "onnxruntime", OWN]
    made.rows = [
        Row(
            "lstm",
            "step",
            "float32",
            bench.SHAPES["one-step"],
            [
                timing("numpy", 1, 2e4),
                timing("onnxruntime", 1, 5e3, "bound"),
                timing("onnxruntime", 2, 4e3, "bound"),
                timing("onnxruntime", 1, 6e3, "run"),
                timing(OWN, 1, 1e3, "out="),
            ],
        )
    ]
    return made


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
        for name, gates in (("lstm", 4), ("gru", 3)):
            assert bench.flops(bench.CELLS[name], TINY) == gates * bench.flops(RNN, TINY)

    @pytest.mark.parametrize("mode", ["step", "tape", "stream"])
    def test_flops_of_what_is_no_training_are_those_of_forward(self, mode):
        assert bench.flops(RNN, ONE, mode) == bench.flops(RNN, ONE)

    def test_flops_are_those_of_every_cell_and_of_steps_that_exist(self):
        def step(*features):
            return sum(2 * 5 * (n + 5) for n in features)

        assert bench.flops(RNN, bench.Shape(3, 2, 4, 5, layers=2)) == 6 * step(4, 5)
        both = bench.Shape(3, 2, 4, 5, layers=2, directions=2)
        assert bench.flops(RNN, both) == 6 * step(4, 4, 10, 10)
        ragged = bench.Shape(30, 2, 4, 5, ragged=True)
        assert 2 <= ragged.lengths.sum() < 60
        assert bench.flops(RNN, ragged) == ragged.lengths.sum() * step(4)

    @pytest.mark.parametrize(
        ("text", "mode", "reads"),
        [
            ("7,2,3,5", "forward", None),
            ("1,1,3,5", "step", (4 * 4 * 5 * (3 + 5), 1)),
            ("7,1,3,5", "forward", (4 * 4 * 5 * 5, 7)),
            ("7,1,3,5", "training", (4 * 4 * 5 * 5, 14)),
            ("7,1,3,5 x2 both", "forward", (4 * 4 * 5 * 5, 28)),
        ],
    )
    def test_weights_that_are_read_again_and_again(self, text, mode, reads):
        lstm, shape = bench.CELLS["lstm"], shapes.parse_shape(text)
        assert shapes.weight_reads(lstm, shape, mode, "float32") == reads

    def test_lengths_lie_between_1_and_all_steps(self):
        lengths = bench.Shape(4, 1000, 1, 1, ragged=True).lengths
        assert set(lengths) == {1, 2, 3, 4}
        assert TINY.lengths is None

    def test_parse(self):
        assert shapes.parse_shape("3,2,4,5") == TINY
        assert shapes.parse_shape("(3, 2, 4, 5)") == TINY
        for name, shape in bench.SHAPES.items():
            assert shapes.parse_shape(name) == shape == shapes.parse_shape(str(shape))
            assert shape.name == name

    def test_parse_words(self):
        for text, shape in {
            "3,2,4,5 x2": bench.Shape(3, 2, 4, 5, layers=2),
            "(3, 2, 4, 5) both": bench.Shape(3, 2, 4, 5, directions=2),
            "3,2,4,5 ragged both x3": bench.Shape(3, 2, 4, 5, 3, 2, True),
            "small ragged": bench.Shape(100, 32, 64, 128, ragged=True),
        }.items():
            assert shapes.parse_shape(text) == shape == shapes.parse_shape(str(shape))
            assert shape.name == ""
        assert str(bench.Shape(3, 2, 4, 5, 3, 2, True)) == "(3,2,4,5) x3 both ragged"

    def test_regimes(self):
        everything = shapes.parse_shapes(["all"])
        assert set(bench.SHAPES.values()) < set(everything)
        assert len(set(everything)) == len(everything)
        assert {extra for shape in everything for extra in shape.extras} == EXTRAS
        assert shapes.parse_shapes(["ragged", "3,2,4,5", "small"]) == [
            bench.SHAPES["small"],
            shapes.parse_shape("small ragged"),
            TINY,
        ]
        # A word means one thing.
        assert not {*shapes.REGIMES, "all"} & {*bench.SHAPES}

    @pytest.mark.parametrize(
        "text",
        ["", "3,2,4", "3,2,4,5,6", "3,2,4,0", "3,2,4,-5", "tiny", "3,2,4,x", "3,2,4,5 x0",
         "3,2,4,5 2", "both", "small odd"],
    )  # fmt: skip
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
        problem = bench.make_problem(bench.CELLS["lstm"], TINY)
        assert problem.weights["w_ih"].shape == (20, 4)
        assert problem.input_names[:3] == ("x", "h_0", "c_0")
        assert problem.output_names == ("output", "h_n", "c_n")

    def test_problem_of_several_cells(self):
        shape = bench.Shape(3, 2, 4, 5, layers=2, directions=2)
        problem = bench.make_problem(bench.CELLS["lstm"], shape)
        assert list(problem.weights)[::4] == [
            f"w_ih{end}" for end in ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
        ]
        assert problem.weights["w_ih_l1"].shape == (20, 10)
        assert [state.shape for state in problem.states] == [(4, 2, 5)] * 2
        assert problem.d_output.shape == (3, 2, 10)

    def test_a_ragged_batch_is_the_padded_one_and_lengths(self):
        padded, ragged = (
            bench.make_problem(RNN, shape) for shape in shapes.parse_shapes(["ragged"])
        )
        for a, b in zip(padded.inputs, ragged.inputs, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_several_steps_are_checked(self):
        problem = bench.make_problem(bench.CELLS["lstm"], ONE)
        assert shapes.checked_problem(problem, "forward") is problem
        checked = shapes.checked_problem(problem, "step")
        assert checked.shape == bench.Shape(shapes.CHECKED_STEPS, 2, 4, 5)
        assert checked.x.shape == (shapes.CHECKED_STEPS, 2, 4)
        for x_t in checked.x:
            np.testing.assert_array_equal(x_t, problem.x[0])
        assert expected_results(checked)["output"].shape == (shapes.CHECKED_STEPS, 2, 5)


class TestPlan:
    """Which modes are timed on which shapes."""

    def plan(self, **options):
        return session.check(bench.Options(peers=[], **options))

    def test_steps_are_timed_only_on_request(self):
        assert self.plan().modes == list(bench.DEFAULT_MODES) == ["forward", "training"]
        assert self.plan().cells == list(bench.CELLS) == ["rnn", "lstm", "gru"]
        assert self.plan(modes=["step"]).modes == ["step"]

    def test_a_step_is_one_step(self):
        timed = [name for name, shape in bench.SHAPES.items() if shapes.is_timed("step", shape)]
        assert timed == ["one-step"]
        assert all(shapes.is_timed(mode, TINY) for mode in bench.DEFAULT_MODES)

    def test_longer_shapes_are_for_the_other_modes(self):
        plan = self.plan(modes=["forward", "step"], shapes=["small", "one-step"])
        assert [shape.name for shape in plan.shapes] == ["small", "one-step"]

    @pytest.mark.parametrize(
        ("modes", "chosen"),
        [
            (["step"], ["small"]),
            (["step"], ["one-step", "small"]),
            (["step", "forward"], ["small"]),
        ],
    )
    def test_a_request_that_nothing_answers_is_refused(self, modes, chosen):
        with pytest.raises(bench.BenchError, match="has T = 100: the mode step takes T = 1"):
            self.plan(modes=modes, shapes=chosen)

    @pytest.mark.parametrize("text", ["small both", "small ragged", "1,1,4,5 x2"])
    def test_a_mode_says_which_shapes_it_has(self, text):
        mode = "step" if "x2" in text else "stream"
        with pytest.raises(bench.BenchError, match=f"the mode {mode} takes"):
            self.plan(modes=[mode], shapes=[text])
        assert self.plan(modes=[mode, "forward"], shapes=["one-step", text])


class TestDisagreements:
    @pytest.fixture(params=bench.CELLS)
    def problem(self, request):
        return bench.make_problem(bench.CELLS[request.param], TINY)

    @pytest.fixture
    def expected(self, problem):
        return expected_results(problem)

    def rounded(self, expected):
        return {name: array.astype(np.float32) for name, array in expected.items()}

    def test_rounding_passes(self, problem, expected):
        assert expected["output"].dtype == np.float64
        assert shapes.disagreements(expected, self.rounded(expected), problem) == []

    def test_everything_is_compared(self, problem, expected):
        gradients = [f"d_{name}" for name in problem.input_names]
        assert sorted(expected) == sorted([*problem.output_names, *gradients])

    @pytest.mark.parametrize("wrong", [1e-3, np.nan, np.inf])
    def test_one_wrong_value_is_seen(self, problem, expected, wrong):
        for name, want in expected.items():
            got = self.rounded(expected)
            got[name].flat[0] += wrong * np.abs(want).max()
            (line,) = shapes.disagreements(expected, got, problem)
            assert line.startswith(f"{name} differs by")

    def test_other_differences(self, problem, expected):
        got = self.rounded(expected)
        del got["d_x"]
        got["output"] = got["output"].swapaxes(0, 1)
        got["h_n"] = got["h_n"].astype(np.float64)
        lines = shapes.disagreements(expected, got, problem)
        assert sorted(line.split()[0] for line in lines) == ["d_x", "h_n", "output"]

    def test_tolerance_is_of_the_longest_sum(self):
        problem = bench.make_problem(bench.CELLS["lstm"], bench.Shape(50, 10, 8, 32))
        unit = 64 * float(np.finfo(np.float32).eps)
        for name, terms in (("output", 64), ("d_x", 128), ("d_c_0", 128), ("d_w_hh", 500)):
            assert shapes.tolerance(name, problem) == pytest.approx(unit * terms**0.5)
        # 16,000 summands, and still no more than a thousandth.
        long = bench.make_problem(RNN, bench.SHAPES["long"])
        assert shapes.tolerance("d_b_hh", long) <= 1e-3

    @pytest.mark.parametrize("cell", bench.CELLS)
    @pytest.mark.parametrize("shape", ["sequence", "small"])
    def test_bfloat16_products_do_not_pass_for_float32(self, cell, shape):
        """Inputs cut to 8 bits of mantissa."""
        problem = bench.make_problem(bench.CELLS[cell], bench.SHAPES[shape])
        cut = [(a.view(np.uint32) & 0xFFFF0000).view(np.float32) for a in problem.inputs]
        *outputs, _ = getattr(reference, f"{cell}_forward")(*cut, record=False)
        got = dict(zip(problem.output_names, outputs, strict=True))
        expected = {name: a for name, a in expected_results(problem).items() if name in got}
        assert len(shapes.disagreements(expected, got, problem)) == len(got)


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
        batch, step = made.rows
        assert made.shares(batch) == {"fma": pytest.approx(batch.flops / 2e6 / 200)}
        assert made.shares(step) == {
            "fma": pytest.approx(step.flops / 1e3 / 100),
            "cache": pytest.approx(2 * 64 * 64 * 4 / 1e3 / 80),
        }
        made.peak.clear()
        assert made.shares(batch) == {}
        made.bandwidth["float32"][str(64 * 64 * 4)] = {"1": 160.0}
        many = replace(step, shape=bench.Shape(30, 1, 64, 64), mode="training")
        assert made.shares(many) == {"cache": pytest.approx(2 * 30 * 64 * 64 * 4 / 1e3 / 160)}

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

    def test_the_fastest_way_is_taken(self):
        made = steps_report()
        (row,) = made.rows
        assert row.taken("onnxruntime", "median").way == "bound"
        assert row.taken("onnxruntime", "median", "run").nanoseconds("median") == 6e3
        assert row.taken("onnxruntime", "median", "other") is None
        assert row.ways("onnxruntime") == ["bound", "run"]
        assert row.ways("numpy") == row.ways("torch") == []
        assert row.ratio("median") == pytest.approx(4.0)
        assert Report.from_json(made.to_json()) == made
        summary = json.loads(made.to_json())["rows"][0]["summary"]["median"]
        assert summary["milliseconds"] == {"numpy": 0.02, "onnxruntime": 0.004, OWN: 0.001}
        assert summary["ways"]["onnxruntime"] == {"bound": 0.004, "run": 0.006}
        assert summary["ways"][OWN] == {"out=": 0.001}

    def test_files_of_earlier_versions_are_read(self):
        entry = json.loads(made_report().to_json())
        del entry["bandwidth"]
        for row in entry["rows"]:
            del row["shape"]  # there were sizes alone
            for timing in row["timings"]:
                del timing["way"]
        made = made_report()
        made.bandwidth.clear()
        assert Report.from_json(json.dumps(entry)) == made


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
        row = next(line for line in text.splitlines() if line.startswith("(1,1,64,64)"))
        assert row.endswith("41% cache")  # of multiply-adds it is 16%
        assert "geometric mean 1.50, one step 4.00, rows lost: 0 of 2" in text
        assert "not timed: jax (jax is not installed)" in text
        assert "EXCLUDED:\n- rnn forward (1,1,64,64): torch (threads=1) failed: it broke" in text
        assert "fastrnn bench --rounds 2" in text

    def test_summary_is_of_all_cells(self):
        made = made_report()
        made.rows += steps_report().rows + made_report(theirs=1e6).rows[:1]
        made.rows[-1].cell = "gru"
        made.rows[-1].mode = "training"
        made.rows.append(replace(made.rows[-1], dtype="float64"))
        assert (
            "all cells, float32: best peer / fastrnn, geometric mean of forward 1.50 (1 row), "
            "forward of one step 4.00 (1 row), step 4.00 (1 row), training 0.50 (1 row); "
            "rows lost: 1 of 4, below 0.8: 1"
        ) in bench.format_report(made).splitlines()
        made.rows[0].cell, made.rows[3].mode = "lstm", "forward"
        assert "mean of forward 0.87 (2 rows), forward of" in bench.format_report(made)

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

    def test_ways_are_told_below_the_table(self):
        text = bench.format_report(steps_report())
        assert "lstm step, float32" in text
        assert (
            "ways at (1,1,64,64): onnxruntime bound 0.00400 (2), run 0.00600 (1); "
            f"{OWN} out= 0.00100 (1)"
        ) in text
        assert "step is one time step from Python" in text
        assert "one step 4.00, rows lost: 0 of 1" in text
        text = bench.format_report(made_report())
        assert "ways at" not in text
        assert "time step from Python" not in text

    def test_without_peers_or_ourselves(self):
        made = made_report()
        for row in made.rows:
            row.timings = [timing for timing in row.timings if timing.peer == OWN]
        assert "geometric mean" not in bench.format_report(made)
        for row in made.rows:
            row.timings.clear()
        assert "100,32" in bench.format_report(made)


class TestCompare:
    """Two runs, old and new."""

    def run_with(self, *milliseconds, shape=TINY, cell="rnn"):
        """A report of one row whose rounds took so long."""
        made = made_report()
        rounds = [{"best": 0.5e6 * ms, "median": 1e6 * ms, "calls": 7} for ms in milliseconds]
        peer = Timing("numpy", 1, [{"best": 6e6, "median": 6e6, "calls": 7}])
        made.rows = [Row(cell, "forward", "float32", shape, [Timing(OWN, 1, rounds), peer])]
        return made

    @pytest.mark.parametrize(
        ("old", "new", "found"),
        [
            ((2.0, 2.2, 2.4), (2.3, 2.5, 9.0), "slower"),
            ((2.0, 2.2, 2.4), (2.2, 2.5, 2.6), "same"),
            ((2.0, 2.2, 2.4), (2.0, 2.0, 2.0), "same"),
            ((2.0, 2.2, 2.4), (1.8, 1.9, 9.0), "faster"),
            ((2.0, 2.2, 2.4), (1.8, 2.1, 9.0), "same"),
            ((2.0, 2.2, 2.4), (1.8, 1.9), "faster"),
            ((2.0, 2.0), (2.05, 2.05), "same"),
            ((2.0, 2.0), (2.07, 2.07), "slower"),
            ((2.07,), (2.0,), "faster"),
        ],
    )
    def test_verdict_is_by_the_rounds(self, old, new, found):
        before, after = self.run_with(*old), self.run_with(*new)
        text, slower = compare.format_comparison(before, after, "median")
        (line,) = (line for line in text.splitlines() if line.startswith("rnn forward"))
        assert line.split()[-1] == found
        assert slower == (found == "slower")
        assert f"{found} 1" in text
        assert compare.RULE in text

    def test_table(self):
        text, _ = compare.format_comparison(self.run_with(2.0), self.run_with(3.0), "median")
        row = "rnn forward float32 (3,2,4,5) 2.00 3.00 1.50 3.00 2.00 slower"
        assert row in [" ".join(line.split()) for line in text.splitlines()]
        text, _ = compare.format_comparison(self.run_with(2.0), self.run_with(3.0), "best", True)
        assert "| 1.00 |" in " ".join(text.split())

    def test_rows_of_one_file_are_listed(self):
        failed = self.run_with(2.0, cell="gru")
        failed.rows[0].timings.pop(0)
        old, new = self.run_with(2.0, cell="lstm"), self.run_with(2.0, shape=ONE)
        old.rows += failed.rows
        text, slower = compare.format_comparison(old, new, "median")
        assert not slower
        assert "no row is in both files" in text
        assert "only in the old file:\nlstm forward float32 (3,2,4,5)" in text
        assert text.endswith("only in the new file:\nrnn forward float32 (1,2,4,5)")
        assert "gru" not in text

    def test_other_machines_are_said_first(self):
        old, new = self.run_with(2.0), self.run_with(2.0)
        assert "machines differ" not in compare.format_comparison(old, new, "median")[0]
        new.machine["isa"] = "neon"
        text, _ = compare.format_comparison(old, new, "median")
        assert text.startswith("machines differ in isa: avx2 before, neon now\n")

    def test_status(self, tmp_path, capsys):
        files = [tmp_path / "old.json", tmp_path / "new.json"]
        for file, milliseconds in zip(files, (2.0, 3.0), strict=True):
            file.write_text(self.run_with(milliseconds).to_json())
        argv = ["bench", "--compare", *map(str, files)]
        assert cli.main(argv) == 1
        assert "slower 1" in capsys.readouterr().out
        assert cli.main([*argv[:2], str(files[1]), str(files[0])]) == 0
        assert cli.main([*argv, "--statistic", "mean"]) == 2

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (None, "cannot read"),
            ("", "is not JSON"),
            ("{", "is not JSON"),
            ("\udcff", "is not JSON"),
            ("[]", "is not a whole file"),
            ("{}", "format None of a benchmark file, not 1"),
            ('{"format": 2}', "format 2 of a benchmark file, not 1"),
            ('{"format": 1}', "is not a whole file"),
            ({"sizes": [1, 2, 3], "shape": ""}, "shape '1,2,3' is neither"),
            ({"timings": [{"peer": OWN, "threads": 1, "rounds": [{}]}]}, "is not a whole file"),
            ({"cell": "other"}, "is not a whole file"),
        ],
    )
    def test_files_that_are_none(self, tmp_path, capsys, text, why):
        file = tmp_path / "run.json"
        if isinstance(text, dict):
            entry = json.loads(self.run_with(2.0).to_json())
            entry["rows"][0] |= text
            text = json.dumps(entry)
        if text is not None:
            file.write_bytes(text.encode(errors="surrogateescape"))
        assert cli.main(["bench", "--compare", str(file), str(file)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert why in line


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

    def test_cells_and_modes_have_panels(self, tmp_path):
        pytest.importorskip("matplotlib")
        made = made_report()
        made.rows += steps_report().rows
        file = tmp_path / "out.svg"
        made.rows.append(replace(made.rows[0], mode="tape", shape=bench.Shape(3, 2, 4, 5, 2, 2)))
        plot.save_plot(made, str(file))
        # Text is drawn as paths, but what it says is kept beside them.
        text = file.read_text()
        assert "rnn forward, float32" in text
        assert "lstm step, float32" in text
        assert "(3,2,4,5) x2 both" in text
        for row in made.rows:
            row.timings.clear()
        plot.save_plot(made, str(file))


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("double", [False, True])
def test_bandwidth_is_that_of_every_byte(isa, double):
    """Not of a loop that was left out: reading takes time, and no processor reads 10 TB/s."""
    before = _core.get_isa()
    _core.set_isa(isa)
    try:
        for size in (1, 4096, 70_001):
            assert 0.01 < _core.read_peak(0.001, double, size) < 10_000
    finally:
        _core.set_isa(before)
    with pytest.raises(ValueError, match="bytes is 0"):
        _core.read_peak(0.001, double, 0)
    with pytest.raises(MemoryError):
        _core.read_peak(0.001, double, 2**60)
