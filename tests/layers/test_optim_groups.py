"""Groups of parameters, what is saved of optimisers, and rates that are functions of the step."""

import base64
import copy
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bit_checks import assert_same
from bounds import Array
from test_optim_rules import OPTIONS

import fastrnn
from fastrnn import _memory
from fastrnn.optim import SGD, Adagrad, Adam, AdamW, RMSprop, StepLR

each = pytest.mark.parametrize(
    ("kind", "options"), OPTIONS, ids=lambda v: v.__name__ if isinstance(v, type) else str(v)
)
SHAPES = ((5,), (2, 3), (4,))


def arrays(seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in SHAPES]


def in_groups(params: list[Array], kind: Any, options: Any, **second: Any) -> Any:
    return kind([{"params": params[:2]}, {"params": params[2], "lr": 0.25, **second}], **options)


# ------------------------------------------------------------------------------------- groups


@each
def test_groups_step_as_optimisers_of_their_own(kind: Any, options: Any) -> None:
    together, apart = arrays(0), arrays(0)
    whole = in_groups(together, kind, options, weight_decay=0.5)
    one = kind(apart[:2], **options)
    two = kind(apart[2], **options | {"lr": 0.25, "weight_decay": 0.5})
    for i in range(5):
        grads = arrays(i + 1)
        whole.step(grads)
        one.step(grads[:2])
        two.step(grads[2])
        whole.param_groups[1]["lr"] = two.lr = 0.25 / (i + 1)
    for p, q in zip(together, apart, strict=True):
        assert_same(p, q, "the parameters")
    assert [p is q for p, q in zip(whole.params, together, strict=True)] == [True] * 3
    assert [len(group["params"]) for group in whole.param_groups] == [2, 1]


def test_a_group_is_a_mapping() -> None:
    sgd = SGD([{"params": [np.ones(2)]}, {"params": np.ones(3), "lr": 0.5}], momentum=0.5)
    first, second = sgd.param_groups
    names = ["params", "lr", "momentum", "dampening", "weight_decay", "nesterov"]
    assert list(first) == names
    assert len(first) == len(names)
    assert (first["lr"], second["lr"], second["momentum"]) == (1e-3, 0.5, 0.5)
    assert "'lr': 0.5" in repr(second)
    assert first != second
    second.update(lr=np.float32(0.25), nesterov=True)
    assert type(second["lr"]) is float
    assert sgd.momentum == 0.5
    for name in ("lr", "nesterov"):
        with pytest.raises(AttributeError, match=rf"read optimiser.param_groups\[0\]\['{name}'\]"):
            getattr(sgd, name)
    sgd.lr = 0.125
    assert sgd.lr == first["lr"] == second["lr"] == 0.125
    with pytest.raises(ValueError, match="nesterov is True with momentum"):
        sgd.momentum = 0  # of the second, which is where it does not fit
    assert first["momentum"] == 0.5
    for change, error in (
        (lambda: first.update(lr=-1), ValueError),
        (lambda: first.update(lr="fast"), TypeError),
        (lambda: first.update(learning_rate=1), ValueError),
        (lambda: first.update(nesterov=1), TypeError),
        (lambda: first.update(params=[]), TypeError),
        (lambda: first.pop("lr"), TypeError),
        (lambda: first["params"].__setitem__(0, np.ones(2)), TypeError),
        (lambda: setattr(sgd, "param_groups", ()), AttributeError),
    ):
        before = dict(first)
        with pytest.raises(error):
            change()
        assert dict(first) == before


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ({"params": [np.ones(2)]}, TypeError, "params is a dict, expected a list of arrays: pass"),
        ([{"params": np.ones(2)}, np.ones(3)], TypeError, "params[1] is no group with 'params', "),
        ([np.ones(2), {"params": np.ones(3)}], TypeError, "params[0] is no group with 'params', "),
        ([{"params": np.ones(2)}, {"lr": 1}], TypeError, "params[1] is no group with 'params', "),
        ([{"lr": 1}], TypeError, "params is a dict, expected a list of arrays"),
        ([{"params": []}], ValueError, "params is empty"),
        ([{"params": np.ones(2), "lr": -1}], ValueError, "params[0]['lr'] is -1"),
        ([{"params": np.ones(2), "ls": 1}], ValueError, "the option 'ls', expected 'lr', 'betas'"),
        ([{"params": np.ones(2), "epss": 1}], ValueError, "did you mean 'eps'?"),
        ([{"params": [1.0]}], TypeError, "params[0]['params'] holds a float, expected arrays"),
        ([{"params": fastrnn.RNN(3, 4, rng=0)}], TypeError, "['params'].flat_weights"),
        ([{"params": np.arange(3)}], TypeError, "params[0]['params'] is int64"),
    ],
)  # fmt: skip
def test_groups_refused(params: Any, error: Any, text: str) -> None:
    with pytest.raises(error) as caught:
        Adam(params)
    assert text in str(caught.value)


