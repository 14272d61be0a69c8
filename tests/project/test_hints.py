"""What people who know PyTorch or Keras look for, and what the error says; short reprs."""

from typing import Any

import numpy as np
import pytest

import fastrnn

LAYERS = {"rnn": fastrnn.GRU(3, 4, rng=0), "out": fastrnn.Linear(4, 2, rng=1)}
MODEL = fastrnn.Sequential(LAYERS)
ADAM = fastrnn.optim.Adam([MODEL.flat_weights])


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (fastrnn, "AdamW", "it is fastrnn.optim.AdamW here"),
        (fastrnn, "SGD", "it is fastrnn.optim.SGD here"),
        (fastrnn, "LSTMCell", "it is fastrnn.lstm_step here"),
        (fastrnn, "nn", "layers are in fastrnn itself"),
        (fastrnn, "Module", "no modules"),
        (fastrnn, "Bidirectional", "bidirectional=True"),
        (fastrnn, "Masking", "mask="),
        (fastrnn, "no_grad", "keeps no tape"),
        (fastrnn, "manual_seed", "rng="),
        (fastrnn.optim, "LambdaLR", "a function of the step"),
        (ADAM, "zero_grad", "new ones each time"),
        (ADAM, "add_param_group", "when it is made"),
        (MODEL, "fit", "a loss, backward"),
        (MODEL, "predict", "call it"),
        (MODEL, "compile", "fastrnn.optim"),
        (MODEL, "summary", "print it"),
        (MODEL, "get_weights", "state_dict()"),
        (MODEL, "add", "in a mapping"),
        (MODEL, "double", "dtype='float64'"),
        (MODEL, "cuda", "on the CPU"),
        (MODEL, "requires_grad_", "wrt="),
        (MODEL, "stream", "model.layers['rnn'].stream()"),
        (LAYERS["out"], "float", "dtype='float32'"),
    ],
)
def test_names_of_other_libraries_say_what_there_is(owner: Any, name: str, said: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(owner, name)
    assert said in str(caught.value)


def test_an_unknown_name_says_no_more() -> None:
    for owner in (fastrnn, fastrnn.optim, ADAM, MODEL):
        with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
            owner.nonsense  # noqa: B018


def test_the_tables_name_what_there_is() -> None:
    for found in fastrnn._CALLED.values():
        owner, _, name = found.rpartition(".")
        assert name in (getattr(fastrnn, owner) if owner else fastrnn).__all__


def test_a_model_has_no_items_to_go_through() -> None:
    with pytest.raises(TypeError, match=r"model\.layers"):
        list(MODEL)


def test_layers_of_two_kinds_cannot_generate_in_part() -> None:
    layers = {
        "words": fastrnn.Embedding(10, 4), "r1": fastrnn.GRU(4, 4), "r2": fastrnn.RNN(4, 4),
        "out": fastrnn.Linear(4, 10),
    }  # fmt: skip
    words, r1, _, out = layers.values()
    fastrnn.generate(words, r1, out, [1], 3)  # as long as they are no model
    model = fastrnn.Sequential(layers)
    with pytest.raises(ValueError, match=r"'r2' stands beside .* would be left out.*stream\(\)"):
        fastrnn.generate(words, r1, out, [1], 3)
    del model
    fastrnn.generate(words, r1, out, [1], 3)


def test_a_state_of_another_kind_says_whose_it_seems() -> None:
    weights = [np.ones(3)]
    other = fastrnn.optim.AdamW(weights)
    for kind, name in (("Adam", "an Adam"), ("SGD", "an? SGD"), ("RMSprop", "an? RMSprop")):
        state = getattr(fastrnn.optim, kind)(weights, 0.1).state_dict()
        with pytest.raises(ValueError, match=f"seems to be the state of {name}$"):
            other.load_state_dict(state)


def test_optimisers_and_gradients_are_short_to_print() -> None:
    assert repr(fastrnn.optim.SGD([np.ones(3)], lr=0.5)) == (
        "SGD(lr=0.5, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False; 3 parameters, "
        "step 0)"
    )
    groups = fastrnn.optim.Adagrad([{"params": [np.ones(3)]}, {"params": [np.ones(2)], "lr": 0.5}])
    assert "lr=0.5" in repr(groups)
    assert "5 parameters" in repr(groups)
    output, _, tape = MODEL.forward(np.ones((5, 2, 3), np.float32))
    grads = MODEL.backward(tape, np.ones_like(output), wrt=["x", "out.bias"])
    assert repr(grads) == (
        "SequentialGradients(x=array(5, 2, 3), state=None, weights=Weights({'out.bias': (2,)}), "
        f"flat_weights=array({MODEL.count_parameters()},))"
    )
    lstm = fastrnn.LSTM(3, 4, rng=0)
    zeros = np.zeros((1, 2, 4), np.float32)
    output, _, own = lstm.forward(np.ones((5, 2, 3), np.float32), (zeros, zeros))
    assert "state=(array(1, 2, 4), array(1, 2, 4))" in repr(lstm.backward(own, output))
