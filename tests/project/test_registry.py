"""The cells are listed once in the tests, and in the package where it is named here."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry import CELLS, KINDS, VARIANTS

import fastrnn

ROOT = Path(__file__).parents[2]

# By what a list may name a cell: its layer, its functions, its name, those of its variants.
NAMES = {name: cell.name for cell in CELLS.values() for name in (cell.name, cell.layer.__name__)}
NAMES |= {name: variant.cell.name for name, variant in VARIANTS.items()}
NAMES |= {f"{name}_{way}": name for name in CELLS for way in ("forward", "backward", "step")}

# Lists in the tests that are no second registry, each by its file and a line of it.
ALLOWED = {
    ("support/registry.py", "Cell("): "the registry",
    ("support/registry.py", "KINDS"): "the registry",
    ("layers/test_layers_construction.py", "SIGNATURES"): "what a user may write, word for word",
    ("layers/test_layers_construction.py", "KEYWORDS"): "what a user may write, word for word",
    ("layers/test_layers_construction.py", '("layer", "text")'): "texts of single layers",
    ("layers/test_layers_construction.py", '("cls", "options", "error", "text")'): "messages",
    ("layers/test_layers_bad_input.py", '"error", "text")'): "messages",
    ("layers/test_generation_cells.py", "for kind, bad in"): "messages",
    ("layers/test_attributes.py", "GOOD"): "attributes that some layers have",
    ("layers/test_attributes.py", "BAD"): "attributes that some layers have",
    ("layers/test_attributes.py", "TYPOS"): "attributes that some layers have",
    ("layers/test_layers.py", '"make_layer"'): "with what each learns within a hundred steps",
    ("apps/test_bench_run.py", '"ifgo", "iofg"'): "the orders of gates of another project",
    ("project/test_c_source.py", "def words("): "files made up for a lint",
    ("project/test_c_source.py", "def test_words_come"): "files made up for a lint",
    ("pytorch/test_pytorch_frozen.py", "MODULES"): "modules of PyTorch",
    ("convert/test_convert_arrays.py", "for cell, letters in"): "what NumPy code calls its gates",
    ("convert/test_convert_arrays.py", "# cell, order, transposed"): "layouts of NumPy code",
    ("convert/test_convert_arrays.py", '"error", "text")'): "messages",
    ("convert/test_convert_torch.py", '"layer"'): "what PyTorch lacks",
    ("support/onnx_models.py", "GATES"): "the operators of ONNX",
    ("convert/test_convert_onnx.py", '("case", "shapes", "text")'): "nodes of ONNX",
    ("convert/test_convert_onnx_graphs.py", "list(from_onnx("): "names that nodes have",
    ("convert/test_convert_onnx.py", "for own in {"): "what one operator of ONNX has alone",
    ("convert/test_convert_onnx.py", '("case", "attributes"'): "attributes of ONNX's operators",
    ("convert/test_convert_onnx_files.py", '("kind", "H", "batch_first"'): "modules of PyTorch",
    ("convert/test_convert_to_onnx.py", '"error", "text")'): "messages",
    ("convert/test_convert_keras.py", "keras.Sequential("): "a model of Keras",
    ("convert/test_convert_keras_files.py", "keras.Sequential("): "a model of Keras",
    ("convert/test_convert_keras_refused.py", "keras.Sequential("): "a model of Keras",
    ("convert/test_convert_keras_files.py", "def rest("): "a model of Keras",
    ("convert/test_convert_keras_files.py", "VALUES"): "what mutations write into it",
    ("apps/test_gradients.py", '("Elman", "GRU", "LSTM"'): "the curves of the command",
}

# The files of the package that may list the cells: whoever takes a list out of one strikes it here.
# (test_c_source.py looks after those in C.)
PACKAGE = {
    "__init__.py", "cells/__init__.py", "layers/__init__.py", "reference/__init__.py",
    "reference/cells.py", "gradients.py", "bench/frameworks.py", "bench/onnx_peers.py",
    "convert/_layers.py", "convert/keras_config.py", "convert/onnx_cells.py",
    "convert/pytorch.py", "convert/pytorch_model.py", "torch/__init__.py",
    "torch/kernels.py", "torch/modules.py", "torch/recompute.py",
}  # fmt: skip


def cells_of(node: ast.expr | None) -> set[str]:
    """The cells that an element of a list names; of a row of a table, its first column does."""
    match node:
        case ast.Constant(value=str(name)) | ast.Name(id=name) | ast.Attribute(attr=name):
            return {NAMES[name]} if name in NAMES else set()
        case ast.Call(func=function, args=arguments):
            return cells_of(function).union(*map(cells_of, arguments))
        case ast.Lambda(body=inside) | ast.Subscript(slice=inside):
            return cells_of(inside)
        case ast.Tuple(elts=[first, *_]) | ast.List(elts=[first, *_]):
            return cells_of(first)
    return set()


def lists_of_cells(path: Path) -> Iterator[int]:
    """The lines on which a list, a tuple, a set or a dict names two cells or more."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                named = map(cells_of, elements)
            case ast.Dict(keys=keys):
                named = map(cells_of, keys)
            case _:
                continue
        if len(set().union(*named)) > 1:
            yield node.lineno


def test_the_tests_list_the_cells_once() -> None:
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        name, text = path.relative_to(ROOT / "tests").as_posix(), path.read_text("utf-8")
        for line in lists_of_cells(path):
            near = "\n".join(text.splitlines()[max(0, line - 3) : line + 1])
            if not any(file == name and part in near for file, part in ALLOWED):
                found.append(f"tests/{name}:{line}")
    assert found == []


def test_the_package_lists_the_cells_where_it_is_known() -> None:
    found = set()
    for path in sorted((ROOT / "fastrnn").rglob("*.py")):
        if any(lists_of_cells(path)):
            found.add(path.relative_to(ROOT / "fastrnn").as_posix())
    assert found <= PACKAGE


def test_every_cell_of_the_package_is_registered() -> None:
    functions = [name for name in fastrnn.__all__ if name.endswith("_forward")]
    recurrent = {f for f in functions if "h_0" in inspect.signature(getattr(fastrnn, f)).parameters}
    assert recurrent == {f"{name}_forward" for name in CELLS}
    for cell in CELLS.values():
        assert cell.layer in vars(fastrnn).values()
    assert {kind.cell for kind in KINDS.values()} == set(CELLS.values())


@pytest.mark.parametrize(
    "line",
    [
        'A = ["lstm", "gru"]',
        "for layer in (fastrnn.LSTM, fastrnn.GRU): pass",
        'A = {"rnn": 1, "lstm-peepholes": 4}',
        "A = {fastrnn.RNN: 1, fastrnn.GRU: 3}",
        'A = [lambda: RNN(1, 2), lambda: GRU(1, 2)]',
        '@parametrize("kind, n", [("tanh", 1), ("gru", 3)])\ndef f(): pass',
        'A = Spec(1, 1, 2, 3, "lstm"), Spec(1, 1, 2, 3, "gru-reset-first")',
        "A = lstm_forward, rnn_forward",
    ],
)  # fmt: skip
def test_a_second_list_is_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n" + line)
    assert len(list(lists_of_cells(path))) == 1


@pytest.mark.parametrize("line", ['A = ["tanh", "relu"]', 'A = "rnn, lstm, gru"', "A = [LSTM(1)]"])
def test_what_is_no_list_of_cells(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(line)
    assert list(lists_of_cells(path)) == []
