"""Refused to load: malformed files, in one line each, and what is no file at all."""

import gzip
import io
import json
import os
import pickle
import stat
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from io_files import CODES, assert_fresh, built, entry, nested, parts

import fastrnn


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def refusal(path, data):
    """The text of the error, without the path, that loading these bytes raises."""
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        fastrnn.load(path)
    text = str(caught.value)
    assert type(caught.value) is ValueError
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    assert len(text) < len(str(path)) + 510
    return text.removeprefix(f"{path}: ")


GOOD = built({"a": entry(), "b": entry("I16", (1,), (2, 4))}, b"1234")
BOTH = {"a": entry(), "b": entry(offsets=(2, 4))}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file has 0 bytes, expected at least 8"),
        (bytes(7), "the file has 7 bytes"),
        (bytes(8), "the header starts with b''"),
        (built({}, length=3), "the header has 3 bytes, but the file ends before"),
        (built({}, length=10**8), "the header has 100000000 bytes, but the file ends before"),
        (built({}, length=10**8 + 1), "the header has 100000001 bytes, expected at most 100000000"),
        (built({}, length=2**64 - 1), "the header has 18446744073709551615 bytes, expected"),
        (built({}, length=1), "the header is not valid JSON"),
        (built(" {}"), "the header starts with b' ', expected '{'"),
        (built("[]"), "the header starts with b'['"),
        (built("\ufeff{}"), "the header starts with b'\\xef'"),
        (built("{}".encode("utf-16-le")), "the header is not valid JSON"),
        (built(b'{"\xff": 1}'), "the header is not valid JSON: 'utf-8' codec can't decode"),
        (built(b'{"\xed\xa0\x80": 1}'), "the header is not valid JSON: 'utf-8' codec"),
        (built("{"), "the header is not valid JSON: Expecting property name"),
        (built("{} {}"), "the header is not valid JSON: Extra data"),
        (built("{}\0"), "the header is not valid JSON: Extra data"),
        (built('{"a\n": 1}'), "the header is not valid JSON: Invalid control character"),
        (built('{"a": NaN}'), "the header is not valid JSON: 'NaN' is no finite number"),
        (built('{"a": -Infinity}'), "'-Infinity' is no finite number"),
        (built('{"a": 1e999}'), "'1e999' is no finite number"),
        (built('{"a": ' * 200_000), "the header is not valid JSON: maximum recursion depth"),
        (built('{"a": ' + "[" * 200_000), "the header is not valid JSON: maximum recursion depth"),
        (built('{"a": ' + "1" * 5000 + "}"), "the header is not valid JSON: Exceeds the limit"),
        (built('{"a": 1, "b": 2, "a": 1}'), "not valid JSON: the key 'a' comes twice"),
        (built('{"a": 1, "\\u0061": 1}'), "the key 'a' comes twice"),
        (built('{"a": {"b": [{"c": 1, "c": 1}]}}'), "the key 'c' comes twice"),
        (built('{"__metadata__": {"c": "", "c": ""}}'), "the key 'c' comes twice"),
        (built('{"__metadata__": {}, "__metadata__": {}}'), "the key '__metadata__' comes twice"),
        (built({"\ud800": 1}), "a string in the header is '?ud800'".replace("?", "\\")),
        (built({"__metadata__": {"a": "\udc00"}}), "a string in the header is"),
        (built({"__metadata__": None}), "__metadata__ is None, expected an object"),
        (built({"__metadata__": []}), "__metadata__ is [], expected an object"),
        (built({"__metadata__": {"a": 1}}), "__metadata__: 'a' is 1, no str"),
        (built({"__metadata__": {"value": None}}), "__metadata__: 'value' is None, no str"),
        (built({"a": None}), "tensor 'a' is None, expected an object"),
        (built({"a": []}), "tensor 'a' is [], expected an object"),
        (built({"a": {}}), "tensor 'a' lacks 'data_offsets'"),
        (built({"a": entry() | {"x": 1}}, b"12"), "tensor 'a' has an unexpected 'x'"),
        (built({"a": entry("f4")}, b"12"), "tensor 'a' is 'f4', expected one of F64, F32"),
        (built({"a": entry("BF16", (2,))}, b"12"), "tensor 'a' has 2 bytes, too many or few for"),
        (built({"a": entry("F8_E4M3")}, b"12"), "tensor 'a' is 'F8_E4M3'"),
        (built({"a": entry("C64", (1,), (0, 8))}, bytes(8)), "tensor 'a' is 'C64'"),
        (built({"a": entry(7)}, b"12"), "tensor 'a': 'dtype' is 7, no str"),
        (built({"a": entry([])}, b"12"), "tensor 'a': 'dtype' is [], no str"),
        (built({"a": entry() | {"shape": 2}}, b"12"), "tensor 'a': 'shape' is 2, no list"),
        (built({"a": entry() | {"data_offsets": "02"}}, b"12"), "'data_offsets' is '02', no list"),
        (built({"a": entry(shape=(True, 2))}, b"12"), "tensor 'a' has True in shape"),
        (built({"a": entry(shape=(2.0,))}, b"12"), "tensor 'a' has 2.0 in shape"),
        (built({"a": entry(shape=("2",))}, b"12"), "tensor 'a' has '2' in shape"),
        (built({"a": entry(shape=(None,))}, b"12"), "tensor 'a' has None in shape"),
        (built({"a": entry(shape=(-2, -1))}, b"12"), "tensor 'a' has -2 in shape"),
        (built({"a": entry(offsets=(False, 2))}, b"12"), "tensor 'a' has False in shape or data_"),
        (built({"a": entry(offsets=(0, 2.0))}, b"12"), "tensor 'a' has 2.0 in shape or data_off"),
        (built({"a": entry(offsets=(-2, 0))}, b"12"), "tensor 'a' has -2 in shape or data_off"),
        (built({"a": entry(offsets=(0, 2**63))}, b"12"), "tensor 'a' has 9223372036854775808 in"),
        (built({"a": entry(offsets=(0,))}, b"12"), "tensor 'a' has 1 axes, 1 offsets"),
        (built({"a": entry(offsets=(0, 1, 2))}, b"12"), "tensor 'a' has 1 axes, 3 offsets"),
        (built({"a": entry(shape=(1,) * 65)}, b"12"), "tensor 'a' has 65 axes"),
        (built({"a": entry(shape=(10**4000,) * 500)}, b"12"), "tensor 'a' has 500 axes"),
        (built({"a": entry(shape=(10**4000,))}, b"12"), "tensor 'a' has 1000"),
        (built({"a": entry(offsets=(2, 0))}, b"12"), "'a': data_offsets is [2, 0], out of 2"),
        (built({"a": entry(offsets=(1, 3))}, b"12"), "'a': data_offsets is [1, 3], out of 2"),
        (built({"a": entry(shape=(1,))}, b"12"), "tensor 'a' has 2 bytes, too many or few for I8"),
        (built({"a": entry(shape=())}, b"12"), "tensor 'a' has 2 bytes, too many or few for I8"),
        (built({"a": entry(shape=(0,))}, b"12"), "tensor 'a' has 2 bytes, too many or few for I8"),
        (built({"a": entry(shape=(3,))}, b"12"), "tensor 'a' has 2 bytes, too many or few for I8"),
        (built({"a": entry("F32")}, b"12"), "tensor 'a' has 2 bytes, too many or few for F32 [2]"),
        (built({"a": entry(shape=(2**32, 2**32, 2))}, b"12"), "tensor 'a' has 2 bytes, too many"),
        (built({"a": entry(shape=(2**63 - 1, 2))}, b"12"), "tensor 'a' has 2 bytes, too many"),
        (built({"a": entry("F64", (2**61,), (0, 0))}), "tensor 'a' has 0 bytes, too many or few"),
        (built({"a": entry("F64", (0, 2**62), (0, 0))}), "which NumPy cannot have"),
        (built({"a": entry("I8", (2**40, 0, 2**40), (0, 0))}), "which NumPy cannot have"),
        (GOOD[:-1], "tensor 'b': data_offsets is [2, 4], out of 3 bytes of data"),
        (GOOD + b"5", "the last 1 bytes of the file belong to no tensor"),
        (built({}, b"1"), "the last 1 bytes of the file belong to no tensor"),
        (built(BOTH | {"b": entry(offsets=(1, 3))}, b"123"), "tensor 'b' overlaps the one before"),
        (built(BOTH | {"b": entry()}, b"12"), "tensor 'b' overlaps the one before"),
        (built(BOTH | {"b": entry(offsets=(3, 5))}, b"12345"), "tensor 'b' leaves a gap behind"),
        (built({"a": entry(offsets=(1, 3))}, b"123"), "tensor 'a' leaves a gap behind"),
        (built(BOTH | {"c": entry("F32", (0,), (1, 1))}, b"1234"), "overlaps the one before"),
        (built(BOTH | {"c": entry("F32", (0,), (9, 9))}, b"1234"), "data_offsets is [9, 9], out"),
        (built({"a": entry("BOOL")}, b"\1\2"), "tensor 'a' is BOOL, but has other bytes"),
        (built({"a\n\x1b[2J" + "x" * 9999: 1}), "tensor 'a\\n\\x1b[2Jxxx"),
    ],
)  # fmt: skip
def test_malformed_files(path, data, text):
    found = refusal(path, data)
    assert text in found, found


