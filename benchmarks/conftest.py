"""Says what each benchmark came to as it ends; pytest-benchmark's tables come at the end of all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

# Beside other work a second thread of NumPy's products makes them many times slower, and every
# benchmark of the reference with them. Set it to 2 to see what two are worth.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def told(
    benchmark: Any, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Iterator[None]:
    yield
    if benchmark.stats:  # none where it is skipped or disabled
        median = benchmark.stats.stats.median
        with capsys.disabled():
            print(f"\n{median * 1e3:12.4f} ms  {request.node.name} ", end="", flush=True)
