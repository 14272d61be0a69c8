"""What the run was made on."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from typing import Any


def cpu_model() -> str:
    """Return the processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Return how many processes wanted a processor in the last minute; None if unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def busy_text() -> str:
    """Return a warning if other work runs on this machine; an empty string if it is quiet.

    A thread that waits for another one that has lost its processor waits for whole turns of the
    scheduler: with threads that spin, a call of milliseconds then takes seconds.
    """
    if (load() or 0.0) < 0.5:
        return ""
    return (
        f"warning: other work runs on this machine (load {load()}): "
        "times of several threads will be wrong, some by a lot"
    )


def describe(isa: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the machine, the interpreter and the command line of a run.

    The load is told because it is the first thing to doubt in a figure: other work on the
    machine slows runs on every core most.
    """
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "cpus": os.cpu_count() or 1,
        "isa": isa,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": load(),
        "command": shlex.join(["fastrnn", "bench", *arguments]),
    }
