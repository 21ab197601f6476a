"""Trees of scikit-learn, XGBoost and LightGBM as one operator, TreeEnsemble of ai.onnx.ml 5.

Its thresholds, leaves and sums are doubles, or for XGBoost floats, which are summed in the order of
the trees. Sets of categories are members of a split.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from training.graph import Block, Graph, NotCompiled

LIGHTGBM_INFINITY = 1e300  # how it dumps an infinite threshold, as of missing against not missing
MOST_NODES = 4_000_000  # of all trees; more open slower than scikit-learn's own
AT_MOST, BELOW, MEMBER = 0, 1, 6  # modes of a split: x <= threshold, x < threshold, x in a set

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """A binary tree of n nodes; the first is the root, and a leaf has no `left` (-1).

    Attributes:
        left: where a row goes that passes the split, right: where others go, (n,).
        feature: the column that is split, (n,).
        threshold: it is compared with, (n,).
        missing_left: whether a missing value passes, (n,).
        value: what a leaf adds, (n,).
        mode: how it is compared.
        sets: by node, the categories that pass, where it is split by categories.
        target: the output that the leaves add to.
    """

    left: Ints
    right: Ints
    feature: Ints
    threshold: Floats
    missing_left: npt.NDArray[np.bool_]
    value: Floats
    mode: int = AT_MOST
    sets: dict[int, list[float]] = field(default_factory=dict)
    target: int = 0


class _Written:
    """The attributes of a TreeEnsemble as trees are added."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.features: list[int] = []
        self.modes: list[int] = []
        self.splits: list[float] = []
        self.missing: list[int] = []
        self.children: tuple[list[int], list[int]] = ([], [])
        self.leaves: tuple[list[int], list[int]] = ([], [])
        self.members: list[float] = []
        self.weights: list[float] = []
        self.targets: list[int] = []

    def add(self, tree: Tree) -> None:
        self.roots.append(len(self.splits))
        inner = np.flatnonzero(tree.left >= 0)
        if not len(inner):  # a leaf alone; a root has to split
            self._split(0, tree.mode, 0.0, False)  # of one mode throughout, which is faster
            for children, leaves in zip(self.children, self.leaves, strict=True):
                children.append(self._leaf(tree, 0))
                leaves.append(1)
            return
        places = {int(node): len(self.splits) + at for at, node in enumerate(inner.tolist())}
        ends = {int(node): self._leaf(tree, int(node)) for node in np.flatnonzero(tree.left < 0)}
        for node in inner.tolist():
            mode = MEMBER if node in tree.sets else tree.mode
            threshold = 0.0 if mode == MEMBER else float(tree.threshold[node])
            self._split(int(tree.feature[node]), mode, threshold, bool(tree.missing_left[node]))
            if mode == MEMBER:
                # NaN ends a set. Where only missing values pass, it is of what no category is.
                self.members += [*(tree.sets[node] or [-1.0]), math.nan]
            sides = (tree.left[node], tree.right[node])
            for side, children, leaves in zip(sides, self.children, self.leaves, strict=True):
                leaves.append(int(int(side) in ends))
                children.append(ends[int(side)] if int(side) in ends else places[int(side)])

    def _split(self, feature: int, mode: int, threshold: float, missing: bool) -> None:
        self.features.append(feature)
        self.modes.append(mode)
        self.splits.append(threshold)
        self.missing.append(int(missing))

    def _leaf(self, tree: Tree, node: int) -> int:
        self.weights.append(float(tree.value[node]))
        self.targets.append(tree.target)
        return len(self.weights) - 1


