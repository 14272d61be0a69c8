"""Calls that both backends refuse alike."""

import numpy as np
import pytest

import fastrnn
from fastrnn import reference


def refused(arguments, error, *parts, function="rnn_forward"):
    """Both backends raise this error with one text, which holds every one of the parts."""
    texts = []
    for module in (fastrnn, reference):
        args, options = arguments
        with pytest.raises(error) as caught:
            getattr(module, function)(*args, **options)
        assert type(caught.value) is error
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    for part in parts:
        assert part in texts[0], texts[0]


def giant(*shape):
    """An array of any size out of one element."""
    return np.lib.stride_tricks.as_strided(np.zeros(1), shape, (0,) * len(shape))