def test_groups_that_share_memory() -> None:
    p = np.ones(4)
    with pytest.raises(ValueError, match=r"params\[1\]\['params'\] shares memory with params\[0"):
        Adam([{"params": [np.ones(2), p]}, {"params": p[2:]}])


def test_options_that_do_not_exist() -> None:
    for options in ({"amsgrad": True}, {"maximize": True}, {"foreach": True}):
        with pytest.raises(TypeError, match="unexpected keyword"):
            Adam([np.ones(2)], **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite in float32"):
        Adagrad([np.ones(2, np.float32)], initial_accumulator_value=1e39)
    adagrad = Adagrad([np.ones(2)], initial_accumulator_value=0.5)
    assert adagrad.state_dict()["sum.0"].tolist() == [0.5, 0.5]
    with pytest.raises(AttributeError, match="was fixed"):
        adagrad.initial_accumulator_value = 1
    with pytest.raises(TypeError, match="was used"):
        adagrad.param_groups[0]["initial_accumulator_value"] = 1


# -------------------------------------------------------------------------------------- state


@each
@pytest.mark.parametrize("grouped", [False, True])
def test_a_run_goes_on_as_before(kind: Any, options: Any, grouped: bool, tmp_path: Path) -> None:
    def make(params: list[Array]) -> Any:
        return in_groups(params, kind, options) if grouped else kind(params, **options)

    params = arrays(0)
    optimiser = make(params)
    for i in range(3):
        optimiser.step(arrays(i + 1))
    fastrnn.save(tmp_path / "run.safetensors", {"optimiser": optimiser})
    loaded = [p.copy() for p in params]
    other = kind(loaded, lr=7.0) if not grouped else in_groups(loaded, kind, {"lr": 7.0})
    other.load_state_dict(fastrnn.load(tmp_path / "run.safetensors")["optimiser"])
    copies = [other, copy.deepcopy(optimiser), pickle.loads(pickle.dumps(optimiser))]
    for one in copies:
        told = one is not other or "step_count" in optimiser.state_dict()
        assert one.step_count == (3 if told else 1)  # else all it says is that there was one
        assert list(map(dict, map(without_params, one.param_groups))) == list(
            map(dict, map(without_params, optimiser.param_groups))
        )
    for i in range(3, 6):
        for one in (optimiser, *copies):
            one.step(arrays(i + 1))
    for one in copies:
        for p, q in zip(one.params, params, strict=True):
            assert_same(p, q, "the parameters")


def without_params(group: Any) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def test_the_form_of_a_state() -> None:
    sgd = SGD([np.ones(2)], 0.5)
    assert list(sgd.state_dict()) == ["lr", "momentum", "velocity.0"]  # as it always was
    sgd.dampening = 0.5
    assert list(sgd.state_dict()) == ["step_count", "lr", "momentum", "dampening", "velocity.0"]
    assert list(Adam([np.ones(2)], weight_decay=1).state_dict())[3:5] == ["eps", "weight_decay"]
    state = in_groups(arrays(0), RMSprop, {}, momentum=0.5).state_dict()
    assert state["groups"] == [2, 1]
    assert (state["lr"], state["momentum"]) == ([0.01, 0.25], [0.0, 0.5])
    names = ["square_avg.0", "square_avg.1", "square_avg.2", "momentum_buffer.2"]
    assert [name for name in state if "." in name] == names


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop, Adagrad])
def test_states_of_others_are_refused(kind: Any) -> None:
    p = arrays(0)
    one, grouped = kind(p), in_groups(arrays(1), kind, {})
    others = [other([a.copy() for a in p]) for other in (SGD, Adam, RMSprop, Adagrad)]
    refused = [other.state_dict() for other in others if type(other) not in kind.__mro__]
    refused += [grouped.state_dict(), kind(p[:2]).state_dict(), kind(p[::-1]).state_dict()]
    refused.append(one.state_dict() | {"velocity.9": p[0]})
    for state in refused:
        with pytest.raises((ValueError, TypeError), match=r"^d(\[| has | is )"):
            one.load_state_dict(state)
    state = grouped.state_dict()
    wrong = [one.state_dict(), state | {"groups": [1, 2]}, state | {"lr": [1.0]}, state | {"lr": 1}]
    for state in wrong:
        with pytest.raises(ValueError, match=r"^d(\[| has | is )"):
            grouped.load_state_dict(state)
    assert [group["lr"] for group in grouped.param_groups] == [one.lr, 0.25]


