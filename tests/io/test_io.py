"""Files: what comes back is what was saved, here or by safetensors; what is refused to save."""

import copy
import functools
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from io_files import (
    CODES,
    OLD,
    assert_fresh,
    built,
    entry,
    everything,
    leftovers,
    nested,
    parts,
    special,
)
from registry import CELLS, VARIANTS

import fastrnn
from fastrnn import io as files
from fastrnn.layers import described

every_dtype = pytest.mark.parametrize("dtype", CODES.values())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def assert_same(a, b):
    """The same type, shape and bits."""
    assert type(b) is np.ndarray
    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def through(path, value):
    fastrnn.save(path, {"value": value})
    return fastrnn.load(path)["value"]


# ------------------------------------------------------------------------------ round trips


OPTIONS = {"bidirectional": True, "bias": False, "batch_first": True, "dropout": 0.1}
LAYERS = [
    *(functools.partial(variant.layer, 3, 5) for variant in VARIANTS.values()),
    *(functools.partial(cell.layer, 3, 5, 2, **OPTIONS) for cell in CELLS.values()),
    *(functools.partial(cell.layer, None, 5, 2, bidirectional=True) for cell in CELLS.values()),
    *(functools.partial(cell.layer, 3, 5, 2, reverse=True) for cell in CELLS.values()),
    functools.partial(fastrnn.LSTM, 3, 5, forget_bias=1),
    functools.partial(fastrnn.LSTM, 0, 1, dropout=0.1),
    functools.partial(fastrnn.Linear, 3, 5),
    functools.partial(fastrnn.Linear, 1, 7, False),
    functools.partial(fastrnn.Embedding, 11, 3),
]


@pytest.mark.filterwarnings("ignore:dropout is 0.1 without effect")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", LAYERS)
def test_layers(path, make, dtype):
    layer = make(dtype=dtype, rng=0)
    layer.flat_weights[...] = special(dtype, layer.flat_weights.size)
    loaded = through(path, layer)
    assert type(loaded) is type(layer)
    assert repr(loaded) == repr(layer)
    assert loaded._arguments() == layer._arguments()
    assert_same(layer.flat_weights, loaded.flat_weights)
    assert list(loaded.weights) == list(layer.weights)
    assert all(np.shares_memory(w, loaded.flat_weights) for w in loaded.weights.values() if w.size)
    assert loaded.flat_weights.ctypes.data % 64 == 0
    loaded.flat_weights[...] = 0
    assert not any(w.any() for w in loaded.weights.values())


def test_every_layer_is_known():
    layers = {
        name
        for name in fastrnn.__all__
        if isinstance(getattr(fastrnn, name), type) and hasattr(getattr(fastrnn, name), "_restored")
    }
    assert layers == set(described.KINDS)


def test_a_loaded_network_computes_the_same(path):
    x = np.random.default_rng(1).standard_normal((6, 2, 3)).astype(np.float32)
    network = {"rnn": fastrnn.RNN(3, 8, rng=0), "head": fastrnn.Linear(8, 2, rng=0)}
    fastrnn.save(path, network)
    loaded = fastrnn.load(path)
    outputs = [n["head"](n["rnn"](x)[0]) for n in (network, loaded)]
    assert_same(*outputs)


@every_dtype
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3), (1,) * 32], ids=str)
def test_arrays(path, dtype, shape):
    count = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.random.default_rng(0).integers(0, 2 if dtype == "?" else 256, count, np.uint8)
    a = raw.view(dtype).reshape(shape)
    loaded = through(path, a)
    assert_same(a, loaded)
    assert_fresh(loaded)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_every_bit_of_a_float_is_kept(path, dtype):
    a = special(dtype)
    assert_same(a, through(path, a))
    swapped = a.byteswap().view(a.dtype.newbyteorder())
    assert_same(a, through(path, swapped))


