"""The number of threads and the instruction set: variables, limits of the system, calls."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import bounds
import grids
import numpy as np
import pytest
from processes import script
from test_parallel import ISAS

import fastrnn
from fastrnn import _core

# Each of the environments in a fork of its own, before the library is there; a line ends what one
# says on either stream.
SETTINGS = """
import json, os, sys
import numpy
for environment in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        for name in ("FASTRNN_NUM_THREADS", "FASTRNN_ISA", "OMP_NUM_THREADS"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        import fastrnn
        print(fastrnn.get_num_threads(), fastrnn.get_isa())
        sys.exit()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, environment
    for stream in (sys.stdout, sys.stderr):
        print("-----", file=stream, flush=True)
"""


def settings(*environments: dict[str, str]) -> list[tuple[str, str]]:
    """What processes with these variables print, and what they warn of."""
    done = script(SETTINGS, json.dumps(environments))
    assert done.returncode == 0, done.stderr
    parts = [stream.split("-----\n")[:-1] for stream in (done.stdout, done.stderr)]
    assert [len(part) for part in parts] == [len(environments)] * 2
    return list(zip(*parts, strict=True))


def test_environment_variables() -> None:
    best = ISAS[0]
    openmp = fastrnn.show_config(mode="dicts")["build"]["openmp"]
    expected = 2 if openmp else 1  # a serial build does not read OpenMP's variables
    cases = [
        *(
            ({"FASTRNN_ISA": isa, "FASTRNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, f"3 {isa}\n")
            for isa in ISAS
        ),
        ({"OMP_NUM_THREADS": "2"}, f"{expected} {best}\n"),
        *(
            ({"FASTRNN_NUM_THREADS": three}, f"3 {best}\n")
            for three in (" 3\n", "0" * 20 + "3", "0" * 5000 + "3")
        ),
    ]
    found = settings(*(variables for variables, _ in cases))
    for (variables, want), said in zip(cases, found, strict=True):
        assert said == (want, ""), variables
    ((out, _),) = settings({"FASTRNN_NUM_THREADS": "", "FASTRNN_ISA": ""})
    threads, isa = out.split()
    assert int(threads) >= 1
    assert isa == best


NONSENSE = [
    *(
        ("FASTRNN_NUM_THREADS", value)
        for value in (
            "many", "3x", "0", "-1", "2.0", "2147483648", "9" * 5000, "٣",
            *((
                "+2", "1e9", "0x10", "1_000", "99999999999", "00", "0" * 9 + "9" * 11, "3,2",
                "true", "None",
            ) if grids.whole else ()),
        )
    ),
    *(
        ("FASTRNN_ISA", value)
        for value in ("avx1024", "AVX2", *(("sse", "3") if grids.whole else ()))
    ),
]  # fmt: skip


def test_a_variable_that_makes_no_sense_is_told_and_ignored() -> None:
    """A typing error must neither pass in silence nor stop a program."""
    plain = {"OMP_NUM_THREADS": "2"}
    (unset, _), *found = settings(plain, *(plain | {name: value} for name, value in NONSENSE))
    for (name, value), (out, err) in zip(NONSENSE, found, strict=True):
        what = f"{name}={value!r}"
        assert out == unset, what
        told = err.splitlines()
        assert told, what
        assert what in told[0]
        assert "expected" in told[0], what
        # It points at who imports, not into the machinery of imports.
        assert told[0].startswith("<string>:"), what
        assert "importlib" not in err, what


def test_a_variable_may_be_made_an_error() -> None:
    done = script("import fastrnn", FASTRNN_NUM_THREADS="x", PYTHONWARNINGS="error")
    assert done.returncode != 0
    assert "FASTRNN_NUM_THREADS='x'" in done.stderr


def test_what_the_control_groups_allow(tmp_path: Path) -> None:
    """Folders as the system has them; those of the two versions differ."""

    def quota(groups: str, **files: str) -> int:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in {"proc/self/cgroup": groups, **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return _core.cpu_quota(str(root))

    def second(group: str, **limits: str) -> int:
        top = "sys/fs/cgroup"
        return quota(f"0::{group}\n", **{f"{top}{k}/cpu.max": v for k, v in limits.items()})

    assert second("/") == 0
    assert second("/", **{"": "max 100000\n"}) == 0
    assert second("/", **{"": "200000 100000\n"}) == 2
    assert second("/a/b", **{"/a/b": "150000 100000\n"}) == 2
    assert second("/a/b", **{"/a/b": "max 100000\n", "/a": "50000 100000\n"}) == 1
    assert second("/a/b", **{"/a/b": "300000 100000\n", "/a": "400000 100000\n"}) == 3
    assert second("/elsewhere", **{"": "700000 100000\n"}) == 7
    for nonsense in ("", "many\n", "100000\n", "-1 100000\n", "5 0\n", "nan 1\n", "1e30 1\n"):
        assert second("/", **{"": nonsense}) == 0

    def first(group: str, folder: str, limit: str, period: str = "100000\n") -> int:
        top = f"sys/fs/cgroup/cpu{folder}/cpu.cfs_"
        files = {f"{top}quota_us": limit, f"{top}period_us": period}
        return quota(f"3:cpuset:/s\n2:memory:/m\n1:cpu,cpuacct:{group}\n", **files)

    assert first("/", "", "-1\n") == 0
    assert first("/", "", "250000\n") == 3
    assert first("/a", "/a", "100000\n", "200000\n") == 1
    assert first("/a", "", "600000\n") == 6
    assert first("/", "/s", "100000\n") == 0  # the group of another controller
    assert _core.cpu_quota(str(tmp_path / "nothing")) == 0


# What threadpoolctl does with the runtimes that it finds, without it.
TELL_THE_RUNTIME = """
import ctypes, os, fastrnn
with open("/proc/self/maps") as file:
    paths = {line.split()[-1] for line in file if "omp" in line and ".so" in line}
for path in paths:
    library = ctypes.CDLL(path)
    if hasattr(library, "omp_set_num_threads"):
        before = fastrnn.get_num_threads()
        library.omp_set_num_threads(5)
        print(before, fastrnn.get_num_threads())
        fastrnn.set_num_threads(2)
        print(fastrnn.get_num_threads())
        break
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not _core.build_info()["openmp"], reason="for OpenMP on Linux"
)
def test_the_runtimes_own_limit() -> None:
    """It holds until somebody says how many threads this package is to have."""
    done = script(TELL_THE_RUNTIME, OMP_NUM_THREADS="3", FASTRNN_NUM_THREADS="")
    assert done.stdout.split() == ["3", "5", "2"], done.stderr