def test_slots_follow_the_options() -> None:
    p = np.ones(3)
    rmsprop = RMSprop([p])
    rmsprop.step([np.ones(3)])
    rmsprop.momentum, rmsprop.centered = 0.5, True
    assert [n for n in rmsprop.state_dict() if "." in n] == [
        "square_avg.0", "grad_avg.0", "momentum_buffer.0",
    ]  # fmt: skip
    rmsprop.step([np.ones(3)])
    other = RMSprop([p.copy()])
    other.load_state_dict(rmsprop.state_dict())  # its options come with it
    rmsprop.step([np.ones(3)])
    other.step([np.ones(3)])
    assert_same(other.params[0], p, "the parameters")
    rmsprop.momentum = 0
    assert "momentum_buffer.0" not in rmsprop.state_dict()


def test_the_first_step_is_not_dampened_and_later_ones_are() -> None:
    for load in (True, False):
        p = np.zeros(1)
        sgd = SGD([p], 1.0, momentum=0.5)
        sgd.step([np.ones(1)])
        state = sgd.state_dict()
        if load:  # a state without a count: that there was a step shows
            sgd = SGD([p], 1.0)
            sgd.load_state_dict(state)
        sgd.dampening = 0.5
        sgd.step([np.ones(1)])
        assert p.tolist() == [-1 - (0.5 + 0.5)]
    sgd = SGD([np.zeros(1)])
    sgd.load_state_dict(SGD([np.zeros(1)]).state_dict())
    assert sgd.step_count == 0


def test_states_from_before_there_were_other_options() -> None:
    p = np.ones(1)
    adam = Adam([p], weight_decay=0.5)
    means = {"exp_avg.0": np.array([0.5]), "exp_avg_sq.0": np.array([0.25])}
    adam.load_state_dict({"step_count": 1, "lr": 0.5, "betas": [0.5, 0.75], "eps": 0.5} | means)
    assert (adam.weight_decay, adam.betas, adam.step_count) == (0.0, (0.5, 0.75), 1)
    sgd = SGD([p], 0.1, momentum=0.5, nesterov=True)
    sgd.load_state_dict({"lr": 0.5, "momentum": 0.0, "velocity.0": np.array([2.0])})
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.step_count) == (0.5, 0.0, False, 1)


# Pickled before there were groups: SGD of two arrays with momentum, and Adam, after a step.
BEFORE = (
    "c-nnY%St0b6z%RL7+)a5WbHB_WTS$D(27F9#vqC_vyrAcDXl=NyX>xxlZD{M7Zh&1g8st%!R%%`Ff)idcS5#;kB#"
    "oMsyZgV@1k#Y)j6lmJ++lSy0r{lqJI@dJoNoSz<8B{=yNx!oVW~yh(>S-d18pvQgK!;S0FEPeoR@T;Fg0B7ie7LR"
    "TPG(p?D!K2foyb%Ups*Mk7IV`IQ862#&E0Go}Z-un2j_bgXS4-6B)r4TcrPS{;Y|z2r0{%t<JfN^=jg^v5wcc>6O"
    "0iSY|N>DM;MZIUIuN}cpSX`AwAP%4gg6iMzqy|iKc)*5&dM7EA=LAlBsYS_1;%J7%Ah3l3DW9nlIL;8X#jlj{SOw"
    "g)@P_!>v@n>m3vCm`L*^9a4OC%X>Z;`PMqg!TASq*axd$C6>^+4(A3ZnXjKK4AKt7%UhG{+B`_j+Wc40Yij%tiIJ"
    "Pua&Os(#r?|C6vqPmAhC>z}fXpEqao-h!QUmat=Wc~8VKlM}^02giIivdDOtqe#Yb`B&AyqJ4Gu|2(%lyaOVInL0"
    "Ur71;6%1@e`ABj4L7G9lyIfx;uen-%l"
)  # fmt: skip