@every_dtype
def test_unusual_arrays(path, dtype):
    a = np.random.default_rng(0).integers(0, 2, (4, 6)).astype(dtype)
    read_only = a.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(bytearray(1) + a.tobytes(), dtype, offset=1).reshape(a.shape)
    (path.parent / "raw").write_bytes(a.tobytes())
    odd = {
        "swapped": a.astype(a.dtype.newbyteorder()),
        "swapped_transposed": a.T.astype(a.dtype.newbyteorder()),
        "transposed": a.T,
        "fortran": np.asfortranarray(a),
        "reversed": a[::-1, ::-2],
        "broadcast": np.broadcast_to(a[0, 0], (3, 2)),
        "read_only": read_only,
        "unaligned": unaligned,
        "swapped_scalar": np.array(1, a.dtype.newbyteorder()),
        "memmap": np.memmap(path.parent / "raw", dtype, "r", shape=a.shape),
    }
    fastrnn.save(path, odd)
    loaded = fastrnn.load(path)
    assert list(loaded) == list(odd)
    for name, b in odd.items():
        assert_same(np.array(b, b.dtype.newbyteorder("=")), loaded[name])
        assert_fresh(loaded[name])


def test_a_bool_of_another_byte_is_true(path):
    a = np.array([0, 1, 2, 255], np.uint8).view(bool)
    assert_same(np.array([False, True, True, True]), through(path, a))


VALUES = {
    "none": None, "true": True, "false": False, "zero": 0, "big": -(10**100), "huge": 2**64,
    "tenth": 0.1, "minus": -0.0, "least": 5e-324, "most": 1.7976931348623157e308, "third": 1 / 3,
    "integral": 1e22, "text": "a\n\"\\ \u00e9 \U0001f600 \x00 \x7f", "half": "\ud800", "": "",
    "list": [1, [2.5, []], {"a": {}, "": [None]}], "tuple": (0.9, (1, "x")), "dots.in.keys": 1,
}  # fmt: skip


def listed(value):
    """The value with lists for tuples."""
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return list(map(listed, value)) if isinstance(value, list | tuple) else value


def test_values(path):
    value = VALUES | {"inside": VALUES}
    del value[""]
    loaded = through(path, value)
    assert type(loaded) is dict
    assert repr(loaded) == repr(listed(value))  # types, order and signs too


def test_mappings(path):
    a, b = np.arange(3), np.float32([[0.5]])
    value = {"z": a, "step": 3, "exp_avg.0": b, "a": [], "..": a.astype("u1"), ".": b, "other": a}
    fastrnn.save(path, {"value": value, "empty": {}, "other": b, "z": {"step": a}})
    loaded = fastrnn.load(path)
    assert list(loaded) == ["value", "empty", "other", "z"]
    assert list(loaded["value"]) == list(value)
    assert loaded["empty"] == {}
    assert_same(b, loaded["other"])
    assert_same(a, loaded["z"]["step"])
    for key, item in value.items():
        if isinstance(item, np.ndarray):
            assert_same(item, loaded["value"][key])
        else:
            assert loaded["value"][key] == item
    # A layer's state_dict and its weights are mappings of arrays.
    layer = fastrnn.RNN(2, 3, rng=0)
    for mapping in (layer.state_dict(), layer.weights):
        state = through(path, mapping)
        assert list(state) == list(layer.weights)
        assert layer.load_state_dict(state) == ([], [])


@pytest.mark.parametrize(
    "make",
    [lambda p: fastrnn.optim.SGD(p, 0.1, 0.9), lambda p: fastrnn.optim.Adam(p, betas=(0.8, 0.99))],
)
def test_training_resumes(path, make):
    rng = np.random.default_rng(0)
    layers = [fastrnn.RNN(2, 3, rng=0), fastrnn.Linear(3, 2, rng=0)]
    optimizer = make([layer.flat_weights for layer in layers])

    def step(optimizer, layers, seed):
        rng = np.random.default_rng(seed)
        optimizer.step([rng.standard_normal(p.shape).astype(p.dtype) for p in optimizer.params])

    for _ in range(3):
        step(optimizer, layers, rng.integers(100))
    state = optimizer.state_dict()
    fastrnn.save(path, {"rnn": layers[0], "head": layers[1], "optimizer": optimizer})
    loaded = fastrnn.load(path)
    resumed = [loaded["rnn"], loaded["head"]]
    other = make([layer.flat_weights for layer in resumed])
    other.load_state_dict(loaded["optimizer"])
    assert list(loaded["optimizer"]) == list(state)
    for _ in range(3):
        seed = rng.integers(100)
        step(optimizer, layers, seed)
        step(other, resumed, seed)
    for a, b in zip(optimizer.params, other.params, strict=True):
        assert_same(a, b)


