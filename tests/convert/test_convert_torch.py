"""from_torch and to_torch: all kinds of layers, from modules, weights and files; refusals.

That a layer with the same weights gives torch's numbers, tests/layers/test_torch_layers.py shows;
here the outputs are compared in float64 alone, where weights in a wrong place are off by more than
1e-4 (see CLOSE in torch_networks.py).
"""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import fastrnn
from fastrnn.convert import from_torch, to_torch
from fastrnn.convert.pytorch import contents, layers_of

torch = pytest.importorskip("torch")

from torch_networks import CELL_KINDS, CLOSE, KINDS, layer_class, options_of, state_for  # noqa: E402

nn = torch.nn
SIZES = [(1, 1), (1, 2), (3, 7), (2, 8), (5, 9), (16, 17), (33, 31), (4, 100)]


def module_of(kind: str, D: int, H: int, layers: int = 1, **options: Any) -> Any:
    torch.manual_seed(D + H)
    options = {"dtype": torch.float64} | options_of(kind, H) | options
    return layer_class(kind, nn)(D, H, layers, **options)


def cell_of(kind: str, D: int, H: int, **options: Any) -> Any:
    torch.manual_seed(D + H)
    options = {"dtype": torch.float64} | options_of(kind, H) | options
    return getattr(nn, layer_class(kind, nn).__name__ + "Cell")(D, H, **options)


def arrays(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [a for part in value for a in arrays(part)]
    return [value.detach().numpy() if isinstance(value, torch.Tensor) else value]


def agree(module: Any, layer: Any, lengths: list[int] | None = None) -> None:
    """Outputs and final states, from an initial state."""
    T, B = 6, 3
    torch.manual_seed(0)
    shape = (B, T) if module.batch_first else (T, B)
    x = torch.randn(*shape, module.input_size, dtype=torch.float64)
    state = state_for(module, B)
    given = tuple(s.numpy() for s in state) if isinstance(state, tuple) else state.numpy()
    if lengths is None:
        theirs = module(x, state)
    else:
        rows = nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), module.batch_first, enforce_sorted=False
        )
        output, final = module(rows, state)
        output, _ = nn.utils.rnn.pad_packed_sequence(output, module.batch_first, total_length=T)
        theirs = (output, final)
    for got, want in zip(
        arrays(layer(x.numpy(), given, lengths=lengths)), arrays(theirs), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("kind", "size"),
    [(k, size) for k in KINDS for size in SIZES if "projection" not in k or size[1] > 1],  # P < H
)
def test_a_module_becomes_a_layer_with_its_numbers(
    kind: str,
    size: tuple[int, int],
    batch_first: bool,
    bias: bool,
    bidirectional: bool,
    layers: int,
) -> None:
    module = module_of(
        kind, *size, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional
    )
    layer = from_torch(module)
    assert (layer.batch_first, layer.bias) == (batch_first, bias)
    for name, tensor in module.state_dict().items():
        assert_array_equal(layer.weights[name], tensor.numpy())
    agree(module, layer)
    agree(module, layer, [2, 6, 5])
    back = to_torch(layer)
    assert list(back) == list(module.state_dict())
    module.load_state_dict({name: torch.from_numpy(a) for name, a in back.items()})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", CELL_KINDS)
def test_a_cell_becomes_a_layer_of_one_step(kind: str, size: tuple[int, int], bias: bool) -> None:
    module = cell_of(kind, *size, bias=bias)
    layer = from_torch(module)
    torch.manual_seed(0)
    x = torch.randn(5, size[0], dtype=torch.float64)
    state = state_for(module, 5)
    given = state if isinstance(state, tuple) else (state,)
    ours = tuple(s.numpy()[None] for s in given)
    _, final = layer(x.numpy()[None], ours if len(ours) > 1 else ours[0])
    for got, want in zip(arrays(final), arrays(module(x, state)), strict=True):
        np.testing.assert_allclose(got[0], want, rtol=0, atol=CLOSE)
    back = to_torch(layer, cell=True)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in back.items()})


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 3)
        self.mix = nn.Conv1d(3, 3, 3)
        self.encoder = nn.ModuleDict({"rnn": nn.LSTM(3, 4, 2, bidirectional=True)})
        self.cell = nn.GRUCell(8, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 2)
        self.tied = nn.Linear(3, 7, bias=False)


FORMS = ("module", "state_dict", "arrays", "parameters", "wrapped", "path", "text")


