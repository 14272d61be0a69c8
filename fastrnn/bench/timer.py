"""Timing one batch of calls."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

# Long enough that reading the clock (some 50 ns) adds less than a thousandth.
SAMPLE_NS = 50_000
WARM_NS = 2_000_000
MAX_SAMPLES = 5000


def time_calls(call: Callable[[], Any], min_time: float, min_calls: int = 3) -> dict[str, float]:
    """Call again and again; return nanoseconds a call.

    A sample is one call, or as many as last 50 microseconds. Untimed calls of about two
    milliseconds come first (at least one), because the worker has just been woken: its caches
    hold the data of others and its threads sleep. The garbage collector is off, as in `timeit`.

    Parameters
    ----------
    call : callable
        Takes no argument.
    min_time : float
        Seconds that the timed calls last together, at least.
    min_calls : int
        Timed calls, at least.

    Returns
    -------
    dict
        ``best`` and ``median`` over the samples, in nanoseconds a call, and ``calls``.
    """
    clock = time.perf_counter_ns
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        while True:
            before = clock()
            call()
            now = clock()
            if now - start >= WARM_NS:
                break
        inner = max(1, -(-SAMPLE_NS // max(1, now - before)))
        samples: list[float] = []
        end = clock() + round(min_time * 1e9)
        while len(samples) * inner < min_calls or (clock() < end and len(samples) < MAX_SAMPLES):
            repeat = itertools.repeat(None, inner)
            before = clock()
            for _ in repeat:
                call()
            samples.append((clock() - before) / inner)
    finally:
        if collecting:
            gc.enable()
    return {
        "best": min(samples),
        "median": statistics.median(samples),
        "calls": len(samples) * inner,
    }
