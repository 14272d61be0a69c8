"""Who may import whom: each module only what is below it, whatever the import looks like."""

import ast
from pathlib import Path

import pytest

import fastrnn

PACKAGE = Path(fastrnn.__file__).parent

# From the bottom up; a folder stands for all that is in it. Within a line modules may import each
# other where no circle comes of it.
LAYERS = [
    ["_version", "_cures", "_sharing", "_checks", "_attributes", "_memory", "_tapes", "config"],
    ["_json"],
    ["reference"],
    ["_core"],
    ["runtime", "activations", "cells"],
    ["layers"],
    ["losses", "clipping", "norms", "optim", "io", "_formats", "generation", "padding"],
    ["fastrnn"],  # the package itself: what is public
    ["bench", "char_lm", "convert", "estimators", "gradients", "outputs", "cli", "torch",
     "__main__"],
]  # fmt: skip
LEAVES = set(LAYERS[-1])


def height(module: str) -> int:
    top = module.split(".")[1] if "." in module else module
    for i, names in enumerate(LAYERS):
        if top in names:
            return i
    raise AssertionError(f"{module} is in no layer: say in LAYERS where it belongs")


def modules_of(package: Path) -> dict[str, Path]:
    """The modules' dotted names; what is compiled counts by its source."""
    found = {}
    for path in [*package.rglob("*.py"), *package.rglob("*.pyx")]:
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def source_of(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".pyx":  # no Python, but its import lines are
        texts = [text, *(part.read_text("utf-8") for part in path.parent.glob("*.pxi"))]
        lines = [line.strip() for text in texts for line in text.splitlines()]
        text = "\n".join(line for line in lines if line.startswith(("import ", "from ")))
        text = "\n".join(line for line in text.splitlines() if " cimport " not in line)
    return text


def imports(name: str, modules: dict[str, Path]) -> list[tuple[str, bool]]:
    """The package's modules that one imports, and whether it does so in a function.

    All import statements count: those in functions and those under TYPE_CHECKING, too.
    """
    path = modules[name]
    folder = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    tree = ast.parse(source_of(path))
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            for alias in node.names:  # a module of that name, or something in the module before
                inside = ".".join([*base, alias.name])
                names.append(inside if inside in modules else ".".join(base))
        found += [(n, id(node) in late) for n in names if n.split(".")[0] == "fastrnn"]
    return found


def faults(package: Path) -> list[str]:
    modules = modules_of(package)
    below: dict[str, set[str]] = {name: set() for name in modules}
    found = []
    for name in modules:
        leaf = name.split(".")[-1 if "." not in name else 1] in LEAVES
        for other, late in imports(name, modules):
            if height(other) > height(name):
                found.append(f"{name} imports {other}, which is above it")
            if late and not leaf:
                found.append(f"{name} imports {other} in a function")
            if other in modules and other != name:
                below[name].add(other)
    done: set[str] = set()
    for name in below:
        if circle := circle_from(name, below, [], done):
            found.append(f"{' imports '.join(circle)}: a circle")
            break
    return found


def circle_from(
    name: str, below: dict[str, set[str]], way: list[str], done: set[str]
) -> list[str] | None:
    if name in way:
        return [*way[way.index(name) :], name]
    if name not in done:
        for other in sorted(below[name]):
            if circle := circle_from(other, below, [*way, name], done):
                return circle
        done.add(name)
    return None


def test_modules_import_what_is_below_them() -> None:
    assert len(modules_of(PACKAGE)) > 40
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("reference/rnn", "from .. import _core"),
        ("reference/rnn", "from ..cells.base import Cell"),
        ("reference/rnn", "if TYPE_CHECKING:\n    from ..layers import RNN"),
        ("reference/rnn", "def f():\n    from .._core import forward"),
        ("config", "from . import reference"),
        ("_core", "from fastrnn import cells"),
        ("cells/rnn", "import fastrnn.layers.tape"),
        ("layers/rnn", "from ..losses import mean_squared_error"),
        ("layers/rnn", "from .. import RNN"),
        ("io", "from . import cli"),
        ("io", "def f():\n    from . import _checks"),
        ("layers/tape", "from .rnn import RNN"),
        ("cells/base", "from . import rnn"),
    ],
)
def test_an_import_upwards_or_in_a_circle_is_found(module: str, line: str, tmp_path: Path) -> None:
    package = tmp_path / "fastrnn"
    written = {
        "__init__": "from . import io",
        "cli": "def f():\n    import fastrnn\n    from fastrnn import io",
        "_checks": "import numpy", "config": "from . import _checks", "_core": "",
        "reference/__init__": "from .rnn import f", "reference/rnn": "from .. import _checks",
        "cells/__init__": "from .rnn import RNN", "cells/base": "from .. import _core, reference",
        "cells/rnn": "from .base import Cell", "losses": "", "io": "from .layers import RNN",
        "layers/__init__": "from .rnn import RNN", "layers/tape": "from ..cells import base",
        "layers/rnn": "from .tape import Tape",
    }  # fmt: skip
    for name, source in written.items():
        path = package / (f"{name}.pyx" if name == "_core" else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert faults(package) == []
    path = package / (f"{module}.pyx" if module == "_core" else f"{module}.py")
    path.write_text(f"{written[module]}\n{line}\n")
    assert faults(package)
