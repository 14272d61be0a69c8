"""Wrong calls of estimators, for test_cures.py: where scikit-learn is installed."""

from wrong_calls import Case

MADE = """
from fastrnn.estimators import SequenceClassifier, SequenceRegressor, SequenceTagger
small = {"hidden_size": 2, "max_iter": 1}
model, y = SequenceClassifier(**small), [0, 1]
"""
CALL = "model.fit(X, y)"

ESTIMATORS: dict[str, Case] = {
    "sequences in a tuple": Case(MADE + "X = ([1.0, 2.0], [3.0, 4.0, 5.0])", CALL),
    "sequences of integers in a tuple": Case(MADE + "X = ([1, 2], [3, 4])", CALL),
    "a sparse matrix of sequences": Case(
        MADE + "import scipy.sparse; X = scipy.sparse.eye(2, 3).tocsr()", CALL, needs="scipy"),
    "one string for sequences": Case(MADE + "X, y = 'abba', [1]", CALL),
    "bytes for sequences": Case(MADE + "X, y = b'abba', [1]", CALL),
    "bytes for a sequence": Case(MADE + "X = ['ab', b'ba']", CALL),
    "pictures for sequences": Case(MADE + "X = np.ones((2, 3, 4, 5))", CALL),
    "numbers for sequences": Case(
        MADE + "X, y = np.arange(2.0), [1]", CALL, "X.reshape(1, -1) is one sequence",
        "X = X.reshape(1, -1)"),
    "the steps of one sequence for sequences": Case(
        MADE + "X, y = np.ones((5, 2)), [1]", CALL, "of a single one, pass [X]", "X = [X]"),
    "padded sequences and their lengths": Case(
        MADE + "X = np.ones((2, 5, 3)), [5, 3]", CALL),
    "groups and their names": Case(
        MADE + "X = [('a', np.ones((4, 2))), ('b', np.ones((3, 2)))]", CALL),
    "a number for the kind of rate": Case(
        MADE + "X = ['ab', 'b']; model.learning_rate = 0.01", CALL,
        "the rate itself is learning_rate_init",
        "model.set_params(learning_rate='constant', learning_rate_init=0.01)"),
    "one-hot labels": Case(
        MADE + "X, y = ['ab', 'b'], np.eye(2)", CALL, "pass np.argmax(y, axis=1)",
        "y = np.argmax(y, axis=1)"),
    "one-hot labels of steps": Case(
        MADE + "X, y, model = ['ab', 'ba'], [np.eye(2)] * 2, SequenceTagger(**small); "
        "y = np.array(y)",
        CALL, "pass np.argmax(y, axis=-1)", "y = np.argmax(y, axis=-1)"),
    "a sparse matrix of answers": Case(
        MADE + "import scipy.sparse; X, y = ['ab', 'b'], scipy.sparse.eye(2, 3).tocsr(); "
        "model = SequenceRegressor(**small)", CALL, needs="scipy"),
    "a sequence without steps": Case(
        MADE + "X, y = [[1.0, 3.0], [], [2.0]], [0, 1, 1]", CALL, "leave it out, with its y",
        "del X[1], y[1]"),
    "a mask over steps": Case(
        MADE + "X = np.ma.array(np.ones((2, 3)), mask=[[0, 0, 1], [0, 0, 0]])", CALL,
        "in a list of arrays (T_i, D)", "X = [row.compressed() for row in X]"),
    "numbers for tokens": Case(
        MADE + "model.tokens = True; X = [[1.0, 2.0], [3.0]]", CALL, "pass integers",
        "X = [[int(a) for a in row] for row in X]"),
    "a token that was not there": Case(
        MADE + "X = ['ac', 'b']; model.fit(['ab', 'b'], y)", "model.predict(X)",
        'make the estimator with handle_unknown="ignore"',
        "model = SequenceClassifier(handle_unknown='ignore', **small).fit(['ab', 'b'], y)"),
    "labels of steps for those of sequences": Case(
        MADE + "X, y = ['ab', 'b'], [[0, 1], [1]]", CALL, "a SequenceTagger takes one",
        "model = SequenceTagger(**small)"),
    "labels of sequences for those of steps": Case(
        MADE + "X, model = ['ab', 'ba'], SequenceTagger(**small)", CALL,
        "SequenceClassifier and SequenceRegressor take one for each sequence",
        "model = SequenceClassifier(**small)"),
    "too few sequences to hold some out": Case(
        MADE + "X = ['ab', 'b']; model.early_stopping = True", CALL, "early_stopping=False",
        "model.early_stopping = False"),
    "a float for a size": Case(
        MADE + "X, hidden_size = ['ab', 'b'], 8.0",
        "SequenceClassifier(max_iter=1, hidden_size=hidden_size).fit(X, y)"),
    "a number for a switch": Case(
        MADE + "X, verbose = ['ab', 'b'], 0",
        "SequenceClassifier(max_iter=1, hidden_size=2, verbose=verbose).fit(X, y)"),
    "another size for a network that is there": Case(
        MADE + "X = ['ab', 'b']; model.set_params(warm_start=True).fit(X, y); "
        "model.hidden_size = 3",
        CALL, "set it back", "model.hidden_size = 2"),
    "too large a rate": Case(
        MADE + "X = ['ab', 'b']; model.learning_rate_init = 1e39", CALL,
        "a smaller learning_rate_init", "model.learning_rate_init = 1e-3"),
}  # fmt: skip
