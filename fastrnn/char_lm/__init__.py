"""A character-level language model: what ``fastrnn train`` makes and ``fastrnn sample`` uses.

Embedding, recurrent layer, output layer. The text's first nine tenths, cut into contiguous streams
that are read side by side, are for training; the last tenth is held out.
"""

from .._attributes import completions
from .command import TrainOptions, train
from .corpus import Settings
from .sampling import SampleOptions, sample
from .text import CharLMError

__all__ = ["CharLMError", "SampleOptions", "Settings", "TrainOptions", "sample", "train"]

__dir__ = completions(globals())