def test_what_is_just_legal(path):
    header = {
        "b": entry("I16", (1,), (2, 4)), "none": entry("F64", (0, 5), (0, 0)), "a": entry(),
        "between": entry("F32", (0,), (2, 2)), "too": entry("BOOL", (3, 0), (2, 2)),
        "last": entry("U8", (2**30, 0, 2**30), (4, 4)), "": entry("U8", (), (4, 5)),
    }  # fmt: skip
    path.write_bytes(built(json.dumps(header) + " \n\t ", b"\1\2\3\4\5"))  # unaligned on top
    loaded = fastrnn.load(path)
    assert list(loaded) == list(header)
    assert loaded["a"].tolist() == [1, 2]
    assert loaded["b"].tolist() == [0x0403]
    assert loaded[""] == 5
    assert [a.shape for a in loaded.values()] == [tuple(e["shape"]) for e in header.values()]
    for a in loaded.values():
        assert_fresh(a)


def ours(objects, tensors=None, version=1, **more):
    """A file with our metadata as given; tensors are names and arrays."""
    own = objects
    if not isinstance(objects, str):
        own = json.dumps({"version": version, "objects": objects} | more)
    header, data = {"__metadata__": {"fastrnn": own}}, b""
    for name, a in (tensors or {}).items():
        dtype = {v: k for k, v in CODES.items()}[a.dtype.str[1:].replace("b1", "?")]
        header[name] = entry(dtype, a.shape, (len(data), len(data) + a.nbytes))
        data += a.tobytes()
    return built(header, data)


