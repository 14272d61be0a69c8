"""What users write passes mypy --strict: README, examples, first scripts. They run elsewhere."""

import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import first_scripts
import numpy as np
import pytest
from test_readme import PYTHON

import fastrnn

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

# scikit-learn comes without types, and may not be there, as may what draws pictures.
UNTYPED = ["import-untyped"]
if not (find_spec("sklearn") and find_spec("matplotlib")):
    UNTYPED.append("import-not-found")


def mypy(folder: Path, *paths: Path) -> str:
    """What it says to a user who has fastrnn installed: nothing of what is inside the package."""
    package = str(Path(fastrnn.__file__).parents[1])
    ours = [] if "site-packages" in package else [package]  # there mypy looks by itself
    places = os.pathsep.join([*ours, str(ROOT / "examples")])
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent",
         *("--disable-error-code=" + code for code in UNTYPED),
         "--no-error-summary", "--cache-dir", str(folder / "cache"), *map(str, paths)],
        env={**os.environ, "MYPYPATH": places}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("torch", [False, pytest.param(True, marks=pytest.mark.full)])
def test_mypy_has_nothing_to_say(torch: bool, tmp_path: Path) -> None:
    """With torch, which mypy reads for twenty seconds, and without."""
    pytest.importorskip("mypy")
    if torch:
        pytest.importorskip("torch")
    paths = [Path(first_scripts.__file__), *EXAMPLES]
    for i, block in enumerate(PYTHON):
        paths.append(tmp_path / f"readme_{i}.py")
        paths[-1].write_text(block)
    chosen = [path for path in paths if ("import torch" in path.read_text("utf-8")) == torch]
    assert len(chosen) == (5 if torch else len(paths) - 5)
    assert mypy(tmp_path, *chosen) == ""


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, function in vars(first_scripts).items()
        if inspect.isfunction(function)
        and inspect.signature(function).parameters.keys() <= {"folder"}
    ],
)
def test_first_scripts_run(name: str, tmp_path: Path) -> None:
    """The types that they state are those of what comes."""
    function = getattr(first_scripts, name)
    taken = inspect.signature(function).parameters
    made = function(**{"folder": tmp_path} if taken else {})
    if "Array" in function.__annotations__["return"]:
        arrays = made if isinstance(made, tuple | list) else [made]
        assert {type(a) for a in arrays} == {np.ndarray}
