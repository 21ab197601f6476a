"""Estimators as operators: columns to a number, or to probabilities of labels."""

from typing import Any

import numpy as np
from sklearn import (
    calibration,
    compose,
    dummy,
    ensemble,
    linear_model,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.frozen import FrozenEstimator

from training import graph_trees
from training.foreign import OnnxEstimator, inline
from training.graph import Block, Graph, NotCompiled
from training.graph_steps import apply, transform
from training.scales import ByPrediction

_GENERALIZED = (
    linear_model.GammaRegressor,
    linear_model.PoissonRegressor,
    linear_model.TweedieRegressor,
)
_HISTOGRAM = (
    ensemble.HistGradientBoostingClassifier,
    ensemble.HistGradientBoostingRegressor,
)
_BOOSTED = (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor)
_FORESTS = (
    ensemble.ExtraTreesClassifier,
    ensemble.ExtraTreesRegressor,
    ensemble.RandomForestClassifier,
    ensemble.RandomForestRegressor,
)
_TREES = (
    tree.DecisionTreeClassifier,
    tree.DecisionTreeRegressor,
    tree.ExtraTreeClassifier,
    tree.ExtraTreeRegressor,
)


def answer(graph: Graph, estimator: Any, block: Block) -> str:
    """Return what a fitted estimator gives: numbers (n, 1), or probabilities (n, labels).

    Raises:
        NotCompiled: nothing here writes such an estimator.
    """
    if isinstance(estimator, pipeline.Pipeline):
        for _, step in estimator.steps[:-1]:
            block = transform(graph, step, block)
        return answer(graph, estimator.steps[-1][1], block)
    if isinstance(estimator, ByPrediction):
        predicted = Block(answer(graph, estimator.model, block), [None], [None])
        return answer(graph, estimator.steps, predicted)
    if isinstance(estimator, OnnxEstimator):
        return inline(graph, estimator, block)
    if isinstance(estimator, FrozenEstimator):
        return answer(graph, estimator.estimator, block)
    if type(estimator) is compose.TransformedTargetRegressor:
        return _transformed(graph, estimator, block)
    if isinstance(estimator, _HISTOGRAM):
        return _histogram(graph, estimator, block)
    if type(estimator) in (ensemble.VotingClassifier, ensemble.VotingRegressor):
        return _vote(graph, estimator, block)
    if type(estimator) in (dummy.DummyRegressor, dummy.DummyClassifier):
        return _constant(graph, estimator, block)
    if type(estimator) is calibration.CalibratedClassifierCV:
        return _calibrated(graph, estimator, block)
    block = block.numbers()
    if isinstance(estimator, _BOOSTED):
        return _boosted(graph, estimator, block)
    if isinstance(estimator, _FORESTS):
        return _forest(graph, estimator, block, [each.tree_ for each in estimator.estimators_])
    if isinstance(estimator, _TREES):
        return _forest(graph, estimator, block, [estimator.tree_])
    if isinstance(estimator, neural_network.MLPClassifier | neural_network.MLPRegressor):
        return _network(graph, estimator, block)
    library = type(estimator).__module__.split(".")[0]
    if library == "xgboost":
        return _xgboost(graph, estimator, block)
    if library == "lightgbm":
        return _lightgbm(graph, estimator, block)
    return _linear(graph, estimator, block)


def is_linear(estimator: Any) -> bool:
    """Return whether an estimator ends in a weighted sum of columns."""
    if isinstance(estimator, pipeline.Pipeline):
        return is_linear(estimator.steps[-1][1])
    return hasattr(estimator, "coef_") and not hasattr(estimator, "support_vectors_")


def _labels(estimator: Any) -> int:
    """Return how many labels a classifier tells apart; 0 for a regressor."""
    return len(estimator.classes_) if hasattr(estimator, "classes_") else 0


def _both(graph: Graph, second: str) -> str:
    """Return the probabilities of two labels from that of the second, (n, 1)."""
    return graph.op("Concat", graph.op("Sub", graph.constant(1.0), second), second, axis=1)


def _logistic(graph: Graph, scores: str) -> str:
    """Return 1 / (1 + exp(-scores))."""
    powers = graph.op("Exp", graph.op("Neg", scores))
    return graph.op("Reciprocal", graph.op("Add", powers, graph.constant(1.0)))


def _shares(graph: Graph, scores: str, labels: int) -> str:
    """Return probabilities (n, labels) of scores: (n, 1) of two labels, else (n, labels)."""
    if labels == 2:
        # Not 1 less the other, which rounds small ones: reasons are of their logarithms.
        pair = _logistic(graph, graph.op("Neg", scores)), _logistic(graph, scores)
        return graph.op("Concat", *pair, axis=1)
    return graph.op("Softmax", scores, axis=1)


# --- linear ----------------------------------------------------------------------------------


def _linear(graph: Graph, estimator: Any, block: Block) -> str:
    """Write whatever has `coef_` and `intercept_`; that it is right is checked on rows."""
    if isinstance(estimator, svm.SVC | svm.SVR | svm.NuSVC | svm.NuSVR):
        raise NotCompiled(f"nothing here compiles {type(estimator).__name__}")
    if not hasattr(estimator, "coef_") or not hasattr(estimator, "intercept_"):
        raise NotCompiled(f"nothing here compiles {type(estimator).__name__}")
    weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    if weights.shape[1] != len(block):
        raise NotCompiled("its coefficients are not one for each column")
    bias = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64), len(weights))
    scores = graph.weigh(block.tensor, weights.T, bias)
    labels = _labels(estimator)
    if labels == 0:
        link = getattr(getattr(estimator, "_base_loss", None), "link", None)
        logs = isinstance(estimator, _GENERALIZED) and type(link).__name__ == "LogLink"
        return graph.op("Exp", scores) if logs else scores
    if not hasattr(estimator, "predict_proba"):
        raise NotCompiled(f"{type(estimator).__name__} gives no probabilities")
    if labels > 2 and len(weights) == labels and _one_against_others(estimator):
        odds = _logistic(graph, scores)
        total = graph.op("ReduceSum", odds, graph.constant([1], np.int64), keepdims=1)
        return graph.op("Div", odds, total)
    return _shares(graph, scores, labels)