def rnn(**changes):
    """Our description of a layer, and its tensors."""
    layer = fastrnn.RNN(2, 3, rng=0)
    arguments = layer._arguments() | changes
    described = {"rnn": {"kind": "RNN", "arguments": arguments}}
    return described, {f"rnn.{name}": a for name, a in layer.weights.items()}


def lstm(**changes):
    layer = fastrnn.LSTM(2, 3, proj_size=1, peephole=True, rng=0)
    described = {"lstm": {"kind": "LSTM", "arguments": layer._arguments() | changes}}
    return described, {f"lstm.{name}": a for name, a in layer.weights.items()}


ARRAY, ONE = {"a": {"kind": "array"}}, np.ones(1)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (ours("{"), "__metadata__['fastrnn'] is not valid JSON"),
        (ours(""), "__metadata__['fastrnn'] is not valid JSON"),
        (ours("1"), "__metadata__['fastrnn'] is 1, expected an object"),
        (ours("[" * 100_000), "__metadata__['fastrnn'] is not valid JSON: maximum recursion"),
        (ours('{"version": 1, "version": 1}'), "the key 'version' comes twice"),
        (ours('{"version": 1, "objects": {"a": {}, "a": {}}}'), "the key 'a' comes twice"),
        (ours('{"version": 1, "objects": {"a": NaN}}'), "'NaN' is no finite number"),
        (ours("{}"), "the version of __metadata__['fastrnn'] is None: expected 1"),
        (ours({}, version=2), "is 2: a newer fastrnn wrote this file"),
        (ours({}, version=10**30), "a newer fastrnn wrote this file"),
        (ours({}, version=2, new=1), "is 2: a newer fastrnn wrote this file"),
        (ours({}, version=0), "is 0: expected 1"),
        (ours({}, version=True), "is True: expected 1"),
        (ours({}, version=1.0), "is 1.0: expected 1"),
        (ours({}, version="1"), "is '1': expected 1"),
        (ours({}, more=1), "__metadata__['fastrnn'] has an unexpected 'more'"),
        (ours('{"version": 1}'), "__metadata__['fastrnn'] lacks 'objects'"),
        (ours([]), "__metadata__['fastrnn']: 'objects' is [], no dict"),
        (ours({"a": None}), "objects['a'] is of the kind None"),
        (ours({"a": {"kind": "lstm"}}), "objects['a'] is of the kind 'lstm', expected one of"),
        (ours({"a": {"kind": ["RNN"]}}), "objects['a'] is of the kind ['RNN']"),
        (ours({"a": {"kind": "Weighted"}}), "objects['a'] is of the kind 'Weighted'"),
        (ours({"": {"kind": "dict", "items": {}}}), "objects has the name ''"),
        (ours({"a.b": {"kind": "dict", "items": {}}}), "objects has the name 'a.b'"),
        (ours({"__metadata__": {"kind": "dict", "items": {}}}), "objects has the name '__metadata"),
        (ours(ARRAY), "objects['a'] (array) lacks 'a'"),
        (ours(ARRAY, {"a": ONE, "b": ONE}), "tensor 'b' is of no object"),
        (ours(ARRAY, {"a": ONE, "b.a": ONE}), "tensor 'b.a' is of no object"),
        (ours(ARRAY, {"a": ONE, "": ONE}), "tensor '' is of no object"),
        (ours(ARRAY, {"a": ONE, "a.": ONE}), "objects['a'] (array) has an unexpected 'a.'"),
        (ours(ARRAY, {"a": ONE, "a.b": ONE}), "objects['a'] (array) has an unexpected 'a.b'"),
        (ours({"a": {"kind": "array", "x": 1}}, {"a": ONE}), "objects['a'] has an unexpected 'x'"),
        (ours({"a": {"kind": "dict"}}), "objects['a'] lacks 'items'"),
        (ours({"a": {"kind": "dict", "items": []}}), "objects['a']: 'items' is [], no dict"),
        (ours({"a": {"kind": "dict", "items": {"b": 1}}}), "objects['a']: 'b' is 1, not what"),
        (ours({"a": {"kind": "dict", "items": {"b": {}}}}), "objects['a']: 'b' is {}, not what"),
        (ours({"a": {"kind": "dict", "items": {"b": {"json": 1, "x": 1}}}}), "not what save"),
        (ours({"a": {"kind": "dict", "items": {"b": "tensor"}}}), "['a'] (dict) lacks 'a.b'"),
        (ours({"a": {"kind": "dict", "items": {"b": "tensor"}}}, {"a.b": ONE, "a.c": ONE}),
         "objects['a'] (dict) has an unexpected 'a.c'"),
        (ours({"a": {"kind": "dict", "items": {"b": {"json": 1}}}}, {"a.b": ONE}),
         "objects['a'] (dict) has an unexpected 'a.b'"),
        (ours({"a": {"kind": "dict", "items": {}}}, {"a": ONE}), "has an unexpected 'a'"),
        (ours({"a": {"kind": "RNN"}}), "objects['a'] lacks 'arguments'"),
        (ours({"a": {"kind": "RNN", "arguments": []}}), "objects['a']: 'arguments' is [], no dict"),
        (ours({"a": {"kind": "RNN", "arguments": {}}}), "objects['a'] (RNN): the arguments are"),
        (ours(*rnn(rng=0)), "objects['rnn'] (RNN): the arguments are"),
        (ours(*rnn(**{"a\nb": 0})), "objects['rnn'] (RNN): the arguments are"),
        (ours(rnn()[0]), "objects['rnn'] (RNN): input_size is 2, but no weight has so many"),
        (ours(rnn()[0], {n: a for n, a in rnn()[1].items() if n != "rnn.bias_hh_l0"}),
         "objects['rnn'] (RNN): lacks bias_hh_l0"),
        (ours(rnn()[0], rnn()[1] | {"rnn.x": ONE}), "objects['rnn'] (RNN): has unexpected x"),
        (ours(rnn()[0], rnn()[1] | {"rnn": ONE}), "objects['rnn'] (RNN): has unexpected ''"),
        (ours(rnn()[0], rnn()[1] | {"rnn": ONE, "rnn.": ONE}),
         "objects['rnn'] (RNN): has unexpected ''"),
        (ours(rnn()[0], {n: a.astype("i4") for n, a in rnn()[1].items()}), "is int32, expected"),
        (ours(rnn()[0], rnn()[1] | {"rnn.bias_hh_l0": np.zeros(3)}), "bias_hh_l0 is float64, wei"),
        (ours(rnn()[0], rnn()[1] | {"rnn.bias_hh_l0": np.zeros(4, "f4")}), "has shape (4,)"),
        (ours(*rnn(hidden_size=4)), "objects['rnn'] (RNN): "),
        (ours(*rnn(hidden_size=2)), "weight_ih_l0 has shape (3, 2), expected (2, 2)"),
        (ours(*rnn(num_layers=4)), "objects['rnn'] (RNN): lacks weight_ih_l1, weight_hh_l1, bias"),
        (ours(*rnn(num_layers=5)), "(RNN): num_layers is 5, but there are 4 weights"),
        (ours(*rnn(reverse=True)), "objects['rnn'] (RNN): lacks weight_ih_l0_reverse, weight_hh_l"),
        (ours(*rnn(reverse=True, bidirectional=True)), "(RNN): reverse is True, but a bidirec"),
        (ours(*rnn(bidirectional=True)), "objects['rnn'] (RNN): lacks weight_ih_l0_reverse, wei"),
        (ours(*lstm(proj_size=2)), "weight_hh_l0 has shape (12, 1), expected (12, 2)"),
        (ours(*lstm(proj_size=0)), "objects['lstm'] (LSTM): has unexpected weight_hr_l0; "
         "weight_hh_l0 has shape (12, 1), expected (12, 3)"),
        (ours(*lstm(proj_size=3)), "(LSTM): proj_size is 3, expected less than hidden_size = 3"),
        (ours(*lstm(peephole=False)), "(LSTM): has unexpected weight_peephole_l0"),
        (ours(*lstm(forget_bias=1)), "(LSTM): forget_bias is 1, expected 1.0"),
        (ours(*lstm(bias=False)), "(LSTM): has unexpected bias_ih_l0, bias_hh_l0"),
        (ours(rnn()[0], {"rnn.x": ONE, "rnn.y": ONE, "rnn.weight_hh_l0": np.zeros((3, 4), "f4"),
                         "rnn.bias_hh_l0": np.zeros((3, 1), "f4")}),
         "(RNN): lacks weight_ih_l0, bias_ih_l0; has unexpected x, y; "
         "weight_hh_l0 has shape (3, 4), expected (3, 3); "
         "bias_hh_l0 has shape (3, 1), expected (3,)"),
        (ours({"a": {"kind": "Linear", "arguments": {
            "in_features": 1, "out_features": 2**40, "bias": False}}},
            {"a.weight": np.zeros((2**41, 0), "f4")}), "no weight has so many rows or columns"),
    ],
)  # fmt: skip
def test_malformed_descriptions(path, data, text):
    found = refusal(path, data)
    assert text in found, found


