"""scikit-learn's transformers as operators: each turns a block of columns into another."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn import compose, decomposition, feature_selection, impute, pipeline, preprocessing
from sklearn.utils import check_array

from mlapp.schema import parse_text
from training.graph import Block, Graph, NotCompiled, Origin

MOST_PRODUCTS = 5000  # terms of a polynomial


def transform(graph: Graph, step: Any, block: Block) -> Block:
    """Return what a fitted transformer makes of a block.

    Raises:
        NotCompiled: nothing here writes such a step.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return block
    for kind, write in _STEPS.items():
        if type(step) is kind:
            return write(graph, step, block)
    if isinstance(step, feature_selection.SelectorMixin):
        return graph.pick(block, step.get_support(indices=True).tolist())
    raise NotCompiled(f"nothing here compiles {type(step).__name__}")


def _pipeline(graph: Graph, step: Any, block: Block) -> Block:
    for _, each in step.steps:
        block = transform(graph, each, block)
    return block


def _columns(graph: Graph, step: Any, block: Block) -> Block:
    places = step._transformer_to_input_indices
    parts = []
    for name, each, _ in step.transformers_:
        chosen = list(places[name])
        if chosen and not (isinstance(each, str) and each == "drop"):
            parts.append(transform(graph, each, graph.pick(block, chosen)))
    return graph.join(parts)


def _union(graph: Graph, step: Any, block: Block) -> Block:
    if step.transformer_weights:
        raise NotCompiled("a FeatureUnion has weights")
    parts = [each for _, each in step.transformer_list if each != "drop"]
    return graph.join([transform(graph, each, block) for each in parts])


# --- numbers ---------------------------------------------------------------------------------


def _affine(graph: Graph, block: Block, shift: Any, scale: Any, *, multiply: bool = False) -> Block:
    """Return (x - shift) / scale, in the steps that scikit-learn takes; None leaves one out."""
    block = block.numbers()
    tensor, count = block.tensor, len(block)
    if shift is not None:
        tensor = graph.op("Sub", tensor, graph.constant(np.reshape(shift, (1, -1))))
    if scale is not None:
        kind = "Mul" if multiply else "Div"
        tensor = graph.op(kind, tensor, graph.constant(np.reshape(scale, (1, -1))))
    shifts = np.zeros(count) if shift is None else np.asarray(shift, dtype=float)
    scales = np.ones(count) if scale is None else np.asarray(scale, dtype=float)
    scales = 1 / scales if multiply else scales
    origins = [
        origin and Origin(origin.source, origin.shift + by * origin.scale, origin.scale * stretched)
        for origin, by, stretched in zip(block.origins, shifts, scales, strict=True)
    ]
    return Block(tensor, block.codes, origins)


def _standard(graph: Graph, step: Any, block: Block) -> Block:
    return _affine(
        graph,
        block,
        step.mean_ if step.with_mean else None,
        step.scale_ if step.with_std else None,
    )


def _robust(graph: Graph, step: Any, block: Block) -> Block:
    return _affine(
        graph,
        block,
        step.center_ if step.with_centering else None,
        step.scale_ if step.with_scaling else None,
    )


def _min_max(graph: Graph, step: Any, block: Block) -> Block:
    block = block.numbers()
    tensor = graph.op("Mul", block.tensor, graph.constant(step.scale_.reshape(1, -1)))
    tensor = graph.op("Add", tensor, graph.constant(step.min_.reshape(1, -1)))
    if step.clip:
        low, high = step.feature_range
        tensor = graph.op("Max", tensor, graph.constant(float(low)))
        tensor = graph.op("Min", tensor, graph.constant(float(high)))
    return Block(tensor, block.codes, [None] * len(block))


def _max_abs(graph: Graph, step: Any, block: Block) -> Block:
    return _affine(graph, block, None, step.scale_)


def _polynomial(graph: Graph, step: Any, block: Block) -> Block:
    block = block.numbers()
    powers = step.powers_.astype(np.float64)
    if len(powers) > MOST_PRODUCTS:
        raise NotCompiled(f"its polynomial has more than {MOST_PRODUCTS:,} terms")
    wide = graph.op("Unsqueeze", block.tensor, graph.constant([1], np.int64))
    raised = graph.op("Pow", wide, graph.constant(powers[None]))
    tensor = graph.op("ReduceProd", raised, axes=[2], keepdims=0)
    return Block(tensor, [None] * len(powers), [None] * len(powers))