def test_the_same_objects_give_the_same_bytes(path):
    written = []
    for objects in (everything(), everything(), None):
        objects = fastrnn.load(path) if objects is None else objects
        fastrnn.save(path, objects, {"b": "2", "a": "1"})
        written.append(path.read_bytes())
    # The adam's betas are a tuple, and the layers are equal: a loaded file is saved the same.
    assert written[0] == written[1] == written[2]
    code = "import sys; sys.path.insert(0, 'tests/support'); import io_files, fastrnn; "
    code += "fastrnn.save(sys.argv[1], io_files.everything(), {'b': '2', 'a': '1'})"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=root, env=environment)
    assert path.read_bytes() == written[0]


# What the first version wrote of a layer, and so what it reads.
OF_RNN = (
    '{"version":1,"objects":{"value":{"kind":"RNN","arguments":{"input_size":2,"hidden_size":3,'
    '"num_layers":1,"nonlinearity":"tanh","bias":true,"batch_first":false,"dropout":0.0,'
    '"bidirectional":false}}}}'
)


def test_an_argument_that_came_later(path):
    """It is not in a file where it has its default: `reverse` is one."""
    layer = fastrnn.RNN(2, 3, rng=0)
    assert through(path, layer).reverse is False
    data = path.read_bytes()
    assert parts(data)[0]["fastrnn"] == OF_RNN
    for said, ends in (("false", True), ("true", False)):
        text = OF_RNN[:-4] + f',"reverse":{said}' + OF_RNN[-4:]
        metadata, entries, buffer = parts(data)
        if said == "true":
            entries = {f"{name}_reverse": value for name, value in entries.items()}
        path.write_bytes(built({"__metadata__": metadata | {"fastrnn": text}, **entries}, buffer))
        loaded = fastrnn.load(path)["value"]
        assert loaded.reverse is not ends
        assert_same(loaded.flat_weights, layer.flat_weights)
        fastrnn.save(path, {"value": loaded})  # a default that somebody wrote is left out
        assert (path.read_bytes() == data) == ends
        assert parts(path.read_bytes())[0]["fastrnn"] == (OF_RNN if ends else text)
    for cell in CELLS.values():
        later = set(cell.layer._later)
        plain, other = cell.layer(2, 3), cell.layer(2, 3, reverse=True)
        assert plain._arguments() | {"reverse": True} == other._arguments()
        assert later == {"reverse"}
        assert not later & set(plain._arguments())


def test_layout(path):
    fastrnn.save(path, everything() | {"scalar": np.array(1.5), "z": np.ones(3, "u1")})
    data = path.read_bytes()
    _, entries, buffer = parts(data)
    assert (len(data) - len(buffer)) % 8 == 0
    position = 0
    for value in entries.values():
        begin, end = value["data_offsets"]
        assert begin == position
        assert begin % np.dtype(CODES[value["dtype"]]).itemsize == 0
        position = end
    assert position == len(buffer)
    names = {"rnn." + name for name in everything()["rnn"].weights} | {"a", "flags", "scalar", "z"}
    names |= {"run.losses", "run.mask", "optimizer.exp_avg.0", "optimizer.exp_avg_sq.0"}
    assert set(entries) == names


def test_metadata(path):
    metadata = {"author": "ü\n", "": "", "format": "pt", "__metadata__": "no"}
    fastrnn.save(path, {}, metadata)
    loaded = fastrnn.load(path)
    assert loaded == {}
    assert loaded.metadata == metadata
    assert list(loaded.metadata) == list(metadata)
    fastrnn.save(str(path), {"a": np.zeros(1)})
    loaded = fastrnn.load(str(path))
    assert loaded.metadata == {}
    assert type(loaded) is files.Loaded
    for copied in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert type(copied) is files.Loaded
        assert copied.metadata == {}
        assert_same(loaded["a"], copied["a"])


# ------------------------------------------------------------------------------ the other library


def test_the_package_reads_ours(path):
    numpy = pytest.importorskip("safetensors.numpy")
    safe_open = pytest.importorskip("safetensors").safe_open
    arrays = {n: special(c) for n, c in CODES.items() if n[0] == "F"}
    arrays |= {n: np.arange(6).reshape(2, 3).astype(c) for n, c in CODES.items() if n[0] != "F"}
    arrays |= {"empty": np.zeros((0, 3), "f4"), "scalar": np.array(2, "i2"), "ü": np.ones(1)}
    layer = fastrnn.RNN(2, 3, rng=0)
    fastrnn.save(path, arrays | {"rnn": layer, "run": {"step": 1, "x": np.ones(2)}}, {"k": "ü"})
    arrays |= {f"rnn.{name}": a for name, a in layer.weights.items()} | {"run.x": np.ones(2)}
    read = numpy.load_file(path)
    assert set(read) == set(arrays)
    for name, a in arrays.items():
        assert (a.dtype, a.shape, a.tobytes()) == (
            read[name].dtype,
            read[name].shape,
            read[name].tobytes(),
        )
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata.pop("k") == "ü"
    assert list(metadata) == ["fastrnn"]


