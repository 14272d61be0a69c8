"""The command ``fastrnn``: it parses and hands over."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from ._checks import listed
from ._version import __version__

INT, FLOAT, NAME, FILE = "INT", "FLOAT", "NAME", "FILE"

# What other programs call a command or an option, where the spelling is not near.
ELSEWHERE = {
    "generate": "sample",
    "--bptt": "--steps",
    "--bs": "--batch-size",
    "--clip": "--max-norm",
    "--learning-rate": "--lr",
    "--max-new-tokens": "--length",
    "--num": "--length",
    "--seq-length": "--steps",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which learns of its options when they are needed.

    So `fastrnn --version` imports neither what trains nor what measures.
    """

    def __init__(self, *, options: Callable[[Any], None] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.options = options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse here what is left over: the parser of all commands names none."""
        if self.options is not None:
            self.options(self.add_argument)
            self.options = None
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown[0])}")
        return found, unknown

    def _meant(self, word: str) -> str:
        return _meant(word.partition("=")[0], self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is no command, with the one that may be meant."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _meant(value, action.choices or ())
            raise

    def error(self, message: str) -> NoReturn:
        """Print the message and end with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def _meant(word: str, known: Iterable[str]) -> str:
    """Ask for what is nearest to a word that is not known, if something is near."""
    from difflib import get_close_matches

    near = [name for name in known if name == ELSEWHERE.get(word)]
    near = near or get_close_matches(word, known, 1, 0.75)
    return f" (did you mean {near[0]}?)" if near else ""


class _Once(argparse.Action):
    """An option of which a second one would take the place of the first."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "given twice: run the command once for each")
        setattr(namespace, self.dest, values)


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="fastrnn", description="Recurrent networks on a CPU, fast.")
    parser.add_argument("--version", action="version", version=f"fastrnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser(
        "info",
        options=_add_info,
        help="print the version, the instruction set and the threads, or what a model file holds",
        description="Print the version, the instruction set and the threads; or, of a model file, "
        "its layers, shapes, types and sizes, and what would be converted and what not.",
    )
    commands.add_parser(
        "convert",
        options=_add_convert,
        help="make layers of a PyTorch, Keras or ONNX file, or an ONNX model of a layer",
        description="Write the layers of a file into another. IN: a .safetensors file of fastrnn "
        "or with PyTorch's names, a .keras or .weights.h5 file of Keras, an ONNX model. OUT: a "
        ".safetensors file, which fastrnn.load reads; or an .onnx model, of one layer. All that is "
        "in IN has to become a layer or be named in --skip.",
    )
    commands.add_parser(
        "train",
        options=_add_train,
        help="train a character-level language model",
        description="Train a character-level language model on a text: embedding, recurrent "
        "layers, output layer, truncated backpropagation through time, Adam. The last tenth of "
        "the text is held out.",
    )
    commands.add_parser(
        "sample",
        options=_add_sample,
        help="write text with a trained model",
        description="Let a model that `fastrnn train` made write on.",
    )
    commands.add_parser(
        "gradients",
        options=_add_gradients,
        help="show how gradients vanish and explode, and what clipping does",
        description="Measure how the error signal shrinks or grows from step to step on its way "
        "back through Elman, GRU and LSTM networks, and train an Elman network whose gradient "
        "explodes, with and without clipping.",
    )
    commands.add_parser(
        "bench",
        options=_add_bench,
        help="time the compiled functions against NumPy and the frameworks installed",
        description="Time the compiled functions against the NumPy reference and whichever of "
        "torch, onnxruntime, openvino and jax are installed. Each runs in its own process, its "
        "results are checked first, and turns are interleaved.",
    )
    return parser


def _add_config(add: Any) -> None:
    add("--config", metavar=FILE,
        help="of a .weights.h5 file: the text of model.to_json(), which it lacks")  # fmt: skip


def _add_info(add: Any) -> None:
    add("model", nargs="?", metavar="MODEL", help="a file that `fastrnn convert` takes")
    _add_config(add)


def _add_convert(add: Any) -> None:
    add("source", metavar="IN", help="the file to read")
    add("target", metavar="OUT", help="the file to write: .safetensors or .onnx")
    add("--name", metavar=NAME, help="only this layer; of PyTorch, where it is in the model")
    add("--skip", action="append", default=[], metavar=NAME,
        help="leave this out: no layer here, or computed otherwise; may be repeated")  # fmt: skip
    add("--kind", action="append", default=[], metavar="NAME=KIND",
        help="what a layer of PyTorch is whose weights do not say: Linear or Embedding; may be "
        "repeated; with --name, KIND alone")  # fmt: skip
    add("--nonlinearity", metavar=NAME,
        help="of an RNN of PyTorch, whose weights do not say: tanh (default) or relu")  # fmt: skip
    add("--batch-first", action="store_true", help="the layers take (B, T, D), not (T, B, D)")
    _add_config(add)
    add("--lengths", action="store_true", help="give the ONNX model an input of lengths")
    add("--state", action="store_true", help="give the ONNX model inputs of initial states")
    add("--force", action="store_true", help="replace OUT if need be")


def _add_bench(add: Any) -> None:
    from .bench.peers import PEERS
    from .bench.report import STATISTICS
    from .bench.shapes import CELLS, DEFAULT_MODES, DTYPES, MODES, REGIMES, SHAPES
    from .runtime import available_isas, get_isa

    def names(known: Any) -> str:
        return ", ".join(known)

    add("--cells", "--cell", nargs="+", metavar=NAME, help=f"{names(CELLS)}; default: all")
    add("--modes", nargs="+", metavar=NAME,
        help=f"{names(MODES)}; default: {names(DEFAULT_MODES)}. step: one step from Python, for "
        "shapes with T = 1; tape: forward that keeps what backward needs; stream, frozen: packed "
        "weights are kept, by layer.stream and layer.freeze")  # fmt: skip
    add("--shapes", nargs="+", metavar="SHAPE",
        help=f'sizes "T,B,D,H" or a name ({names(SHAPES)}), either with "x2" (layers), "both" '
        f'(directions) or "ragged" (lengths) behind; or a regime ({names(REGIMES)}), or all; '
        "default: all that have a name")  # fmt: skip
    add("--peers", nargs="+", metavar=NAME, help=f"{names(PEERS)}, or module:Class; default: all")
    add("--threads", nargs="+", type=int, metavar=INT,
        help="counts to try for each peer; default: 1 and all usable cores")  # fmt: skip
    add("--rounds", type=int, default=5, metavar=INT, help="default: %(default)s")
    add("--min-time", type=float, default=0.05, metavar="SECONDS",
        help="length of one turn, at least (default: %(default)s)")  # fmt: skip
    add("--dtype", default="float32", metavar=NAME,
        help=f"{listed(DTYPES)} (default: %(default)s)")  # fmt: skip
    add("--isa", metavar=NAME,
        help=f"instruction set of the compiled functions, here {listed(available_isas())} "
        f"(default: {get_isa()})")  # fmt: skip
    add("--statistic", default="median", metavar=NAME,
        help=f"of a turn's calls, for the tables: {listed(STATISTICS)} "
        "(default: %(default)s)")  # fmt: skip
    add("--markdown", action="store_true", help="print Markdown tables")
    add("--json", metavar=FILE, help="write all that was measured")
    add("--plot", metavar=FILE, help="draw the ratios: .png, .svg or .pdf (needs matplotlib)")
    add("--force", action="store_true", help="replace the files of --json and --plot if need be")
    add("--compare", nargs=2, metavar=("OLD", "NEW"),
        help="compare two files of --json, time nothing; "
        "status 1 if a row became slower")  # fmt: skip


def _add_train(add: Any) -> None:
    from .char_lm import Settings
    from .char_lm.corpus import CELLS, DTYPES

    add("texts", nargs="*", metavar="TEXT",
        help="text files or pipes, one behind the other; default: Python's help topics, or with "
        "--resume the same text")  # fmt: skip
    add("--output", metavar=FILE, help="default: char_lm.safetensors, or the next free name")
    add("--resume", nargs="?", const=True, default=False, metavar="MODEL",
        help="go on from this file, or the output file; with other --epochs, --lr, --max-norm or "
        "--dropout where given; with another TEXT from its beginning, into a new file")  # fmt: skip
    add("--force", action="store_true", help="replace the output file or the picture if need be")
    add("--plot", metavar=FILE, help="draw the losses: .png, .svg or .pdf (needs matplotlib)")
    for name, kind, metavar, what in (
        ("cell", str, NAME, listed(CELLS)),
        ("layers", int, INT, "recurrent layers, one on the other"),
        ("embedding-dim", int, INT, "numbers that stand for a character"),
        ("hidden-size", int, INT, "units of a recurrent layer"),
        ("batch-size", int, INT, "streams of the text that are read side by side"),
        ("steps", int, INT, "characters of a stream in a step of training"),
        ("epochs", int, INT, "times that the text is read"),
        ("lr", float, FLOAT, "learning rate of Adam, at its height"),
        ("max-norm", float, FLOAT, "of the gradient, above which it is scaled"),
        ("dropout", float, FLOAT, "share of each layer's output that is made zero"),
        ("dtype", str, NAME, listed(DTYPES)),
        ("seed", int, INT, "of the first weights and of the sample"),
    ):
        default = getattr(Settings, name.replace("-", "_"))
        add(f"--{name}", type=kind, metavar=metavar, help=f"{what} (default: {default})")


def _add_sample(add: Any) -> None:
    add("model", metavar="MODEL", help="the file that was saved")
    add("--prompt", action=_Once, metavar="TEXT",
        help="what to go on from, and the beginning of the output")  # fmt: skip
    add("--length", type=int, default=500, metavar=INT,
        help="characters, at most (default: %(default)s)")  # fmt: skip
    add("--temperature", type=float, default=0.7, metavar=FLOAT,
        help="lower is surer, 0 the most probable (default: %(default)s)")  # fmt: skip
    add("--top-k", type=int, metavar=INT, help="draw from the most probable ones, this many")
    add("--top-p", type=float, metavar=FLOAT,
        help="draw from as few as together have this probability")  # fmt: skip
    add("--stop", metavar="TEXT", help="end with this text if it comes")
    add("--stream", action="store_true", help="print each character as soon as it is there")
    add("--seed", type=int, metavar=INT, help="the same seed, the same text")


def _add_gradients(add: Any) -> None:
    add("--steps", type=int, default=100, metavar=INT, help="of a sequence (default: %(default)s)")
    add("--hidden-size", type=int, default=64, metavar=INT, help="units (default: %(default)s)")
    add("--seed", type=int, default=0, metavar=INT,
        help="of weights and sequences (default: %(default)s)")  # fmt: skip
    add("--plot", metavar=FILE, help="draw it: .png, .svg or .pdf (needs matplotlib)")
    add("--force", action="store_true", help="replace the picture if need be")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; default those of the process.

    Returns
    -------
    int
        The exit status: 0; 1 if the reader of standard output has gone; 2 with one line on
        standard error for what the user can mend; 128 and a signal's number if one ended it, 130
        for Ctrl-C. Bad options end the process with status 2.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    try:
        options = vars(parser.parse_args(argv))
    except KeyboardInterrupt:  # options of a command import it, which takes a while
        return 130
    command = options.pop("command")
    if command is None:
        parser.print_help()
        return 0
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # not every terminal has all characters
    try:
        status = _run(command, options, argv)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is to be found out here
        return status
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        return _fail(command, "not enough memory")
    except BrokenPipeError:  # the reader has seen enough, as in `fastrnn sample MODEL | head`
        _discard_output()
        return 1
    except OSError as error:
        _discard_output()
        return _fail(command, f"cannot write the output: {error.strerror or error}")


def _run(command: str, options: dict[str, Any], argv: list[str]) -> int:
    if command == "info" and options["model"] is None and options["config"] is None:
        import fastrnn

        fastrnn.show_config()
        return 0
    if command in ("info", "convert"):
        from fastrnn.convert import files

        try:
            if command == "info":
                return files.info(**options)
            return files.convert(files.ConvertOptions(**options))
        except files.FilesError as error:
            return _fail(command, str(error))
    if command == "bench":
        from fastrnn import bench

        try:
            return bench.main(bench.Options(**options, arguments=argv[1:]))
        except bench.BenchError as error:
            return _fail(command, str(error))
    if command == "gradients":
        from fastrnn import gradients

        try:
            return gradients.main(gradients.Options(**options))
        except gradients.GradientsError as error:
            return _fail(command, str(error))

    from fastrnn import char_lm

    try:
        if command == "sample":
            return char_lm.sample(char_lm.SampleOptions(**options))
        own = {name: options.pop(name) for name in ("texts", "output", "resume", "force", "plot")}
        return char_lm.train(char_lm.TrainOptions(**own, settings=options))
    except char_lm.CharLMError as error:
        return _fail(command, str(error))


def _fail(command: str, message: str) -> int:
    """Say in one line what is wrong, if anybody listens; the exit status."""
    line = "".join(c if c.isprintable() else "?" for c in message)
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"fastrnn {command}: error: {line}", file=sys.stderr, flush=True)
    return 2


def _discard_output() -> None:
    """Let the interpreter's own flush at the end succeed."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