def forms(model: Any, tmp_path: Path) -> dict[str, Any]:
    """All that a model's weights may come as."""
    state = model.state_dict()
    plain = {name: a.float().numpy() for name, a in state.items()}
    path = tmp_path / "model.safetensors"
    saved = {n.replace(".", "/"): a for n, a in plain.items()}
    fastrnn.save(path, {"model": {name.replace("/", "."): a for name, a in saved.items()}})
    return {
        "module": model, "state_dict": state, "arrays": plain,
        "parameters": dict(model.named_parameters()), "path": path, "text": str(path),
        "wrapped": nn.DataParallel(model).state_dict(),
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_layers_inside_a_model_are_found(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tagger()
    source = forms(model, tmp_path)[form]
    before = "module." if form == "wrapped" else "model." if form in ("path", "text") else ""
    wanted = {
        "encoder.rnn": "LSTM(3, 4, num_layers=2, bidirectional=True)", "encoder": None,
        "cell": "GRU(8, 5)", "head": "Linear(5, 2)", "head.": None,
    }  # fmt: skip
    state = {f"{before}{name}": a.numpy() for name, a in model.state_dict().items()}
    for prefix, shown in wanted.items():
        layer = from_torch(source, before + prefix)
        assert shown is None or repr(layer) == shown
        for name, a in layer.weights.items():
            end = name if prefix != "cell" else name.removesuffix("_l0")
            path = "encoder.rnn" if prefix == "encoder" else prefix.removesuffix(".")
            assert_array_equal(a, state[f"{before}{path}.{end}"])
    for prefix, kind in (("words", "Embedding"), ("tied", "Linear")):
        layer = from_torch(source, before + prefix, kind=kind)
        assert repr(layer).startswith(kind)
        if form == "module":
            assert repr(from_torch(source, prefix)) == repr(layer)
        else:
            with pytest.raises(ValueError, match="pass kind='Linear', or kind='Embedding'"):
                from_torch(source, before + prefix)


def test_several_layers_are_listed_with_their_shapes() -> None:
    with pytest.raises(ValueError) as info:
        from_torch(Tagger())
    for part in (
        "5 layers", "'words', Embedding (weight (7, 3))", "and 8 more", "'head', Linear",
        "'encoder.rnn', LSTM (weight_ih_l0 (16, 3)", "'cell', GRU (weight_ih (15, 8)",
        "pass prefix='encoder.rnn'",
    ):  # fmt: skip
        assert part in str(info.value)
    assert "norm" not in str(info.value)
    many = nn.ModuleList(nn.Linear(1, 1) for _ in range(30))
    with pytest.raises(ValueError, match=r"30 layers: .*'19', .*and 10 more: pass prefix='0'"):
        from_torch(many)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_widened(dtype: Any, tmp_path: Path) -> None:
    module = nn.GRU(3, 4).to(dtype)
    wide = {name: a.float().numpy() for name, a in module.state_dict().items()}
    sources: list[Any] = [module, module.state_dict(), dict(module.named_parameters())]
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(module.state_dict(), tmp_path / "half.safetensors")
    sources.append(tmp_path / "half.safetensors")
    if dtype is torch.float16:
        sources.append({name: a.numpy() for name, a in module.state_dict().items()})
    for source in sources:
        layer = from_torch(source)
        assert layer.dtype == np.float32
        for name, a in layer.weights.items():
            assert_array_equal(a, wide[name])


def test_bfloat16_arrays_are_widened() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    state = {n: a.numpy() for n, a in nn.GRU(3, 4).bfloat16().float().state_dict().items()}
    half = {name: a.astype(ml_dtypes.bfloat16) for name, a in state.items()}
    for name, a in from_torch(half).weights.items():
        assert_array_equal(a, state[name])


def test_a_module_keeps_its_options_and_the_caller_may_change_them() -> None:
    module = nn.RNN(2, 3, 2, nonlinearity="relu", batch_first=True, dropout=0.25)
    layer: Any = from_torch(module)
    assert (layer.nonlinearity, layer.batch_first, layer.dropout) == ("relu", True, 0.25)
    layer = from_torch(module, batch_first=False, dropout=0.0)
    assert (layer.nonlinearity, layer.batch_first, layer.dropout) == ("relu", False, 0.0)
    layer = from_torch(module.state_dict(), nonlinearity="relu", batch_first=True, dropout=0.5)
    assert (layer.nonlinearity, layer.batch_first, layer.dropout) == ("relu", True, 0.5)
    layer = from_torch(module.state_dict())
    assert (layer.nonlinearity, layer.batch_first, layer.dropout) == ("tanh", False, 0.0)
    with pytest.raises(ValueError, match="nonlinearity is 'tanh', but source has 'relu'"):
        from_torch(module, nonlinearity="tanh")
    assert from_torch(nn.RNNCell(2, 3, nonlinearity="relu")).nonlinearity == "relu"  # type: ignore[attr-defined]


def test_the_modules_of_this_package_are_modules_too() -> None:
    ft = pytest.importorskip("fastrnn.torch")
    module = ft.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
    agree(module, from_torch(module))
    assert repr(from_torch(ft.GRUCell(3, 4))) == "GRU(3, 4)"


# ------------------------------------------------------------------------------ what is refused


def faulty(**changes: Any) -> dict[str, Any]:
    state = {n: a.numpy() for n, a in nn.LSTM(3, 4, 2, bidirectional=True).state_dict().items()}
    return {name: a for name, a in (state | changes).items() if a is not None}


def test_one_error_names_all_faults() -> None:
    with pytest.raises(ValueError) as info:
        from_torch(
            faulty(
                bias_ih_l0=None, weight_hh_l1_reverse=None, foo=np.ones(3, "f4"),
                weight_ih_l1=np.ones((16, 7), "f4"), bias_hh_l1=np.ones(15, "f4"),
            )
        )  # fmt: skip
    for part in (
        "lacks bias_ih_l0, weight_hh_l1_reverse", "unexpected foo",
        "weight_ih_l1 has shape (16, 7), expected (16, 8)",
        "bias_hh_l1 has shape (15,), expected (16,)",
    ):  # fmt: skip
        assert part in str(info.value)


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        (lambda: None, TypeError, "source is None, expected a torch.nn.Module"),
        (lambda: nn.LSTM, TypeError, "make one of it"),
        (lambda: {}, ValueError, "it is empty"),
        (lambda: nn.Conv1d(1, 1, 1), ValueError, r"no RNN.*what there is: weight \(1, 1, 1\)"),
        (lambda: {"model": nn.GRU(1, 1).state_dict(), "step": 3}, TypeError, "pass source.'model'"),
        (lambda: {1: np.ones(3)}, TypeError, "the key 1"),
        (lambda: faulty(weight_hh_l0=np.ones((16, 4))), TypeError, "weight_hh_l0 is float64"),
        (lambda: faulty(weight_hh_l0=np.ones((16, 4), int)), TypeError, "weight_hh_l0 is int64"),
        (lambda: nn.LSTM(2, 3, device="meta"), TypeError, "on meta"),
        (lambda: nn.Embedding(3, 2, max_norm=1.0), ValueError, "max_norm"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.LSTM(2, 3), "weight_hh_l0"), ValueError,
         "remove_parametrizations"),
        (lambda: {"weight_ih_l0": np.ones((6, 2), "f4"), "bias_ih_l99999999": np.ones(3, "f4")},
         ValueError, "its weights are of no number of gates"),
    ],
)  # fmt: skip
def test_what_is_no_layer_is_refused(source: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        from_torch(source())


@pytest.mark.parametrize("prefix", ["", "0"])
def test_pruned_weights_are_refused_and_the_cure_works(prefix: str) -> None:
    from torch.nn.utils import prune

    gru = nn.GRU(2, 3)
    module = nn.Sequential(gru) if prefix else gru
    prune.l1_unstructured(gru, "weight_hh_l0", amount=0.5)
    for source in (module, module.state_dict()):
        with pytest.raises(ValueError, match=r"torch.nn.utils.prune.remove"):
            from_torch(source, prefix)
    prune.remove(gru, "weight_hh_l0")
    assert repr(from_torch(module)) == "GRU(2, 3)"


class Foreign:
    def state_dict(self) -> dict[str, Any]:
        return {}

    named_modules = state_dict


@pytest.mark.parametrize(
    ("source", "cure"),
    [
        (fastrnn.GRU(2, 3, reset_after=False), "it is a layer of fastrnn already"),
        (Foreign(), r"pass source.state_dict\(\)"),
        (torch.optim.SGD([torch.ones(1)], 0.1), r"pass source.state_dict\(\)"),
    ],
)
def test_what_only_looks_like_a_module_is_refused(source: Any, cure: str) -> None:
    with pytest.raises(TypeError, match=f"expected a torch.nn.Module, .*: {cure}"):
        from_torch(source)


def doubled(*arguments: Any) -> Any:
    return arguments[-1] * 2


class Scaled(nn.Embedding):
    def forward(self, indices: Any) -> Any:
        return super().forward(indices) * 2


class Flipped(nn.LSTM):
    def forward(self, x: Any, hx: Any = None) -> Any:  # type: ignore[override]
        return super().forward(x.flip(0), hx)


def hooked(register: str) -> Any:
    module = nn.Linear(2, 3)
    getattr(module, register)(doubled)
    return module


@pytest.mark.parametrize(
    ("module", "what"),
    [
        (Scaled(4, 3), "a forward of its own"),
        (Flipped(2, 3), "a forward of its own"),
        (hooked("register_forward_hook"), "forward hooks"),
        (hooked("register_forward_pre_hook"), "forward hooks"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "0"])
def test_a_module_that_does_more_than_its_weights_say_is_refused(
    module: Any, what: str, prefix: str
) -> None:
    with pytest.raises(ValueError, match=rf"it has {what}: its state_dict\(\) is taken"):
        from_torch(nn.Sequential(module) if prefix else module, prefix)
    kind = "Embedding" if isinstance(module, Scaled) else None
    assert from_torch(module.state_dict(), kind=kind)


def test_a_module_that_is_used_twice_has_its_options_under_both_names() -> None:
    inner: Any = nn.ModuleList([nn.RNN(3, 4, nonlinearity="relu", batch_first=True)])
    words = nn.Embedding(3, 4)
    model = nn.ModuleDict({"a": inner, "b": inner, "c": words, "d": words})
    shown = "RNN(3, 4, nonlinearity='relu', batch_first=True)"
    assert [repr(from_torch(model, name)) for name in ("a.0", "b.0")] == [shown, shown]
    assert repr(from_torch(model, "d")) == "Embedding(3, 4)"


def test_rewritten_weights_are_not_passed_over() -> None:
    norm = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(
        norm(nn.LSTM(3, 4), "weight_hh_l0"), norm(nn.Linear(4, 4)), nn.Linear(4, 4)
    )
    for source in (model, model.state_dict()):
        with pytest.raises(ValueError, match=r"3 layers: .*'0'.*'1'.*'2'"):
            from_torch(source)
        for prefix in "01":
            with pytest.raises(ValueError, match="remove_parametrizations"):
                from_torch(source, prefix)
        assert repr(from_torch(source, "2")) == "Linear(4, 4)"
    for i, weight in enumerate(("weight_hh_l0", "weight")):
        nn.utils.parametrize.remove_parametrizations(model[i], weight)
    assert repr(from_torch(model, "0")) == "LSTM(3, 4)"


def test_quantised_modules_are_not_passed_over() -> None:
    model = nn.Sequential(nn.Embedding(3, 4), nn.GRU(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(model)
    with pytest.raises(ValueError, match=r"2 layers: .*'1', GRU"):
        from_torch(model)
    with pytest.raises(ValueError, match="its weights are quantised"):
        from_torch(model, "1")
    assert repr(from_torch(model, "0")) == "Embedding(3, 4)"


def test_names_of_a_layer_and_of_a_cell_together_are_refused() -> None:
    state = nn.LSTM(3, 4).state_dict()
    both = state | {name.removesuffix("_l0"): a for name, a in state.items()}
    with pytest.raises(ValueError, match="it has both weight_ih and weight_ih_l0"):
        from_torch(both)


def test_what_else_a_model_holds_is_not_in_the_way() -> None:
    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(2, 3)

        def get_extra_state(self) -> Any:
            return {"mean": torch.ones(3)}

        def set_extra_state(self, state: Any) -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = nn.Sequential(Extra(), nn.LazyLinear(3))
    for source in (lazy, lazy.state_dict()):
        assert repr(from_torch(source)) == "GRU(2, 3)"


def test_scripted_and_exported_models_are_refused_and_the_cure_works() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
    with pytest.raises(TypeError, match=r"ScriptModule.*: pass source.state_dict\(\), and"):
        from_torch(scripted)
    assert repr(from_torch(scripted.state_dict())) == "Linear(2, 3)"
    exported = torch.export.export(model, (torch.ones(1, 2),))
    with pytest.raises(TypeError, match=r"pass source.state_dict$"):
        from_torch(exported)
    assert repr(from_torch(exported.state_dict)) == "Linear(2, 3)"


@pytest.mark.parametrize(
    ("module", "option"),
    [
        (nn.LSTM(2, 3), {"nonlinearity": "relu"}),
        (nn.Linear(2, 3), {"batch_first": True}),
        (nn.Embedding(2, 3), {"dropout": 0.5}),
    ],
)
def test_an_option_that_a_layer_does_not_have_is_refused(module: Any, option: Any) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(option))} is given, but source is an? "):
        from_torch(module, **option)


def test_a_pickle_is_refused_with_what_converts_it(tmp_path: Path) -> None:
    model = Tagger()
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    with pytest.raises(
        ValueError, match=r": write import fastrnn, torch; state = torch\.load"
    ) as info:
        from_torch(path)
    exec(str(info.value).partition(": write ")[2], {})
    layer = from_torch(tmp_path / "model.safetensors", "model.encoder")
    assert_array_equal(
        layer.weights["bias_hh_l1"], model.encoder["rnn"].bias_hh_l1.detach().numpy()
    )


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (lambda: fastrnn.LSTM(2, 3, peephole=True), "peepholes"),
        (lambda: fastrnn.GRU(2, 3, reset_after=False), "reset gate before the product"),
        (lambda: fastrnn.RNN(2, 3, nonlinearity="sigmoid"), "nonlinearity 'sigmoid'"),
        (lambda: fastrnn.LeakyRNN(2, 3), "LeakyRNN"),
        (lambda: fastrnn.LSTM(None, 3), "layer without weight_ih"),
        (lambda: fastrnn.GRU(2, 3, reverse=True), "reverse direction alone"),
    ],
)
def test_what_torch_lacks_is_refused(layer: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"PyTorch has no {text}"):
        to_torch(layer())


