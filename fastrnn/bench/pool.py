"""The parent's side of a worker: start, ask, stop between turns, end."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from .peers import environment
from .worker import BOOT


class WorkerError(RuntimeError):
    """A worker answered with an error, ended, or did not answer in time."""


class WorkerHandle:
    """One process for one (peer, thread count), awake only while it is asked something.

    Idle threads of several libraries spin after a call (measured: ONNX Runtime's 40 ms of
    processor time, OpenBLAS's 70 ms, OpenVINO's 1 ms) and would take the processors from whoever
    is timed next. Forbidding that would slow the library itself, so the whole process is stopped
    with SIGSTOP after each answer and woken with SIGCONT for the next command. On systems without
    these signals it stays awake.

    Parameters
    ----------
    spec : str
        The peer, as `find_peer` takes it.
    threads : int
        Threads of the peer.
    isa : str, optional
        Instruction set of the compiled functions.
    """

    def __init__(self, spec: str, threads: int, isa: str | None = None) -> None:
        self.spec, self.threads = spec, threads
        self._stops = hasattr(signal, "SIGSTOP")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  read when the worker ends
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, str(Path(__file__).parent), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | environment(threads),
            # Ctrl-C and Ctrl-Z at the terminal are for the parent alone.
            start_new_session=True,
        )
        try:
            self.ask("open", spec, threads, isa)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, name: str, *arguments: Any, timeout: float = 300.0) -> Any:
        """Wake the worker, run one command and return its answer; the worker then stops.

        Raises
        ------
        WorkerError
            If the command failed, the process ended, or `timeout` seconds passed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal("SIGCONT")
        watch = threading.Timer(timeout, self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            pickle.dump((name, arguments), self._process.stdin)
            self._process.stdin.flush()
            good, answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerError(self._last_words(timeout)) from None
        finally:
            watch.cancel()
            self._signal("SIGSTOP")
        if not good:
            raise WorkerError(answer)
        return answer

    def _signal(self, name: str) -> None:
        if self._stops and self.alive:
            self._process.send_signal(getattr(signal, name))

    def _last_words(self, timeout: float) -> str:
        code = self._process.wait()
        if code == -int(getattr(signal, "SIGKILL", 9)):
            return f"ended by SIGKILL (no answer within {timeout:.0f} s, or no memory)"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"ended with status {code}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        """End the process; it has nothing to save."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                # A command that was never read may still be in the buffer.
                with contextlib.suppress(OSError):
                    pipe.close()
