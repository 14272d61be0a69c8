"""What a thread or task chooses for itself: the backend, and how many threads its calls may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from . import _checks

BACKENDS = ("compiled", "reference")
MAX_THREADS = 2**31 - 1  # a C int; more than it holds means "as many as there are"

# Context variables, so that threads and tasks that choose do not affect each other.
current_backend: ContextVar[str] = ContextVar("fastrnn_backend", default="compiled")
current_threads: ContextVar[int] = ContextVar("fastrnn_threads", default=0)  # 0: the process's


def num_threads(n: int) -> AbstractContextManager[None]:
    """Context manager: at most `n` threads inside, the former number afterwards.

    It holds for the code inside the ``with`` in this thread or task only.

    Parameters
    ----------
    n : int
        At least 1.

    Examples
    --------
    >>> import fastrnn
    >>> with fastrnn.num_threads(1):
    ...     fastrnn.get_num_threads()
    1
    """
    # Checked here: an error should not wait for the `with`.
    return _holding(current_threads, min(_checks.size("n", n), MAX_THREADS))


@contextmanager
def _holding(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def backend(name: str) -> AbstractContextManager[None]:
    """Context manager: run the functions and layers of this package on another implementation.

    It holds for the code inside the ``with`` in this thread or task only.

    Parameters
    ----------
    name : {"compiled", "reference"}
        "reference" is the specification in plain NumPy, `fastrnn.reference`.

    Raises
    ------
    TypeError, ValueError
        If it is neither.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.RNN(3, 4, dtype="float64", rng=0)
    >>> x = np.ones((5, 2, 3))
    >>> with fastrnn.backend("reference"):
    ...     expected, state = layer(x)
    >>> output, state = layer(x)
    >>> np.allclose(output, expected)
    True
    """
    return _holding(current_backend, _checks.choice("name", name, BACKENDS))
