"""What the optimisers share: parameters, options of their groups, state, copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from .. import _checks, _core, _cures, _sharing
from .._memory import Memory, handed_over, owner, place_in, root, taken_over
from ..config import current_backend, current_threads
from ..reference.optim import RULES
from .groups import Group, Optioned, Params, grouped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._attributes import Checks
    from .._checks import Gradients

    Array = NDArray[Any]

# What a state has in the place of a rate that is a function, which no file can hold.
FUNCTION = "function"

# What PyTorch's optimisers have and these do not need.
_OF_OPTIMISERS = {
    "zero_grad": ": gradients are what backward returns, new ones each time",
    "add_param_group": ": all groups are given when it is made, [{'params': [...]}, ...]",
}

step_number = partial(_checks.size, minimum=0)


class Option:
    """An attribute of an optimiser that is an option of its groups.

    Reading asks that they agree; setting sets all.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Optimizer | None, owner: type) -> Any:
        if optimizer is None:
            return self
        first, *others = (group[self.name] for group in optimizer.param_groups)
        if any(other != first for other in others):
            raise AttributeError(
                f"{self.name} is not the same in all groups: read "
                f"optimiser.param_groups[0][{self.name!r}]"
            )
        return first

    def __set__(self, optimizer: Optimizer, value: Any) -> None:
        groups = optimizer.param_groups
        for group, options in zip(
            groups, [group._checked(self.name, value) for group in groups], strict=True
        ):
            group._replace(options)


