"""The model, and a run of training that can be saved at any step and go on from there."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import generation, optim
from ..clipping import clip_grad_norm
from ..io import Loaded, load, save
from ..layers import RECURRENT, Dropout, Embedding, Linear, Recurrent
from ..losses import softmax_cross_entropy
from .corpus import Corpus, Settings
from .text import CharLMError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KIND = "character-level language model"
WARM_UP = 0.02  # of all steps, until the learning rate is at its height
BLOCK = 4096  # characters, when the held-out text is read


@dataclass(frozen=True)
class Model:
    """The layers and the characters that their numbers stand for."""

    characters: str
    embedding: Embedding
    rnn: Recurrent[Any]
    head: Linear

    @classmethod
    def fresh(cls, characters: str, s: Settings) -> Model:
        """A model with random weights."""
        rng = np.random.default_rng(s.seed)
        make: Any = RECURRENT[s.cell]
        return cls(
            characters,
            Embedding(len(characters), s.embedding_dim, dtype=s.dtype, rng=rng),
            make(
                s.embedding_dim,
                s.hidden_size,
                s.layers,
                dtype=s.dtype,
                rng=rng,
                dropout=dropout_between(s),
            ),
            Linear(s.hidden_size, len(characters), dtype=s.dtype, rng=rng),
        )

    @classmethod
    def loaded(cls, path: str, file: Loaded) -> Model:
        """The model in a file; CharLMError where it holds none."""
        kinds: dict[str, Any] = {"embedding": Embedding, "rnn": Recurrent, "head": Linear}
        if file.metadata.get("kind") != KIND or not all(
            isinstance(file.get(name), kind) for name, kind in kinds.items()
        ):
            raise CharLMError(f"{path}: not a {KIND}")
        model = cls(file.metadata.get("characters", ""), *(file[name] for name in kinds))
        sizes = (
            model.embedding.num_embeddings, model.head.out_features, model.rnn.input_size,
            model.head.in_features,
        )  # fmt: skip
        count = len(model.characters)
        wanted = (count, count, model.embedding.embedding_dim, model.rnn.hidden_size)
        dtypes = {layer.dtype for layer in model.layers()}
        plain = not (model.rnn.batch_first or model.rnn.bidirectional or model.rnn.reverse)
        if sizes != wanted or len(dtypes) > 1 or not plain:
            raise CharLMError(f"{path}: its layers do not fit each other")
        return model

    def layers(self) -> tuple[Embedding, Recurrent[Any], Linear]:
        """In the order in which a character passes them."""
        return self.embedding, self.rnn, self.head

    def bits(self, ids: Array, interrupted: Callable[[], Any] = lambda: False) -> float | None:
        """Bits per character of a text read as one sequence; None where that was interrupted."""
        state: Any = None
        nats = 0.0
        for start in range(0, len(ids) - 1, BLOCK):
            if interrupted():
                return None
            target = ids[start + 1 : start + 1 + BLOCK]
            read = ids[start : start + len(target)]
            output, state = self.rnn(self.embedding(read), state)
            nats += softmax_cross_entropy(self.head(output), target, reduction="sum")[0]
        return nats / (len(ids) - 1) / math.log(2)

    def numbers(self, text: str, what: str) -> list[int]:
        """Of the characters; CharLMError where the model does not know one."""
        places = {c: i for i, c in enumerate(self.characters)}
        if unknown := sorted(set(text) - set(places)):
            listed = ", ".join(map(repr, unknown[:5]))
            raise CharLMError(f"{what} has characters that the model has not seen: {listed}")
        return [places[c] for c in text]

    def write(self, prompt: str, length: int, seed: int | None, **choice: Any) -> str:
        """Go on from a prompt, as `generate` does with the options in `choice`."""
        ids = generation.generate(
            *self.layers(), self.numbers(prompt, "the prompt"), length, rng=seed, **choice
        )[0]
        return "".join(self.characters[i] for i in ids)

    def write_on(self, prompt: str, length: int, seed: int | None, **choice: Any) -> Iterator[str]:
        """The same characters, each as soon as it is there."""
        ids = self.numbers(prompt, "the prompt")
        steps = generation.generate_iter(*self.layers(), ids, length, rng=seed, **choice)
        return (self.characters[i] for i in steps)

    def start(self) -> str:
        """What to go on from where nobody says."""
        return "\n" if "\n" in self.characters else self.characters[0]


def dropout_between(s: Settings) -> float:
    """The recurrent layers' own: it acts between them, and warns where there is one."""
    return s.dropout if s.layers > 1 else 0.0


