"""Disassemble the register tile; check its inner loops: MR*4 multiply-adds, nothing on the stack.

usage: check_hot_loops.py [--objdump PROGRAM] ISA OBJECT_FILE
An inner loop is the code between a backward jump and its target with no other jump in it.
"""

import argparse
import re
import subprocess
import sys

ROWS = {"avx512": 6, "avx2": 3, "neon": 6}
VECTORS = 4
MULTIPLY_ADD = re.compile(r"vfn?m(add|sub)\d+p[sd]|fml[as]$")
STACK = re.compile(r"%[er][sb]p\b|\[sp\b|\[x29\b")
JUMP = re.compile(r"j[a-z]+$|b\.[a-z]+$|cbn?z$|tbn?z$|b$")


def inner_loops(listing: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """(function, [(mnemonic, operands), ...]) of every inner loop that multiplies and adds."""
    found = []
    function = ""
    code: list[tuple[int, str, str]] = []
    for line in listing.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.*)>:", line):
            function, code = start[1], []
        elif parts := re.match(r"\s+([0-9a-f]+):\s+(\S+)\s*(.*)", line):
            address = int(parts[1], 16)
            code.append((address, parts[2], parts[3]))
            target = re.search(r"([0-9a-f]+) <", parts[3])
            if JUMP.match(parts[2]) and target and int(target[1], 16) <= address:
                body = [i for i in code if i[0] >= int(target[1], 16)]
                if not any(JUMP.match(i[1]) for i in body[:-1]) and any(
                    MULTIPLY_ADD.match(i[1]) for i in body
                ):
                    found.append((function, [i[1:] for i in body]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("isa", choices=sorted(ROWS))
    parser.add_argument("object_file")
    args = parser.parse_args()
    listing = subprocess.run(
        [args.objdump, "-d", "--no-show-raw-insn", args.object_file],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    loops = [loop for loop in inner_loops(listing) if loop[0].startswith("tile_")]
    full = 0
    failed = False
    for function, body in loops:
        multiply_adds = sum(bool(MULTIPLY_ADD.match(name)) for name, _ in body)
        full += multiply_adds == ROWS[args.isa] * VECTORS
        if on_stack := [f"{name} {operands}" for name, operands in body if STACK.search(operands)]:
            print(f"{args.isa} {function}, {multiply_adds} multiply-adds: {on_stack}")
            failed = True
    expected = ROWS[args.isa] * VECTORS
    print(
        f"{args.isa}: {len(loops)} inner loops of the tile, "
        f"{full} of them full ({expected} multiply-adds)"
    )
    if full < 2:  # one for float, one for double
        print(f"{args.isa}: expected a full tile for each type")
        failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())
