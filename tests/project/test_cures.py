"""Errors whose cure cures: wrong calls, and what their messages say done to the letter.

Each case is code that makes the arguments and a call that is refused. What the message advises is
read from its text (see fastrnn/_cures.py for the words that mean something) and done; the call has
to work then, or to lead to one more message at most. Where a message advises in prose, the case
says which words it has to hold and what somebody does who follows them.
"""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

# What every case has: weights of cells in float64, layers in float32, and a bit of training.
COMMON = """
w_ih, w_hh = np.linspace(-1, 1, 12).reshape(4, 3), np.linspace(-1, 1, 16).reshape(4, 4)
weight = np.linspace(-1, 1, 30).reshape(10, 3)
rnn, lstm, gru = fastrnn.RNN(3, 4, rng=0), fastrnn.LSTM(3, 4, rng=1), fastrnn.GRU(3, 4, rng=2)
head, embedding = fastrnn.Linear(4, 2, rng=3), fastrnn.Embedding(10, 3, rng=4)
layer = rnn
steps = np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 2, 3)
output, last, tape = layer.forward(steps)
grads = layer.backward(tape, output)
adam = fastrnn.optim.Adam(layer.flat_weights)
logits, labels = np.linspace(-1, 1, 30).reshape(5, 2, 3), np.arange(10).reshape(5, 2) % 3
"""


@dataclass
class Case:
    setup: str
    call: str
    said: str = ""  # words that the message has to hold
    done: str = ""  # by somebody who follows them, where they are prose
    needs: str = ""  # another library


