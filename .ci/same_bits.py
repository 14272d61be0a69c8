"""Compare bits between two machines: the results of one are written, the other's must equal them.

usage: same_bits.py write FILE      on one machine
       same_bits.py check FILE      on the other, or under emulation
Needs the tests' folder on PYTHONPATH. The problems travel in the file, drawn once.
"""

import pickle
import sys
from pathlib import Path

from bounds import draw, run
from test_bits import DTYPES, LARGE, SMALL, assert_same_results

import fastrnn


def main(mode: str, file: str) -> None:
    if mode == "write":
        problems = [draw(spec, dtype) for spec in SMALL + LARGE for dtype in DTYPES]
        results = [run(fastrnn, problem) for problem in problems]
        Path(file).write_bytes(pickle.dumps((fastrnn.get_isa(), problems, results)))
        return
    isa, problems, expected = pickle.loads(Path(file).read_bytes())
    here = fastrnn.get_isa()
    if here == isa or "generic" in (here, isa):
        sys.exit(f"nothing to learn from comparing {here} with {isa}")
    for threads in (1, 2):
        fastrnn.set_num_threads(threads)
        for problem, results in zip(problems, expected, strict=True):
            assert_same_results(run(fastrnn, problem), results, f"{here} and {isa}")
    print(f"{here} on 1 and 2 threads: the bits of {isa}, {len(problems)} problems")


if __name__ == "__main__":
    main(*sys.argv[1:])