def _one_against_others(estimator: Any) -> bool:
    liblinear = getattr(estimator, "solver", None) == "liblinear"
    return liblinear or isinstance(estimator, linear_model.SGDClassifier)


# --- trees -----------------------------------------------------------------------------------


def _histogram(graph: Graph, estimator: Any, block: Block) -> str:
    categories: dict[int, int] = {}
    if estimator._preprocessor is not None:
        block = transform(graph, estimator._preprocessor, block)
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        categories = {at: len(each) for at, each in enumerate(encoder.categories_)}
    block = block.numbers()
    trees = [
        graph_trees.from_histogram(predictor, target, categories)
        for iteration in estimator._predictors
        for target, predictor in enumerate(iteration)
    ]
    start = np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(1, -1)
    raw = graph.op(
        "Add",
        graph_trees.sum_trees(graph, block, trees, start.shape[1]),
        graph.constant(start),
    )
    if labels := _labels(estimator):
        return _shares(graph, raw, labels)
    return _unlink(graph, estimator._loss, raw)


def _unlink(graph: Graph, loss: Any, raw: str) -> str:
    link = type(loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise NotCompiled(f"its loss has the link {link}")
    return graph.op("Exp", raw) if link == "LogLink" else raw


def _boosted(graph: Graph, estimator: Any, block: Block) -> str:
    labels = _labels(estimator)
    if labels and estimator.loss != "log_loss":
        raise NotCompiled(f"its loss is {estimator.loss}")
    first = estimator.init_
    if not (isinstance(first, str) or type(first) in (dummy.DummyRegressor, dummy.DummyClassifier)):
        raise NotCompiled("it begins with another estimator")
    start = estimator._raw_predict_init(np.zeros((1, len(block)), dtype=np.float32))
    trees = [
        graph_trees.from_sklearn(each.tree_, estimator.learning_rate, None, target)
        for stage in estimator.estimators_
        for target, each in enumerate(stage)
    ]
    single = Block(graph.floats(block.tensor), block.codes, block.origins)
    raw = graph_trees.sum_trees(graph, single, trees, start.shape[1])
    raw = graph.op("Add", raw, graph.constant(np.asarray(start, dtype=np.float64)))
    return _shares(graph, raw, labels) if labels else _unlink(graph, estimator._loss, raw)


def _forest(graph: Graph, estimator: Any, block: Block, fitted: list[Any]) -> str:
    labels = _labels(estimator)
    weights = [1 / len(fitted)] * len(fitted)
    if labels:
        trees = graph_trees.label_shares(fitted, labels, weights)
    else:
        trees = [
            graph_trees.from_sklearn(each, weight, None)
            for each, weight in zip(fitted, weights, strict=True)
        ]
    single = Block(graph.floats(block.tensor), block.codes, block.origins)
    found = graph_trees.sum_trees(graph, single, trees, 1 if labels <= 2 else labels)
    return _both(graph, found) if labels == 2 else found


def _xgboost(graph: Graph, estimator: Any, block: Block) -> str:
    trees, sums, objective = graph_trees.from_xgboost(estimator)
    single = Block(graph.single(block.tensor), block.codes, block.origins)
    raw = graph.double(graph_trees.sum_trees(graph, single, trees, sums, np.float32))
    if labels := _labels(estimator):
        if objective not in ("binary:logistic", "multi:softprob", "multi:softmax"):
            raise NotCompiled(f"its objective is {objective}")
        return _shares(graph, raw, labels)
    if objective.endswith(":logistic"):
        return _logistic(graph, raw)
    return graph.op("Exp", raw) if objective in graph_trees.XGBOOST_LOGS else raw


def _lightgbm(graph: Graph, estimator: Any, block: Block) -> str:
    trees, objective = graph_trees.from_lightgbm(estimator)
    labels = _labels(estimator)
    raw = graph_trees.sum_trees(graph, block, trees, 1 if labels <= 2 else labels)
    if labels:
        if objective not in ("binary", "multiclass"):
            raise NotCompiled(f"its objective is {objective}")
        return _shares(graph, raw, labels)
    return graph.op("Exp", raw) if objective in ("poisson", "gamma", "tweedie") else raw


# --- others ----------------------------------------------------------------------------------


def _transformed(graph: Graph, estimator: Any, block: Block) -> str:
    raw = Block(answer(graph, estimator.regressor_, block), [None], [None])
    transformer = estimator.transformer_
    if type(transformer) is preprocessing.FunctionTransformer:
        return apply(graph, transformer.inverse_func, raw).tensor
    if type(transformer) is preprocessing.StandardScaler:
        tensor = raw.tensor
        if transformer.with_std:
            tensor = graph.op("Mul", tensor, graph.constant(transformer.scale_.reshape(1, 1)))
        if transformer.with_mean:
            tensor = graph.op("Add", tensor, graph.constant(transformer.mean_.reshape(1, 1)))
        return tensor
    raise NotCompiled(f"nothing here turns {type(transformer).__name__} back")


def _vote(graph: Graph, estimator: Any, block: Block) -> str:
    if _labels(estimator) and estimator.voting != "soft":
        raise NotCompiled("its vote is hard, and gives no probabilities")
    weights = estimator._weights_not_none or [1.0] * len(estimator.estimators_)
    total = ""
    for each, weight in zip(estimator.estimators_, weights, strict=True):
        part = answer(graph, each, block)
        part = graph.op("Mul", part, graph.constant(weight / sum(weights)))
        total = graph.op("Add", total, part) if total else part
    return total


def _calibrated(graph: Graph, estimator: Any, block: Block) -> str:
    """Write Platt's sigmoid on the log odds of a classifier of two labels, averaged over folds."""
    if _labels(estimator) != 2 or estimator.method != "sigmoid":
        raise NotCompiled("its calibration is not a sigmoid of two labels")
    total, count = "", len(estimator.calibrated_classifiers_)
    for each in estimator.calibrated_classifiers_:
        inner = each.estimator
        if not is_linear(inner):
            raise NotCompiled("its calibration is of a classifier that is not linear")
        steps = inner.steps if isinstance(inner, pipeline.Pipeline) else [("", inner)]
        own = block
        for _, step in steps[:-1]:
            own = transform(graph, step, own)
        final = steps[-1][1]
        scores = graph.weigh(own.numbers().tensor, np.atleast_2d(final.coef_).T, final.intercept_)
        [sigmoid] = each.calibrators
        stretched = graph.op("Mul", scores, graph.constant(-sigmoid.a_))
        part = _logistic(graph, graph.op("Sub", stretched, graph.constant(sigmoid.b_)))
        part = graph.op("Mul", part, graph.constant(1 / count))
        total = graph.op("Add", total, part) if total else part
    return _both(graph, total)


def _constant(graph: Graph, estimator: Any, block: Block) -> str:
    if _labels(estimator):
        if estimator.strategy != "prior":
            raise NotCompiled(f"its strategy is {estimator.strategy}")
        values = np.asarray(estimator.class_prior_, dtype=np.float64).reshape(1, -1)
    else:
        values = np.asarray(estimator.constant_, dtype=np.float64).reshape(1, -1)
    first = graph.op("Gather", block.tensor, graph.constant([0], np.int64), axis=1)
    zero = graph.op("Mul", graph.double(graph.op("IsNaN", first)), graph.constant(0.0))
    return graph.op("Add", zero, graph.constant(values))


_ACTIVATIONS = {"identity": None, "logistic": "logistic", "relu": "Relu", "tanh": "Tanh"}


def _network(graph: Graph, estimator: Any, block: Block) -> str:
    if max(each.shape[1] for each in estimator.coefs_) > 512:
        raise NotCompiled("its layers are wide")
    tensor = block.tensor
    for place, (weights, bias) in enumerate(
        zip(estimator.coefs_, estimator.intercepts_, strict=True)
    ):
        tensor = graph.weigh(tensor, weights, bias)
        last = place == len(estimator.coefs_) - 1
        kind = None if last else _ACTIVATIONS[estimator.activation]
        if kind == "logistic":
            tensor = _logistic(graph, tensor)
        elif kind is not None:
            tensor = graph.op(kind, tensor)
    labels = _labels(estimator)
    if not labels and estimator.out_activation_ != "identity":
        raise NotCompiled(f"its output is {estimator.out_activation_}")
    return _shares(graph, tensor, labels) if labels else tensor
