"""Damaged files: each is refused in one line, or what it says is what is loaded."""

import json
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from io_files import CODES, assert_fresh, built, entry, everything, parts, special

import fastrnn


def check_loaded(data, loaded):
    """Compare what was loaded with the bytes of the file, by nothing but json and slices."""
    metadata, entries, buffer = parts(data)
    assert (
        b"".join(
            buffer[slice(*e["data_offsets"])]
            for e in sorted(entries.values(), key=lambda e: e["data_offsets"])
        )
        == buffer
    )

    def same(name, a):
        e = entries.pop(name)
        assert type(a) is np.ndarray
        assert_fresh(a)
        assert a.dtype == np.dtype(CODES[e["dtype"]])
        assert a.shape == tuple(e["shape"])
        assert a.astype(a.dtype.newbyteorder("<")).tobytes() == buffer[slice(*e["data_offsets"])]

    own = metadata.pop("fastrnn", None)
    assert loaded.metadata == metadata
    if own is None:
        assert list(loaded) == list(entries)
        for name, a in loaded.items():
            same(name, a)
    else:
        own = json.loads(own)
        assert own["version"] == 1
        assert list(loaded) == list(own["objects"])
        for name, described in own["objects"].items():
            if described["kind"] == "array":
                same(name, loaded[name])
            elif described["kind"] == "dict":
                assert type(loaded[name]) is dict
                assert list(loaded[name]) == list(described["items"])
                for key, item in described["items"].items():
                    if item == "tensor":
                        same(f"{name}.{key}", loaded[name][key])
                    else:
                        assert repr(loaded[name][key]) == repr(item["json"])
            else:
                same_layer(name, loaded, described, name, same)
    assert entries == {}


def same_layer(name, layers, described, at, same):
    layer = layers[name]
    assert type(layer) is getattr(fastrnn, described["kind"])
    if described["kind"] == "Sequential":
        assert list(layer.layers) == list(described["layers"])
        for inner, one in described["layers"].items():
            same_layer(inner, layer.layers, one, f"{at}.{inner}", same)
    else:
        assert repr(layer._arguments()) == repr(
            {key: described["arguments"][key] for key in layer._arguments()}
        )
        own = dict(getattr(layer, "weights", {}))
        if "tied" in described:
            assert layer.tied_to is layers[described["tied"]]
            assert np.shares_memory(own.pop("weight"), layer.tied_to.flat_weights)
        for weight, a in own.items():
            same(f"{at}.{weight}", a)
    if hasattr(layer, "flat_weights"):
        assert sum(w.size for w in layer._weights.values()) == layer.flat_weights.size


def saved(folder, name, objects, metadata=None):
    fastrnn.save(folder / name, objects, metadata)
    data = (folder / name).read_bytes()
    check_loaded(data, fastrnn.load(folder / name))
    return data


def a_model():
    words = fastrnn.Embedding(2, 1, rng=0)
    rnn, drop = fastrnn.RNN(1, 1, bias="single", rng=1), fastrnn.Dropout(0.5)
    layers = {"e": words, "rnn": rnn, "drop": drop, "h": fastrnn.Linear.tied(words, rng=2)}
    return fastrnn.Sequential(layers)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    scalars = {name: np.ones((), code) for name, code in CODES.items()}
    arrays = {name: np.arange(2).astype(code) for name, code in CODES.items()}
    foreign = {
        "a.weight": entry("F32", (2, 2), (0, 16)), "a.bias": entry("F32", (2,), (16, 24)),
        "x": entry("BOOL", (3,), (24, 27)), "none": entry("I8", (0, 4), (27, 27)),
    }  # fmt: skip
    words = fastrnn.Embedding(2, 2, 1, rng=0)
    data = [
        saved(folder, "rnn", {"rnn": fastrnn.RNN(1, 2, rng=0)}),
        saved(folder, "double", {"r": fastrnn.RNN(2, 1, bias=False, dtype="float64", rng=0)}),
        saved(
            folder, "head", {"h": fastrnn.Linear(2, 2), "e": fastrnn.Embedding(2, 2)}, {"k": "v"}
        ),
        saved(folder, "all", everything(), {"author": "me"}),
        saved(folder, "model", {"m": a_model()}),
        saved(folder, "tied", {"h": fastrnn.Linear.tied(words, rng=1), "e": words}),
        saved(folder, "scalars", scalars),
        saved(folder, "arrays", {"arrays": arrays}),
        saved(folder, "state", {"run": {"step": 3, "lr": 0.5, "list": [1, None, "x"]}}),
        saved(folder, "empty", {}),
        built(foreign, special("f4", 6).tobytes() + b"\0\1\0"),
        built({"__metadata__": {"format": "pt"}, "a": entry()}, b"12"),
    ]
    return data