class Training:
    """A run: the model, the optimiser, and how far it is. All that the next step depends on."""

    def __init__(self, corpus: Corpus, settings: Settings, model: Model | None = None) -> None:
        self.corpus, self.settings = corpus, settings
        self.model = model or Model.fresh(corpus.characters, settings)
        self.adam = optim.Adam([layer.flat_weights for layer in self.model.layers()])
        per_stream = (len(corpus.train) - 1) // settings.batch_size
        shape = (settings.batch_size, per_stream)
        used = settings.batch_size * per_stream
        self.inputs, self.targets = (
            corpus.train[i : i + used].reshape(shape).T for i in (0, 1)
        )  # (per_stream, B), views
        self.steps_per_epoch = -(-per_stream // settings.steps)
        self.total = self.steps_per_epoch * settings.epochs
        self.step_count = 0
        self.state: Any = None  # of the streams: an array, of an LSTM two
        self.losses: list[float] = []  # of each step, in bits per character
        self.held_out: list[float] = []  # after each epoch

    def learning_rate(self) -> float:
        """Of the next step: a linear rise, then half a cosine down to 0."""
        warm_up = max(1.0, WARM_UP * self.total)
        rise = min(1.0, (self.step_count + 1) / warm_up)
        return (
            self.settings.lr * rise * 0.5 * (1 + math.cos(math.pi * self.step_count / self.total))
        )

    def epochs(self) -> int:
        """How often the text has been read to its end."""
        return self.step_count // self.steps_per_epoch

    def step(self) -> int:
        """One step of truncated backpropagation through time; returns the characters read."""
        place = self.step_count % self.steps_per_epoch * self.settings.steps
        inputs = self.inputs[place : place + self.settings.steps]
        targets = self.targets[place : place + self.settings.steps]
        embedding, rnn, head = self.model.layers()

        p = self.settings.dropout
        # All that a step draws comes from the count of steps, which is in the file.
        rng = np.random.default_rng((self.settings.seed, self.adam.step_count)) if p else None

        x, embedding_tape = embedding.forward(inputs)
        output, state, rnn_tape = rnn.forward(x, self.state if place else None, rng=rng)
        drop = Dropout(p)
        output, drop_tape = drop.forward(output, rng=rng)
        logits, head_tape = head.forward(output)
        loss, d_logits = softmax_cross_entropy(logits, targets)

        of_head = head.backward(head_tape, d_logits)
        assert of_head.x is not None
        d_output = drop.backward(drop_tape, of_head.x).x
        of_rnn = rnn.backward(rnn_tape, d_output, wrt=("x", "weights"))
        assert of_rnn.x is not None
        of_embedding = embedding.backward(embedding_tape, of_rnn.x)
        grads: list[Any] = [of_embedding.flat_weights, of_rnn.flat_weights, of_head.flat_weights]
        norm = clip_grad_norm(grads, self.settings.max_norm)
        if not math.isfinite(norm):
            raise CharLMError(
                f"the gradient is {norm} at step {self.step_count + 1}: try a lower learning rate"
            )
        self.adam.lr = self.learning_rate()
        self.adam.step(grads)

        self.state = state
        self.losses.append(loss / math.log(2))
        self.step_count += 1
        return inputs.size

    # -------------------------------------------------------------------- files

    def save(self, path: str) -> None:
        """Write everything to a file, or leave the file as it was."""
        training: dict[str, Any] = {
            "step_count": self.step_count,
            "losses": np.array(self.losses),
            "held_out": np.array(self.held_out),
        }
        if self.state is not None:
            training |= zip(("state", "state_c"), _arrays(self.state), strict=False)
        objects: dict[str, Any] = dict(
            zip(("embedding", "rnn", "head"), self.model.layers(), strict=True)
        )
        objects |= {"adam": self.adam, "training": training}
        metadata = {
            "kind": KIND, "characters": self.model.characters, "text": self.corpus.digest,
            "files": json.dumps(self.corpus.files), "settings": json.dumps(asdict(self.settings)),
        }  # fmt: skip
        try:
            save(path, objects, metadata)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise CharLMError(f"cannot write {path}: {why}") from None

    @classmethod
    def resumed(cls, path: str, file: Loaded, corpus: Corpus, settings: Settings) -> Training:
        """The run that a file was saved from, with its settings or some that it may go on with."""
        if file.metadata.get("text") != corpus.digest:
            raise CharLMError(f"{path}: it was trained on another text than {corpus.name}")
        if "files" in file.metadata:  # it is the same text, whatever it is called by now
            corpus = replace(corpus, files=tuple(files_of(path, file)))
        run = cls._with_weights(path, file, corpus, settings)
        with _going_on(path):
            if run.model.characters != corpus.characters:
                raise ValueError("its characters are not those of the text")
            at = file["training"]
            run.step_count = at["step_count"]
            if at["losses"].ndim != 1 or at["held_out"].ndim != 1:
                raise ValueError("its losses are no sequence")
            run.losses, run.held_out = at["losses"].tolist(), at["held_out"].tolist()
            if type(run.step_count) is not int:
                raise ValueError("its step count is no integer")
            missing = run.epochs() - len(run.held_out)  # one, where reading it was interrupted
            at_end = run.step_count % run.steps_per_epoch == 0
            if not (0 <= run.step_count <= run.total and 0 <= missing <= at_end):
                raise ValueError("its step count is out of range")
            if len(run.losses) != run.step_count:
                raise ValueError("it has not a loss for each step")
            if run.step_count:
                shape = (settings.layers, settings.batch_size, settings.hidden_size)
                arrays = [at["state"], at["state_c"]] if settings.cell == "lstm" else [at["state"]]
                if any(a.shape != shape or a.dtype != run.model.rnn.dtype for a in arrays):
                    raise ValueError(f"its state is not {settings.dtype} {shape}")
                run.state = tuple(arrays) if len(arrays) == 2 else arrays[0]
        return run

    @classmethod
    def with_other_text(
        cls,
        path: str,
        file: Loaded,
        corpus: Corpus,
        settings: Settings,
        options: Iterable[str] = (),
    ) -> Training:
        """A new run with the weights and Adam's means of a file: its first step is to come.

        `options` are those that a new model on both texts is to be trained with, too.
        """
        characters = Model.loaded(path, file).characters
        words = ["fastrnn", "train", *settings.options(), *options, "--"]
        both = [*(files_of(path, file) or ["TEXT"]), *corpus.files]
        corpus = corpus.numbered_as(characters, path, shlex.join([*words, *both]))
        return cls._with_weights(path, file, corpus, settings)

    @classmethod
    def _with_weights(cls, path: str, file: Loaded, corpus: Corpus, settings: Settings) -> Training:
        model = Model.loaded(path, file)
        with _going_on(path):
            run = cls(corpus, settings, model)
            rnn, s = model.rnn, settings
            made = (type(rnn), rnn.num_layers, rnn.hidden_size, str(rnn.dtype), rnn.input_size)
            if made != (RECURRENT[s.cell], s.layers, s.hidden_size, s.dtype, s.embedding_dim):
                raise ValueError("its layers are not those of its settings")
            rnn.dropout = dropout_between(s)
            run.adam.load_state_dict(file["adam"])
        return run


@contextmanager
def _going_on(path: str) -> Iterator[None]:
    """Turn what a file lacks into one line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CharLMError(f"{path}: cannot go on from it: {error}") from None


def _arrays(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)


def load_model_file(path: str) -> Loaded:
    """The file's content; CharLMError where it cannot be read."""
    try:
        return load(path)
    except OSError as error:
        raise CharLMError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, TypeError) as error:
        raise CharLMError(str(error)) from None


def files_of(path: str, file: Loaded) -> list[str]:
    """The names of the text's files as the run was begun; none: it was the default text."""
    try:
        files = json.loads(file.metadata.get("files", "[]"))
    except (ValueError, RecursionError):
        files = None
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise CharLMError(f"{path}: not a {KIND} in training")
    return files


def settings_of(path: str, file: Loaded) -> Settings:
    """The settings of the run that a file was saved from."""
    try:
        settings = Settings(**json.loads(file.metadata["settings"]))
        settings.check()
    except (KeyError, TypeError, ValueError, RecursionError, CharLMError):
        raise CharLMError(f"{path}: not a {KIND} in training") from None
    return settings
