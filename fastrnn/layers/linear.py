"""The output layer: `linear_forward`, `linear_backward` and the layer `Linear`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from .. import _checks, _core, _cures, _tapes, reference
from .._attributes import Checks
from .._memory import aligned_empty
from ..config import current_backend, current_threads
from ..reference.linear import (
    LinearGradients,
    LinearTape,
    linear_arguments,
    linear_backward_arguments,
    linear_tape,
)
from .embedding import Embedding
from .frozen_linear import FreezableLinear
from .weights import Weighted, Weights, copied_gradients, mismatches, same_weight

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from .._tapes import MaybeNone

    Array = NDArray[Any]


def linear_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    record: bool = True,
    check: bool = False,
) -> tuple[Array, LinearTape | MaybeNone]:
    """Apply an output layer to every position: y = W x + b.

    Parameters
    ----------
    x : ndarray
        (..., D), any leading axes; float32 or float64. Not copied where its rows can be walked.
    weight : ndarray
        (O, D).
    bias : ndarray or None, optional
        (O,). None: zeros.
    record : bool
        Whether to return a tape for `linear_backward`.
    check : bool
        Whether the tape should notice, when it is used, that x, weight, bias or output was
        changed.

    Returns
    -------
    output : ndarray
        (..., O).
    tape : LinearTape or None
        For `linear_backward`. It refers to x, weight and bias, which must not be changed before.

    Raises
    ------
    TypeError
        If an array is not an ndarray, or not of x's dtype, or that is not float32 or float64.
    ValueError
        If a shape does not fit.
    MemoryError
        If there is no memory for the result.

    See Also
    --------
    fastrnn.reference.linear_forward : the same in plain NumPy.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x = np.array([[1.0, 2.0]])
    >>> output, tape = fastrnn.linear_forward(x, np.array([[3.0, 4.0]]), np.array([0.5]))
    >>> output
    array([[11.5]])
    """
    if current_backend.get() == "reference":
        return reference.linear_forward(x, weight, bias, record=record, check=check)
    rows, weight, bias = linear_arguments(x, weight, bias)
    record, check = _checks.flag("record", record), _checks.flag("check", check)
    output = np.empty((len(rows), len(weight)), rows.dtype)
    if output.size:
        _core.linear_forward(rows, weight, bias, output, current_threads.get())
    tape = linear_tape(rows, weight, bias, x.shape, output, check) if record else None
    return output.reshape(*x.shape[:-1], len(weight)), tape


def linear_backward(
    tape: LinearTape, d_output: Array, *, wrt: Collection[str] | None = None
) -> LinearGradients:
    """Gradients of an output layer.

    Parameters
    ----------
    tape : LinearTape
        From `linear_forward`, of either backend. It is not changed.
    d_output : ndarray
        The loss's gradient with respect to output, of output's shape and dtype.
    wrt : collection of str, optional
        Which gradients to compute: names out of "x", "weight", "bias". None: all.

    Returns
    -------
    LinearGradients
        A named tuple (x, weight, bias), None where the argument was None or was left out. Those
        of weight and bias are sums over all positions.

    Raises
    ------
    TypeError, ValueError
        If the tape is not one of `linear_forward`, or an argument does not fit.
    RuntimeError
        If the tape was made with ``check=True`` and an array that it refers to has changed.
    MemoryError
        If there is no memory for the results.

    See Also
    --------
    fastrnn.reference.linear_backward : the same in plain NumPy, with the equations.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> x = np.array([[1.0, 2.0]])
    >>> output, tape = fastrnn.linear_forward(x, np.array([[3.0, 4.0]]))
    >>> fastrnn.linear_backward(tape, np.array([[10.0]])).weight
    array([[10., 20.]])
    """
    return _linear_backward(tape, d_output, wrt, {})


def _linear_backward(
    tape: Any, d_output: Any, wrt: Any, into: Mapping[str, Array]
) -> LinearGradients:
    """linear_backward; a gradient whose name is in `into` is written there."""
    if current_backend.get() == "reference":
        grads = reference.linear_backward(tape, d_output, wrt=wrt)
        for name, place in into.items():
            place[...] = getattr(grads, name)
        return grads._replace(**into)
    tape, d, wanted = linear_backward_arguments(tape, d_output, wrt)
    shapes = {"x": tape.shape, "weight": tape.weight.shape, "bias": d.shape[1:]}
    results: dict[str, Any] = {
        name: (into[name] if name in into else np.empty(shape, d.dtype)) if name in wanted else None
        for name, shape in shapes.items()
    }
    grads = LinearGradients(**results)
    # Positions without outputs have gradients, zeros; only where there is nothing is nothing done.
    if any(g is not None and g.size for g in grads):
        _core.linear_backward(
            tape.x, tape.weight, d, grads.x, grads.weight, grads.bias, current_threads.get()
        )
    return grads


@_tapes.changed_in_place
class LinearLayerGradients(NamedTuple):
    """What Linear.backward returns; None where `wrt` leaves it out.

    Attributes
    ----------
    x : ndarray or None
        Of x's shape and dtype.
    weights : mapping of str to ndarray
        Those that were asked for, by their names: views into `flat_weights`; but the weight of a
        tied layer is an array of its own, see `Linear.tied`.
    flat_weights : ndarray or None
        (n,), laid out like the layer's own; zero for weights that were not asked for. None where
        none was.
    """

    x: Array | MaybeNone
    weights: Weights
    flat_weights: Array | MaybeNone

    def __reduce__(self) -> Any:
        return copied_gradients(self)


class Linear(FreezableLinear, Weighted):
    """An output layer, y = W x + b, applied to every position.

    Parameters
    ----------
    in_features, out_features : int
        D and O.
    bias : bool
        Whether there is b.
    dtype : {"float32", "float64"}
        Of the weights, and of all arrays.
    rng : optional
        Anything that `numpy.random.default_rng` takes: a seed, a Generator, or None.

    Attributes
    ----------
    in_features, out_features : int
    bias : bool
        As given; fixed.
    tied_to : Embedding or None
        Of a layer that `tied` made, the embedding whose weight it has.
    dtype : numpy.dtype
        float32 or float64, of the weights and of all arrays; fixed.
    weights : mapping of str to ndarray
        The weights by their names, views into `flat_weights`. They are changed by writing their
        elements, ``layer.weights["bias"][...] = 0``.
    flat_weights : ndarray
        (n,): all n weights in one aligned array, as optimisers take it; changed in the same way.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    Weights are "weight" (O, D) and "bias" (O,), drawn uniformly from ±1/sqrt(D), as in PyTorch.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> head = fastrnn.Linear(4, 2, rng=0)
    >>> output, tape = head.forward(np.ones((5, 3, 4), np.float32))
    >>> output.shape
    (5, 3, 2)
    >>> grads = head.backward(tape, np.ones_like(output))
    >>> head.flat_weights[...] -= 0.1 * grads.flat_weights
    """

    _fixed: ClassVar[Checks] = {
        "in_features": _checks.size,
        "out_features": _checks.size,
        "bias": _checks.flag,
    }

    _needed = ("_tied",)

    in_features: int
    out_features: int
    bias: bool
    _tied: Embedding | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = "float32",
        rng: Any = None,
    ) -> None:
        with self._all_or_nothing():
            self._set_all({"_tied": None})
            self._draw(in_features, out_features, bias, _checks.float_dtype("dtype", dtype), rng)

    def _draw(
        self, in_features: Any, out_features: Any, bias: Any, dtype: np.dtype[Any], rng: Any
    ) -> None:
        self._configure(in_features=in_features, out_features=out_features, bias=bias)
        self._allocate(dtype)
        # Drawn in float64 and rounded, so that one seed means one network in both types.
        generator = _checks.generator("rng", rng)
        bound = 1 / math.sqrt(self.in_features)
        for view in self._weights.values():
            view[...] = generator.uniform(-bound, bound, view.shape)

    @classmethod
    def tied(cls, embedding: Embedding, bias: bool = True, *, rng: Any = None) -> Self:
        """Make an output layer whose weight is that of an embedding.

        Both are one array, (V, D): what changes one changes the other. The layer's own is the bias
        alone, and so is all that its `flat_weights` has: an optimiser of
        ``[words.flat_weights, head.flat_weights]`` has every weight once.

        Parameters
        ----------
        embedding : Embedding
            V is `out_features`, D is `in_features`.
        bias : bool
            Whether there is a bias, which is drawn as always.
        rng : optional
            Anything that `numpy.random.default_rng` takes: a seed, a Generator, or None.

        Returns
        -------
        Linear
            Copied, pickled or saved together with the embedding it stays tied; alone, a copy takes
            a copy of the embedding along (`tied_to`), and a file refuses.

        Raises
        ------
        TypeError
            If it is no embedding, or another argument is of the wrong type.

        Notes
        -----
        The weight's gradient has two parts, one that comes through the embedding and one through
        this layer, and **an optimiser needs their sum**. In a `Sequential` they are added. By hand
        it takes the line below: what backward of this layer returns has the second part in its
        ``weights["weight"]``, and not in its ``flat_weights``.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> words, rnn = fastrnn.Embedding(10, 4, rng=0), fastrnn.GRU(4, 4, rng=1)
        >>> head = fastrnn.Linear.tied(words, rng=2)
        >>> adam = fastrnn.optim.Adam([a.flat_weights for a in (words, rnn, head)])
        >>> x, x_tape = words.forward(np.array([[1, 2], [3, 1]]))
        >>> output, state, tape = rnn.forward(x)
        >>> y, y_tape = head.forward(output)
        >>> head_grads = head.backward(y_tape, np.ones_like(y))
        >>> rnn_grads = rnn.backward(tape, head_grads.x)
        >>> word_grads = words.backward(x_tape, rnn_grads.x)
        >>> word_grads.weights["weight"] += head_grads.weights["weight"]
        >>> adam.step([g.flat_weights for g in (word_grads, rnn_grads, head_grads)])
        """
        if not isinstance(embedding, Embedding):
            raise TypeError(f"embedding is {_cures.kind(embedding)}, expected a fastrnn.Embedding")
        head = cls.__new__(cls)
        with head._all_or_nothing():
            head._set_all({"_tied": embedding})
            head._draw(
                embedding.embedding_dim, embedding.num_embeddings, bias, embedding.dtype, rng
            )
        return head

    @classmethod
    def _restored_tied(
        cls, embedding: Embedding, arguments: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> Self:
        """As `_restored`, of a layer that is tied to that embedding."""
        sizes = {
            "in_features": embedding.embedding_dim, "out_features": embedding.num_embeddings,
        }  # fmt: skip
        rest = {name: value for name, value in arguments.items() if name not in sizes}
        if {**sizes, **rest} != arguments or list(rest) != ["bias"]:
            raise ValueError(f"the arguments are {dict(arguments)}, expected {sizes} and bias")
        head = cls.tied(embedding, rest["bias"], rng=0)
        if faults := mismatches(head._shapes(), arrays):
            raise ValueError("; ".join(faults))
        for name, view in head._weights.items():
            view[...] = _checks.array(name, arrays[name], head.dtype, "the embedding")
        return head

    @property
    def tied_to(self) -> Embedding | None:
        return self._tied

    @property
    def weights(self) -> Weights:
        if self._tied is None:
            return self._weights
        return Weights({"weight": self._tied._weights["weight"], **self._weights})

    def __repr__(self) -> str:
        if self._tied is None:
            return super().__repr__()
        return f"{type(self).__name__}.tied({self._tied!r}{'' if self.bias else ', bias=False'})"

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        if self._tied is None:
            shapes["weight"] = (self.out_features, self.in_features)
        if self.bias:
            shapes["bias"] = (self.out_features,)
        return shapes

    def __call__(self, x: Array) -> Array:
        """Return y = W x + b.

        Parameters
        ----------
        x : ndarray
            (..., D), any leading axes; the layer's dtype.

        Returns
        -------
        ndarray
            (..., O).

        Raises
        ------
        TypeError, ValueError
            If x is no array of the layer's dtype, or its last axis is not D.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> fastrnn.Linear(4, 2, rng=0)(np.ones((5, 3, 4), np.float32)).shape
        (5, 3, 2)
        """
        return self._run(x, False)[0]

    def forward(self, x: Array, *, check: bool = False) -> tuple[Array, LinearTape]:
        """Return y = W x + b, and a tape for `backward`.

        Parameters
        ----------
        x : ndarray
            (..., D), any leading axes; the layer's dtype.
        check : bool
            Whether the tape should notice, when it is used, that x, a weight or y was changed:
            `backward` then raises RuntimeError.

        Returns
        -------
        output : ndarray
            (..., O).
        tape : LinearTape
            It refers to x and the weights, which must not be changed before backward. It may be
            used more than once, and from several threads.

        Raises
        ------
        TypeError, ValueError
            If x is no array of the layer's dtype, or its last axis is not D.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> head = fastrnn.Linear(4, 2, rng=0)
        >>> output, tape = head.forward(np.ones((5, 3, 4), np.float32), check=True)
        >>> output.shape
        (5, 3, 2)
        """
        output, tape = self._run(x, True, check)
        assert tape is not None
        return output, tape

    def _run(self, x: Any, record: bool, check: bool = False) -> tuple[Array, LinearTape | None]:
        x = self._checked_x(x)
        weight, bias = self.weights["weight"], self._weights.get("bias")
        return linear_forward(x, weight, bias, record=record, check=check)

    def _checked_x(self, value: Any) -> Array:
        x: Array = _checks.array("x", value, self.dtype, "the layer")
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            expected = f"(..., in_features) = (..., {self.in_features})"
            cure = ": pass x[..., None] if it has no axis of features" * (self.in_features == 1)
            raise ValueError(f"x has shape {x.shape}, expected {expected}{cure}")
        return x

    def backward(
        self, tape: LinearTape, d_output: Array, *, wrt: Collection[str] | None = None
    ) -> LinearLayerGradients:
        """Gradients of x and the weights.

        Parameters
        ----------
        tape : LinearTape
            From this layer's `forward`. It is not changed.
        d_output : ndarray
            The loss's gradient with respect to output, of its shape and dtype.
        wrt : collection of str, optional
            Which gradients to compute: "x", names of weights, or "weights" for all of them. What
            is left out costs nothing. None: all.

        Returns
        -------
        LinearLayerGradients
            ``.x``, ``.weights`` (a mapping) and ``.flat_weights``, laid out as the layer's.

        Raises
        ------
        TypeError, ValueError
            If the tape is another layer's, or an argument does not fit.
        RuntimeError
            If forward had ``check=True`` and x, a weight or the result has changed since.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> head = fastrnn.Linear(4, 2, rng=0)
        >>> output, tape = head.forward(np.ones((5, 3, 4), np.float32))
        >>> grads = head.backward(tape, np.ones_like(output), wrt=["x", "bias"])
        >>> grads.x.shape, grads.weights["bias"]
        ((5, 3, 4), array([15., 15.], dtype=float32))
        """
        return self._backward(tape, d_output, wrt)

    def _backward(
        self, tape: Any, d_output: Any, wrt: Any, flat: Array | None = None
    ) -> LinearLayerGradients:
        """backward; the gradients of the weights are written to `flat` where that is given."""
        _checks.tape(tape, LinearTape, "Linear.forward")
        weights = self.weights
        for name, own in (("weight", weights["weight"]), ("bias", weights.get("bias"))):
            same_weight(name, getattr(tape, name), own)
        wanted = _checks.names("wrt", wrt, ("x", "weights", *weights))
        flat, views = self._weight_gradients(wanted, flat)
        if self._tied is not None and wanted & {"weight", "weights"}:
            views = Weights({"weight": np.empty_like(weights["weight"]), **views})
            if not self._weights:  # there is nothing of its own, but that was asked for
                flat = aligned_empty(0, self.dtype)
        grads = _linear_backward(tape, d_output, {*views, *(wanted & {"x"})}, views)
        return LinearLayerGradients(grads.x, views, flat)