def _project(graph: Graph, step: Any, block: Block) -> Block:
    block = block.numbers()
    components = step.components_.T
    mean = getattr(step, "mean_", None)
    bias = np.zeros(components.shape[1]) if mean is None else -(mean @ components)
    if getattr(step, "whiten", False):
        spread = np.sqrt(step.explained_variance_)
        components, bias = components / spread, bias / spread
    count = components.shape[1]
    tensor = graph.weigh(block.tensor, components, bias)
    return Block(tensor, [None] * count, [None] * count)


def _function(graph: Graph, step: Any, block: Block) -> Block:
    if step.kw_args:
        raise NotCompiled("a FunctionTransformer has arguments")
    return apply(graph, step.func, block)


def apply(graph: Graph, function: Callable[[Any], Any] | None, block: Block) -> Block:
    """Return a function of numpy of each value of a block.

    Raises:
        NotCompiled: nothing here writes the function.
    """
    checks = isinstance(function, functools.partial) and function.func is check_array
    if function is None or checks:
        return block
    write = _FUNCTIONS.get(function)
    if write is None:
        raise NotCompiled(f"nothing here compiles the function {function!r}")
    tensor = write(graph, block.numbers().tensor)
    return Block(tensor, block.codes, [None] * len(block))


def _one(graph: Graph) -> str:
    return graph.constant(1.0)


_FUNCTIONS: dict[Any, Callable[[Graph, str], str]] = {
    np.abs: lambda graph, x: graph.op("Abs", x),
    np.exp: lambda graph, x: graph.op("Exp", x),
    np.expm1: lambda graph, x: graph.op("Sub", graph.op("Exp", x), _one(graph)),
    np.log: lambda graph, x: graph.op("Log", x),
    np.log10: lambda graph, x: graph.op("Div", graph.op("Log", x), graph.constant(math.log(10))),
    np.log1p: lambda graph, x: graph.op("Log", graph.op("Add", x, _one(graph))),
    np.log2: lambda graph, x: graph.op("Div", graph.op("Log", x), graph.constant(math.log(2))),
    np.reciprocal: lambda graph, x: graph.op("Reciprocal", x),
    np.sqrt: lambda graph, x: graph.op("Sqrt", x),
    np.square: lambda graph, x: graph.op("Mul", x, x),
}


# --- categories and missing values -----------------------------------------------------------


def code_of(category: Any, codes: dict[str, float] | None) -> float | None:
    """Return the number that stands for a category of a column, NaN where missing.

    None means that no row can have it.
    """
    text = parse_text(category)
    if text is None:
        return math.nan
    if codes is not None:
        return codes.get(text)
    try:
        return float(category)
    except (TypeError, ValueError):
        return None


def _matches(graph: Graph, block: Block, wanted: Sequence[tuple[int, float | None]]) -> str:
    """Return whether a column is a code, as doubles (n, m), for m pairs of place and code."""
    places = [place for place, _ in wanted]
    repeated = graph.op("Gather", block.tensor, graph.constant(places, np.int64), axis=1)
    codes = np.array([math.nan if code is None else code for _, code in wanted])
    found = graph.op("Equal", repeated, graph.constant(codes.reshape(1, -1)))
    missing = [code is not None and math.isnan(code) for _, code in wanted]
    if any(missing):
        here = graph.constant(np.reshape(missing, (1, -1)), np.bool_)
        absent = graph.op("And", graph.op("IsNaN", repeated), here)
        found = graph.op("Or", found, absent)
    return graph.double(found)


def _one_hot(graph: Graph, step: Any, block: Block) -> Block:
    if getattr(step, "_infrequent_enabled", False):
        raise NotCompiled("a OneHotEncoder groups infrequent categories")
    dropped = step.drop_idx_ if step.drop_idx_ is not None else [None] * len(block)
    wanted = [
        (place, code_of(category, block.codes[place]))
        for place, categories in enumerate(step.categories_)
        for at, category in enumerate(categories)
        if at != dropped[place]
    ]
    return Block(_matches(graph, block, wanted), [None] * len(wanted), [None] * len(wanted))


