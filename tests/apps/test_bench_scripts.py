"""The scripts in benchmarks/ that tables and limits come from, whatever the speed of anyone."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

import fastrnn
from fastrnn import bench
from fastrnn.bench import shapes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Imports a script by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


class TestGrowth:
    AXES = {"T": (1, 3), "B": (1, 2), "H": (4, 5)}  # noqa: RUF012
    BASE = bench.Shape(3, 2, 6, 6)

    def test_one_size_changes(self, script):
        growth = script("growth")
        assert growth.shapes_of("T", (1, 7), self.BASE) == [
            bench.Shape(1, 2, 6, 6),
            bench.Shape(7, 2, 6, 6),
        ]
        assert growth.shapes_of("H", (4,), self.BASE) == [bench.Shape(3, 2, 4, 4)]

    def test_what_is_asked_for(self, script):
        """T in 5 to 200, B in 1 to 128, H in 64 to 2048; the base lies on each of its axes."""
        growth = script("growth")
        for axis, least, most in (("T", 5, 200), ("B", 1, 128), ("H", 64, 2048)):
            values = growth.AXES[axis]
            assert (min(values), max(values)) == (least, most)
            assert getattr(growth.BASE, axis) in values
        assert set(growth.MODES) <= set(bench.MODES)

    def test_tables(self, script, monkeypatch, settings_restored):
        growth = script("growth")
        monkeypatch.setattr(growth, "TURN", 0.0)
        text = growth.tables(self.AXES, self.BASE, growth.CHOSEN[:2], growth.MODES, 2, 1)
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len(lines) == 3 * (2 + 2 * 2)
        assert {line.count("|") for line in lines} == {2 + 1 + 2 * len(growth.MODES)}
        assert [line.split()[3] for line in lines[2:6]] == ["1", "3", "1", "3"]
        assert text.startswith("B = 2, D = H = 6:")
        assert "T = 3, B = 2:" in text

    def test_shared_points_are_timed_once(self, script, monkeypatch):
        growth = script("growth")
        monkeypatch.setattr(growth, "TURN", 0.0)
        points = growth.points_of(
            ["gru"], ["forward"], [self.BASE, self.BASE, bench.SHAPES["odd"]], 1
        )
        assert len(points) == 2
        growth.take_turns(list(points.values()), 3)
        assert all(len(point.rounds) == 3 for point in points.values())


class TestCompany:
    def test_a_missed_limit_is_the_exit_status(self, script, monkeypatch, capsys):
        company = script("company")
        parts = {"good": lambda: [], "bad": lambda: ["too few steps"], "plain": lambda: None}
        monkeypatch.setattr(company, "PARTS", parts)
        assert company.main(["good", "plain"]) == 0
        assert capsys.readouterr().out == ""
        assert company.main([]) == 1
        assert capsys.readouterr().out == "limit missed: too few steps\n"
        with pytest.raises(SystemExit, match="20 streams"):
            company.main(["good", "none such"])

    @pytest.mark.parametrize(("many", "missed"), [(79.0, 1), (80.0, 0), (300.0, 0)])
    def test_streams_miss_their_limit_below_it(self, script, monkeypatch, many, missed):
        company = script("company")
        monkeypatch.setattr(company, "UNITS", (3, 4))
        rates = {1: 100.0, company.STREAMS: many}
        monkeypatch.setattr(company, "steps_a_second", lambda steps, _: rates[len(steps)])
        of = ["a layer, LSTM, H = 3", "a frozen layer, LSTM, H = 3", "a frozen layer, LSTM, H = 4"]
        assert company.streams() == [f"streams of {one}" for one in of] * missed

    @pytest.mark.parametrize(("used", "missed"), [(1.1, 3), (1.0, 0)])
    def test_idle_misses_its_limit_above_it(self, script, monkeypatch, used, missed):
        company = script("company")
        monkeypatch.setattr(company, "UNITS", (3, 4))
        monkeypatch.setattr(company, "used_when_idle", lambda _: used)
        assert len(company.idle()) == missed

    def test_steps_of_all_threads_are_counted(self, script):
        company = script("company")
        made = [0] * 4

        def step(k):
            made[k] += 1

        rate = company.steps_a_second([lambda k=k: step(k) for k in range(4)], 0.01)
        assert rate > 0
        assert all(made)


class TestOldNewRows:
    def test_rows(self, script):
        rows = script("old_new_rows").rows()
        assert len(set(map(str, rows))) == len(rows)
        assert {row.regime for row in rows} == set(shapes.REGIMES)
        large = {(row.regime, row.mode) for row in rows if row.sizes[3] >= 1024}
        assert large == {
            *((regime, mode) for regime in ("few-rows", "batch-1-wide")
              for mode in ("forward", "training")),
            ("batch-1-wide", "run"),
            ("step", "stream"),
        }  # fmt: skip

    def test_every_mode_can_be_called(self, script):
        made = script("old_new_rows")
        modes = {}
        for row in made.rows():
            T, B = row.sizes[:2]
            small = replace(row, sizes=(min(T, 3), min(B, 2), 3, 4))
            modes.setdefault((row.mode, row.cell, row.form), small)
        for row in modes.values():
            call = made.call_of(row, fastrnn)
            call()
            call()
