"""The comparison of the compiled functions with the reference and with frameworks.

A leaf: it is built on the public names (and one measuring function of the core), nothing imports
it but the command line, and it can be deleted without a change elsewhere.

Every (peer, thread count) runs in a process of its own. Only one is awake at a time; the others
are stopped, so that their idle threads cannot take its processor. All get the same weights and
inputs, all results are checked against the reference in float64 before anything is timed, and
turns are interleaved over several rounds, so that a slow minute of the machine slows all alike.

Modes are forward and training, which call a layer over a whole sequence, and, only if they are
asked for:

- step: one time step from Python, the state carried from call to call, as a program does that has
  each input only when it has the output before. There fastrnn is a layer's stream.
- tape: forward that keeps what backward needs.
- stream: a whole sequence by a layer's stream, which keeps the packed weights, as the peers always
  do: beside forward, it tells what packing costs.
- frozen: the same by ``layer.freeze()``, which has every shape.

Shapes have names, and regimes are groups of them. A shape may be a stack, have both directions, or
be ragged: sequences of different lengths, for which only the steps that exist are counted.
"""

from __future__ import annotations

from .compare import format_comparison, load_report
from .plot import draw
from .report import Report
from .session import Options, check_statistic, run
from .shapes import (
    CELLS,
    DEFAULT_MODES,
    MODES,
    REGIMES,
    SHAPES,
    BenchError,
    Shape,
    flops,
    make_problem,
)
from .tables import format_report

__all__ = [
    "CELLS",
    "DEFAULT_MODES",
    "MODES",
    "REGIMES",
    "SHAPES",
    "BenchError",
    "Options",
    "Report",
    "Shape",
    "flops",
    "format_report",
    "main",
    "make_problem",
    "run",
]


def main(options: Options) -> int:
    """Run, print the tables, write the files; or compare two runs. Return the exit status.

    The status is 1 if this package's own functions failed or disagreed with the reference: a
    peer's failure is told, but it is not ours. Of a comparison it is 1 if a row became slower.
    """
    from fastrnn import outputs  # not in a worker, where this package has another name

    from .peers import OWN

    if options.compare is not None:
        check_statistic(options.statistic)
        old, new = (load_report(path) for path in options.compare)
        text, slower = format_comparison(old, new, options.statistic, options.markdown)
        print(text, flush=True)
        return int(slower)
    report = run(options)
    print(format_report(report, options.markdown), flush=True)
    try:
        if options.json is not None:
            outputs.write_output(options.json, [f"{report.to_json()}\n".encode()])
        if options.plot is not None:
            outputs.save_plot(draw(report), options.plot)
    except outputs.OutputError as error:
        raise BenchError(str(error)) from None
    return int(any(line.startswith(f"{OWN} ") for row in report.rows for line in row.problems))