def sum_trees(
    graph: Graph, block: Block, trees: Iterable[Tree], targets: int, dtype: Any = np.float64
) -> str:
    """Return the sums of the trees' leaves for each row, (n, targets).

    Args:
        graph: where they are written.
        block: the columns that are split, of that type.
        trees: they are summed in this order.
        targets: how many sums there are.
        dtype: of thresholds, leaves and sums.

    Raises:
        NotCompiled: they are too many.
    """
    written = _Written()
    for tree in trees:
        written.add(tree)
        if len(written.splits) > MOST_NODES:
            raise NotCompiled(f"its trees have more than {MOST_NODES:,} splits")
        _note_thresholds(graph, block, tree)
    optional: dict[str, Any] = {}
    if written.members:
        optional["membership_values"] = _tensor("sets", written.members, dtype)
    return graph.op(
        "TreeEnsemble",
        block.tensor,
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function=1,  # sum
        post_transform=0,  # none
        tree_roots=written.roots,
        nodes_splits=_tensor("splits", written.splits, dtype),
        nodes_modes=_tensor("modes", written.modes, np.uint8),
        nodes_featureids=written.features,
        nodes_truenodeids=written.children[0],
        nodes_trueleafs=written.leaves[0],
        nodes_falsenodeids=written.children[1],
        nodes_falseleafs=written.leaves[1],
        nodes_missing_value_tracks_true=written.missing,
        leaf_targetids=written.targets,
        leaf_weights=_tensor("leaves", written.weights, dtype),
        **optional,
    )


def _tensor(name: str, values: Sequence[float], dtype: Any) -> Any:
    return numpy_helper.from_array(np.array(values, dtype=dtype), name)


def _note_thresholds(graph: Graph, block: Block, tree: Tree) -> None:
    """Keep where a tree turns, in the units of the inputs, for the rows that check it."""
    for node in np.flatnonzero(tree.left >= 0).tolist():
        origin = block.origins[int(tree.feature[node])]
        threshold = float(tree.threshold[node])
        if origin is not None and node not in tree.sets and math.isfinite(threshold):
            graph.thresholds.setdefault(origin.source, []).append(
                threshold * origin.scale + origin.shift
            )


# --- scikit-learn ----------------------------------------------------------------------------


def from_sklearn(tree: Any, weight: float, output: int | None, target: int = 0) -> Tree:
    """Return a fitted `sklearn.tree._tree.Tree`, which compares in single precision.

    Args:
        tree: the tree, of one output.
        weight: what its leaves are multiplied with.
        output: the label whose share the leaves have; None for a number.
        target: the output that they add to.
    """
    if tree.n_outputs != 1:
        raise NotCompiled("it gives several numbers")
    missing = getattr(tree, "missing_go_to_left", None)
    if missing is None:
        missing = np.zeros(tree.node_count, dtype=bool)
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=tree.feature,
        threshold=tree.threshold,
        missing_left=np.asarray(missing, dtype=bool),
        value=tree.value[:, 0, output or 0] * weight,
        target=target,
    )