def test_ours_reads_the_package_s(path):
    numpy = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {n: rng.integers(0, 2, (3, 2)).astype(c) for n, c in CODES.items()}
    arrays |= {"": np.ones(1), "a.b.c": special("f4"), "e": np.zeros((2, 0)), "s": np.array(True)}
    for metadata in (None, {"format": "pt", "ü": "\x00"}):
        numpy.save_file(arrays, path, metadata)
        loaded = fastrnn.load(path)
        assert set(loaded) == set(arrays)
        assert loaded.metadata == (metadata or {})
        for name, a in arrays.items():
            assert_same(a, loaded[name])
            assert_fresh(loaded[name])


def test_both_refuse(path):
    numpy = pytest.importorskip("safetensors.numpy")
    error = pytest.importorskip("safetensors").SafetensorError
    data = built({"a": entry(), "b": entry(offsets=(2, 4))}, b"1234")
    for bad in (
        data[:-1],
        data + b"5",
        data.replace(b"[2, 4]", b"[1, 3]"),
        data[:20],
        b"",
        data[8:],
    ):
        path.write_bytes(bad)
        with pytest.raises(error):
            numpy.load_file(path)
        with pytest.raises(ValueError, match="file"):
            fastrnn.load(path)


# ------------------------------------------------------------------------------ refused to save


class Stateful:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state


class Mine(fastrnn.RNN):
    pass


def overwritten(name, value):
    layer = fastrnn.RNN(2, 3, rng=0)
    vars(layer)[name] = value  # past what refuses it
    return layer