NUMBERS = ["0", "1", "2", "3", "4", "7", "8", "16", "24", "64", "-1", "-0", "1.0", "1e3", "1e999",
           "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "true",
           "18446744073709551616", "1" * 400, "null", "[]", "{}", '"1"', "NaN"]  # fmt: skip
WORDS = [
    "F64", "F32", "F16", "I64", "I8", "U8", "BOOL", "BF16", "RNN", "Linear", "Embedding", "array",
    "dict", "tensor", "json", "kind", "arguments", "items", "version", "objects", "fastrnn",
    "__metadata__", "dtype", "shape", "data_offsets", "bias", "weight", "rnn", "tanh", "relu",
    "true", "false", "null", "a", "h", "e", "r", "run", "step", "in_features", "embedding_dim",
    "Sequential", "Dropout", "tied", "layers", "drop", "single", "padding_idx",
]  # fmt: skip
# Hypothesis prefers small integers; a place in a file may as well be anywhere.
POSITION = st.integers(0, 2**32 - 1).map(lambda n: n * 0x9E3779B1 % 2**32 >> 8)


@st.composite
def damage(draw):
    """A change of bytes: a function of them, and of another file."""
    kind = draw(st.sampled_from(
        ["flip", "flip_header", "truncate", "insert", "delete", "splice", "swap", "number",
         "number", "nudge", "nudge", "nudge", "word", "word", "length", "pad", "append"]
    ))  # fmt: skip
    i, j, n = draw(POSITION), draw(POSITION), draw(st.integers(1, 12))
    byte, small = draw(st.integers(1, 255)), draw(st.binary(min_size=1, max_size=8))
    number, word = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(WORDS))

    def change(data, other):
        length = int.from_bytes(data[:8], "little")
        head, tail = data[8 : 8 + length], data[8 + length :]
        size = len(data) or 1
        a, b = i % size, j % size
        if kind in ("flip", "flip_header"):
            a = a if kind == "flip" else i % (min(size, 8 + length) or 1)
            return data[:a] + bytes([data[a] ^ byte]) + data[a + 1 :] if data else data
        if kind == "truncate":
            return data[: size - n] if i % 3 else data[:a]
        if kind == "insert":
            return data[:a] + small + data[a:]
        if kind == "delete":
            return data[:a] + data[a + n :]
        if kind == "splice":
            return data[:a] + other[j % (len(other) or 1) :]
        if kind == "swap":
            a, b = sorted((a, b))
            return data[:a] + data[b : b + n] + data[a + n : b] + data[a : a + n] + data[b + n :]
        if kind == "append":
            return data + small
        if kind == "length":
            claim = (length + n - 6, i, 2**63, 10**8, 10**8 + 1, size - 8)[j % 6]
            return (claim % 2**64).to_bytes(8, "little") + data[8:]
        pattern = {"number": rb"-?\d+(?:\.\d+)?", "nudge": rb"\b\d+\b"}.get(kind, rb"[A-Za-z_]\w*")
        found = list(re.finditer(pattern, head))
        if kind == "pad" or not found:
            head += b" " * n
        else:
            match = found[i % len(found)]
            nudged = str(int(match[0]) + (j % 5) - 2) if kind == "nudge" else ""
            new = nudged or (number if kind == "number" else word)
            head = head[: match.start()] + new.encode() + head[match.end() :]
        return len(head).to_bytes(8, "little") + head + tail

    return change


OUTCOMES = {}


@settings(
    derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(which=POSITION, other=POSITION, changes=st.lists(damage(), min_size=1, max_size=3))
def test_damaged_files(tmp_path_factory, good_files, which, other, changes):
    data = good_files[which % len(good_files)]
    for change in changes:
        data = change(data, good_files[other % len(good_files)])
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    loaded, error = None, None
    tracemalloc.start()
    try:
        loaded = fastrnn.load(path)
    except ValueError as caught:
        error = caught
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6
    kind = "loaded"
    if error is None:
        check_loaded(data, loaded)
    else:
        assert type(error) is ValueError
        assert str(error).startswith(f"{path}: ")
        assert str(error).isprintable()
        kind = re.sub(r"'.*'|\d+", "", str(error).removeprefix(f"{path}: "))[:25]
    OUTCOMES[kind] = OUTCOMES.get(kind, 0) + 1


def test_damage_was_of_every_kind():
    """The test above reached well beyond the first checks."""
    if sum(OUTCOMES.values()) < 700:
        pytest.skip("counts what the test above found, which was not selected, or not all of it")
    assert OUTCOMES["loaded"] > 30  # Hypothesis draws by what modules there are, too
    assert len(OUTCOMES) > 25
