"""fastrnn.bench: shapes, plans, checks and the timer, whatever the speed of anyone."""

from __future__ import annotations

import numpy as np
import pytest
from registry import CELLS

from fastrnn import _core, bench
from fastrnn.bench import session, shapes
from fastrnn.bench.peers import EXTRAS, OWN, NumpyReference, expected_results
from fastrnn.bench.report import Row
from fastrnn.bench.timer import time_calls

RNN = bench.CELLS["rnn"]
TINY = bench.Shape(3, 2, 4, 5)
ONE = bench.Shape(1, 2, 4, 5)


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
        for name, cell in CELLS.items():
            assert bench.flops(bench.CELLS[name], TINY) == cell.gates * bench.flops(RNN, TINY)

    @pytest.mark.parametrize("mode", ["step", "tape", "stream", "frozen"])
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

    @pytest.mark.parametrize("name", CELLS)
    def test_problem_has_the_weights_that_the_cell_requires(self, name):
        problem = bench.make_problem(bench.CELLS[name], bench.Shape(3, 2, 4, 5, layers=2))
        required = {f"{w}_l{k}" for w in CELLS[name].required for k in range(2)}
        plain = {f"{w}_l{k}" for w in ("w_ih", "w_hh", "b_ih", "b_hh") for k in range(2)}
        assert set(problem.weights) == plain | required
        assert all(problem.weights[weight].shape == (5,) for weight in required)

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
        assert self.plan().cells == list(bench.CELLS) == list(CELLS)
        assert self.plan(modes=["step"]).modes == ["step"]

    def test_a_step_is_one_step(self):
        timed = [name for name, shape in bench.SHAPES.items() if shapes.is_timed("step", shape)]
        assert timed == ["one-step"]
        assert all(shapes.is_timed(mode, TINY) for mode in bench.DEFAULT_MODES)

    def test_a_frozen_layer_has_every_shape(self):
        every = shapes.parse_shapes(["all"])
        assert self.plan(modes=["frozen"], shapes=["all"]).shapes == every
        assert all(shapes.is_timed("frozen", shape) for shape in every)

    def test_peers_do_forward_where_weights_are_kept(self):
        assert set(shapes.KEPT_MODES) < set(bench.MODES) - set(bench.DEFAULT_MODES)
        for mode in bench.MODES:
            row = Row("rnn", mode, "float32", ONE)
            assert session.mode_of(OWN, row) == mode
            kept = mode in ("stream", "frozen")
            assert session.mode_of("numpy", row) == ("forward" if kept else mode)

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
        cut = problem.mapped(lambda a: (a.view(np.uint32) & 0xFFFF0000).view(np.float32))
        run = NumpyReference.build(cut, "forward", 1)
        got = run.results(run.call())
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


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.quick
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