def test_many_layers_make_no_long_list(path):
    """The size of a weight bounds no number of layers: each of them would take some names."""
    layers = 1_000_000
    described, arrays = rnn(num_layers=layers)
    arrays["rnn.weight_ih_l0"] = np.zeros((1, layers), np.float32)
    path.write_bytes(ours(described, arrays))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="num_layers is 1000000, but there are 4 weights"):
            fastrnn.load(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size
    finally:
        tracemalloc.stop()


WRONG = [None, True, False, 0, 1, -1, 2**62, 10**400, -(10**400), 0.0, -0.5, 2.0, 1e300, "", "0.5",
         "tanh\n", [], [0], {}, {"a": 1}, nested(400)]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("RNN", name) for name in (*fastrnn.RNN(2, 3)._arguments(), "reverse")),
        *(("LSTM", name) for name in ("num_layers", "proj_size", "peephole", "forget_bias")),
        ("GRU", "reset_after"),
    ],
)
@pytest.mark.parametrize("value", WRONG, ids=lambda v: repr(v)[:12])
def test_arguments_of_wrong_types(path, kind, name, value):
    layer = getattr(fastrnn, kind)(2, 3)
    arguments = layer._arguments()
    right = getattr(layer, name)
    described = {"layer": {"kind": kind, "arguments": arguments | {name: value}}}
    data = ours(described, {f"layer.{weight}": a for weight, a in layer.weights.items()})
    if type(value) is not type(right) or value != right:
        # What changes no weight's shape is right with every value of its type.
        legal = type(value) is type(right) and name in ("batch_first", "forget_bias", "reset_after")
        if not legal:
            assert f"objects['layer'] ({kind}): " in refusal(path, data)
            return
    path.write_bytes(data)
    loaded = fastrnn.load(path)["layer"]
    assert getattr(loaded, name) is value or getattr(loaded, name) == value


