"""The process's settings: threads, instruction set, and what this build is made of."""

from __future__ import annotations

import os
import platform
import re
import warnings
from typing import Any, Literal, overload

import numpy as np

from . import _checks, _core
from ._version import __version__
from .config import MAX_THREADS, current_backend, current_threads


def read_environment(stacklevel: int) -> None:
    """Take over what the environment says; what makes no sense is told and ignored."""

    def tell(name: str, expected: str, used: str) -> None:
        text = f"{name}={os.environ[name]!r} is ignored: expected {expected}; {used}"
        warnings.warn(text, RuntimeWarning, stacklevel + 2)

    threads = os.environ.get("FASTRNN_NUM_THREADS", "").strip()
    # No more digits than are needed to tell: int() refuses thousands of them.
    digits = threads.lstrip("0")[:11] if re.fullmatch("[0-9]+", threads) else ""
    if digits and int(digits) <= MAX_THREADS:
        _core.set_num_threads(int(digits))
    elif threads:
        number = _core.get_num_threads()
        tell("FASTRNN_NUM_THREADS", f"an integer from 1 to {MAX_THREADS}", f"it is {number}")
    isa = os.environ.get("FASTRNN_ISA")
    if isa and isa != get_isa():
        tell("FASTRNN_ISA", " or ".join(map(repr, available_isas())), f"it is {get_isa()!r}")


def set_num_threads(n: int) -> None:
    """Set the largest number of threads that one call may use, for the whole process.

    Small calls use fewer: what it costs to call threads together is measured once, when a process
    first has work for them. So do calls while other programs, or other threads of this one, have
    the processors; more are tried again after a while. A call inside a parallel region, or while
    another call has the threads, runs on one. Results do not depend on it.

    Where nothing is set, neither here nor by ``FASTRNN_NUM_THREADS``, the number is that of the
    OpenMP runtime at each call: ``OMP_NUM_THREADS``, or what ``threadpoolctl`` set, else the
    processors that this process may use, but no more than the quota of its control group.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or is less than 1.

    Examples
    --------
    >>> import fastrnn
    >>> before = fastrnn.get_num_threads()
    >>> fastrnn.set_num_threads(2)
    >>> fastrnn.get_num_threads()
    2
    >>> fastrnn.set_num_threads(before)
    """
    _core.set_num_threads(min(_checks.size("n", n), MAX_THREADS))


def get_num_threads() -> int:
    """The largest number of threads that one call may use, here and now.

    Returns
    -------
    int

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.get_num_threads() >= 1
    True
    """
    return current_threads.get() or _core.get_num_threads()


def available_isas() -> tuple[str, ...]:
    """The instruction sets that this build has and this machine runs, best first.

    Returns
    -------
    tuple of str
        Out of "avx512", "avx2", "neon" and "generic".

    Examples
    --------
    >>> import fastrnn
    >>> "generic" in fastrnn.available_isas()
    True
    """
    return _core.available_isas()


def get_isa() -> str:
    """The instruction set in use.

    Returns
    -------
    str
        One of `available_isas()`.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.get_isa() in fastrnn.available_isas()
    True
    """
    return _core.get_isa()


def set_isa(name: str) -> None:
    """Choose the instruction set, for the whole process.

    The best one is the default; ``FASTRNN_ISA`` in the environment overrides it. All of them give
    the same bits but "generic", which rounds once more in each multiplication.

    Parameters
    ----------
    name : str
        One of `available_isas()`.

    Raises
    ------
    TypeError, ValueError
        If it is not one of these.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.set_isa(fastrnn.available_isas()[0])
    """
    _core.set_isa(_checks.choice("name", name, available_isas()))


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show what this build is made of and how it is set, as `numpy.show_config` does.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print it, or return it.

    Returns
    -------
    dict or None
        With ``mode="dicts"``: "fastrnn", "python", "numpy" (versions), "build" and "run".

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.show_config(mode="dicts")["fastrnn"] == fastrnn.__version__
    True
    """
    mode = _checks.choice("mode", mode, ("stdout", "dicts"))
    build = dict(_core.build_info())
    openmp = bool(build.pop("openmp"))
    config: dict[str, Any] = {
        "fastrnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "build": {"openmp": openmp, **build},
        "run": {
            "available_isas": available_isas(),
            "isa": get_isa(),
            "threads": get_num_threads(),
            "backend": current_backend.get(),
        },
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, item in value.items():
                print(f"  {inner}: {_shown(inner, item)}")
        else:
            print(f"{key}: {value}")
    return None


def _shown(key: str, value: Any) -> str:
    if key == "openmp":
        return "yes" if value else "no (serial build: one thread)"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