def test_set_isa_refuses_what_does_not_run_here() -> None:
    before = fastrnn.get_isa()
    for name in {"avx2", "avx512", "neon", "sse2", "AVX2", "", "best"} - set(ISAS):
        with pytest.raises(ValueError):
            fastrnn.set_isa(name)
        assert fastrnn.get_isa() == before
    for isa in ISAS:
        fastrnn.set_isa(isa)
        assert fastrnn.get_isa() == isa


def test_set_num_threads_refuses_less_than_one() -> None:
    before = fastrnn.get_num_threads()
    for n in (0, -1):
        with pytest.raises(ValueError):
            fastrnn.set_num_threads(n)
        with pytest.raises(ValueError), fastrnn.num_threads(n):
            pass
        assert fastrnn.get_num_threads() == before


@pytest.mark.skipif(not _core.build_info()["openmp"], reason="a serial build has no teams")
def test_a_small_call_has_a_team_where_another_was_just_before(
    problem: Any, settings_restored: tuple[float, float]
) -> None:
    small = problem(T=50, B=8, D=64, H=64, dtype=np.float32)
    large = problem(T=100, B=64, D=256, H=256, dtype=np.float32)
    fastrnn.set_num_threads(2)
    _core.swap_team_policy(*settings_restored)

    def has_team(arguments: dict[str, Any]) -> bool:
        before = _core.teams_run()
        fastrnn.rnn_forward(**arguments, record=False)
        return _core.teams_run() > before

    time.sleep(0.05)
    assert not has_team(small)
    # The second one follows at once, unless the machine is so busy that even ten do not.
    assert any(has_team(small) for _ in range(10))
    for _ in range(20):  # others may have the processors, but not always
        time.sleep(0.2)
        if has_team(large):
            break
    else:
        raise AssertionError("no team for a large call")
    assert not has_team(problem(T=1, B=8, D=4, H=4, dtype=np.float32))


# One sequence split by hidden units, with restart too; or many rows of weights that are far, of
# cells with one and with two products a step. On one processor the threads would wait for each
# other at every step, so one of them does all.
# Prints a digest of every bit.
TOGETHER = """
import os, sys, hashlib
if sys.argv[1] == "one processor":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.path.insert(0, sys.argv[2])
import numpy as np, fastrnn
from fastrnn import _core
from bounds import Spec, draw, run
one, many = Spec(40, 1, 5, 133, kind="lstm"), Spec(9, 20, 70, 260, lengths=True, restart=True)
specs = {
    "restart": [one._replace(restart=True)],
    "none": [one],
    "many rows": [many._replace(kind="lstm", P=140), many._replace(kind="gru-reset-first")],
}[sys.argv[3]]
if sys.argv[3] == "many rows":
    _core.swap_far(0)
problems = [draw(spec, np.float32) for spec in specs]
for setting in sys.argv[4:]:
    threads, to_wake = setting.split(",")
    _core.swap_team_policy(0, float(to_wake))
    fastrnn.set_num_threads(int(threads))
    before = _core.teams_run()
    arrays = [a.tobytes() for p in problems for a in run(fastrnn, p).values() if a is not None]
    print(hashlib.sha256(b"".join(arrays)).hexdigest(), _core.teams_run() > before)
"""


if hasattr(os, "sched_setaffinity") and _core.build_info()["openmp"]:

    @pytest.mark.parametrize("restart", ["restart", "none", "many rows"])
    def test_threads_that_share_a_processor(restart: str) -> None:
        def outcome(where: str, *settings: str) -> list[list[str]]:
            folder = os.path.dirname(bounds.__file__)
            done = script(TOGETHER, where, folder, restart, *settings)
            assert done.returncode == 0, done.stderr
            return [line.split() for line in done.stdout.splitlines()]

        # Placement is not looked at, or is.
        teams = [f"{threads},{to_wake}" for threads in (2, 3) for to_wake in ("0", "1e-9")]
        (alone, team), *together = outcome("anywhere", "1,0", *teams)
        assert team == "False"
        assert together == [[alone, "True"]] * 4
        assert outcome("one processor", *teams) == [[alone, "True"]] * 4