@pytest.mark.parametrize(
    "layer",
    [
        fastrnn.GRU(2, 3, 2), fastrnn.GRU(2, 3, bidirectional=True),
        fastrnn.LSTM(2, 3, proj_size=2), fastrnn.Linear(2, 3),
    ],
)  # fmt: skip
def test_what_is_no_cell_is_refused(layer: Any) -> None:
    with pytest.raises(ValueError, match="cell is True, but layer is"):
        to_torch(layer, cell=True)
    with pytest.raises(TypeError, match="layer is a dict"):
        to_torch(layer.state_dict())


# ------------------------------------------------------------------------------ whole models


def test_of_a_whole_model_one_error_names_all_faults() -> None:
    shapes = {"a": (15, 3), "b": (16, 2), "c": (12, 9)}
    state = {
        f"{name}.{weight}": np.ones(shape if weight == "weight_ih_l0" else (16, 4), "f4")
        for name, shape in shapes.items()
        for weight in ("weight_ih_l0", "weight_hh_l0")
    }
    with pytest.raises(ValueError, match=r"a: .*c: .*pass skip=.'a', 'c'.") as info:
        layers_of(state)
    assert "b:" not in str(info.value)


def test_a_whole_model_is_listed_and_converted() -> None:
    model = Tagger()
    listed = {entry.name: entry for entry in contents(model.state_dict())}
    assert listed["encoder.rnn"].becomes == "LSTM(3, 4, num_layers=2, bidirectional=True)"
    assert listed["mix"].becomes == ""
    assert listed["mix"].why
    assert listed["head"].weights["weight"] == ("float32", (2, 5))
    with pytest.raises(ValueError, match=r"words: .*mix: .*norm: .*tied: ") as info:
        layers_of(model.state_dict())
    assert str(info.value).endswith(
        "pass skip=['mix', 'norm'] for what you compute yourself, and kinds={'words': 'Embedding', "
        "'tied': 'Embedding'}, or 'Linear' for such a one"
    )
    found = layers_of(model, ["mix", "norm"])
    assert list(found) == ["words", "encoder.rnn", "cell", "head", "tied"]
    kinds = {"words": "Embedding", "tied": "Linear"}
    again = layers_of(model.state_dict(), ["mix", "norm"], kinds)
    assert [repr(a) for a in again.values()] == [repr(a) for a in found.values()]
    with pytest.raises(ValueError, match="kinds has 'head'"):
        layers_of(model.state_dict(), kinds={"head": "Linear"})


def test_a_converted_layer_needs_no_torch(tmp_path: Path) -> None:
    module = copy.deepcopy(module_of("lstm", 3, 4, 2, bidirectional=True))
    fastrnn.save(tmp_path / "rnn.safetensors", {"rnn": from_torch(module)})
    np.save(tmp_path / "want.npy", module(torch.ones(5, 2, 3, dtype=torch.float64))[0].detach())
    code = f"""
import sys
for name in ("torch", "onnx", "keras", "h5py", "safetensors"):
    sys.modules[name] = None
import numpy as np, fastrnn, fastrnn.convert
layer = fastrnn.load({str(tmp_path / "rnn.safetensors")!r})["rnn"]
want = np.load({str(tmp_path / "want.npy")!r})
assert np.abs(layer(np.ones((5, 2, 3)))[0] - want).max() <= {CLOSE}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