CYCLE = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("objects", "error", "text"),
    [
        ([np.zeros(1)], TypeError, "objects is a list, expected a mapping"),
        (fastrnn.RNN(2, 3), TypeError, "objects is an RNN, expected a mapping"),
        (None, TypeError, "objects is None"),
        ({1: np.zeros(1)}, TypeError, "a name in objects is 1, expected a str"),
        ({"": np.zeros(1)}, ValueError, "objects has the name ''"),
        ({"a.b": np.zeros(1)}, ValueError, "objects has the name 'a.b'"),
        ({"__metadata__": {}}, ValueError, "objects has the name '__metadata__'"),
        ({"\ud800": {}}, ValueError, "a name in objects is '\\ud800', which UTF-8"),
        ({"a": None}, TypeError, "objects['a'] is None"),
        ({"a": [np.zeros(1)]}, TypeError, "objects['a'] is a list"),
        ({"a": 1.5}, TypeError, "objects['a'] is a float"),
        ({"a": np.float64(1)}, TypeError, "objects['a'] is a float64"),
        ({"a": Stateful(3)}, TypeError, "objects['a'] is a Stateful"),
        ({"a": Stateful({"b": np.zeros(2, complex)})}, ValueError, "tensor 'a.b' is complex128"),
        ({"a": fastrnn.RNN}, TypeError, ""),
        ({"a": Mine(2, 3)}, TypeError, "objects['a'] is a Mine, which load does not know"),
        ({"a": overwritten("hidden_size", 4)}, ValueError, "objects['a'] (RNN): "),
        ({"a": overwritten("dropout", "x")}, ValueError, "objects['a'] (RNN): dropout is 'x'"),
        ({"a": overwritten("dropout", 0)}, ValueError, "dropout is 0, expected 0.0"),
        ({"a": overwritten("reverse", 0)}, ValueError, "(RNN): reverse is 0, expected True or"),
        ({"a": overwritten("reverse", True)}, ValueError, "lacks weight_ih_l0_reverse"),
        ({"a": np.zeros(2, complex)}, ValueError, "tensor 'a' is complex128, expected one of"),
        ({"a": np.zeros(2, "g")}, ValueError, "tensor 'a' is float128"),
        ({"a": np.array(["a"])}, ValueError, "tensor 'a' is <U1"),
        ({"a": np.array([None])}, ValueError, "tensor 'a' is object"),
        ({"a": np.zeros(2, "f4,f4")}, ValueError, "tensor 'a' is [("),
        ({"a": np.zeros(2, "M8[s]")}, ValueError, "tensor 'a' is datetime64[s]"),
        ({"a": np.ma.array([1.0])}, TypeError, "objects['a'] is a MaskedArray"),
        ({"a": {"b": np.ma.array([1.0])}}, TypeError, "objects['a']['b'] is a MaskedArray"),
        ({"a": {1: 2}}, TypeError, "a key of objects['a'] is 1"),
        ({"a": {"": 2}}, ValueError, "a key of objects['a'] is empty"),
        ({"a": {"\udfff": 2}}, ValueError, "a key of objects['a'] is '\\udfff'"),
        ({"a": {"b": math.nan}}, ValueError, "objects['a']['b']: Out of range float"),
        ({"a": {"b": [{"c": -math.inf}]}}, ValueError, "objects['a']['b'][0]['c']: Out of range"),
        ({"a": {"b": {1: 2}}}, TypeError, "objects['a']['b'] has the key 1 inside"),
        ({"a": {"b": {None: 2}}}, TypeError, "objects['a']['b'] has the key None inside"),
        ({"a": {"b": [np.zeros(1)]}}, TypeError, "objects['a']['b'] is a list, expected an"),
        ({"a": {"b": np.float32(1)}}, TypeError, "objects['a']['b']: Object of type float32"),
        (
            {"a": {"b": np.int64(1)}},
            TypeError,
            "serializable: pass objects['a']['b'].item(), a Python value",
        ),
        ({"a": {"b": {1, 2}}}, TypeError, "objects['a']['b']: Object of type set"),
        ({"a": {"b": b"x"}}, TypeError, "objects['a']['b']: Object of type bytes"),
        ({"a": {"b": 1j}}, TypeError, "objects['a']['b']: Object of type complex"),
        ({"a": {"b": fastrnn.RNN(2, 3)}}, TypeError, "objects['a']['b'] is an RNN, expected"),
        ({"a": {"b": 10**5000}}, ValueError, "objects['a']['b']: Exceeds the limit"),
        ({"a": {"b": CYCLE}}, ValueError, "is nested more than 100 deep"),
        ({"a": {"b": nested(101, dict)}}, ValueError, "is nested more than 100"),
    ],
)
def test_refused_objects(path, objects, error, text):
    path.write_bytes(OLD)
    with pytest.raises(error) as caught:
        fastrnn.save(path, objects)
    assert text in str(caught.value)
    assert path.read_bytes() == OLD
    assert leftovers(path) == []


@pytest.mark.parametrize("kind", [list, dict])
def test_deep_values(path, kind):
    assert through(path, {"b": nested(100, kind)})["b"] == nested(100, kind)


@pytest.mark.parametrize(
    ("metadata", "error", "text"),
    [
        ({"a": 1}, TypeError, "metadata['a'] is 1, expected a str"),
        ({"a": None}, TypeError, "metadata['a'] is None"),
        ({"a": b"x"}, TypeError, "metadata['a'] is b'x'"),
        ({1: "a"}, TypeError, "a key of metadata is 1"),
        ({"fastrnn": "{}"}, ValueError, "metadata['fastrnn'] is reserved"),
        ({"a": "\ud800"}, ValueError, "metadata['a'] is '\\ud800'"),
        ({"\ud800": "a"}, ValueError, "a key of metadata is '\\ud800'"),
        ("abc", TypeError, "metadata is a str"),
        ([("a", "b")], TypeError, "metadata is a list"),
    ],
)
def test_refused_metadata(path, metadata, error, text):
    with pytest.raises(error) as caught:
        fastrnn.save(path, {}, metadata)
    assert text in str(caught.value)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("bad", [b"name", 3, None, ["a"]])
def test_paths_are_text(bad):
    for call in (lambda: fastrnn.save(bad, {}), lambda: fastrnn.load(bad)):
        with pytest.raises(TypeError):
            call()


def test_a_header_beyond_the_format_s_limit_is_not_written(path, monkeypatch):
    monkeypatch.setattr(files, "_MAX_HEADER", 200)
    fastrnn.save(path, {"a": np.zeros(1)})
    with pytest.raises(ValueError, match="bytes, more than 200"):
        fastrnn.save(path, {"a": np.zeros(1)}, {"b": "x" * 100})
