"""Settings, and what importing the package does."""

import asyncio
import contextvars
import inspect
import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn.config import current_backend


def python(code, **environment):
    """Run code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


# ------------------------------------------------------------------------------ threads


def test_num_threads():
    fastrnn.set_num_threads(1)
    assert fastrnn.get_num_threads() == 1
    fastrnn.set_num_threads(np.int64(2))
    with fastrnn.num_threads(1):
        assert fastrnn.get_num_threads() == 1
        with fastrnn.num_threads(2):
            pass
        assert fastrnn.get_num_threads() == 1
    before = fastrnn.get_num_threads()
    with pytest.raises(ZeroDivisionError), fastrnn.num_threads(1):
        1 / 0  # noqa: B018
    assert fastrnn.get_num_threads() == before


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError),
     (None, TypeError)],
)  # fmt: skip
def test_num_threads_errors(n, error):
    before = fastrnn.get_num_threads()
    for function in (fastrnn.set_num_threads, fastrnn.num_threads):
        with pytest.raises(error, match=r"^n is "):
            function(n)
    assert fastrnn.get_num_threads() == before


def test_more_threads_than_a_machine_has():
    # The kernel may hold fewer, and small work runs on one thread whatever the limit.
    fastrnn.set_num_threads(2**70)
    assert fastrnn.get_num_threads() >= 1
    output, _, _ = fastrnn.rnn_forward(np.ones((2, 1, 1)), None, np.eye(1), np.eye(1))
    assert output.shape == (2, 1, 1)


def test_num_threads_from_the_environment():
    code = "import fastrnn; print(fastrnn.get_num_threads())"
    assert python(code, FASTRNN_NUM_THREADS="1", OMP_NUM_THREADS="2").stdout == "1\n"


# ------------------------------------------------------------------------------ instruction sets


def test_isas():
    available = fastrnn.available_isas()
    assert isinstance(available, tuple)
    assert available
    for name in available:
        fastrnn.set_isa(name)
        assert fastrnn.get_isa() == name


def test_isa_errors():
    before = fastrnn.get_isa()
    with pytest.raises(ValueError, match="'mmx', expected ") as caught:
        fastrnn.set_isa("mmx")
    assert all(repr(name) in str(caught.value) for name in fastrnn.available_isas())
    with pytest.raises(TypeError, match=r"^name is 3, expected "):
        fastrnn.set_isa(3)
    assert fastrnn.get_isa() == before


def test_isa_from_the_environment():
    worst = fastrnn.available_isas()[-1]
    result = python("import fastrnn; print(fastrnn.get_isa())", FASTRNN_ISA=worst)
    assert result.stdout == f"{worst}\n"
    assert result.stderr == ""
    # A name that is unknown here warns, and the best set is used.
    result = python("import fastrnn; print(fastrnn.get_isa())", FASTRNN_ISA="mmx")
    assert result.stdout == f"{fastrnn.available_isas()[0]}\n"
    assert "RuntimeWarning" in result.stderr
    assert "mmx" in result.stderr


# ------------------------------------------------------------------------------ backends


def test_backend_nests_and_restores():
    assert current_backend.get() == "compiled"
    with fastrnn.backend("reference"):
        assert current_backend.get() == "reference"
        with fastrnn.backend("compiled"):
            assert current_backend.get() == "compiled"
        assert current_backend.get() == "reference"
    with pytest.raises(ZeroDivisionError), fastrnn.backend("reference"):
        1 / 0  # noqa: B018
    assert current_backend.get() == "compiled"


def test_backend_errors():
    with pytest.raises(ValueError, match="name is 'torch', expected 'compiled' or 'reference'"):
        fastrnn.backend("torch")
    with pytest.raises(TypeError, match="name is None"):
        fastrnn.backend(None)


def test_backend_is_used(monkeypatch):
    def marked(*args, **kwargs):
        raise LookupError("the reference ran")

    arguments = np.ones((2, 1, 1)), None, np.eye(1), np.eye(1)
    _, h_n, tape = fastrnn.rnn_forward(*arguments)
    monkeypatch.setattr(fastrnn.reference.rnn, "rnn_forward", marked)
    monkeypatch.setattr(fastrnn.reference.rnn, "rnn_backward", marked)
    fastrnn.rnn_backward(tape, d_h_n=h_n)
    with fastrnn.backend("reference"):
        with pytest.raises(LookupError):
            fastrnn.rnn_forward(*arguments)
        with pytest.raises(LookupError):
            fastrnn.rnn_backward(tape, d_h_n=h_n)
        with pytest.raises(LookupError):
            fastrnn.RNN(1, 1, dtype="float64")(np.ones((2, 1, 1)))


def test_backend_of_concurrent_threads():
    seen = {}
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait()
        seen["other"] = current_backend.get()
        done.set()

    thread = threading.Thread(target=contextvars.Context().run, args=(other,))
    thread.start()
    with fastrnn.backend("reference"):
        inside.set()
        done.wait()
        seen["own"] = current_backend.get()
    thread.join()
    assert seen == {"other": "compiled", "own": "reference"}


def test_backend_of_concurrent_tasks():
    async def task(name):
        with fastrnn.backend(name):
            await asyncio.sleep(0.001)
            return current_backend.get()

    async def both():
        return await asyncio.gather(*map(task, ("reference", "compiled", "reference")))

    assert asyncio.run(both()) == ["reference", "compiled", "reference"]


# ------------------------------------------------------------------------------ the package


def test_show_config(capsys):
    config = fastrnn.show_config(mode="dicts")
    assert capsys.readouterr().out == ""
    assert config["fastrnn"] == fastrnn.__version__
    assert config["numpy"] == np.__version__
    assert config["python"] == platform.python_version()
    assert isinstance(config["build"]["openmp"], bool)
    assert config["build"]["compiler"]
    assert set(config["run"]["available_isas"]) <= set(config["build"]["isas_built"])
    assert config["run"]["isa"] == fastrnn.get_isa()
    assert config["run"]["threads"] == fastrnn.get_num_threads()
    assert fastrnn.show_config() is None
    shown = capsys.readouterr().out
    assert f"fastrnn: {fastrnn.__version__}\n" in shown
    assert f"  isa: {fastrnn.get_isa()}\n" in shown
    assert ("openmp: yes" if config["build"]["openmp"] else "serial build") in shown
    with pytest.raises(ValueError, match="mode is 'yaml', expected 'stdout' or 'dicts'"):
        fastrnn.show_config("yaml")


def test_all_names_exist_and_are_documented():
    for name in fastrnn.__all__:
        assert getattr(fastrnn, name).__doc__, name
    assert fastrnn.__version__.count(".") == 2


def test_twins_have_one_signature():
    for name in fastrnn.reference.__all__:
        compiled, reference = getattr(fastrnn, name), getattr(fastrnn.reference, name)
        assert inspect.signature(compiled) == inspect.signature(reference)


def test_import_loads_numpy_only():
    code = (
        "import sys, numpy; before = set(sys.modules); import fastrnn; "
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}; "
        "new -= {*sys.stdlib_module_names, 'fastrnn', 'numpy', 'cython_runtime'}; "
        "print([m for m in new if not m.startswith('_cython_')])"  # Cython's own bookkeeping
    )
    result = python(code)
    assert result.stderr == ""
    assert result.stdout == "[]\n"
