"""What holds between the modules: reference implementations, imports, and what an import loads."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import fastrnn

PACKAGE = Path(fastrnn.__file__).parent

# Built on the public names and deletable without a change elsewhere. __main__ only starts cli.
LEAVES = {
    "bench",
    "cli",
    "char_lm",
    "convert",
    "gradients",
    "outputs",
    "torch",
    "estimators",
    "__main__",
}

# Nothing compiled is in these modules (settings, moving rows about, files) and in these functions.
WITHOUT_REFERENCE = {"fastrnn.config", "fastrnn.runtime", "fastrnn.padding", "fastrnn.io"}
PLAIN_NUMPY = {"clip_grad_value"}


def compiled_functions() -> list[str]:
    functions = {name: getattr(fastrnn, name) for name in fastrnn.__all__}
    return [
        name
        for name, f in functions.items()
        if isinstance(f, FunctionType)
        and f.__module__ not in WITHOUT_REFERENCE
        and name not in PLAIN_NUMPY
    ]


def test_all_names_exist_once() -> None:
    assert len(set(fastrnn.__all__)) == len(fastrnn.__all__)
    assert [name for name in fastrnn.__all__ if not hasattr(fastrnn, name)] == []
    assert set(fastrnn.reference.__all__) == set(compiled_functions())


@pytest.mark.parametrize("name", compiled_functions())
def test_every_compiled_function_has_a_reference_implementation(name: str) -> None:
    compiled, plain = getattr(fastrnn, name), getattr(fastrnn.reference, name, None)
    assert plain is not None, f"fastrnn.reference.{name} is missing"
    assert name in fastrnn.reference.__all__
    assert inspect.signature(plain) == inspect.signature(compiled)
    # It is plain Python of its own: neither the compiled function nor an extension's.
    assert plain is not compiled
    assert isinstance(plain, FunctionType)
    assert plain.__module__.startswith("fastrnn.reference.")


def test_what_has_no_reference_implementation_calls_nothing_compiled() -> None:
    for name in PLAIN_NUMPY:
        assert "_core" not in inspect.getsource(getattr(fastrnn, name))
    for module in WITHOUT_REFERENCE:
        source = inspect.getsource(sys.modules[module])
        settings = r"_core\.(?:[gs]et_\w+|available_isas|build_info)\b"
        assert "_core." not in re.sub(settings, "", source), module


def test_import_loads_numpy_and_nothing_optional() -> None:
    code = "import sys, json, fastrnn; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "fastrnn" in loaded
    by_numpy = subprocess.run(
        [sys.executable, "-c", code.replace("fastrnn", "numpy")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # What the interpreter and NumPy load by themselves (a site hook, say) is not fastrnn's doing.
    more = {name.partition(".")[0] for name in set(loaded) - set(json.loads(by_numpy.stdout))}
    # Cython registers its shared types under modules of its own name; there is no such package.
    foreign = {name for name in more if not re.fullmatch(r"_?cython_\w+", name)}
    assert foreign - sys.stdlib_module_names == {"fastrnn"}
    leaves = {f"fastrnn.{leaf}" for leaf in LEAVES}
    assert not leaves & set(loaded)


def imported_by(path: Path, package: Path = PACKAGE) -> set[str]:
    """Every module, and every name taken from one, that a file imports, in functions too."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    folder = parts[:-1]  # the package that a relative import starts from
    source = path.read_text("utf-8")
    if path.suffix == ".pyx":  # no Python, but its import lines are
        lines = re.findall(r"^\s*((?:from [\w.]+ )?import [\w., ]+)", source, re.MULTILINE)
        source = "\n".join(lines)
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def leaves_imported_elsewhere(package: Path) -> list[str]:
    found = []
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyx")]):
        inside = path.relative_to(package).with_suffix("").parts
        if inside[0] in LEAVES:
            continue
        for name in sorted(imported_by(path, package)):
            if name.startswith("fastrnn.") and name.split(".")[1] in LEAVES:
                found.append(f"{'/'.join(inside)} imports {name}")
    return found


def test_only_leaves_import_leaves() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) > 5
    assert leaves_imported_elsewhere(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "from .bench import shapes",
        "from . import bench",
        "import fastrnn.bench.shapes",
        "def f():\n    from fastrnn import cli",
        "from fastrnn.torch import RNN",
    ],
)
def test_the_lint_finds_an_import_of_a_leaf(line: str, tmp_path: Path) -> None:
    package = tmp_path / "fastrnn"
    (package / "reference").mkdir(parents=True)
    (package / "layers.py").write_text("import torch\nfrom . import config\n" + line)
    (package / "cli.py").write_text("from . import bench\n")  # a leaf may import a leaf
    (package / "reference" / "rnn.py").write_text("from .. import bench\n")
    found = leaves_imported_elsewhere(package)
    assert {where.partition(" ")[0] for where in found} == {"layers", "reference/rnn"}


def test_every_public_name_is_documented() -> None:
    undocumented = [name for name in fastrnn.__all__ if not inspect.getdoc(getattr(fastrnn, name))]
    assert undocumented == []
