"""Files of Keras: read without Keras and h5py; what is damaged or hostile is refused."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastrnn.convert import from_keras
from fastrnn.convert.hdf5 import File
from fastrnn.convert.keras import contents

pytest.importorskip("torch")
os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")
L = keras.layers

# Keras's own, of its variables under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as .keras and as .weights.h5."""
    path: Path = tmp_path_factory.mktemp("keras")
    model = keras.Sequential(
        [
            L.Input((None, 3)),
            L.GRU(4, return_sequences=True, name="g"),
            L.Bidirectional(L.LSTM(5, return_sequences=True), name="b"),
            L.RNN([L.GRUCell(4), L.GRUCell(4)], return_sequences=True, name="r"),
            L.Dropout(0.5, name="o"),
            L.TimeDistributed(L.Dense(2), name="d"),
        ]
    )
    model.compile("adam", "mse")
    model.save(path / "m.keras")
    model.save_weights(path / "m.weights.h5")
    (path / "m.json").write_text(model.to_json())
    return path


@pytest.fixture(scope="module")
def members(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "m.keras") as archive:
        return {name: archive.read(name) for name in (METADATA, CONFIG, WEIGHTS)}


Write = Callable[..., Path]


@pytest.fixture
def write(members: dict[str, bytes], tmp_path: Path) -> Write:
    """Write the model with some of the archive's files changed; None leaves one out."""

    def written(changed: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "changed.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in (members | changed).items():
                if data is not None:
                    archive.writestr(name, data)
        return path

    return written


def refused(path: Path, text: str, **options: Any) -> None:
    for read in (from_keras, contents):
        with pytest.raises(ValueError) as caught:
            read(path, **options)
        assert str(path) in str(caught.value)
        assert text in str(caught.value), str(caught.value)


# ------------------------------------------------------------------------------ what is read

ALONE = """
import sys, importlib.abc
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("keras", "torch", "tensorflow", "jax", "h5py", "ml_dtypes"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import numpy as np
from fastrnn.convert import from_keras
layers = from_keras(sys.argv[1], batch_first=True)
x = np.load(sys.argv[2])
for name in "gbr":
    x, _ = layers[name](x)
np.save(sys.argv[3], layers["d"](x))
"""


def test_numpy_alone_reads_and_runs_a_file(folder: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    paths = [str(folder / "m.keras"), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *paths], check=True)
    want = keras.ops.convert_to_numpy(keras.models.load_model(paths[0], compile=False)(x))
    # Four layers of at most ten numbers, in six steps, with their roundings.
    np.testing.assert_allclose(np.load(paths[2]), want, rtol=0, atol=4 * 6 * 40 * 2.0**-24)


def test_compressed_archives_are_read(folder: Path, write: Write) -> None:
    want = from_keras(folder / "m.keras")
    for name, layer in from_keras(write({}, zipfile.ZIP_DEFLATED)).items():
        assert_array_equal(layer.flat_weights, want[name].flat_weights)


def test_weights_need_the_configuration_of_their_model(folder: Path, tmp_path: Path) -> None:
    path, config = folder / "m.weights.h5", (folder / "m.json").read_text()
    want = from_keras(folder / "m.keras")
    for given in (config, json.loads(config)):
        for name, layer in from_keras(path, config=given).items():
            assert_array_equal(layer.flat_weights, want[name].flat_weights)
    with pytest.raises(ValueError, match=r"holds weights and no .*: pass config=model.to_json\(\)"):
        from_keras(path)
    entries = {entry.name: entry for entry in contents(path)}
    assert entries["layers/gru"].weights["cell/vars/0"] == ("float32", (3, 12))
    assert "config=" in entries["layers/gru"].why
    refused(folder / "m.keras", "the file has its own: leave it out", config=config)
    for other, text in (
        ([gru(name="h")], "layers holds 'bidirectional', 'dropout', 'rnn', 'time_"),
        ([gru(5), *rest()], "g: kernel has shape (3, 12), expected (any, "),
        ([gru(name="h"), *rest()], "layers/gru is the layer 'g', but 'h' in the conf"),
        (
            [gru(use_bias=False), *rest()],
            "layers/gru/cell has 3 variables, expected",
        ),
        (
            [gru(), gru(name="x"), *rest()],
            "gru_1/cell has 0 var",
        ),
    ):
        model = keras.Sequential([L.Input((None, 3)), *other])
        with pytest.raises(ValueError) as caught:
            from_keras(path, config=model.to_json())
        assert text in str(caught.value), str(caught.value)


def gru(units: int = 4, name: str = "g", **options: Any) -> Any:
    return L.GRU(units, return_sequences=True, name=name, **options)


def rest() -> list[Any]:
    return [
        L.Bidirectional(L.LSTM(5, return_sequences=True), name="b"),
        L.RNN([L.GRUCell(4), L.GRUCell(4)], return_sequences=True, name="r"),
        L.Dropout(0.5, name="o"),
        L.TimeDistributed(L.Dense(2), name="d"),
    ]


def test_contents_of_a_file(folder: Path) -> None:
    found = contents(folder / "m.keras")
    assert [(e.name, e.kind, e.becomes, e.why) for e in found] == [
        ("g", "GRU", "GRU(3, 4)", ""),
        ("b", "Bidirectional", "LSTM(4, 5, bidirectional=True)", ""),
        ("r", "RNN", "GRU(10, 4, num_layers=2)", ""),
        ("o", "Dropout", "", "does nothing but in training"),
        ("d", "TimeDistributed", "Linear(4, 2)", ""),
    ]
    assert found[-1].weights == {
        "layer/vars/0": ("float32", (4, 2)), "layer/vars/1": ("float32", (2,))
    }  # fmt: skip


def test_what_h5py_writes_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"group/{i}/{dtype}": rng.integers(0, 99, shape).astype(dtype)
        for i in range(99)  # more than a leaf of a B-tree holds
        for dtype in ("<f4", "<f8", "<f2", ">f4", "<i8", ">u2", "u1", "i1")
        for shape in [((), (3,), (2, 3), (0, 3), (1, 2, 3))[i % 5]]
    }
    texts = {"a": "é" * 300, "b": np.bytes_(b"abc"), "c": b"xyz", "d": ""}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, a in arrays.items():
            file[name] = a
            file[name].attrs["own"] = name
        file["group"].attrs.update(texts)
    with open(tmp_path / "a.h5", "rb") as stream:
        root = File(stream).root
        group = root.child("group")
        assert group is not None
        assert [group.text(n) for n in "abcde"] == ["é" * 300, "abc", "xyz", "", None]
        assert sorted(group) == sorted(map(str, range(99)))
        for name, a in arrays.items():
            node = root
            for step in name.split("/"):
                child = node.child(step)
                assert child is not None
                node = child
            got = node.read()
            assert (node.shape, np.dtype(node.dtype)) == (a.shape, a.dtype.newbyteorder("="))
            assert_array_equal(got, a)
            assert node.text("own") == name