def test_pickles_from_before_there_were_groups() -> None:
    sgd, adam = pickle.loads(zlib.decompress(base64.b85decode(BEFORE)))
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.step_count) == (0.5, 0.5, False, 1)
    assert (adam.lr, adam.eps, adam.step_count, adam.weight_decay) == (0.5, 0.25, 1, 0.0)
    for one in (sgd, adam, *copy.deepcopy((sgd, adam))):
        one.lr = one.lr
        one.step([np.ones_like(p) for p in one.params])
        want = [[-0.25, 0.0], [0.25]] if type(one) is SGD else [[0.20000000000000223, WALKED]]
        assert [p.tolist() for p in one.params] == want


WALKED = 1.1531078563840453


# ------------------------------------------------------------------- rates that are functions


def schedule(step: int) -> float:
    return 0.5 / (step + 1)


@each
def test_a_function_of_the_step(kind: Any, options: Any, tmp_path: Path) -> None:
    rest = {name: value for name, value in options.items() if name != "lr"}
    params, by_hand = arrays(0), arrays(0)
    one, two = kind(params, lr=schedule, **rest), kind(by_hand, **rest)
    assert one.lr is schedule
    for i in range(6):
        if i == 3:  # saved and loaded
            fastrnn.save(tmp_path / "run.safetensors", {"one": one})
            state = fastrnn.load(tmp_path / "run.safetensors")["one"]
            assert (state["lr"], state["step_count"]) == ("function", 3)
            params = [p.copy() for p in params]
            one = kind(params, lr=schedule)
            one.load_state_dict(state)
        if i == 4:
            one = pickle.loads(pickle.dumps(one))
            assert one.lr is schedule
        two.lr = schedule(i)
        one.step(arrays(i + 1))
        two.step(arrays(i + 1))
    for p, q in zip(one.params, by_hand, strict=True):
        assert_same(p, q, "the parameters")


def test_functions_that_return_no_rate() -> None:
    p = np.ones(2)
    for function, error in (
        (lambda step: -1.0, ValueError), (lambda step: np.nan, ValueError),
        (lambda step: "fast", TypeError), (lambda step: None, TypeError),
        (lambda step: 1 / step, ZeroDivisionError),
    ):  # fmt: skip
        adam = Adam([p], lr=function)
        with pytest.raises(error, match=r"lr\(0\)|division"):
            adam.step([np.ones(2)])
        assert (adam.step_count, p.tolist()) == (0, [1, 1])
        assert not adam.state_dict()["exp_avg.0"].any()
    assert Adam([p], lr=lambda step: np.float32(0.5)).step([np.ones(2)]) is None


def test_a_function_is_not_in_the_file() -> None:
    p = np.ones(2)
    number, function = Adam([p.copy()]), Adam([p.copy()], lr=schedule)
    with pytest.raises(ValueError, match=r"d\['lr'\] is 'function', which no file holds"):
        number.load_state_dict(function.state_dict())
    with pytest.raises(ValueError, match=r"this optimiser's lr is a function") as caught:
        function.load_state_dict(number.state_dict())
    d = number.state_dict()
    exec(str(caught.value).rpartition(" change d, ")[2])
    function.load_state_dict(d)
    assert function.lr is schedule
    function.lr = 1.0
    function.load_state_dict(number.state_dict())
    assert function.lr == 1e-3
    for wrong in (StepLR, StepLR(number, 3)):
        with pytest.raises(TypeError, match="lr is a schedule of an optimiser"):
            Adam([p], lr=wrong)  # type: ignore[arg-type]
    sgd = SGD([p], lr=schedule)
    sgd.step([np.ones(2)])
    state = sgd.state_dict()
    del state["step_count"]  # without it nobody knows where it was
    with pytest.raises(ValueError, match="expected step_count, lr"):
        sgd.load_state_dict(state)


# --------------------------------------------------------------------- weights that have moved


