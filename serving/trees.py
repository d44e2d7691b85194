"""Kernels for decision trees, forests and gradient boosting, on scikit-learn's own compiled tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.tree._tree import Tree

from serving.kernels import Array, Kernel, NotFinite, Unsupported

# From this many numbers on, walking one tree at a time is cheaper than a copy of the rows for each tree.
COPIED_NUMBERS = 1500
LEAF = -1
MAX_LANDMARKS = 4096


class Forest(Kernel):
    """One tree or many: the mean of the trees' values at the leaves that a row ends in.

    The trees of a forest become branches of a single tree, chosen by one more feature that is the number of the tree:
    so one call walks all rows through all trees, where scikit-learn makes one call per tree.
    """

    exact = True

    def __init__(self, estimator: Any, members: Sequence[Any], *, classifier: bool) -> None:
        """Take the fitted trees ``members`` of ``estimator`` in the order in which it sums them."""
        if estimator.n_outputs_ != 1:
            raise Unsupported(f"{type(estimator).__name__} with several outputs")
        self.trees = [member.tree_ for member in members]
        self.count = len(self.trees)
        self.values: list[Array] = [np.ascontiguousarray(tree.value[:, 0, :]) for tree in self.trees]
        self.width = self.trees[0].n_features
        self.allow_nan = bool(members[0].__sklearn_tags__().input_tags.allow_nan)
        if classifier:
            self.classes = estimator.classes_
            self.has_probabilities = True
        self.numbers = np.arange(self.count, dtype=np.float32)
        if self.count > 1:
            self.joined, self.joined_values = join_trees(self.trees, self.values)

    def scores(self, rows: Array) -> Array:
        rows = single(rows)
        if self.count == 1:
            only: Array = self.values[0].take(self.trees[0].apply(rows), axis=0)
            return only
        if rows.size > COPIED_NUMBERS:
            total = np.zeros((len(rows), self.values[0].shape[1]))
            for tree, values in zip(self.trees, self.values, strict=True):
                total += values.take(tree.apply(rows), axis=0)
        else:
            copies = np.empty((len(rows), self.count, self.width + 1), np.float32)
            copies[:, :, :-1] = rows[:, None, :]
            copies[:, :, -1] = self.numbers
            leaves = self.joined.apply(copies.reshape(len(rows) * self.count, self.width + 1))
            parts = self.joined_values.take(leaves, axis=0).reshape(len(rows), self.count, -1)
            # The order of the trees must stay; a plain sum of one value per tree would be taken pairwise.
            total = parts.sum(axis=1) if parts.shape[2] > 1 else np.add.accumulate(parts, axis=1)[:, -1]
        total /= self.count
        return total

    def labels(self, scores: Array) -> Array:
        return scores[:, 0] if self.classes is None else self.classes.take(scores.argmax(1))

    def probabilities(self, scores: Array) -> Array:
        return scores

    def landmarks(self) -> list[tuple[int, float]]:
        return [
            (int(feature), float(threshold))
            for tree in self.trees[: MAX_LANDMARKS // 16]
            for feature, threshold in zip(tree.feature[:16], tree.threshold[:16], strict=True)
            if feature >= 0
        ]


class Boosting(Kernel):
    """GradientBoostingClassifier and GradientBoostingRegressor."""

    exact = True

    def __init__(self, estimator: Any, *, classifier: bool) -> None:
        # Not public: where scikit-learn moves it, the model stays as it is.
        from sklearn.ensemble._gradient_boosting import predict_stages  # noqa: PLC0415

        if estimator.init is not None and estimator.init != "zero":
            raise Unsupported(f"{type(estimator).__name__} with an estimator of its own at the start")
        self.stages = predict_stages
        self.trees = estimator.estimators_
        self.rate = estimator.learning_rate
        self.start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))  # noqa: SLF001
        if classifier:
            self.classes = estimator.classes_
            self.has_probabilities = hasattr(estimator, "predict_proba")
            self.loss = estimator._loss  # noqa: SLF001

    def scores(self, rows: Array) -> Array:
        scores = np.repeat(self.start, len(rows), axis=0)
        self.stages(self.trees, single(rows), self.rate, scores)
        return scores.ravel() if scores.shape[1] == 1 else scores

    def labels(self, scores: Array) -> Array:
        if self.classes is None:
            return scores
        return self.classes.take((scores >= 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(1))

    def probabilities(self, scores: Array) -> Array:
        result: Array = self.loss.predict_proba(scores)
        return result

    def landmarks(self) -> list[tuple[int, float]]:
        trees = [member.tree_ for member in self.trees.ravel()[: MAX_LANDMARKS // 16]]
        pairs = [pair for tree in trees for pair in zip(tree.feature[:16], tree.threshold[:16], strict=True)]
        return [(int(feature), float(threshold)) for feature, threshold in pairs if feature >= 0]


def single(rows: Array) -> Array:
    """The rows in single precision, which trees compare with; raise NotFinite for what does not fit in."""
    if rows.dtype == np.float32:
        return np.ascontiguousarray(rows)
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(rows, dtype=np.float32)
    if np.isinf(result).any():
        raise NotFinite
    return result


def join_trees(trees: Sequence[Any], values: Sequence[Array]) -> tuple[Any, Array]:
    """Return one tree that has all ``trees`` as branches, and the values of its nodes.

    Its last feature is the number of the tree to walk; the nodes that look at it come first, as a balanced tree.
    """
    nodes = [tree.__getstate__()["nodes"].copy() for tree in trees]
    switches = np.zeros(len(trees) - 1, nodes[0].dtype)
    starts = (len(switches) + np.cumsum([0, *[len(part) for part in nodes[:-1]]])).tolist()
    for start, part in zip(starts, nodes, strict=True):
        inner = part["left_child"] != LEAF
        for side in ("left_child", "right_child"):
            part[side][inner] += start
    feature = trees[0].n_features
    free = iter(range(len(switches)))

    def place(low: int, high: int) -> int:
        if high - low == 1:
            return int(starts[low])
        here = next(free)
        middle = (low + high) // 2
        switches[here]["feature"] = feature
        switches[here]["threshold"] = middle - 0.5
        switches[here]["left_child"] = place(low, middle)
        switches[here]["right_child"] = place(middle, high)
        return here

    place(0, len(trees))
    everything = np.concatenate([switches, *nodes])
    joined = Tree(feature + 1, np.array([1], dtype=np.intp), 1)
    depth = max(tree.max_depth for tree in trees) + len(trees).bit_length()
    joined.__setstate__(
        {
            "max_depth": depth,
            "node_count": len(everything),
            "nodes": everything,
            "values": np.zeros((len(everything), 1, 1)),
        }
    )
    return joined, np.concatenate([np.zeros((len(switches), values[0].shape[1])), *values])
