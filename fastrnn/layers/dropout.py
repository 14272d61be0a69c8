"""Dropout as a layer: element by element, or with one mask for all time steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from .. import _checks, _tapes
from .._attributes import Checks, Guarded
from ..reference.sequences import apply_dropout
from .tape import fitting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]


def _probability(name: str, value: Any) -> float:
    number = _checks.number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} is {value!r}, expected 0 <= {name} <= 1")
    return number


class _DropoutTapeFields(NamedTuple):
    dropped: Array | MaybeNone
    scale: float
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class DropoutTape(_tapes.Tape, _DropoutTapeFields):
    """What Dropout.forward keeps for its backward. Immutable.

    Attributes
    ----------
    dropped : ndarray or None
        What became zero, of bool, of x's shape (of axis 1 where one mask is for all time steps);
        None where dropout did not act.
    scale : float
        What the rest was multiplied by.
    shape : tuple of int
    dtype : numpy.dtype
        Those of x.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"DropoutTape({self.dtype} {self.shape}, scale={self.scale:g})"


@_tapes.changed_in_place
class DropoutGradients(NamedTuple):
    """What Dropout.backward returns.

    Attributes
    ----------
    x : ndarray
        Of x's shape and dtype.
    """

    x: Array


class Dropout(Guarded):
    """Makes elements zero at random while training, and leaves them alone in use.

    What is not zero is divided by 1 - p, so that the mean stays what it was [1]_.

    Parameters
    ----------
    p : float
        In [0, 1]: how likely an element is to become zero.
    variational : bool
        Whether each sequence has one mask for all of its time steps [2]_. What has two axes is one
        sequence, (T, D).
    batch_first : bool
        Of a variational one: whether x is (B, T, D) instead of (T, B, D).

    Attributes
    ----------
    p : float
    variational, batch_first : bool
        As given; they can be set, and what is set is checked.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    The numbers are drawn in float32 whatever x is, so that one seed drops the same in both types,
    and as in the dropout between the layers of a stack. It is NumPy on either backend.

    References
    ----------
    .. [1] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
       overfitting", JMLR 15 (2014), 1929-1958.
    .. [2] Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
       neural networks", NIPS 2016, 1019-1027.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> drop = fastrnn.Dropout(0.5, variational=True)
    >>> output, tape = drop.forward(np.ones((3, 1, 4), np.float32), rng=0)
    >>> output[:, 0]
    array([[2., 2., 2., 0.],
           [2., 2., 2., 0.],
           [2., 2., 2., 0.]], dtype=float32)
    """

    _settable: ClassVar[Checks] = {
        "p": _probability, "variational": _checks.flag, "batch_first": _checks.flag,
    }  # fmt: skip
    _model: Any = None  # a weak reference to the Sequential that the layer is in

    p: float
    variational: bool
    batch_first: bool

    def __init__(
        self, p: float = 0.5, *, variational: bool = False, batch_first: bool = False
    ) -> None:
        with self._all_or_nothing():
            self.p, self.variational, self.batch_first = p, variational, batch_first
            if self.batch_first and not self.variational:
                raise ValueError(
                    "batch_first is True, but only a variational Dropout knows of time: pass "
                    "batch_first=False"
                )

    def _arguments(self) -> dict[str, Any]:
        """What the constructor is told."""
        return {name: getattr(self, name) for name in self._settable}

    @classmethod
    def _restored(cls, arguments: Mapping[str, Any], arrays: Mapping[str, Array]) -> Dropout:
        """A layer of what `_arguments` gave, whoever says so; there are no weights."""
        if arguments.keys() != cls._settable.keys() or arrays:
            given = ", ".join((*arguments, *arrays))
            raise ValueError(f"it has {given}, expected {', '.join(cls._settable)}")
        return cls(**arguments)

    def __call__(self, x: Array) -> Array:
        """Return x itself: in use there is no dropout.

        Parameters
        ----------
        x : ndarray
            Of any shape; float32 or float64.

        Returns
        -------
        ndarray
            That very array.

        Raises
        ------
        TypeError, ValueError
            If x is no such array, or `variational` and x has no time axis.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> fastrnn.Dropout(0.5)(np.ones(3))
        array([1., 1., 1.])
        """
        return self._checked_x(x, self.variational)[0]

    def forward(
        self, x: Array, *, training: bool = True, rng: Any = None
    ) -> tuple[Array, DropoutTape]:
        """Drop elements of x, and return a tape for `backward`.

        Parameters
        ----------
        x : ndarray
            Of any shape; if `variational` (T, B, D), or (B, T, D) if `batch_first`, or (T, D).
            float32 or float64.
        training : bool
            Whether dropout acts. Where it does not, or p is 0, output is x itself.
        rng : optional
            The source of dropout, and needed where it acts: anything that
            `numpy.random.default_rng` takes but None, a seed or a Generator.

        Returns
        -------
        output : ndarray
            Of x's shape and dtype.
        tape : DropoutTape
            For `backward`.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> output, tape = fastrnn.Dropout(0.5).forward(np.ones(4), rng=0)
        >>> output
        array([2., 2., 2., 0.])
        """
        training = _checks.flag("training", training)
        if not (training and self.p):
            rng = None
        elif rng is None:
            raise ValueError(
                f"rng is None, but p is {self.p} and training is True: give it a "
                "numpy.random.Generator, one for all steps (a seed drops the same in each)"
            )
        else:
            rng = _checks.generator("rng", rng)
        return self._run(x, rng, self.variational)

    def _run(
        self, x: Any, rng: np.random.Generator | None, variational: bool
    ) -> tuple[Array, DropoutTape]:
        """forward; dropout acts where `rng` is not None."""
        x, time = self._checked_x(x, variational)
        scale = 1 / (1 - self.p) if self.p < 1 else 0.0
        if rng is None:
            return x, DropoutTape(None, 1.0, x.shape, x.dtype)
        shape = list(x.shape)
        if variational:
            shape[time] = 1
        # In float32 whatever the type: one seed then drops the same in both.
        dropped = rng.random(shape, np.float32) < self.p
        output = apply_dropout(x, np.broadcast_to(dropped, x.shape), scale)
        return output, DropoutTape(dropped, scale, x.shape, x.dtype)

    def _checked_x(self, x: Any, variational: bool) -> tuple[Array, int]:
        """x as an array, and which axis time is."""
        x = _checks.array("x", x)
        if not variational:
            return x, 0
        first, second = ("B", "T") if self.batch_first else ("T", "B")
        unbatched = _checks.sequence_axes(x, first, second)
        return x, int(self.batch_first and not unbatched)

    def backward(self, tape: DropoutTape, d_output: Array) -> DropoutGradients:
        """Gradient of x.

        Parameters
        ----------
        tape : DropoutTape
            From `forward`. It is not changed.
        d_output : ndarray
            The loss's gradient with respect to output, of its shape and dtype.

        Returns
        -------
        DropoutGradients
            A named tuple (x,): zero where output was made zero, else multiplied as x was.

        Raises
        ------
        TypeError, ValueError
            If the tape is none of `forward`, or d_output does not fit.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> drop = fastrnn.Dropout(0.5)
        >>> output, tape = drop.forward(np.ones(4), rng=0)
        >>> drop.backward(tape, np.ones(4)).x
        array([2., 2., 2., 0.])
        """
        _checks.tape(tape, DropoutTape, "Dropout.forward")
        axes = tuple(f"n{i}" for i in range(len(tape.shape)))
        d = fitting("d_output", d_output, tape.dtype, tape.shape, axes)
        if tape.dropped is None:
            return DropoutGradients(d.copy())
        return DropoutGradients(
            apply_dropout(d, np.broadcast_to(tape.dropped, tape.shape), tape.scale)
        )

    def __repr__(self) -> str:
        options = (name for name in ("variational", "batch_first") if getattr(self, name))
        return f"Dropout({', '.join([repr(self.p), *(f'{name}=True' for name in options)])})"

    def __getstate__(self) -> Any:
        return self._all_attributes(("_model",))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_all(state)
