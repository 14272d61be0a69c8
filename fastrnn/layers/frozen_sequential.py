"""A model that does not change: its layers frozen, its weights in one array that is read-only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from .dropout import Dropout
from .frozen import Frozen, check_call, frozen_of, plain_kind, snapshot

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class FrozenSequential(Frozen):
    """A model that does not change, with packed weights: made by ``model.freeze()``.

    It is called like the model and returns its bits. Nothing of it changes, so any number of
    threads may share it, and copies are the object itself. A pickle holds the plain weights.

    Parameters
    ----------
    layer : Sequential
    precision : str, optional
        As for the model's `freeze`.

    Attributes
    ----------
    layers : mapping of str to Frozen
        The frozen layers by their names, without those that only drop: ``layers["rnn"].stream()``
        is a stream. They share the model's weights, and keep them all.
    precision : str
        "float32" or "float64".
    nbytes : int
        The bytes of its weights, plain and packed; a tied weight counts once.
    dtype : numpy.dtype

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layers = {"rnn": fastrnn.GRU(3, 4, rng=0), "out": fastrnn.Linear(4, 2, rng=1)}
    >>> model = fastrnn.Sequential(layers)
    >>> frozen, x = model.freeze(), np.ones((5, 2, 3), np.float32)
    >>> output, state = frozen(x, lengths=[5, 3], last=True)
    >>> bool((output == model(x, lengths=[5, 3], last=True)[0]).all())
    True
    """

    _freezes: ClassVar[str] = "a Sequential"
    _parts: dict[str, Frozen]

    def _hold(self, layer: Any, precision: str) -> None:
        parts = {}
        for name, _, kind, *_ in layer._stages:
            if kind is not Dropout:
                parts[name] = frozen_of(layer.layers[name], precision)
        self._parts = parts
        super()._hold(layer, precision)

    @staticmethod
    def _snapshot(layer: Any) -> Any:
        check_call(layer, kind := plain_kind(layer))
        copies: dict[str, Any] = {}
        for name, own in layer.layers.items():
            if isinstance(own, Dropout):
                copies[name] = Dropout(**own._arguments())
            else:  # what is tied is so to the first layer
                first = next(iter(copies.values()), None)
                copies[name] = snapshot(own, first)
        return kind(copies)

    @property
    def layers(self) -> Mapping[str, Any]:
        """The frozen layers by their names."""
        return MappingProxyType(self._parts)

    @property
    def nbytes(self) -> int:
        """The bytes of its weights, plain and packed; a tied weight counts once."""
        packed = (one for part in self._parts.values() for one in part._packed)
        return super().nbytes + sum(int(one.nbytes) for one in packed)

    def __call__(
        self,
        x: ArrayLike,
        state: Mapping[str, Any] | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        restart: ArrayLike | None = None,
        last: bool = False,
    ) -> tuple[Array, dict[str, Any]]:
        """Run the model as it was when it was frozen.

        Parameters
        ----------
        x, state, lengths, mask, restart, last
            As for a call of the model.

        Returns
        -------
        output, state
            As from a call of the model, with its bits.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the error names it.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> frozen = fastrnn.Sequential({"rnn": fastrnn.GRU(3, 4, rng=0)}).freeze()
        >>> output, state = frozen(np.ones((5, 2, 3), np.float32))
        >>> output.shape, state["rnn"].shape
        ((5, 2, 4), (1, 2, 4))
        """
        made: tuple[Array, dict[str, Any]] = self._layer._infer(
            self._parts, x, state, lengths, mask, restart, last
        )
        return made

    def count_parameters(self) -> int:
        """Return how many weights the model has.

        Returns
        -------
        int
            What is tied counts once.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.Sequential({"rnn": fastrnn.RNN(3, 4)}).freeze().count_parameters()
        36
        """
        return int(self._layer.count_parameters())

    def __repr__(self) -> str:
        return f"frozen {self._layer!r}"

    if not TYPE_CHECKING:  # as in Sequential

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_") and name in self._parts:
                text = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(f"{text}: it is frozen.layers[{name!r}]", name=name, obj=self)
            return super().__getattr__(name)

        def __getitem__(self, name: Any) -> Any:
            raise TypeError(f"a frozen Sequential has no items: write frozen.layers[{name!r}]")


class FreezableModel:
    """Mixed into a model: what it makes for inference."""

    _frozen_kind: ClassVar[type[Frozen]] = FrozenSequential

    def freeze(self, precision: str | None = None) -> FrozenSequential:
        """Make a frozen model: this one as it is now, for inference, with weights packed once.

        Parameters
        ----------
        precision : {"float32", "float64"}, optional
            Of the packed weights: the model's own dtype, which None stands for.

        Returns
        -------
        FrozenSequential
            Called like the model, with its bits: ``output, state = frozen(x, state)``. It never
            changes, and threads may share it. Its ``layers`` are frozen, without `Dropout`.

        Raises
        ------
        TypeError, ValueError
            If the precision is another one, or a class is called in a way of its own.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> model = fastrnn.Sequential({"rnn": fastrnn.GRU(3, 4, rng=0)})
        >>> frozen, x = model.freeze(), np.ones((5, 2, 3), np.float32)
        >>> bool((frozen(x)[0] == model(x)[0]).all())
        True
        """
        return FrozenSequential(self, precision)  # type: ignore[arg-type]