def _look_up(
    graph: Graph, block: Block, tables: Sequence[Sequence[tuple[Any, float]]], unknown: float
) -> Block:
    """Return the number of each category: for each column, pairs of category and number."""
    columns = []
    for place, table in enumerate(tables):
        pairs = [(code_of(each, block.codes[place]), float(number)) for each, number in table]
        pairs = [(code, number) for code, number in pairs if code is not None]
        if not pairs:
            raise NotCompiled("a column has none of the categories that its encoder knows")
        found = _matches(graph, block, [(place, code) for code, _ in pairs])
        # One is 1 and the others 0, or all are; NaN times 0 would be NaN.
        numbers = [0.0 if math.isnan(number) else number for _, number in pairs]
        number = graph.weigh(found, np.reshape(numbers, (-1, 1)), [0.0])
        known = [0.0 if math.isnan(number) else 1.0 for _, number in pairs]
        is_known = graph.op(
            "Greater", graph.weigh(found, np.reshape(known, (-1, 1)), [0.0]), graph.constant(0.5)
        )
        columns.append(graph.op("Where", is_known, number, graph.constant(unknown)))
    tensor = columns[0] if len(columns) == 1 else graph.op("Concat", *columns, axis=1)
    return Block(tensor, [None] * len(columns), [None] * len(columns))


def _ordinal(graph: Graph, step: Any, block: Block) -> Block:
    if getattr(step, "_infrequent_enabled", False):
        raise NotCompiled("an OrdinalEncoder groups infrequent categories")
    unknown = math.nan if step.unknown_value is None else float(step.unknown_value)
    missing = float(step.encoded_missing_value)
    if math.isnan(missing) != math.isnan(unknown) and math.isnan(missing):
        raise NotCompiled("an OrdinalEncoder tells unknown from missing categories")
    tables = [
        [
            (each, missing if parse_text(each) is None else float(at))
            for at, each in enumerate(categories)
        ]
        for categories in step.categories_
    ]
    return _look_up(graph, block, tables, unknown)


def _target(graph: Graph, step: Any, block: Block) -> Block:
    if step.target_type_ == "multiclass":
        raise NotCompiled("a TargetEncoder has several labels")
    tables = [
        list(zip(categories, encodings, strict=True))
        for categories, encodings in zip(step.categories_, step.encodings_, strict=True)
    ]
    return _look_up(graph, block, tables, float(step.target_mean_))


def _impute(graph: Graph, step: Any, block: Block) -> Block:
    if not (
        step.missing_values is None
        or step.missing_values is np.nan
        or (isinstance(step.missing_values, float) and math.isnan(step.missing_values))
    ):
        raise NotCompiled(f"a SimpleImputer fills in for {step.missing_values!r}")
    fills, codes = [], []
    for place, value in enumerate(step.statistics_):
        own = block.codes[place]
        if own is not None:
            text = parse_text(value)
            if text is None:
                raise NotCompiled("a SimpleImputer leaves a column out")
            own = own if text in own else own | {text: float(len(own))}
            fills.append(own[text])
        else:
            fills.append(float(value))
            if math.isnan(fills[-1]):
                raise NotCompiled("a SimpleImputer leaves a column out")
        codes.append(own)
    absent = graph.op("IsNaN", block.tensor)
    filled = graph.op("Where", absent, graph.constant(np.reshape(fills, (1, -1))), block.tensor)
    whole = Block(filled, codes, list(block.origins))
    if not step.add_indicator:
        return whole
    marks = graph.op(
        "Gather", graph.double(absent), graph.constant(step.indicator_.features_, np.int64), axis=1
    )
    count = len(step.indicator_.features_)
    return graph.join([whole, Block(marks, [None] * count, [None] * count)])


_STEPS: dict[type, Callable[[Graph, Any, Block], Block]] = {
    compose.ColumnTransformer: _columns,
    decomposition.PCA: _project,
    decomposition.TruncatedSVD: _project,
    impute.SimpleImputer: _impute,
    pipeline.FeatureUnion: _union,
    pipeline.Pipeline: _pipeline,
    preprocessing.FunctionTransformer: _function,
    preprocessing.MaxAbsScaler: _max_abs,
    preprocessing.MinMaxScaler: _min_max,
    preprocessing.OneHotEncoder: _one_hot,
    preprocessing.OrdinalEncoder: _ordinal,
    preprocessing.PolynomialFeatures: _polynomial,
    preprocessing.RobustScaler: _robust,
    preprocessing.StandardScaler: _standard,
    preprocessing.TargetEncoder: _target,
}
