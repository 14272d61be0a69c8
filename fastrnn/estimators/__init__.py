"""Estimators of scikit-learn for sequences: each of the ways to use a recurrent network, in a line.

One answer for a sequence (`SequenceClassifier`, `SequenceRegressor`), one for each step
(`SequenceTagger`, `EchoStateRegressor`), a sequence from a label (`SequenceGenerator`), a sequence
for a sequence (`SequenceTranslator`). It takes scikit-learn: ``pip install "fastrnn[estimators]"``.
"""

try:
    import sklearn  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "sklearn":
        raise
    raise ModuleNotFoundError(
        'fastrnn.estimators needs scikit-learn: pip install "fastrnn[estimators]"', name="sklearn"
    ) from None
from .._attributes import completions
from .classifier import SequenceClassifier
from .echo_state import EchoStateRegressor
from .generator import SequenceGenerator
from .metrics import token_error_rate
from .regressor import SequenceRegressor
from .tagger import SequenceTagger
from .translator import SequenceTranslator

__all__ = [
    "EchoStateRegressor", "SequenceClassifier", "SequenceGenerator", "SequenceRegressor",
    "SequenceTagger", "SequenceTranslator", "token_error_rate",
]  # fmt: skip

__dir__ = completions(globals())
