"""The command ``fastrnn``: it parses and hands over."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn


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

    bench = commands.add_parser(
        "bench",
        help="time the compiled functions against NumPy and the frameworks installed",
        description="Time the compiled functions against the NumPy reference and whichever of "
        "torch, onnxruntime, openvino and jax are installed. Each runs in its own process, its "
        "results are checked first, and turns are interleaved.",
    )
    bench.add_argument("--cells", "--cell", nargs="+", metavar="NAME", help="default: all")
    bench.add_argument("--modes", nargs="+", metavar="MODE", help="forward, training")
    bench.add_argument(
        "--shapes", nargs="+", metavar="SHAPE", help='names such as small, or sizes "T,B,D,H"'
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; default those of the process.

    Returns
    -------
    int
        The exit status: 0, 1 if something failed, 130 if interrupted. Bad options end the
        process with status 2 and one line on standard error.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    options = vars(parser.parse_args(argv))
    command = options.pop("command")

    if command == "info":
        import fastrnn

        fastrnn.show_config()
        return 0

    from fastrnn import bench

    try:
        return bench.main(bench.Options(**options, arguments=argv[1:]))
    except bench.BenchError as error:
        print(f"fastrnn bench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
