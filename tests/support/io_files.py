"""Files for the tests of save and load, well-formed ones and others, and what is in them."""

import json
import os

import numpy as np

import fastrnn

CODES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
OLD = b"what was there before"


def assert_fresh(a):
    assert a.flags.carray, a.flags
    assert a.flags.writeable, a.flags
    assert a.dtype.isnative, a.dtype


def special(dtype, count=24):
    """NaNs with payloads, quiet and signalling, infinities, zeros and subnormals of both signs."""
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    bits = unsigned.itemsize * 8
    inf = int(np.array(np.inf, dtype).view(unsigned))
    values = [0, 1, 5, inf, inf | 1, inf | 5, inf | (inf >> 1), (1 << (bits - 1)) - 1]
    values += [v | 1 << (bits - 1) for v in values]
    return np.resize(np.array(values, unsigned), count).view(dtype)


def built(header, data=b"", length=None):
    """A file of a header (JSON, or what is to become it), the data, and the header's length."""
    if not isinstance(header, str | bytes):
        header = json.dumps(header)
    header = header.encode() if isinstance(header, str) else header
    length = len(header) if length is None else length
    return length.to_bytes(8, "little") + header + data


def entry(dtype="I8", shape=(2,), offsets=(0, 2)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def parts(data):
    """Metadata, entries by tensor name, and buffer of a well-formed file."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return header.pop("__metadata__", {}), header, data[start:]


def leftovers(path):
    return sorted(name for name in os.listdir(path.parent) if name != path.name)


def nested(depth, kind=list):
    value = 0
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def everything():
    layer = fastrnn.RNN(2, 3, rng=0)
    return {
        "rnn": layer,
        "a": np.arange(6, dtype="i2").reshape(2, 3),
        "flags": np.array([True, False, True]),
        "run": {"step": 7, "losses": np.array([0.5, 0.25]), "note": "ü", "mask": np.zeros(0, "?")},
        "optimizer": fastrnn.optim.Adam([layer.flat_weights]),
    }
