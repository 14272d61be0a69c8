"""What fastrnn.bench makes of its timings: ratios, tables, comparisons, plots."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fastrnn import bench, cli, outputs
from fastrnn.bench import compare, plot, session, tables
from fastrnn.bench.peers import OWN
from fastrnn.bench.report import Report, Row, Timing

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
    def test_file(self, tmp_path):
        pytest.importorskip("matplotlib")
        file = tmp_path / "out.svg"
        outputs.save_plot(plot.draw(made_report()), str(file))
        assert "<svg" in file.read_text()

    def test_cells_and_modes_have_panels(self, tmp_path):
        pytest.importorskip("matplotlib")
        made = made_report()
        made.rows += steps_report().rows
        file = tmp_path / "out.svg"
        made.rows.append(replace(made.rows[0], mode="tape", shape=bench.Shape(3, 2, 4, 5, 2, 2)))
        outputs.save_plot(plot.draw(made), str(file))
        # Text is drawn as paths, but what it says is kept beside them.
        text = file.read_text()
        assert "rnn forward, float32" in text
        assert "lstm step, float32" in text
        assert "(3,2,4,5) x2 both" in text
        for row in made.rows:
            row.timings.clear()
        outputs.save_plot(plot.draw(made), str(file))