@pytest.mark.parametrize("kind", [SGD, Adam, RMSprop])
def test_weights_that_are_no_longer_the_layer_s(kind: Any) -> None:
    layer, other = fastrnn.GRU(3, 4, rng=0), fastrnn.Linear(4, 2, rng=1)
    optimiser = kind([other.flat_weights, layer.weights["weight_hh_l0"]])
    grads = [np.ones_like(p) for p in optimiser.params]
    optimiser.step(grads)
    before = [p.copy() for p in optimiser.params]
    memory = _memory.owner(layer.flat_weights)
    assert memory is not None
    assert memory.moved is None
    memory.moved = "is elsewhere: make an optimiser of model.flat_weights"
    for one in (optimiser, copy.deepcopy(optimiser), pickle.loads(pickle.dumps(optimiser))):
        count = one.step_count
        with pytest.raises(RuntimeError, match=r"params\[1\] is .*: make an optimiser of model"):
            one.step(grads)
        assert one.step_count == count
        for p, q in zip(one.params, before, strict=True):
            assert_same(p, q, "the parameters")


# --------------------------------------------------------------- gradients as they are


def trained(seed: int = 0) -> tuple[fastrnn.Sequential, Any]:
    layers = {"rnn": fastrnn.GRU(3, 4, rng=seed), "out": fastrnn.Linear(4, 2, rng=seed)}
    model = fastrnn.Sequential(layers)
    output, _, tape = model.forward(np.ones((5, 2, 3), np.float32))
    return model, model.backward(tape, output)


def test_gradients_of_a_model_go_to_its_weights_in_any_groups() -> None:
    options = {"lr": 0.1, "weight_decay": 0.5}
    want, grads = trained()
    names = list(want.weights)
    AdamW([want.flat_weights], **options).step([grads.flat_weights])
    for order in (names, names[::-1]):
        model, grads = trained()
        groups = [{"params": [model.weights[n]]} for n in order]
        AdamW(groups, **options).step(grads)
        assert np.array_equal(model.flat_weights, want.flat_weights)
    model, grads = trained()
    AdamW([model.flat_weights], **options).step(grads)
    assert np.array_equal(model.flat_weights, want.flat_weights)
    model, grads = trained()  # a layer of it alone: the others stay
    before = model.flat_weights.copy()
    AdamW([model.layers["rnn"].flat_weights], **options).step(grads)
    n = model.layers["rnn"].flat_weights.size
    assert np.array_equal(model.flat_weights[:n], want.flat_weights[:n])
    assert np.array_equal(model.flat_weights[n:], before[n:])


def test_gradients_that_are_of_something_else() -> None:
    model, grads = trained()
    own = SGD([np.ones(3)])
    with pytest.raises(ValueError, match=r"params\[0\] is no weight of one: pass a list"):
        own.step(grads)
    part = fastrnn.Linear(4, 2)
    with pytest.raises(ValueError, match=f"grads are of {grads.flat_weights.size} weights"):
        SGD([part.flat_weights]).step(grads)
    with pytest.raises(ValueError, match=r"params\[1\] is one of"):
        SGD([model.flat_weights, trained(1)[0].flat_weights]).step(grads)
    sgd = SGD([model.flat_weights])
    with pytest.raises(ValueError, match=r"grads\[0\] is params\[0\], the weights themselves"):
        sgd.step([model.flat_weights])
    with pytest.raises(ValueError, match=r"pass wrt=\['weights'\]"):
        sgd.step(grads._replace(flat_weights=None))
    words = fastrnn.Embedding(5, 4, rng=0)
    head = fastrnn.Linear.tied(words)
    logits, tape = head.forward(np.ones((3, 4), np.float32))
    of_head = head.backward(tape, logits)
    with pytest.raises(ValueError, match="of a tied layer, whose weight is the embedding's"):
        SGD([head.flat_weights]).step(of_head)


def test_copies_are_no_weights() -> None:
    layer = fastrnn.GRU(3, 4, rng=0)
    copies = list(layer.state_dict().values())
    with pytest.raises(ValueError, match=r"params\[0\] is a copy that state_dict\(\) made"):
        Adam(copies)
    Adam([a.copy() for a in copies])  # whoever wants to
    Adam([copy.deepcopy(a) for a in copies])
    layer.load_state_dict(pickle.loads(pickle.dumps(layer.state_dict())))