class Optimizer(Optioned):
    """An optimiser: params in groups, each with its options, and arrays that make up the state.

    A subclass names its options and how they are checked, its slots (arrays of a parameter's shape)
    and the rule of `reference.optim` by which it steps.
    """

    _settable: ClassVar[Checks]  # the options that may change, and step_count
    _later: ClassVar[dict[str, Any]] = {}  # options that states written before do not have
    _slots: ClassVar[tuple[str, ...]]
    _squares: ClassVar[str]  # the slot of what cannot be negative
    _rule: ClassVar[int]
    _fixed: ClassVar[tuple[str, ...]] = ("params", "param_groups")

    params: Params
    param_groups: tuple[Group, ...]
    step_count: int
    _state: dict[str, list[Array | None]]
    _known: ClassVar[list[type[Optimizer]]] = []  # the kinds that there are

    def __init_subclass__(cls) -> None:
        Optimizer._known.append(cls)
        if "_options" in cls.__dict__:
            changing = {n: check for n, check in cls._options.items() if n not in cls._frozen}
            cls._settable = {"step_count": step_number, **changing}
            cls._fixed = (*Optimizer._fixed, *cls._frozen)

    # ------------------------------------------------------------------ what a subclass may say

    @classmethod
    def _slots_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The slots that a group with these options has."""
        return cls._slots

    def _fresh(self, slot: str, p: Array, options: Mapping[str, Any]) -> Array:
        """A slot's array at the start."""
        return np.zeros_like(p, subok=False)

    @classmethod
    def _counts(cls, options: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the next step depends on how many there were."""
        return True

    def _numbers(
        self, options: Mapping[str, Any], lr: float, t: int, tiny: float
    ) -> tuple[float, ...]:
        """The numbers of the rule at step t = 1, 2, ...; tiny: the type's smallest normal one."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------- the start

    def _make(self, params: Any, **options: Any) -> None:
        """What a constructor does."""
        with self._all_or_nothing():
            checked = {name: check(name, options[name]) for name, check in self._options.items()}
            self._consistent(checked)
            self._begin(grouped(type(self), params, checked), 0, {})
            for memory, i in self._memories:
                if memory.moved is not None:
                    raise ValueError(f"params[{i}] {memory.moved}")

    def _begin(self, groups: list[Group], count: int, state: dict[str, list[Any]]) -> None:
        params = Params(p for group in groups for p in group["params"])
        self._set_all({"params": params, "param_groups": tuple(groups), "step_count": count})
        self._state = state
        self._group_of = [group for group in groups for _ in group["params"]]
        kinds = [(k, p.dtype) for k, group in enumerate(groups) for p in group["params"]]
        distinct = list(dict.fromkeys(kinds))
        self._kinds = [(k, float(np.finfo(dtype).tiny)) for k, dtype in distinct]
        self._kind_of = [distinct.index(kind) for kind in kinds]
        self._plain = tuple(params)
        self._forms = [_form(p) for p in params]
        owners = [(owner(p), i) for i, p in enumerate(params)]
        self._memories = [(memory, i) for memory, i in owners if memory is not None]
        self._fitted: list[tuple[str, ...]] = []
        self._fit_slots()

    def _fit_slots(self) -> None:
        """Have the slots that the options ask for; what is new starts anew."""
        needed = [self._slots_of(group._options) for group in self.param_groups]
        if self._fitted == needed:
            return
        before, self._state = self._state, {}
        for slot in self._slots:
            old = before.get(slot) or [None] * len(self.params)
            arrays = [
                None if slot not in self._slots_of(group)
                else self._fresh(slot, p, group) if a is None else a
                for a, p, group in zip(old, self.params, self._group_of, strict=True)
            ]  # fmt: skip
            if any(a is not None for a in arrays):
                self._state[slot] = arrays
        self._fitted = needed
        slots = [self._state.get(slot) for slot in self._slots]
        self._states = tuple(
            tuple(arrays[i] if arrays else None for arrays in slots)
            for i in range(len(self.params))
        )

    def _refusal(self, name: str) -> str | None:
        kind = type(self).__name__
        if name == "params":
            return (
                f"params was fixed when the {kind} was made: make another {kind} of other arrays, "
                "or write the elements of these, params[0][...] = value"
            )
        if name == "param_groups":
            return (
                f"param_groups was fixed when the {kind} was made: make another {kind}, or set "
                "the options of these, param_groups[0]['lr'] = value"
            )
        return super()._refusal(name)

    if not TYPE_CHECKING:  # as in Guarded

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):  # an option that differs between groups
                return object.__getattribute__(self, name)
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(text + _OF_OPTIMISERS.get(name, ""), name=name, obj=self)

    def __repr__(self) -> str:
        groups, count = self.param_groups, sum(p.size for p in self.params)
        options = "; ".join(
            ", ".join(f"{name}={group[name]!r}" for name in self._options) for group in groups
        )
        return f"{type(self).__name__}({options}; {count} parameters, step {self.step_count})"

    # --------------------------------------------------------------------------------- the step

    def step(self, grads: Array | Iterable[Array] | Gradients) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        grads : gradients, ndarray or iterable of ndarray
            What the backward of a layer or model returned, if all of `params` are weights of that:
            its ``flat_weights``, or some of its ``weights``, in any groups. Or an array for each of
            `params`, in their order (that of the groups, one behind the other), of its shape and
            dtype. They are not changed.

        Raises
        ------
        TypeError, ValueError
            If a gradient is missing or does not fit, or a learning rate that is a function
            returns what is none; the error names it, and nothing has changed.
        RuntimeError
            If a parameter was a layer's, and the layer's weights are somewhere else now; or is a
            copy that ``state_dict()`` made.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer = fastrnn.RNN(3, 4, rng=0)
        >>> adam = fastrnn.optim.Adam([layer.flat_weights], lr=0.1)
        >>> output, state, tape = layer.forward(np.ones((5, 2, 3), np.float32))
        >>> grads = layer.backward(tape, np.ones_like(output), wrt=["weights"])
        >>> adam.step(grads)

        Weight decay for all but the biases:

        >>> biases = [w for name, w in layer.weights.items() if "bias" in name]
        >>> others = [w for name, w in layer.weights.items() if "bias" not in name]
        >>> groups = [{"params": others}, {"params": biases, "weight_decay": 0.0}]
        >>> fastrnn.optim.AdamW(groups, lr=0.1).step(grads)
        """
        for memory, i in self._memories:
            if memory.moved is not None:
                raise RuntimeError(f"params[{i}] {memory.moved}")
        if isinstance(grads, tuple) and hasattr(grads, "flat_weights"):
            grads = self._parts(grads)
        groups = [group._options for group in self.param_groups]
        rates = [self._rate(options["lr"]) for options in groups]
        self._fit_slots()
        count = self.step_count + 1
        made = [self._numbers(groups[k], rates[k], count, tiny) for k, tiny in self._kinds]
        numbers = tuple([made[kind] for kind in self._kind_of])
        whole = [grads] if isinstance(grads, np.ndarray) else grads
        if self._memories and isinstance(whole, list):
            for i, (p, g) in enumerate(zip(self._plain, whole, strict=False)):
                if g is p:
                    raise ValueError(
                        f"grads[{i}] is params[{i}], the weights themselves: pass what the layer's "
                        "backward returned"
                    )
        if not self._update(self._plain, whole, self._states, numbers):
            for i, (p, g) in enumerate(zip(self._plain, self._checked_step(grads), strict=True)):
                one, state, own = np.asarray(p), self._states[i], numbers[i]
                if self._update((one,), [_checks.contiguous(g)], (state,), (own,)):
                    continue
                with np.errstate(all="ignore"):  # in other layouts NumPy has the same bits
                    RULES[self._rule](one, g, *state, *own)
        self._set_all({"step_count": count})

    def _parts(self, grads: Any) -> list[Array]:
        """Of the gradients of a layer or model, those of the parameters."""
        flat = _checks.flat_gradient("grads", grads)
        parts: list[Array] = []
        first: Memory | None = None
        for i, p in enumerate(self.params):
            memory = owner(p)
            if memory is None or not p.flags.c_contiguous:
                raise ValueError(
                    f"grads are those of a layer, but params[{i}] is no weight of one: pass a "
                    "list, an array for each of params"
                )
            whole, start = place_in(p, memory)
            first = first or whole
            if whole.array.size != flat.size or whole is not first:
                raise ValueError(
                    f"grads are of {flat.size} weights, but params[{i}] is one of "
                    f"{whole.array.size} others: pass a list, an array for each of params"
                )
            parts.append(flat[start : start + p.size].reshape(p.shape))
        return parts

    def _update(self, params: Any, grads: Any, state: Any, numbers: Any) -> bool:
        """Whether the kernel has made the step: False where something is not in its form."""
        if current_backend.get() != "compiled":
            return False
        return _core.update(self._rule, params, grads, state, numbers, current_threads.get())

    def _rate(self, lr: Any) -> float:
        if not callable(lr):
            return float(lr)
        return _checks.bounded(f"lr({self.step_count})", lr(self.step_count))

    def _checked_step(self, grads: Any) -> list[Array]:
        """The gradients, each of its parameter's shape and dtype; none of them may be missing."""
        named = _checks.arrays("grads", grads)
        given = list(named.values())
        if len(given) != len(self.params):
            count = f"{len(given)} array{'s' if len(given) != 1 else ''}"
            raise ValueError(
                f"grads has {count}, expected {len(self.params)}: give one for each of params, or "
                "what the layer's backward returned as it is"
            )
        for i, (p, form) in enumerate(zip(self.params, self._forms, strict=True)):
            if _form(p) != form:
                raise ValueError(
                    f"params[{i}] is {p.dtype} {p.shape} with the strides {p.strides}, but was "
                    f"{form[0]} {form[1]} with the strides {form[2]} when the "
                    f"{type(self).__name__} was made: give it that form back, and change the form "
                    f"of a view, params[{i}].view(), instead"
                )
            if not p.flags.writeable or not p.dtype.isnative:
                _checks.writable(f"params[{i}]", p)
        checked = []
        for i, ((name, g), p) in enumerate(zip(named.items(), self.params, strict=True)):
            checked.append(_checks.array(name, g, p.dtype, f"params[{i}]"))
            if g.shape != p.shape:
                cure = _cures.for_shape(name, g.shape, p.shape)
                if any(q.shape == g.shape for q in self.params):
                    cure = ": is this the order of params?"
                raise ValueError(f"{name} has shape {g.shape}, expected {p.shape}{cure}")
        if len(checked) > 1 and not self._lie_apart(checked):
            n = len(self.params)
            for i, j in _sharing.sharing([*self.params, *checked]):
                if i < n <= j and i != j - n:
                    raise ValueError(
                        f"grads[{j - n}] shares memory with params[{i}], which changes in the "
                        f"step: pass grads[{j - n}].copy()"
                    )
        return checked

    def _lie_apart(self, grads: list[Array]) -> bool:
        """Whether it is plain that no gradient shares memory with a parameter."""
        ours, theirs = _owners(self.params), _owners(grads)
        return None not in ours | theirs and not ours & theirs

    # -------------------------------------------------------------------------------- the state

    def _described(self, functions: bool) -> dict[str, Any]:
        """The numbers of the state; of several groups lists, one number for each.

        Those in `_later` are left out where they have their default, so that a state is what it
        was. Rates that are functions stay if `functions`.
        """
        groups, said = self.param_groups, dict[str, Any]()
        if functions or self._counts(groups):
            said["step_count"] = self.step_count
        if len(groups) > 1:
            said["groups"] = [len(group["params"]) for group in groups]
        for name in self._options:
            values = [group[name] for group in groups]
            if not functions:
                values = [FUNCTION if callable(value) else value for value in values]
            if name not in self._later or any(value != self._later[name] for value in values):
                said[name] = values if len(groups) > 1 else values[0]
        return said

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that the next step depends on, but the parameters.

        Returns
        -------
        dict
            Numbers under their names, arrays under names such as "exp_avg.0", one for each
            parameter, of its shape and dtype: as `fastrnn.save` takes it and `fastrnn.load` gives
            it back. With several groups, numbers of groups are lists, and "groups" says how many
            parameters each has. A learning rate that is a function is "function", and goes on at
            the step it was at in an optimiser that was made with that function.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> fastrnn.optim.SGD([np.zeros(2)], lr=0.5, momentum=0.9).state_dict()
        {'lr': 0.5, 'momentum': 0.9, 'velocity.0': array([0., 0.])}
        """
        self._fit_slots()
        state = self._described(functions=False)
        for slot, arrays in self._state.items():
            state |= {f"{slot}.{i}": a.copy() for i, a in enumerate(arrays) if a is not None}
        return state

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Set the state from what `state_dict` returned. All is checked before any is set.

        Options, such as the learning rate, are then those of the state.

        Parameters
        ----------
        d : mapping
            From an optimiser of this kind over parameters of these shapes and dtypes, in the same
            groups.

        Raises
        ------
        TypeError, ValueError
            If `d` is not the state of such an optimiser.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> sgd = fastrnn.optim.SGD([np.zeros(2)], lr=0.5)
        >>> other = fastrnn.optim.SGD([np.zeros(2)], lr=0.1)
        >>> other.load_state_dict(sgd.state_dict())
        >>> other.lr
        0.5
        """
        if not isinstance(d, Mapping):
            own = hasattr(d, "state_dict") and not isinstance(d, type)
            cure = ": pass d.state_dict()" if own else ""
            raise TypeError(f"d is {_cures.kind(d)}, expected a mapping{cure}")
        if "groups" in d and len(self.param_groups) == 1:
            raise ValueError(
                "d is the state of an optimiser with several groups of parameters, expected that "
                "of one with one: make this one with the groups of that one, then load"
            )
        required = [name for name in self._described(False) if name not in self._later]
        if not d.keys() >= set(required):
            self._refuse_names(d, [*required, *self._array_names(self.param_groups)])
        options = self._options_in(d)
        numbers = [*required, *(name for name in self._later if name in d)]
        if "step_count" in d or self._counts(options):
            numbers = ["step_count", *(name for name in numbers if name != "step_count")]
        arrays = self._array_names(options)
        if d.keys() != {*numbers, *arrays}:
            self._refuse_names(d, [*numbers, *arrays])
        for name in arrays:
            slot, _, i = name.rpartition(".")
            p = self.params[int(i)]
            given = _checks.array(f"d[{name!r}]", d[name], p.dtype, "its parameter")
            if given.shape != p.shape:
                raise ValueError(f"d[{name!r}] has shape {given.shape}, expected {p.shape}")
            if slot == self._squares and (given < 0).any():
                raise ValueError(f"d[{name!r}] holds negative numbers: they are of squares")
        if "step_count" in d:
            count = step_number("d['step_count']", d["step_count"])
        else:
            count = _count_of(d[name] for name in arrays)
        for group, own in zip(self.param_groups, options, strict=True):
            group._replace(own)
        self._set_all({"step_count": count})
        self._fit_slots()
        for name in arrays:
            slot, _, i = name.rpartition(".")
            a = self._state[slot][int(i)]
            assert a is not None
            a[...] = d[name]

    def _array_names(self, options: Iterable[Mapping[str, Any]]) -> list[str]:
        """The names of the state's arrays, under these options of the groups."""
        slots: list[tuple[str, ...]] = []
        for group, own in zip(self.param_groups, options, strict=True):
            slots += [self._slots_of(own)] * len(group["params"])
        return [f"{slot}.{i}" for slot in self._slots for i, own in enumerate(slots) if slot in own]

    def _refuse_names(self, d: Mapping[str, Any], expected: list[str]) -> NoReturn:
        own = self.state_dict()
        cure = _cures.for_names("d", d, own)
        stems = {str(name).partition(".")[0] for name in d}
        for kind in Optimizer._known if not cure else ():
            required = kind._options.keys() - kind._later.keys()
            if required <= stems <= {"step_count", "groups", *kind._options, *kind._slots}:
                cure = f": that seems to be the state of {_cures.an(kind.__name__)}"
                cure = "" if kind is type(self) else cure
                break
        names = ", ".join(map(str, d)) or "nothing"
        raise ValueError(f"d has {names}; expected {', '.join(expected)}{cure}")

    def _options_in(self, d: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The groups' options in a state, checked."""
        groups = self.param_groups
        several = len(groups) > 1
        if several:
            sizes = [len(group["params"]) for group in groups]
            if not isinstance(d["groups"], list | tuple) or list(d["groups"]) != sizes:
                raise ValueError(
                    f"d['groups'] is {_cures.shown(d['groups'])}, expected {sizes}: the state is "
                    "of an optimiser with other groups"
                )
        found: list[dict[str, Any]] = [{} for _ in groups]
        for name, check in self._options.items():
            default = self._later.get(name)
            values = d.get(name, [default] * len(groups) if several else default)
            if several and (not isinstance(values, list | tuple) or len(values) != len(groups)):
                shown = _cures.shown(values)
                raise ValueError(f"d[{name!r}] is {shown}, expected {len(groups)} of its values")
            for k, group in enumerate(groups):
                value = values[k] if several else values
                called = f"d[{name!r}]" + f"[{k}]" * several
                if name == "lr":
                    value = _loaded_rate(called, value, group[name])
                found[k][name] = check(called, value)
        for options in found:
            self._consistent(options)
        return found

    # --------------------------------------------------------------------------------- copies

    # The parameters keep sharing the weights of a layer that is copied or pickled with them.
    def __reduce__(self) -> Any:
        # They go another way than the state, of which a subclass may make what it likes.
        state: Any = self.__getstate__()
        if isinstance(state, dict):
            state = {name: value for name, value in state.items() if name not in _DERIVED}
        params = [handed_over(p) for p in self.params]
        numbers = self._described(functions=True)
        numbers["initial_lrs"] = [group._initial_lr for group in self.param_groups]
        return _with_params, (type(self), params, self._state, numbers), state

    def __getstate__(self) -> Any:
        return self._all_attributes(_DERIVED)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Before there were groups, options were attributes of the optimiser.
        self._set_all({n: value for n, value in state.items() if n not in self._options})


# What follows from the parameters, or lies beside them.
_DERIVED = (
    "params", "param_groups", "step_count", "_state", "_group_of", "_kinds", "_kind_of", "_plain",
    "_forms",
    "_memories", "_fitted", "_states", "_scratch",
)  # fmt: skip


def _with_params(
    kind: type[Optimizer],
    params: list[Any],
    state: Mapping[str, list[Array | None]],
    numbers: Mapping[str, Any],
) -> Optimizer:
    """A copied optimiser before its state."""
    optimizer = kind.__new__(kind)
    arrays = list(map(taken_over, params))
    several = "groups" in numbers
    groups, at = [], 0
    for k, size in enumerate(numbers.get("groups", [len(arrays)])):
        options = {
            name: (numbers[name][k] if several else numbers[name])
            if name in numbers else kind._later[name]
            for name in kind._options
        }  # fmt: skip
        groups.append(Group(kind, tuple(arrays[at : at + size]), options))
        at += size
    # Arrays of its own, wherever those in the file are.
    own = {
        slot: [None if a is None else np.array(a, np.dtype(a.dtype.type)) for a in arrays]
        for slot, arrays in state.items()
    }
    for group, initial in zip(groups, numbers.get("initial_lrs", ()), strict=False):
        group._initial_lr = initial
    first = (a for arrays in own.values() for a in arrays if a is not None)
    count = numbers["step_count"] if "step_count" in numbers else _count_of(first)
    optimizer._set_all({"_complete": True})
    optimizer._begin(groups, count, own)
    return optimizer


def _count_of(arrays: Iterable[Array]) -> int:
    """The number of steps, as far as it matters where it is not known: whether there was one."""
    return int(any(np.any(a) for a in arrays))


def _loaded_rate(name: str, value: Any, own: Any) -> Any:
    """The rate of a state, or the optimiser's own function where the state had one."""
    if isinstance(value, str) and value == FUNCTION:
        if not callable(own):
            raise ValueError(
                f"{name} is {FUNCTION!r}, which no file holds: make this optimiser with lr= that "
                "function of the step, then load"
            )
        return own
    if callable(own):
        raise ValueError(
            f"{name} is {_cures.shown(value)}, but this optimiser's lr is a function: to go on "
            f"with the number set lr to it before, with the function change d, {name} = "
            f"{FUNCTION!r}"
        )
    return value


def _owners(arrays: Iterable[Array]) -> set[int | None]:
    """Which arrays own the memory of these; None for what belongs to something else."""
    roots = map(root, arrays)
    owners = [root(r.array) if isinstance(r, Memory) else r for r in roots]
    return {id(o) if isinstance(o, np.ndarray) else None for o in owners}


def _form(p: Array) -> tuple[Any, ...]:
    return p.dtype, p.shape, p.strides