CASES: dict[str, Case] = {
    # -------------------------------------------------------------------- types of arrays
    "integers where the weights are float64": Case(
        "x = np.ones((5, 2, 3), int)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "lists where the weights are float64": Case(
        "x = [[[1, 2, 3], [4, 5, 6]]]", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "float32 where the weights are float64": Case(
        "x = np.ones((5, 2, 3), np.float32)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "all of them lists": Case(
        "x, w_ih, w_hh = [[[1, 2, 3]]], w_ih.tolist(), w_hh.tolist()",
        "fastrnn.rnn_forward(x, None, w_ih, w_hh)", "; likewise w_ih and w_hh"),
    "all of them integers": Case(
        "x, w_ih, w_hh = (np.ones(s, int) for s in ((5, 2, 3), (4, 3), (4, 4)))",
        "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "float16": Case("x = steps.astype(np.float16)", "layer(x)"),
    "another float than the layer's": Case("x = steps.astype(np.float64)", "layer(x)"),
    "complex numbers": Case("x = steps.astype(complex)", "layer(x)"),
    "objects that are numbers": Case("x = steps.astype(object)", "layer(x)"),
    "text that is numbers": Case("x = steps.astype(str)", "layer(x)"),
    "a mask": Case("x = np.ma.array(steps, mask=steps > 0)", "layer(x)"),
    "a generator": Case("x = (step for step in steps)", "layer(x)"),
    "a list of steps": Case("x = list(steps)", "assert (layer(x)[0] == output).all()"),
    "a list of sequences": Case(
        "x = list(steps.swapaxes(0, 1))", "assert (layer(x)[0] == output).all()", "of sequences",
        "x = fastrnn.pad_sequence([np.asarray(a, np.float32) for a in x])[0]"),
    "a weight of integers for an output layer": Case(
        "weight = np.ones((2, 3), int)", "fastrnn.linear_forward(steps, weight)"),
    "a gradient of another float": Case(
        "d_output = output.astype(np.float64)", "layer.backward(tape, d_output)"),
    "a number for a gradient": Case("d_output = 1.0", "layer.backward(tape, d_output)"),
    "a state of zero": Case("state = 0", "gru(steps, state)"),
    "a scalar bias": Case("b_ih = 0.5",
        "x = np.ones((5, 2, 3)); fastrnn.rnn_forward(x, None, w_ih, w_hh, b_ih)"),
    "a bias of zero": Case("bias = 0", "fastrnn.linear_forward(np.ones(3), w_ih, bias)"),
    "no bias, as layers say it": Case(
        "bias = False", "fastrnn.linear_forward(np.ones(3), w_ih, bias)"),
    "a bias of no axis": Case(
        "bias = np.array(0.5)", "fastrnn.linear_forward(np.ones(3), w_ih, bias)"),
    "a tensor": Case("x = torch.ones(5, 2, 3)", "layer(x)", needs="torch"),
    "a tensor that requires grad": Case(
        "x = torch.ones(5, 2, 3, requires_grad=True)", "layer(x)", needs="torch"),
    "a tensor of bfloat16": Case(
        "x = torch.ones(5, 2, 3, dtype=torch.bfloat16)", "layer(x)", needs="torch"),
    "a tensor for weights of float64": Case(
        "x = torch.ones(5, 2, 3, requires_grad=True)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)",
        needs="torch"),
    "a sparse matrix": Case(
        "import scipy.sparse; x = scipy.sparse.eye(5, 3).tocsr()", "layer(x)", needs="scipy"),
    # -------------------------------------------------------------------- sequences
    "indices as x": Case(
        "x = np.ones((5, 2), int)", "fastrnn.rnn_forward(x, None, w_ih, w_hh)", "embedding_f"),
    "indices as a layer's x": Case(
        "x, weight = np.ones((5, 2), int), embedding.weights['weight']", "layer(x)"),
    "indices with an axis of one": Case(
        "x, weight = np.ones((5, 2, 1), int), embedding.weights['weight']", "layer(x)"),
    "one sequence of indices": Case(
        "x, weight = np.arange(5), embedding.weights['weight']", "layer(x)"),
    "a ragged list": Case(
        "x = [[[1., 2., 3.]], [[1., 2., 3.], [4., 5., 6.]]]", "layer(x)", "pad_sequence"),
    "a ragged list with the batch first": Case(
        "batched = fastrnn.RNN(3, 4, batch_first=True); x = [np.ones((1, 3)), np.ones((2, 3))]",
        "batched(x)", "batch_first=True"),
    "a ragged list of numbers": Case(
        "x = [[1., 2.], [1., 2., 3.]]",
        "output, state = fastrnn.RNN(1, 4)(x); assert output.shape == (3, 2, 4)"),
    "a ragged list of indices": Case(
        "x, weight = [[1, 2], [3, 4, 5]], embedding.weights['weight']",
        "assert layer(x)[0].shape == (3, 2, 4)"),
    "an array of arrays": Case(
        "x = np.array([np.ones((1, 3)), np.ones((2, 3))], dtype=object)", "layer(x)"),
    "a ragged list of tensors": Case(
        "x = [torch.ones(1, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)]",
        "layer(x)", needs="torch"),
    "ragged indices": Case("indices = [[1, 2], [3]]", "embedding(indices)"),
    "steps without an axis of features": Case(
        "x = np.ones((5, 2), np.float32)",
        "assert fastrnn.RNN(1, 4)(x)[0].shape == (5, 2, 4)"),
    "one sequence of numbers": Case("x = np.ones(5, np.float32)", "fastrnn.RNN(1, 4)(x)"),
    "a layer's pair": Case("x = layer(steps)", "head(x)", r"(output, state)"),
    "an LSTM's pair": Case("x = lstm(steps)", "head(x)"),
    "what forward returns": Case("x = layer.forward(steps)", "head(x)", "(output, state, tape)"),
    "logits with their tape": Case(
        "logits = head.forward(output)", "fastrnn.softmax_cross_entropy(logits, labels % 2)"),
    "a batch first": Case(
        "x, h_0 = np.ones((2, 5, 3)), np.ones((2, 4))",
        "fastrnn.rnn_forward(x, h_0, w_ih, w_hh)"),
    "a state with torch's first axis": Case(
        "x, h_0 = np.ones((5, 2, 3)), np.ones((1, 2, 4))",
        "fastrnn.rnn_forward(x, h_0, w_ih, w_hh)"),
    "a state without it": Case("state = np.zeros((2, 4), np.float32)", "gru(steps, state)"),
    "h for an LSTM": Case("state = np.zeros((1, 2, 4), np.float32)", "lstm(steps, state)"),
    "an LSTM's state in one array": Case(
        "state = np.zeros((2, 1, 2, 4), np.float32)", "lstm(steps, state)"),
    "an LSTM's state without c": Case(
        "state = [np.zeros((1, 2, 4), np.float32), None]", "lstm(steps, state)"),
    "an LSTM's state for a GRU": Case(
        "state = (np.zeros((1, 2, 4), np.float32),) * 2", "gru(steps, state)"),
    "the gradient of h for an LSTM": Case(
        "_, (h, c), its = lstm.forward(steps); d_state = h", "lstm.backward(its, None, d_state)"),
    "weights that are transposed": Case(
        "x, w_ih = np.ones((5, 2, 3)), w_ih.T", "fastrnn.rnn_forward(x, None, w_ih, w_hh)"),
    "weights of gates that are transposed": Case(
        "x, w_ih, w_hh = np.ones((5, 2, 3)), np.ones((3, 16)), np.ones((4, 16))",
        "fastrnn.lstm_forward(x, None, None, w_ih, w_hh)"),
    "a bias that is a column": Case(
        "x, b_ih = np.ones((5, 2, 3)), np.ones((4, 1))",
        "fastrnn.rnn_forward(x, None, w_ih, w_hh, b_ih)"),
    "lengths as floats": Case(
        "lengths = np.array([5.0, 3.0])", "layer(steps, lengths=lengths)"),
    "lengths as a list of floats": Case("lengths = [5.0, 3.0]", "layer(steps, lengths=lengths)"),
    "one length for a batch": Case("lengths = 3", "layer(steps, lengths=lengths)"),
    "a reset mask of integers": Case(
        "restart = [[0, 1]] * 5", "layer(steps, restart=restart)"),
    "unequal sequences that are lists": Case(
        "sequences = [[1, 2], [3], []]", "fastrnn.pad_sequence(sequences)"),
    "unequal sequences of two types": Case(
        "sequences = [np.arange(2), np.ones(3), np.ones(1, np.float32)]",
        "fastrnn.pad_sequence(sequences)"),
    # -------------------------------------------------------------------- losses
    "one-hot targets": Case(
        "target = np.eye(3)[labels]", "fastrnn.softmax_cross_entropy(logits, target)", "argmax"),
    "one-hot targets of integers": Case(
        "target = np.eye(3, dtype=int)[labels].tolist()",
        "fastrnn.softmax_cross_entropy(logits, target)", "argmax"),
    "targets as floats": Case(
        "target = labels.astype(np.float32)", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets as a list of floats": Case(
        "target = labels.astype(float).tolist()", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets of -100": Case(
        "target = labels.copy(); target[3:] = -100",
        "fastrnn.softmax_cross_entropy(logits, target)", "lengths="),
    "a list of targets with -1": Case(
        "target = [[0, 1], [2, -1], [0, 1], [-1, -1], [2, 2]]",
        "fastrnn.softmax_cross_entropy(logits, target)"),
    "classes from 1": Case(
        "target = labels + 1", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets with an axis of one": Case(
        "target = labels[..., None]", "fastrnn.softmax_cross_entropy(logits, target)"),
    "flat targets": Case(
        "target = labels.ravel()", "fastrnn.softmax_cross_entropy(logits, target)"),
    "targets with the batch first": Case(
        "target = labels.T", "fastrnn.softmax_cross_entropy(logits, target)"),
    "torch's order of classes": Case(
        "logits = np.zeros((5, 4, 2)); target = labels",
        "fastrnn.softmax_cross_entropy(logits, target)"),
    "a squeezed target": Case(
        "y, target = np.ones((5, 2, 1)), np.ones((5, 2))", "fastrnn.mean_squared_error(y, target)"),
    "a target with an axis too many": Case(
        "y, target = np.ones((5, 2)), np.ones((5, 2, 1))", "fastrnn.mean_squared_error(y, target)"),
    "a number for a target": Case(
        "input, target = steps, 0.5", "fastrnn.mean_squared_error(input, target)"),
    "a mask of numbers": Case(
        "mask = np.ones((5, 2))", "fastrnn.softmax_cross_entropy(logits, labels, mask=mask)"),
    # -------------------------------------------------------------------- optimisers, clipping
    "Adam of a layer": Case(
        "params = layer",
        "a = fastrnn.optim.Adam(params); b = layer.flat_weights.copy(); a.step(grads.flat_weights)"
        "; assert (layer.flat_weights != b).any()"),
    "Adam of gradients": Case(
        "params = grads",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of weights by name": Case(
        "params = layer.weights",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of a state_dict": Case(
        "params = layer.state_dict()",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of a list of state_dicts": Case(
        "params = [layer.state_dict()]",
        "a = fastrnn.optim.Adam(params); assert a.params[0] is layer.flat_weights"),
    "Adam of layers": Case("params = [rnn, embedding, head]", "fastrnn.optim.Adam(params)"),
    "Adam of a dict of arrays": Case(
        "params = {'W': np.ones(3), 'b': np.ones(1)}", "fastrnn.optim.Adam(params)"),
    "Adam of groups": Case(
        "params = [{'params': layer.flat_weights, 'lr': 0.1}]",
        "a = fastrnn.optim.Adam(params, lr=0.1)"),
    "Adam of a list of numbers": Case("params = [[1.0, 2.0]]", "fastrnn.optim.Adam(params)"),
    "Adam of integers": Case("params = [np.arange(3)]", "fastrnn.optim.Adam(params)"),
    "Adam of what is read-only": Case(
        "params = [np.broadcast_to(1.0, 3)]", "fastrnn.optim.Adam(params)"),
    "SGD of one array that is read-only": Case(
        "params = np.broadcast_to(1.0, 3)", "fastrnn.optim.SGD(params, 0.1)"),
    "Adam of torch's parameters": Case(
        "net = torch.nn.Linear(3, 2); params = net.parameters()",
        "a = fastrnn.optim.Adam(params); a.params[0][...] = 7; assert (net.weight == 7).all()",
        needs="torch"),
    "Adam of a torch module": Case(
        "params = torch.nn.Linear(3, 2)", "fastrnn.optim.Adam(params)", needs="torch"),
    "a learning rate in text": Case("lr = '0.1'", "fastrnn.optim.Adam([np.ones(2)], lr)"),
    "a step of gradients": Case("", "adam.step(grads)"),
    "a step of gradients by name": Case(
        "named = fastrnn.optim.Adam(layer.weights.values()); grads = grads.weights",
        "named.step(grads)"),
    "a step of another float": Case(
        "grads = [grads.flat_weights.astype(np.float64)]", "adam.step(grads)"),
    "gradients to clip": Case("", "fastrnn.clip_grad_norm(grads, 1.0)"),
    "gradients of two layers to clip": Case(
        "grads = [grads, layer.backward(tape, output), grads._replace("
        "flat_weights=grads.flat_weights.copy())]", "fastrnn.clip_grad_norm(grads, 1.0)"),
    "a layer to clip": Case(
        "grads = layer", "fastrnn.clip_grad_norm(grads, 1.0)", "what its backward returned",
        "grads = layer.backward(tape, output).flat_weights"),
    "an optimiser's state from an optimiser": Case("d = adam", "adam.load_state_dict(d)"),
    # -------------------------------------------------------------------- small arguments
    "a seed in text": Case("rng = 'abc'", "fastrnn.LSTM(3, 4, rng=rng)"),
    "a seed of digits": Case("rng = '42'", "fastrnn.Linear(3, 4, rng=rng)"),
    "a seed that is a float": Case("rng = 1.0", "fastrnn.Embedding(3, 4, rng=rng)"),
    "a negative seed": Case("rng = -1", "fastrnn.LSTM(3, 4, rng=rng)"),
    "Python's generator": Case(
        "import random; rng = random.Random(1)", "fastrnn.generate(embedding, fastrnn.RNN(3, 4), "
        "fastrnn.Linear(4, 10), [1], 3, rng=rng)"),
    "torch's generator": Case("rng = torch.Generator()", "fastrnn.GRU(3, 4, rng=rng)",
                              needs="torch"),
    "a size that is a float": Case("hidden_size = 4.0", "fastrnn.RNN(3, hidden_size)"),
    "a flag that is a number": Case("bias = 1", "fastrnn.RNN(3, 4, bias=bias)"),
    "one name for wrt": Case("wrt = 'x'", "layer.backward(tape, output, wrt=wrt)"),
    "one name for keep": Case("keep = 'gates'", "gru.forward(steps, keep=keep)"),
    "indices as floats": Case("indices = np.array([1.0, 2.0])", "embedding(indices)"),
    "indices as a list of floats": Case("indices = [1.0, 2.0]", "embedding(indices)"),
    "one-hot vectors as indices": Case(
        "indices = np.eye(10)[[1, 5]]", "assert embedding(indices).shape == (2, 3)"),
    "a prompt of one number": Case(
        "prompt = 1", "fastrnn.generate(embedding, rnn, fastrnn.Linear(4, 10), prompt, 3)"),
    "weights given as an attribute": Case(
        "value, written = 0.0, False", "if not written: layer.weight_hh_l0 = value",
        "layer.weights['weight_hh_l0'][...] = value",
        "layer.weights['weight_hh_l0'][...] = value; written = True"),
    # -------------------------------------------------------------------- state_dicts and files
    "a layer for its state": Case("d = fastrnn.RNN(3, 4)", "layer.load_state_dict(d)"),
    "a part of a larger model": Case(
        "d = {'encoder.rnn.' + n: a for n, a in layer.state_dict().items()} | {'x': np.ones(1)}",
        "layer.load_state_dict(d)"),
    "a Cell's state": Case(
        "d = {n.removesuffix('_l0'): a for n, a in layer.state_dict().items()}",
        "layer.load_state_dict(d)"),
    "a loaded file for a state": Case(
        "fastrnn.save(folder / 'a', {'r': layer}); d = fastrnn.load(folder / 'a')",
        "layer.load_state_dict(d)"),
    "a path for a state": Case(
        "fastrnn.save(folder / 'a', {'r': layer}); d = folder / 'a'", "layer.load_state_dict(d)"),
    "weights of integers": Case(
        "d = {n: np.ones(a.shape, int) for n, a in layer.weights.items()}",
        "layer.load_state_dict(d)"),
    "a transposed weight": Case(
        "d = layer.state_dict(); d['weight_ih_l0'] = d['weight_ih_l0'].T",
        "layer.load_state_dict(d)"),
    "a module's parameters": Case(
        "d = dict(torch.nn.RNN(3, 4).bfloat16().named_parameters())", "layer.load_state_dict(d)",
        needs="torch"),
    "a bare layer to save": Case(
        "objects = layer", "fastrnn.save(folder / 'a', objects)"),
    "a bare array to save": Case("objects = steps", "fastrnn.save(folder / 'a', objects)"),
    "a list of layers to save": Case(
        "objects = [rnn, head]", "fastrnn.save(folder / 'a', objects)"),
    "a number to save": Case(
        "objects = {'step': 3}", "fastrnn.save(folder / 'a', objects)"),
    "a NumPy number to save": Case(
        "objects = {'run': {'loss': np.float32(1)}}", "fastrnn.save(folder / 'a', objects)"),
    "a nested dict to save": Case(
        "objects = {'model': {'rnn': rnn}}", "fastrnn.save(folder / 'a', objects)",
        "'model_rnn': objects['model']['rnn']",
        "objects = {'model_rnn': objects['model']['rnn']}"),
    "a name with a dot": Case(
        "objects = {'encoder.rnn': rnn}", "fastrnn.save(folder / 'a', objects)"),
    "a torch state to save": Case(
        "objects = {'net': torch.nn.RNN(3, 4).state_dict()}", "fastrnn.save(folder / 'a', objects)",
        needs="torch"),
    "an open file": Case(
        "path = open(folder / 'a', 'wb'); path.close()", "fastrnn.save(path, {'rnn': rnn})"),
    "path and objects exchanged": Case(
        "path, objects = layer, str(folder / 'a')", "fastrnn.save(path, objects)",
        "the path comes first", "path, objects = objects, {'rnn': path}"),
    ".npz": Case(
        "path = str(folder / 'a.npz'); np.savez(path, a=steps)",
        "assert (fastrnn.load(path)['arrays']['a'] == steps).all()", "(.npz)",
        "path = str(folder / 'a.safetensors')"),
    ".npy": Case(
        "path = str(folder / 'a.npy'); np.save(path, steps)",
        "assert (fastrnn.load(path)['array'] == steps).all()", "(.npy)",
        "path = str(folder / 'a.safetensors')"),
    ".pt": Case(
        "path = str(folder / 'a.pt'); torch.save(torch.nn.RNN(3, 4).state_dict(), path)",
        "layer.load_state_dict(fastrnn.load(path)['model'])", "(.pt)",
        "path = str(folder / 'a.safetensors')", needs="torch"),
    ".pt of old": Case(
        "path = str(folder / 'a.pt'); torch.save(torch.nn.RNN(3, 4).bfloat16().state_dict(), path, "
        "_use_new_zipfile_serialization=False)",
        "layer.load_state_dict(fastrnn.load(path)['model'])", "(.pt)",
        "path = str(folder / 'a.safetensors')", needs="torch"),
}  # fmt: skip

SUBJECT = re.compile(r"^([A-Za-z_]\w*(?:\[[^\]]*\])*)")


@dataclass
class Run:
    """A wrong call, made again each time with what the messages so far have advised."""

    case: Case
    folder: Path
    before: list[str] = field(default_factory=list)  # statements
    added: dict[str, str] = field(default_factory=dict)  # keyword arguments
    messages: list[str] = field(default_factory=list)

    def make(self) -> bool:
        """Whether the call works; else its message is kept."""
        names: dict[str, Any] = {"np": np, "fastrnn": fastrnn, "folder": self.folder}
        if self.case.needs:
            names[self.case.needs] = pytest.importorskip(self.case.needs)
        exec(COMMON, names)
        exec(self.case.setup, names)
        for statement in self.before:
            exec(statement, names)
        tree = ast.parse(self.case.call)
        for keyword, value in self.added.items():
            call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and refused(n))
            call.keywords.append(ast.keyword(keyword, ast.parse(value, mode="eval").body))
        ast.fix_missing_locations(tree)
        try:
            exec(compile(tree, "the call", "exec"), names)
        except (TypeError, ValueError, AttributeError) as error:
            self.messages.append(str(error))
            return False
        return True

    def follow(self) -> None:
        """Do what the last message says."""
        text = self.messages[-1]
        if self.case.done and self.case.said in text and self.case.done not in self.before:
            if text.startswith(str(self.folder)):  # a file that was converted
                self.before.append(advised(text, "write", ()))
            self.before.append(self.case.done)
            return
        found = SUBJECT.match(text)
        assert found, text
        if statement := advised(text, "write", (" and pass ", ", and ")):
            self.before.append(statement)
        for expression in re.findall(r"\bpass (.+)", text)[:1]:
            cure = advised(text, "pass", (", ", "; ", " if ", " or ", " and ", " for ", " of "))
            assert cure, expression
            keyword, equals, value = cure.partition("=")
            if equals and keyword.isidentifier() and not value.startswith("="):
                self.added[keyword] = value
                continue
            target = self.target(found[1], cure)
            self.before.append(f"{target} = {cure}")
            likewise = re.search(r"; likewise ([\w, ]+)$", text)
            for other in re.split(", | and ", likewise[1]) if likewise else ():
                its = re.sub(rf"\b{target}\b", other, cure)
                self.before.append(f"{other} = {its}")

    def target(self, subject: str, cure: str) -> str:
        """What an expression is to be passed for: what it is made of, else what was blamed."""
        if subject in cure:
            return subject
        base = subject.partition("[")[0]
        used = [n.id for n in ast.walk(ast.parse(cure)) if isinstance(n, ast.Name)]
        if base in used:
            return base
        given = {n.id for n in ast.walk(ast.parse(self.case.call)) if isinstance(n, ast.Name)}
        others = [n for n in used if n in given - {"np", "fastrnn", "layer"}]
        return others[0] if others else base


def refused(call: ast.Call) -> bool:
    """Whether this is the call that is refused: the first that is of the package."""
    return not ast.unparse(call.func).startswith(("np.", "torch.", "open"))


def advised(text: str, verb: str, ends: tuple[str, ...]) -> str:
    """What stands behind the verb, up to one of the ends that is outside of all brackets."""
    found = re.search(rf"\b{verb} (.+)$", text)
    if not found:
        return ""
    rest, depth = found[1], 0
    for i, letter in enumerate(rest):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and any(rest.startswith(end, i + 1) for end in ends):
            piece = rest[: i + 1]
            try:
                ast.parse(piece)
            except SyntaxError:
                continue
            return piece
    ast.parse(rest)
    return rest


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", ["compiled", "reference"])
def test_what_a_message_says_works(name: str, backend: str, tmp_path: Path) -> None:
    run = Run(CASES[name], tmp_path)
    with fastrnn.backend(backend):
        assert not run.make(), "nothing was refused"
        assert run.case.said in run.messages[0]
        for _ in range(2):
            run.follow()
            if run.make():
                return
    pytest.fail("\n".join([*run.messages, *run.before, str(run.added)]))