def test_memory_is_bounded_by_the_file(path):
    claims = [
        built({"a": entry("F64", (2**50,), (0, 2**53))}, bytes(100)),
        built({"a": entry("I8", (2**40,), (0, 2**40))}, bytes(100)),
        built({}, length=99_999_999),
        built({}, length=2**40),
        ours(*rnn(hidden_size=2**40)),
        ours(*rnn(num_layers=2**40)),
    ]
    tracemalloc.start()
    try:
        for data in claims:
            tracemalloc.reset_peak()
            refusal(path, data)
            assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


class Status:
    """A file's status from before it changed its size."""

    def __init__(self, status, more):
        self.st_mode, self.st_size = status.st_mode, status.st_size + more


@pytest.mark.parametrize(
    ("cut", "text"),
    [
        (1, "the file ends inside tensor 'b'"),
        (4, "the file ends inside tensor 'a'"),
        (5, "the header has 121 bytes, but the file ends before"),
    ],
)
def test_a_file_that_changes_while_it_is_read(path, monkeypatch, cut, text):
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: Status(fstat(fd), cut))
    assert text in refusal(path, GOOD[:-cut])


def test_what_is_no_file(path):
    for call in (fastrnn.load, lambda p: fastrnn.save(p, {})):
        with pytest.raises(IsADirectoryError):
            call(path.parent)
    with pytest.raises(FileNotFoundError):
        fastrnn.load(path)
    os.mkfifo(path)
    for name in (path, Path("/dev/null")):
        for call in (fastrnn.load, lambda p: fastrnn.save(p, {})):
            with pytest.raises(ValueError, match=f"^{name}: not a regular file"):
                call(name)
    assert stat.S_ISFIFO(path.stat().st_mode)
    for name, error in (
        (path.parent / "no" / "file", FileNotFoundError),
        (f"{path.parent}/new/", FileNotFoundError),
        (f"{path.parent}/new/.", FileNotFoundError),
        (f"{path.parent}/new/..", FileNotFoundError),
        (f"{path}/", NotADirectoryError),
        ("", FileNotFoundError),
        (path.parent / ("x" * 256), OSError),
    ):
        with pytest.raises(error) as caught:
            fastrnn.save(name, {})
        assert caught.value.filename == os.fspath(name)
        with pytest.raises(error):
            fastrnn.load(name)
    with pytest.raises(ValueError, match="null"):
        fastrnn.load("a\0b")
    with pytest.raises(ValueError, match="null"):
        fastrnn.save("a\0b", {})
    assert os.listdir(path.parent) == [path.name]


