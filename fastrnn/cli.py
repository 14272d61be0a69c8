"""The command ``fastrnn``: it parses and hands over."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="fastrnn", description="Recurrent networks on a CPU, fast.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("info", help="print the version, the instruction set and the threads")
    _add_train(commands)
    _add_sample(commands)
    _add_gradients(commands)

    bench = commands.add_parser(
        "bench",
        help="time the compiled functions against NumPy and the frameworks installed",
        description="Time the compiled functions against the NumPy reference and whichever of "
        "torch, onnxruntime, openvino and jax are installed. Each runs in its own process, its "
        "results are checked first, and turns are interleaved.",
    )
    bench.add_argument("--cells", "--cell", nargs="+", metavar="NAME", help="default: all")
    bench.add_argument(
        "--modes",
        nargs="+",
        metavar="MODE",
        help="forward, training (default: both); step: one step from Python, shapes with T = 1; "
        "tape: forward that keeps what backward needs; stream: packed weights are kept",
    )
    bench.add_argument(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help='names such as small, sizes "T,B,D,H", either with "x2" (layers), "both" '
        '(directions) or "ragged" (lengths) behind, or regimes such as streaming, or all',
    )
    bench.add_argument(
        "--peers",
        nargs="+",
        metavar="PEER",
        help="numpy, torch, onnxruntime, openvino, jax, or module:Class",
    )
    bench.add_argument(
        "--threads",
        nargs="+",
        type=int,
        metavar="N",
        help="counts to try for each peer; default: 1 and all usable cores",
    )
    bench.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    bench.add_argument(
        "--min-time",
        type=float,
        default=0.05,
        metavar="SECONDS",
        help="length of one turn, at least (default: 0.05)",
    )
    bench.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or float64")
    bench.add_argument("--isa", metavar="NAME", help="instruction set of the compiled functions")
    bench.add_argument(
        "--statistic",
        default="median",
        metavar="NAME",
        help="of a turn's calls, for the tables: median (default) or best",
    )
    bench.add_argument("--markdown", action="store_true", help="print Markdown tables")
    bench.add_argument("--json", metavar="FILE", help="write all that was measured")
    bench.add_argument("--plot", metavar="FILE", help="draw the ratios (needs matplotlib)")
    bench.add_argument(
        "--compare",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="compare two files of --json, time nothing; status 1 if a row became slower",
    )
    return parser


def _add_train(commands: Any) -> None:
    from fastrnn._checks import listed
    from fastrnn.char_lm import Settings
    from fastrnn.char_lm.corpus import CELLS

    train = commands.add_parser(
        "train",
        help="train a character-level language model",
        description="Train a character-level language model on a text: embedding, recurrent "
        "layers, output layer, truncated backpropagation through time, Adam. The last tenth of "
        "the text is held out.",
    )
    add = train.add_argument
    add("text", nargs="?", metavar="TEXT", help="a UTF-8 file; default: Python's help topics")
    add("--output", metavar="FILE", help="default: char_lm.safetensors, or the next free name")
    add("--resume", action="store_true",
        help="go on from the output file, with the same text and settings")  # fmt: skip
    add("--force", action="store_true", help="replace the output file or the picture if need be")
    add("--plot", metavar="FILE", help="draw the losses: .png, .svg or .pdf (needs matplotlib)")
    for name, kind, what in (
        ("cell", str, listed(CELLS)),
        ("layers", int, "recurrent layers, one on the other"),
        ("embedding-dim", int, "numbers that stand for a character"),
        ("hidden-size", int, "units of a recurrent layer"),
        ("batch-size", int, "streams of the text that are read side by side"),
        ("steps", int, "characters of a stream in a step of training"),
        ("epochs", int, "times that the text is read"),
        ("lr", float, "learning rate of Adam, at its height"),
        ("max-norm", float, "of the gradient, above which it is scaled"),
        ("dtype", str, "float32 or float64"),
        ("seed", int, "of the first weights and of the sample"),
    ):
        default = getattr(Settings, name.replace("-", "_"))
        add(f"--{name}", type=kind, metavar="X", help=f"{what} (default: {default})")


def _add_sample(commands: Any) -> None:
    sample = commands.add_parser(
        "sample",
        help="write text with a trained model",
        description="Let a model that `fastrnn train` made write on.",
    )
    add = sample.add_argument
    add("model", metavar="MODEL", help="the file that was saved")
    add("--prompt", metavar="TEXT", help="what to go on from, and the beginning of the output")
    add("--length", type=int, default=500, metavar="N", help="characters (default: %(default)s)")
    add("--temperature", type=float, default=0.7, metavar="X",
        help="lower is surer, 0 the most probable (default: %(default)s)")  # fmt: skip
    add("--seed", type=int, metavar="N", help="the same seed, the same text")


def _add_gradients(commands: Any) -> None:
    gradients = commands.add_parser(
        "gradients",
        help="show how gradients vanish and explode, and what clipping does",
        description="Measure how the error signal shrinks or grows from step to step on its way "
        "back through Elman, GRU and LSTM networks, and train an Elman network whose gradient "
        "explodes, with and without clipping.",
    )
    add = gradients.add_argument
    add("--steps", type=int, default=100, metavar="N", help="of a sequence (default: %(default)s)")
    add("--hidden-size", type=int, default=64, metavar="N", help="units (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N",
        help="of weights and sequences (default: %(default)s)")  # fmt: skip
    add("--plot", metavar="FILE", help="draw it: .png, .svg or .pdf (needs matplotlib)")
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
    options = vars(make_parser().parse_args(argv))
    command = options.pop("command")
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
    if command == "info":
        import fastrnn

        fastrnn.show_config()
        return 0
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
            print(char_lm.sample(options.pop("model"), **options))
            return 0
        own = {name: options.pop(name) for name in ("text", "output", "resume", "force", "plot")}
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
