"""What users see of the public names: help() says all of them, tab completion nothing else."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from registry import RICH

import fastrnn
import fastrnn.char_lm
from fastrnn import optim

MODULES = [
    "fastrnn", "fastrnn.char_lm", "fastrnn.convert", "fastrnn.optim", "fastrnn.reference",
]  # fmt: skip
if importlib.util.find_spec("torch") is not None:
    MODULES.append("fastrnn.torch")
if importlib.util.find_spec("sklearn") is not None:
    MODULES.append("fastrnn.estimators")


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def sections(what: Any) -> dict[str, set[str]]:
    """The sections of a docstring in numpydoc's form, and the names that each says something of."""
    text = inspect.getdoc(what) or ""
    parts = re.split(r"^(\w[\w ]*)\n-{4,}$", text, flags=re.MULTILINE)
    return {
        title: {
            name.strip("*")
            for line in body.splitlines()
            if re.match(r"\S", line)
            for name in line.partition(" :")[0].split(", ")
        }
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


# ------------------------------------------------------------------------------ modules


@pytest.mark.parametrize("name", MODULES)
def test_completion_of_a_module_shows_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    imported = {"char_lm", "convert", "estimators", "torch"} if name == "fastrnn" else set()
    assert public(dir(module)) - imported == set(module.__all__)
    assert dir(module) == sorted(dir(module))
    assert {"__all__", "__doc__", "__name__", "__file__"} <= set(dir(module))
    namespace: dict[str, Any] = {}
    exec(f"from {name} import *", namespace)
    assert public(namespace) == set(module.__all__)


def test_optional_modules_are_shown_once_they_are_imported() -> None:
    assert "char_lm" in dir(fastrnn)
    assert ("torch" in dir(fastrnn)) == hasattr(fastrnn, "torch")


def test_other_modules_stay_where_they_are() -> None:
    for name in ("config", "io", "layers", "cells", "losses"):
        assert getattr(fastrnn, name) is importlib.import_module(f"fastrnn.{name}")


# ------------------------------------------------------------------------------ objects


def recurrent(name: str) -> dict[str, Any]:
    """What a cell's layer and functions make."""
    variant = RICH[name]
    layer = variant.layer(2, 3, dtype="float64", rng=0)
    output, _, tape = layer.forward(np.ones((5, 3, 2)))
    _, _, own_tape = variant.forward(fastrnn, **variant.arrays())
    grads = variant.backward(own_tape, np.ones(own_tape.output.shape), module=fastrnn)
    named = (layer, layer.stream(), tape, layer.backward(tape, output), own_tape, grads)
    return {type(made).__name__: made for made in (*named, layer.weights)}


def others(folder: Path) -> dict[str, Any]:
    head, embedding = fastrnn.Linear(3, 2, rng=0), fastrnn.Embedding(4, 3, rng=0)
    x, x_tape = embedding.forward([1, 2])
    y, y_tape = head.forward(x)
    path = folder / "file"
    fastrnn.save(path, {"head": head})
    made = [
        head, embedding, x_tape, y_tape, head.backward(y_tape, y), embedding.backward(x_tape, x),
        fastrnn.linear_backward(y_tape, y), fastrnn.embedding_backward(x_tape, x),
        *optimisers(head.flat_weights), fastrnn.load(path),
        head.load_state_dict({}, strict=False), fastrnn.char_lm.Settings(),
        fastrnn.char_lm.TrainOptions([], None, False, False, None, {}),
        fastrnn.char_lm.SampleOptions("model", None, 1, 1.0, 0),
    ]  # fmt: skip
    drop = fastrnn.Dropout(0.5)
    _, drop_tape = drop.forward(y, rng=0)
    model = fastrnn.Sequential({"head": fastrnn.Linear(3, 2), "drop": fastrnn.Dropout()})
    output, _, tape = model.forward(x, rng=0)
    made += [drop, drop_tape, drop.backward(drop_tape, y), model, tape]
    made.append(model.backward(tape, output))
    if "fastrnn.torch" in MODULES:
        torch = importlib.import_module("torch")
        made.append(importlib.import_module("fastrnn.torch").accelerate(torch.nn.GRU(1, 1)))
    if "fastrnn.estimators" in MODULES:
        made += estimators()
    return {type(one).__name__: one for one in made}


def estimators() -> list[Any]:
    """One of each class, fitted."""
    of = importlib.import_module("fastrnn.estimators")
    small = {"hidden_size": 2, "max_iter": 1}
    words = ["ab", "ba"]
    return [
        of.SequenceClassifier(**small).fit(words, [0, 1]),
        of.SequenceRegressor(**small).fit(words, [0.0, 1.0]),
        of.SequenceTagger(**small).fit(words, words),
        of.SequenceGenerator(**small).fit(words),
        of.SequenceTranslator(**small).fit(words, words),
        of.EchoStateRegressor(hidden_size=2).fit([[1.0, 2.0]], [[2.0, 3.0]]),
    ]


def optimisers(p: Any) -> list[Any]:
    """Each with a schedule."""
    one = optim.StepLR(optim.SGD(p), 3)
    made = [
        one, optim.CosineAnnealingLR(optim.Adam(p), 3), optim.LinearLR(optim.AdamW(p)),
        optim.ExponentialLR(optim.RMSprop(p), 0.5), optim.SequentialLR(one.optimizer, [one], []),
        optim.ReduceLROnPlateau(optim.Adagrad(p)),
    ]  # fmt: skip
    return made + [schedule.optimizer for schedule in made]


def objects(folder: Path) -> dict[str, Any]:
    made = others(folder)
    for name in RICH:
        made |= recurrent(name)
    return made


def own_names(made: Any) -> set[str]:
    """The public names, without those of the tuple, dict or mapping that the object is.

    Of an estimator without those that scikit-learn gives it, and without its parameters.
    """
    if hasattr(made, "get_params"):
        ours = {
            name
            for kind in type(made).__mro__
            if kind.__module__.startswith("fastrnn.")
            for name in vars(kind)
            if not re.fullmatch(r"set_\w+_request", name)
        }
        return public((ours | {*vars(made)}) - {*made.get_params()})
    for kind in (tuple, dict, Mapping):
        if isinstance(made, kind):
            return public(dir(made)) - public(dir(kind))
    return public(dir(made))


def methods(made: Any) -> dict[str, Callable[..., Any]]:
    found = {name: getattr(type(made), name, None) for name in own_names(made)}
    return {name: value for name, value in found.items() if callable(value)}


def test_attributes_are_documented_and_those_that_are_documented_exist(tmp_path: Path) -> None:
    made = objects(tmp_path)
    assert len(made) > 25
    said = {name: sections(type(one)).get("Attributes", set()) for name, one in made.items()}
    there = {name: own_names(one) - set(methods(one)) for name, one in made.items()}
    assert said == there


def test_functions_classes_and_methods_are_documented(tmp_path: Path) -> None:
    """Each argument in Parameters, what is returned in Returns, and an example."""
    documented: dict[str, Callable[..., Any]] = {}
    for name in fastrnn.__all__:
        if isinstance(getattr(fastrnn, name), type | FunctionType):
            documented[name] = getattr(fastrnn, name)
    for name in optim.__all__:
        documented[name] = getattr(optim, name)
    if "fastrnn.estimators" in MODULES:
        module = importlib.import_module("fastrnn.estimators")
        documented |= {name: getattr(module, name) for name in module.__all__}
    for name, one in objects(tmp_path).items():
        if name != "Settings":  # with a check for the command line
            documented |= {f"{name}.{method}": what for method, what in methods(one).items()}
        if type(one) in documented.values() and callable(one):
            documented[f"{name}.__call__"] = type(one).__call__
    assert {"LSTM.__call__", "Stream.step", "Adam.load_state_dict"} <= set(documented)
    faults = []
    nothing = (None, "None", "NoReturn", inspect.Signature.empty)
    for name, what in documented.items():
        signature = inspect.signature(what)
        arguments = set(signature.parameters) - {"self"}
        found = sections(what)
        if found.get("Parameters", set()) != arguments:
            faults.append(f"{name}: {arguments}, but Parameters has {found.get('Parameters')}")
        if signature.return_annotation not in nothing and (
            "Returns" not in found and "AbstractContextManager" not in signature.return_annotation
        ):
            faults.append(f"{name} returns {signature.return_annotation}, which it does not say")
        if "Examples" not in found:
            faults.append(f"{name} has no example")
    assert faults == []
