"""PyTorch's recurrent networks on the kernels of this package.

`accelerate` puts them under a model that is there; the modules have the names, parameters and
results of those of `torch.nn`. It takes PyTorch: ``pip install "fastrnn[torch]"``.
"""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        'fastrnn.torch needs PyTorch: pip install "fastrnn[torch]"', name="torch"
    ) from None
from .._attributes import completions
from .modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .paths import last_path
from .swap import Report, accelerate, restore

__all__ = [
    "GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "Report", "accelerate", "last_path",
    "restore",
]  # fmt: skip

__dir__ = completions(globals())