# ------------------------------------------------------------------------------ narrow floats


def test_narrow_floats_of_another_writer(path):
    """BF16, which NumPy lacks, is the upper half of a float32; F16 is read as it is."""
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x8000, 0x7F80, 0xFF80], "<u2")
    halves = np.array([1.5, -2.0, 6e-8], "<f2")
    header = {"b": entry("BF16", (2, 3), (0, 12)), "h": entry("F16", (3,), (12, 18))}
    path.write_bytes(built(header, bits.tobytes() + halves.tobytes()))
    loaded = fastrnn.load(path)
    want = [[1.0, -3.140625, 2.0**-133], [-0.0, np.inf, -np.inf]]
    assert loaded["b"].dtype == np.float32
    assert np.array_equal(loaded["b"].view(np.uint32), np.array(want, np.float32).view(np.uint32))
    assert_fresh(loaded["b"])
    assert loaded["h"].dtype == np.float16
    assert np.array_equal(loaded["h"], halves)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_layers_of_narrow_weights_are_widened(path, dtype):
    """A file of ours that somebody's tool has made smaller."""
    layer = fastrnn.GRU(3, 4, rng=0)
    layer.flat_weights[...] = np.round(layer.flat_weights * 64) / 64  # exact in both types
    fastrnn.save(path, {"gru": layer})
    metadata, entries, _ = parts(path.read_bytes())
    data, header = b"", {"__metadata__": metadata}
    for name in entries:
        a = layer.weights[name.removeprefix("gru.")]
        upper = (a.view(np.uint32) >> 16).astype("<u2")
        piece = upper.tobytes() if dtype == "BF16" else a.astype("<f2").tobytes()
        header[name] = entry(dtype, a.shape, (len(data), len(data) + len(piece)))
        data += piece
    path.write_bytes(built(header, data))
    loaded = fastrnn.load(path)["gru"]
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded.flat_weights, layer.flat_weights)


