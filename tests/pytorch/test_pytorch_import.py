"""fastrnn without torch: it is not imported, and fastrnn.torch says what to install."""

import pytest

torch = pytest.importorskip("torch")

from processes import script  # noqa: E402


def test_importing_fastrnn_does_not_import_torch() -> None:
    done = script(
        "import sys, fastrnn; fastrnn.LSTM(2, 3); assert 'torch' not in sys.modules\n"
        "assert not any(name.startswith('fastrnn.torch') for name in sys.modules)\n"
        "import fastrnn.torch; import torch\n"
        # Both bring threads of OpenMP.
        "torch.set_num_threads(2)\n"
        "layer = fastrnn.torch.GRU(32, 64)\n"
        "layer(torch.randn(20, 16, 32) @ torch.eye(32))[0].sum().backward()\n"
        "print(fastrnn.torch.last_path())"
    )
    assert done.stdout == "kernel\n", done.stderr


def test_without_torch_it_says_what_to_install() -> None:
    done = script(
        "import sys; sys.modules['torch'] = None\n"
        "import fastrnn; fastrnn.LSTM(2, 3)\n"
        "try: import fastrnn.torch\n"
        "except ModuleNotFoundError as error: print(error.name, error, error.__cause__)"
    )
    assert done.stdout == 'torch fastrnn.torch needs PyTorch: pip install "fastrnn[torch]" None\n'


def test_a_module_that_torch_lacks_is_named_itself() -> None:
    """Not every missing module is torch."""
    done = script(
        "import sys, types\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': raise ModuleNotFoundError('no elsewhere', name='elsewhere')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "try: import fastrnn.torch\n"
        "except ModuleNotFoundError as error: print(error.name, error)"
    )
    assert done.stdout == "elsewhere no elsewhere\n"


def test_importing_it_does_not_import_what_compiles() -> None:
    """torch._dynamo and what it brings take seconds."""
    done = script("import sys, fastrnn.torch; print('torch._dynamo' in sys.modules)")
    assert done.stdout == "False\n", done.stderr
