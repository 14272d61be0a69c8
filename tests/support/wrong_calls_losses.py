"""Wrong calls of losses with their options, and of softmax: more of those in wrong_calls.py."""

from wrong_calls import Case

CALL = "fastrnn.softmax_cross_entropy(logits, target)"
SMALL = "z, t = np.linspace(-1, 1, 30).reshape(5, 2, 3), np.full((5, 2, 3), 0.5); "

LOSSES: dict[str, Case] = {
    "targets of -1 where -100 is ignored": Case(
        "target = labels.copy(); target[3:] = -1",
        "fastrnn.softmax_cross_entropy(logits, target, ignore_index=-100)", "either pass mask="),
    "ignore_index beside probabilities": Case(
        "target = np.full((5, 2, 3), 1 / 3)",
        "fastrnn.softmax_cross_entropy(logits, target, ignore_index=-100)", "ignore_index=None"),
    "ignore_index as text": Case(
        "target, ignore_index = labels, '2'",
        "fastrnn.softmax_cross_entropy(logits, target, ignore_index=ignore_index)"),
    "a list of probabilities": Case("target = np.full((5, 2, 3), 1 / 3).tolist()", CALL),
    "a tensor of probabilities": Case(
        "target = torch.full((5, 2, 3), 1 / 3)", CALL, needs="torch"),
    "probabilities of another float": Case("target = np.full((5, 2, 3), 0.5, np.float32)", CALL),
    "probabilities with the batch first": Case("target = np.full((2, 5, 3), 0.5)", CALL),
    "classes as floats with an axis of one": Case("target = labels[..., None] * 1.0", CALL),
    "class weights by class": Case(
        "class_weight = {1: 2.0}",
        "a, _ = fastrnn.softmax_cross_entropy(logits, labels, class_weight=class_weight); "
        "assert a == fastrnn.softmax_cross_entropy(logits, labels, class_weight=[1, 2, 1])[0]"),
    "class weights in a column": Case(
        "class_weight = np.ones((3, 1))",
        "fastrnn.softmax_cross_entropy(logits, labels, class_weight=class_weight)"),
    "one weight for all classes": Case(
        "class_weight = 2.0",
        "fastrnn.softmax_cross_entropy(logits, labels, class_weight=class_weight)"),
    "a mask as weights": Case(
        "sample_weight = labels > 0",
        "a, _ = fastrnn.softmax_cross_entropy(logits, labels, sample_weight=sample_weight); "
        "assert a == fastrnn.softmax_cross_entropy(logits, labels, mask=labels > 0)[0]"),
    "weights with the batch first": Case(
        "sample_weight = np.ones((2, 5))",
        "fastrnn.softmax_cross_entropy(logits, labels, sample_weight=sample_weight)"),
    "weights with an axis of one": Case(
        SMALL + "sample_weight = np.ones((5, 2, 1))",
        "fastrnn.l1_loss(z, t, sample_weight=sample_weight)"),
    "weights from a generator": Case(
        SMALL + "sample_weight = iter([1.0, 2.0])",
        "fastrnn.l1_loss(z, t, sample_weight=sample_weight)"),
    "smoothing as text": Case(
        "label_smoothing = '0.1'",
        "fastrnn.softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing)"),
    "integers for answers": Case(
        SMALL + "target = (t > 0).astype(int)",
        "fastrnn.binary_cross_entropy_with_logits(z, target)"),
    "booleans for answers": Case(
        SMALL + "target = t > 0", "fastrnn.binary_cross_entropy_with_logits(z, target)"),
    "answers of -1 and 1": Case(
        SMALL + "target = np.where(z > 0, 1.0, -1.0)",
        "fastrnn.binary_cross_entropy_with_logits(z, target)"),
    "weights of answers in a column": Case(
        SMALL + "pos_weight = np.ones((3, 1))",
        "fastrnn.binary_cross_entropy_with_logits(z, t, pos_weight=pos_weight)"),
    "a list of logits": Case("x = [1.0, 2.0]", "fastrnn.softmax(x)"),
    "integers for a sigmoid": Case("x = np.arange(3)", "fastrnn.sigmoid(x)"),
}  # fmt: skip