# ------------------------------------------------------------------------------ what is refused


def test_other_files_are_refused_with_what_to_do(
    folder: Path, tmp_path: Path, write: Write
) -> None:
    model = keras.Sequential([L.Input((None, 3)), L.GRU(4)])
    model.save(tmp_path / "old.h5")
    refused(tmp_path / "old.h5", f".save({str(tmp_path / 'old.keras')!r})")
    refused(tmp_path, "a folder, expected a file")
    (tmp_path / "text").write_text("{}")
    refused(tmp_path / "text", "neither a .keras nor a .weights.h5 file")
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", "neither a .keras nor a .weights.h5 file")
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    refused(tmp_path / "a.npz", "it has 0 files metadata.json, expected one: it is no .keras file")
    refused(write({METADATA: b'{"keras_version": "2.15.0"}'}), "is of Keras '2.15.0', expected 3")
    refused(write({METADATA: b"{}"}), "does not say which version of Keras")
    refused(write({WEIGHTS: None, "model.weights.npz": b""}), "an .npz file: load it in Keras and")
    with pytest.raises(FileNotFoundError):
        from_keras(tmp_path / "absent.keras")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")


def test_archives_that_are_damaged_or_bombs(
    folder: Path, members: dict[str, bytes], tmp_path: Path, write: Write
) -> None:
    refused(write({CONFIG: None}), "it has 0 files config.json")
    refused(write({CONFIG: b"{"}), "config.json is not valid JSON")
    refused(write({CONFIG: b"[" * 10**6}), "config.json is not valid JSON: maximum recursion")
    nested = b'{"config": ' + b"[" * 400 + b"]" * 400 + b"}"
    refused(write({CONFIG: nested}), "config.json is nested more than 300 deep")
    refused(write({CONFIG: b"3"}), "config.json is 3, expected an object")
    refused(write({CONFIG: b"{}"}), "is no configuration of a layer or model")
    refused(write({CONFIG: b'{"config": 1, "config": 2}'}), "the key 'config' comes twice")
    refused(write({METADATA: b'{"keras_version": Infinity}'}), "no finite number")
    refused(write({WEIGHTS: b"text"}), "this is no HDF5 file")
    zeros = bytes(1 << 26)
    refused(write({CONFIG: zeros}, zipfile.ZIP_DEFLATED), "config.json would have 67108864 bytes")
    refused(write({WEIGHTS: zeros}, zipfile.ZIP_DEFLATED), f"{WEIGHTS} would have 67108864 bytes")
    refused(write({}, zipfile.ZIP_LZMA), "compressed in a way that Keras does not use")
    with (
        pytest.warns(UserWarning, match="Duplicate"),
        zipfile.ZipFile(path := write({}), "a") as archive,
    ):
        archive.writestr(CONFIG, members[CONFIG])
    refused(path, "it has 2 files config.json")
    whole = (folder / "m.keras").read_bytes()
    for size in (9, 100, 5000, len(whole) - 30, len(whole) - 1):
        (tmp_path / "cut.keras").write_bytes(whole[:size])
        refused(tmp_path / "cut.keras", "")
    at = whole.index(b"\x89HDF") + 20000
    (tmp_path / "bit.keras").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused(tmp_path / "bit.keras", "Bad CRC-32")


