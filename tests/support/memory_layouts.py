"""The same array in every layout in memory, for tests of functions that take any."""

import numpy as np


def strided(a):
    every_other = (slice(None, None, 2),) * a.ndim
    wide = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    wide[every_other] = a
    return wide[every_other]


def row_strided(a):
    """Gaps between rows, none inside them: what the kernel walks without a copy."""
    wide = np.full((*a.shape[:-1], a.shape[-1] + 3), np.nan, a.dtype)
    wide[..., : a.shape[-1]] = a
    return wide[..., : a.shape[-1]]


def negative(a):
    return a[::-1].copy()[::-1]


def negative_everywhere(a):
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip]


def fortran(a):
    return np.asfortranarray(a)


def axes_swapped(a):
    return a.swapaxes(0, 1).copy().swapaxes(0, 1) if a.ndim == 3 else fortran(a)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    b = raw[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


def fraction_of_an_element(a):
    """A field of records whose size is no multiple of the element's."""
    records = np.zeros(a.shape[:-1], [("pad", "u1"), ("row", a.dtype, a.shape[-1:])])
    records["row"] = a
    return records["row"]


def swapped(a):
    return a.astype(a.dtype.newbyteorder("S"))


def subclass(a):
    return a.view(type("Subclass", (np.ndarray,), {}))


LAYOUTS = [
    strided, row_strided, negative, negative_everywhere, fortran, axes_swapped, read_only,
    unaligned, fraction_of_an_element, swapped, subclass,
]  # fmt: skip