def from_histogram(predictor: Any, target: int, categories: dict[int, int]) -> Tree:
    """Return a tree of HistGradientBoosting.

    Args:
        predictor: the tree, a `TreePredictor`.
        target: the output that the leaves add to.
        categories: how many categories a column has, by its place; they are 0, 1, and so on.
    """
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    sets: dict[int, list[float]] = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf).tolist():
        bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        count = categories[int(nodes["feature_idx"][node])]
        sets[node] = [float(c) for c in range(count) if int(bits[c // 32]) >> (c % 32) & 1]
    return Tree(
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=nodes["value"].astype(np.float64),
        sets=sets,
        target=target,
    )


# --- XGBoost ---------------------------------------------------------------------------------


def from_xgboost(estimator: Any) -> tuple[list[Tree], int, str]:
    """Return the trees, how many sums there are, and the objective.

    The first trees are leaves alone: the margins, with which the sums begin. XGBoost rounds each
    sum to single precision, so its answers depend on the order.

    Raises:
        NotCompiled: it is boosted otherwise than by trees of numbers.
    """
    booster = estimator.get_booster()
    best = getattr(estimator, "best_iteration", None) if _stopped_early(estimator) else None
    if best is not None:
        booster = booster[: best + 1]
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    if learner["gradient_booster"]["name"] != "gbtree":
        raise NotCompiled(f"its booster is {learner['gradient_booster']['name']}, expected gbtree")
    model, objective = learner["gradient_booster"]["model"], learner["objective"]["name"]
    labels = max(1, int(learner["learner_model_param"]["num_class"]))
    trees = [
        _xgboost_tree(tree, info)
        for tree, info in zip(model["trees"], model["tree_info"], strict=True)
    ]
    text = learner["learner_model_param"]["base_score"]
    scores = json.loads(text) if text.startswith("[") else [float(text)]
    margins = [_xgboost_margin(float(np.float32(each)), objective) for each in scores]
    margins = margins if len(margins) == labels else margins * labels
    first = [_leaf(margin, target) for target, margin in enumerate(margins)]
    return first + trees, labels, objective


def _xgboost_margin(score: float, objective: str) -> float:
    if objective.endswith(":logistic"):
        return -math.log(np.float32(1) / np.float32(score) - np.float32(1))
    return math.log(score) if objective in XGBOOST_LOGS else score


def _leaf(value: float, target: int) -> Tree:
    """Return a tree of XGBoost's that is one leaf."""
    nowhere = np.array([-1])
    return Tree(
        left=nowhere,
        right=nowhere,
        feature=np.array([0]),
        threshold=np.array([0.0]),
        missing_left=np.array([False]),
        value=np.array([value]),
        mode=BELOW,
        target=target,
    )


XGBOOST_LOGS = ("count:poisson", "reg:gamma", "reg:tweedie")


def _stopped_early(estimator: Any) -> bool:
    return getattr(estimator, "early_stopping_rounds", None) is not None


def _xgboost_tree(tree: dict[str, Any], target: int) -> Tree:
    if any(tree.get("split_type", ())):
        raise NotCompiled("its trees split categories")
    left = np.array(tree["left_children"], dtype=np.int64)
    conditions = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    return Tree(
        left=left,
        right=np.array(tree["right_children"], dtype=np.int64),
        feature=np.array(tree["split_indices"], dtype=np.int64),
        threshold=conditions,
        missing_left=np.array(tree["default_left"], dtype=bool),
        value=conditions,
        mode=BELOW,
        target=target,
    )


# --- LightGBM --------------------------------------------------------------------------------


def from_lightgbm(estimator: Any) -> tuple[list[Tree], str]:
    """Return the trees and the objective.

    Raises:
        NotCompiled: it is boosted otherwise than by trees of numbers.
    """
    best = getattr(estimator, "best_iteration_", None)
    model = estimator.booster_.dump_model(num_iteration=best or -1)
    if model.get("average_output"):
        raise NotCompiled("its trees are averaged")
    each = model["num_tree_per_iteration"]
    trees = [
        _lightgbm_tree(tree["tree_structure"], place % each)
        for place, tree in enumerate(model["tree_info"])
    ]
    return trees, str(model.get("objective", "regression")).split(" ")[0]


def _lightgbm_tree(root: dict[str, Any], target: int) -> Tree:
    nodes: list[dict[str, Any]] = []
    children: list[tuple[int, int]] = []

    def visit(node: dict[str, Any]) -> int:
        place = len(nodes)
        nodes.append(node)
        children.append((-1, -1))
        if "split_index" in node:
            children[place] = (visit(node["left_child"]), visit(node["right_child"]))
        return place

    visit(root)
    return Tree(
        left=np.array([left for left, _ in children]),
        right=np.array([right for _, right in children]),
        feature=np.array([node.get("split_feature", 0) for node in nodes]),
        threshold=np.array([_lightgbm_threshold(node) for node in nodes]),
        missing_left=np.array([_lightgbm_missing(node) for node in nodes]),
        value=np.array([float(node.get("leaf_value", 0.0)) for node in nodes]),
        target=target,
    )


def _lightgbm_threshold(node: dict[str, Any]) -> float:
    if "split_index" not in node:
        return 0.0
    if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
        raise NotCompiled("its trees split categories, or take 0 as missing")
    threshold = float(node["threshold"])
    if threshold >= LIGHTGBM_INFINITY:
        return math.inf
    # It takes values this close to 0 for 0 before it compares them.
    return float(np.nextafter(threshold, -np.inf)) if -1.1e-35 < threshold < 0 else threshold


def _lightgbm_missing(node: dict[str, Any]) -> bool:
    if node.get("missing_type") == "None":  # a missing value counts as 0
        return float(node["threshold"]) >= 0.0
    return bool(node.get("default_left", False))


def label_shares(trees: Sequence[Any], labels: int, weights: Sequence[float]) -> list[Tree]:
    """Return trees that add up the share of each label; of two, of the second alone."""
    wanted = [1] if labels == 2 else list(range(labels))
    return [
        from_sklearn(tree, weight, label, at)
        for tree, weight in zip(trees, weights, strict=True)
        for at, label in enumerate(wanted)
    ]