def h5(change: Callable[[Any], Any], source: bytes, **options: Any) -> bytes:
    """An HDF5 file that h5py has changed."""
    stream = io.BytesIO(source)
    with h5py.File(stream, "r+", **options) as file:
        change(file)
    return stream.getvalue()


KERNEL = "layers/gru/cell/vars/0"


def replaced(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Change the kernel of the first layer."""

    def change(file: Any) -> None:
        del file[KERNEL]
        make(file)

    return change


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((3, 12), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 12))
    file.create_virtual_dataset(KERNEL, layout)


HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "soft link": (replaced(lambda f: f.__setitem__(KERNEL, h5py.SoftLink("/layers/gru"))),
                  f"{KERNEL} is a symbolic link"),
    "external link": (replaced(lambda f: f.__setitem__(KERNEL, h5py.ExternalLink("/etc/a", "x"))),
                      ""),
    "external storage": (replaced(lambda f: f.create_dataset(
        KERNEL, (3, 12), "f4", external=[("/etc/passwd", 0, 144)])), "it is damaged, or not all"),
    "virtual": (replaced(virtual), f"{KERNEL} is in chunks, compressed, or in another file"),
    "chunks": (replaced(lambda f: f.create_dataset(KERNEL, data=np.ones((3, 12), "f4"),
                                                   chunks=(3, 4))), "is in chunks"),
    "never written": (replaced(lambda f: f.create_dataset(KERNEL, (3, 1 << 40), "f4",
                                                          chunks=(1, 1 << 20))), "is in chunks"),
    "compressed": (replaced(lambda f: f.create_dataset(KERNEL, data=np.ones((3, 12), "f4"),
                                                       compression="gzip")), "compressed"),
    "too large": (replaced(lambda f: f.create_dataset(KERNEL, (0, 1 << 60), "f4")), "too large"),
    "declared": (replaced(lambda f: f.create_dataset(KERNEL, (3, 1 << 40), "f4")), "bytes"),
    "not written": (replaced(lambda f: f.create_dataset(KERNEL, (3, 12), "f4")), "beyond its end"),
    "compound": (replaced(lambda f: f.create_dataset(KERNEL, (3, 12), "f4,i4")), "a compound"),
    "texts": (replaced(lambda f: f.create_dataset(KERNEL, (3, 12), h5py.string_dtype())),
              "an array of texts"),
    "objects": (replaced(lambda f: f.create_dataset(KERNEL, (3,), h5py.vlen_dtype(np.float32))),
                "of a type that is not read"),
    "references": (replaced(lambda f: f.create_dataset(KERNEL, (3,), h5py.ref_dtype)),
                   "of a type that is not read"),
    "integers": (replaced(lambda f: f.create_dataset(KERNEL, data=np.ones((3, 12), int))),
                 "no array of floats"),
    "booleans": (replaced(lambda f: f.create_dataset(KERNEL, data=np.ones((3, 12), bool))),
                 "an enumeration"),
    "two types": (replaced(lambda f: f.create_dataset(KERNEL, data=np.ones((3, 12), "f8"))),
                  "variables of several types"),
    "a group": (replaced(lambda f: f.create_group(KERNEL)), "no array of floats"),
    "null": (replaced(lambda f: f.__setitem__(KERNEL, h5py.Empty("f4"))), "has no shape"),
    "missing": (replaced(lambda f: None), "layers/gru/cell has 2 variables, expected 3"),
    "surplus": (lambda f: f.__setitem__("layers/gru/cell/vars/3", 1.0), "4 variables, expected 3"),
    "shape": (replaced(lambda f: f.create_dataset(KERNEL, data=np.ones((12, 3), "f4"))),
              "g: kernel has shape (12, 3), expected (any, 12)"),
    "another layer": (lambda f: f.create_group("layers/gru_1"), "layers holds 'gru_1', which"),
    "another name": (lambda f: f["layers/gru/vars"].attrs.__setitem__("name", "h"),
                     "layers/gru is the layer 'h', but 'g' in the configuration"),
    "no name": (lambda f: f["layers/gru/vars"].attrs.__setitem__("name", 3), "not one text"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_weights(case: str, members: dict[str, bytes], write: Write) -> None:
    change, text = HOSTILE[case]
    path = write({WEIGHTS: h5(change, members[WEIGHTS])})
    with pytest.raises(ValueError) as caught:
        from_keras(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value), str(caught.value)
    with suppress(ValueError):
        assert contents(path)


def test_later_layouts_are_refused(members: dict[str, bytes], write: Write) -> None:
    stream = io.BytesIO()
    with (
        h5py.File(stream, "w", libver="latest") as new,
        h5py.File(io.BytesIO(members[WEIGHTS])) as old,
    ):
        for name in old:
            old.copy(name, new)
    refused(write({WEIGHTS: stream.getvalue()}), "an HDF5 file of a later layout")


def test_one_array_under_many_names_is_no_bomb(tmp_path: Path) -> None:
    """Hard links and headers cost little, what they stand for may be large: not many times over."""
    layers = [{"class_name": "Dense", "config": {"name": f"d{i}", "units": 250, "use_bias": False}}
              for i in range(2000)]  # fmt: skip
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((1000, 250), np.float32)
        for i in range(1, 2000):
            file[f"layers/dense_{i}"] = file["layers/dense"]
    with pytest.raises(ValueError, match="it would have to be read more than 4 times over"):
        from_keras(tmp_path / "m.weights.h5", config=config)
    loop = tmp_path / "loop.weights.h5"
    with h5py.File(loop, "w") as file:
        group = file.create_group("layers/dense")
        for i in range(50):
            group[f"{i}"] = group
    assert contents(loop)[0].weights == {}
    with h5py.File(loop, "w") as file:
        group = file.create_group("layers")
        for i in range(5000):
            group[f"{i}"] = group
    with pytest.raises(ValueError, match="it would have to be read more than 4 times over"):
        contents(loop)


# ------------------------------------------------------------------------------ mutations


def mutated(r: random.Random, data: bytes) -> bytes:
    b, n = bytearray(data), len(data)
    for _ in range(r.choice((1, 2, 8))):
        i, way = r.randrange(len(b)), r.randrange(5)
        if way == 0:
            b[i] ^= 1 << r.randrange(8)
        elif way == 1:
            b[i : i + 8] = r.choice((b"\xff" * 8, bytes(8), r.randrange(n).to_bytes(8, "little")))
        elif way == 2:
            j = r.randrange(n)
            b[i : i + 40] = b[j : j + 40]
        elif way == 3:
            b[i] = r.randrange(256)
        elif r.random() < 0.1:
            del b[i + 1 :]
    return bytes(b)


VALUES = (None, True, 0, -1, 2**70, 1e999, "", "x", "/", "\ud800", "a" * 3000, [], {}, [[]], "tanh",
          {"class_name": "GRU"}, {"class_name": "GRU", "config": {}}, "Lambda", "Sequential", "RNN",
          "StackedRNNCells", "Bidirectional", "LSTM", 4)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where there are values inside a JSON value: what holds them, and the key."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from places(value[key])


def rearranged(r: random.Random, text: bytes) -> bytes:
    config = json.loads(text)
    for _ in range(r.choice((1, 2, 5))):
        found = list(places(config))
        holder, key = r.choice(found)
        other, its = r.choice(found)
        way = r.randrange(4)
        if way == 0:
            holder[key] = deepcopy(r.choice(VALUES))
        elif way == 1:
            holder[key] = deepcopy(other[its])
        elif way == 2:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, deepcopy(holder[-1]))
    return json.dumps(config).encode()


def test_mutations_raise_nothing_else(
    folder: Path, members: dict[str, bytes], tmp_path: Path, write: Write
) -> None:
    whole, path = (folder / "m.keras").read_bytes(), tmp_path / "mutated.keras"
    read = refusals = 0
    for seed in range(400):
        r = random.Random(seed)
        if seed % 3 == 0:
            path.write_bytes(mutated(r, whole))
        elif seed % 3 == 1:
            path = write({WEIGHTS: mutated(r, members[WEIGHTS])})
        else:
            path = write({CONFIG: rearranged(r, members[CONFIG])})
        for act in (from_keras, contents):
            said = ""
            try:
                act(path)
            except (ValueError, OSError) as error:
                said = str(error)
            read += not said
            refusals += bool(said)
            assert not said or said.startswith(str(path)), seed
    assert read > 100  # what is changed may be of no importance
    assert refusals > 100