def test_narrow_weights_of_another_writer_go_into_a_layer(path):
    layer = fastrnn.RNN(3, 4, rng=0)
    layer.flat_weights[...] = np.round(layer.flat_weights * 64) / 64
    safetensors = pytest.importorskip("safetensors.torch")
    torch = pytest.importorskip("torch")
    for dtype in (torch.bfloat16, torch.float16):
        state = {n: torch.from_numpy(a).to(dtype) for n, a in layer.state_dict().items()}
        safetensors.save_file(state, path)
        other = fastrnn.RNN(3, 4, rng=1)
        other.load_state_dict(fastrnn.load(path))
        assert np.array_equal(other.flat_weights, layer.flat_weights)


# ------------------------------------------------------------------------------ other formats


def archive(name):
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as written:
            written.writestr(name, "content")
        return file.getvalue()


def onnx_model():
    return b"\x08\x08\x12\x05maker" + bytes(8)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (pickle.dumps({"w": np.ones(3)}), "a pickle, which may run any code when it is read"),
        (pickle.dumps([1, 2, 3, 4], 2), "a pickle"),
        (archive("model/data.pkl"), "a PyTorch file (.pt), if it has a state_dict"),
        (archive("a.npy"), "an archive of NumPy arrays (.npz)"),
        (archive("metadata.json"), "a Keras file (.keras)"),
        (archive("anything"), "a zip archive"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "a NumPy array (.npy)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(16), "an HDF5 file (.h5)"),
        (onnx_model(), "an ONNX model"),
        (gzip.compress(b"anything at all"), "compressed by gzip"),
        (b"GGUF\x03" + bytes(16), "a GGUF file"),
        (b'{"weights": [[1.0, 2.0], [3.0, 4.0]]}', "JSON"),
        (b"1.0, 2.0, 3.0\n4.0, 5.0, 6.0\n", "text"),
        (b"<!DOCTYPE html><html></html>", "a web page, as a download that failed leaves it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS"),
    ],
    ids=lambda v: v[:12] if isinstance(v, str) else "",
)
def test_other_formats_are_recognised(path, data, text):
    assert f"this seems to be {text}" in refusal(path, data)
    assert "not a safetensors file" in refusal(path, data)


def test_a_damaged_file_is_not_taken_for_another_format(path):
    # The length of a header may begin as other files do: 80 02 is a pickle's.
    for length in (0x0280, 0x0308, 0x8B1F, 0x1208):
        header = '{"a": 1}'.ljust(length)
        text = refusal(path, built(header, length=length))
        assert text == "tensor 'a' is 1, expected an object"


def test_what_a_conversion_writes_replaces_nothing(path, tmp_path):
    path.write_bytes(built(BOTH, b"1234"))
    np.savez(tmp_path / "file.npz", a=np.ones(3))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"\(\.npz\)") as caught:
        fastrnn.load(tmp_path / "file.npz")
    exec(str(caught.value).partition(": write ")[2], {"np": np, "fastrnn": fastrnn})
    assert path.read_bytes() == before
    assert fastrnn.load(tmp_path / "file1.safetensors")["arrays"]["a"].tolist() == [1, 1, 1]
