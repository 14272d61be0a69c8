"""Labels and their weights, of classifiers and taggers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from .. import _checks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def listed(given: Any, name: str, expected: str) -> Any:
    """An array of what is one, a list of anything else that has an order."""
    if hasattr(given, "__array__"):
        return np.asarray(given)
    if isinstance(given, str | bytes | Mapping | Set) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is {given!r:.80}, expected {expected}")
    return list(given)


def array_of(given: Any, name: str = "y") -> Array:
    """An array of labels, (n,) where they are labels, of one kind and without gaps."""
    made: Array = listed(given, name, "labels")
    if not isinstance(made, np.ndarray):
        rows: list[Any] = made
        try:
            made = np.asarray(rows)
        except ValueError:
            made = np.empty(len(rows), object)
            made[:] = rows
        if made.dtype.kind == "U" and not all(isinstance(label, str) for label in rows):
            made = np.asarray(rows, object)  # of which NumPy has made strings
    if made.dtype.kind == "V":
        raise TypeError(f"{name} is of type {made.dtype}, expected strings or integers for labels")
    if made.dtype == object and made.ndim == 1:
        kinds = {type(label) for label in made}
        if kinds & {type(None), float}:  # of tables of strings, NaN is what is missing
            for place, label in enumerate(made):
                if label is None or (isinstance(label, float) and np.isnan(label)):
                    raise ValueError(
                        f"{name} holds {label}, at {place}, which is no label: leave it out"
                    )
        if any(issubclass(kind, list | tuple | np.ndarray) for kind in kinds):
            raise ValueError(
                f"{name} holds sequences, expected labels: a SequenceTagger takes one for each step"
            )
        if len(kinds) > 1 and any(issubclass(kind, str) for kind in kinds):
            names = _checks.listed(sorted(kind.__name__ for kind in kinds), "and")
            raise TypeError(f"{name} has labels of the types {names}, expected one type")
    if made.dtype.kind in "mM" and np.isnat(made).any():
        raise ValueError(f"{name} holds NaT, at {np.isnat(made).argmax()}, which is no label")
    if made.dtype.kind == "f" and not np.isfinite(made).all():
        what = "NaN" if np.isnan(made).any() else "infinity"
        raise ValueError(f"Input {name} contains {what}")
    if made.ndim == 1:
        check_classification_targets(made)
    return made


def check_same_kind(right: Array, classes: Array, name: str = "y") -> None:
    """TypeError where labels cannot be any of the classes."""
    strings = [a.dtype.kind in "US" or isinstance(a.flat[0], str) for a in (right, classes)]
    if strings[0] != strings[1]:
        kinds = ("numbers", "strings")
        raise TypeError(
            f"{name} has {kinds[strings[0]]} for labels, but those of fit were {kinds[strings[1]]}"
        )


def encoded(labels: Array, classes: Array | None) -> tuple[Array, Array]:
    """Indices of the labels, (n,), and the classes, which are those of an earlier fit if given."""
    found, target = np.unique(labels, return_inverse=True)
    if classes is None:
        return target, found
    check_same_kind(found, classes)
    if not np.isin(found, classes).all():
        new = found[~np.isin(found, classes)][0]
        raise ValueError(
            f"y has the label {new!r}, but warm_start=True goes on with those of the first fit: "
            "fit a clone on all of them"
        )
    return np.searchsorted(classes, labels), classes


def weights(
    target: Array, classes: Array, class_weight: Any, sample_weight: Array | None
) -> Array | None:
    """A weight for each label: that of its class times its own. None: all are one."""
    if class_weight is None:
        return sample_weight
    own = np.ones(len(target)) if sample_weight is None else sample_weight
    if isinstance(class_weight, Mapping):
        of_class = _of_classes(class_weight, classes)
    elif isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(target, own, len(classes))
        present = counts > 0
        of_class = np.ones(len(classes))
        of_class[present] = counts.sum() / (present.sum() * counts[present])
    else:
        raise ValueError(
            f'class_weight is {class_weight!r}, expected a dict of labels, "balanced" or None'
        )
    made: Array = of_class[target] * own
    if not made.any():
        raise ValueError(
            "class_weight and sample_weight are zero for all of y: nothing is left to learn from"
        )
    return made


def _of_classes(class_weight: Mapping[Any, Any], classes: Array) -> Array:
    made = np.ones(len(classes))
    index = {label: i for i, label in enumerate(classes.tolist())}
    foreign = [label for label in class_weight if label not in index]
    missing = [label for label in index if label not in class_weight]
    # Of a part of the data some classes may be missing; a typing error is one that is missed, too.
    if foreign and missing:
        raise ValueError(
            f"class_weight names {foreign[0]!r}, which is no label of y, and not {missing[0]!r}, "
            "which is one"
        )
    for label, weight in class_weight.items():
        value = _checks.bounded(f"class_weight[{label!r}]", weight)
        if label in index:
            made[index[label]] = value
    return made
