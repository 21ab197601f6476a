"""A fitted estimator as what is served: compiled to ONNX where that gives the same answers.

Compiled answers have to equal the estimator's on every row of the data, and on random rows within
its ranges, some of them at and beside the thresholds where trees turn. Otherwise scikit-learn
itself is served, from a skops file. The report says which, and why.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from mlapp.errors import InvalidData, quote
from mlapp.families.classification import SMALLEST
from mlapp.families.engines import (
    ADDITIVE,
    FRAME,
    ONNX,
    PRECISE,
    SKLEARN,
    SKOPS,
    Engine,
    Layout,
    OnnxEngine,
    SkopsEngine,
    ask,
    untrusted_types,
)
from mlapp.schema import Category, Checked, Date, Floats, Number, Schema
from training.graph import Block, Graph, NotCompiled, Origin, dump
from training.graph_models import answer, is_linear

RANDOM_ROWS = 10_000
TOLERANCE = 1e-6  # of a compiled answer, relative; see `largest_difference`
AT_THRESHOLD = 0.3  # the share of random numbers that lie at or beside a threshold
BETWEEN = 0.1  # the share that is not rounded, where the data has whole numbers
FEWEST_PRECISE = 10  # rows that decide whether logits are sums

Takes: TypeAlias = Literal["values", "terms"] | Layout


@dataclass(frozen=True)
class Compiled:
    """What is served of a fitted estimator.

    Attributes:
        files: content by file name.
        libraries: the distributions whose versions matter for the files.
        engine: the files, opened.
        report: `form` (onnx or scikit-learn), `reason`, `rows` and `random_rows` that were
            compared, and the `largest_difference`, relative.
    """

    files: dict[str, bytes]
    libraries: tuple[str, ...]
    engine: Engine
    report: dict[str, Any]


def compile_estimator(estimators: Mapping[str, Any], rows: Checked, takes: Takes) -> Compiled:
    """Return the fastest form of a model that is right.

    Args:
        estimators: fitted estimators by what they give: `prediction` and, for its interval, `scale`
            or `lower` and `upper`; or `probabilities` alone.
        rows: the checked rows of the data.
        takes: what the estimators were fitted on: `values` (`rows.matrix`), `terms`
            (`Schema.encode` of the rows), or a data frame or array of that layout.

    Raises:
        InvalidData: no form can be served; the message says why.
    """
    random = random_rows(rows, {}, RANDOM_ROWS)
    try:
        content, thresholds = write(estimators, rows, takes)
        random = random_rows(rows, thresholds, RANDOM_ROWS)
        engine = OnnxEngine(content, rows.schema)
        difference = max(compare(engine, estimators, each, takes) for each in (rows, random))
        if difference <= TOLERANCE:
            report = _report("onnx", "its answers equal the estimator's", rows, difference)
            return Compiled({ONNX: content}, (), engine, report)
        reason = f"compiled, its answers differ by up to {difference:.1e}"
    except NotCompiled as error:
        reason = str(error)
    except Exception as error:  # of onnxruntime, or of a library whose insides have changed
        reason = f"it cannot be compiled: {type(error).__name__}: {error}"[:500]
    return _keep(estimators, rows, takes, reason)


def _keep(estimators: Mapping[str, Any], rows: Checked, takes: Takes, reason: str) -> Compiled:
    """Return the estimators as they are."""
    if not isinstance(takes, Layout):
        raise InvalidData(f"The model cannot be compiled: {reason}")
    import skops.io

    try:
        content = skops.io.dumps(dict(estimators))
        foreign = untrusted_types(content)
    except Exception as error:  # skops's exceptions share no base
        raise InvalidData(
            f"The model cannot be served: {reason}; and skops cannot store it: {error}"
        ) from error
    if foreign:
        raise InvalidData(
            f"The model cannot be served: {reason}; and of {quote(foreign)}, which it holds,"
            " serving would have to run code that is not scikit-learn's"
        )
    engine = SkopsEngine(content, takes)
    difference = compare(engine, estimators, rows, takes)
    if not difference <= TOLERANCE:
        raise InvalidData(
            f"The model cannot be served: {reason}; and read back from skops, its answers differ by"
            f" up to {difference:.1e}"
        )
    files = {SKOPS: content, FRAME: json.dumps(takes.to_json()).encode()}
    report = _report("scikit-learn", reason, rows, difference)
    return Compiled(files, (SKLEARN, "skops"), engine, report)


def _report(form: str, reason: str, rows: Checked, difference: float) -> dict[str, Any]:
    return {
        "form": form,
        "reason": reason,
        "rows": len(rows),
        "random_rows": RANDOM_ROWS if form == "onnx" else 0,
        "largest_difference": difference,
    }


# --- writing ---------------------------------------------------------------------------------


def write(
    estimators: Mapping[str, Any], rows: Checked, takes: Takes
) -> tuple[bytes, dict[int, list[float]]]:
    """Return the estimators as one ONNX file, and where trees turn by the input's place.

    Raises:
        NotCompiled: nothing here writes one of them.
    """
    graph, schema = Graph(), rows.schema
    given = "terms" if takes == "terms" else "values"
    block = _first_block(schema, given, takes)
    outputs = {}
    for name, estimator in estimators.items():
        width = len(estimator.classes_) if name == "probabilities" else 1
        outputs[name] = (answer(graph, estimator, block), width)
    model = graph.finish((given, len(block)), outputs)
    first = next(iter(estimators))
    additive = is_linear(estimators[first])
    if additive:
        engine = OnnxEngine(dump(model, {}), schema)
        additive = _is_additive(engine, first, random_rows(rows, {}, 400))
    is_precise = additive and first == "probabilities"
    said = {ADDITIVE: str(additive).lower(), PRECISE: str(is_precise).lower()}
    return dump(model, said), graph.thresholds


def _first_block(schema: Schema, given: str, takes: Takes) -> Block:
    if given == "terms":
        origins = [
            Origin(place) if term == spec.name and isinstance(spec, Number) else None
            for place, spec in enumerate(schema.inputs)
            for term in spec.terms
        ]
        return Block(given, [None] * len(origins), list(origins))
    codes: list[dict[str, float] | None] = []
    for spec in schema.expanded:
        as_text = isinstance(takes, Layout) and isinstance(spec, Category)
        names = spec.categories if isinstance(spec, Category) else ()
        # Their places are what they count for in arithmetic.
        truths = isinstance(takes, Layout) and takes.kinds[spec.name] == "bool"
        as_text = as_text and not (truths and tuple(names) == ("False", "True"))
        codes.append({each: float(at) for at, each in enumerate(names)} if as_text else None)
    origins = [
        None if isinstance(spec, Date) else Origin(schema.names.index(spec.name))
        for spec in schema.expanded
    ]
    return Block(given, codes, origins)


def _is_additive(engine: OnnxEngine, name: str, rows: Checked) -> bool:
    """Return whether changing inputs one by one adds up to changing all, in random rows.

    Of probabilities, rows are left out whose logits are not precise, if enough others are there.
    """
    half = len(rows) // 2
    precise = np.ones(half, dtype=bool)

    def explained(matrix: Floats) -> Floats:
        found = engine.run(Checked(rows.schema, matrix))[name]
        if name != "probabilities":
            return found[:, None]
        precise[:] &= found.min(axis=1) > SMALLEST
        logs = np.log(np.clip(found, SMALLEST, None))
        centred: Floats = logs - logs.mean(axis=1, keepdims=True)
        return centred

    here, there = rows.matrix[:half], rows.matrix[half : 2 * half]
    start = explained(here)
    steps = np.zeros_like(start)
    for place in range(here.shape[1]):
        moved = here.copy()
        moved[:, place] = there[:, place]
        steps += explained(moved) - start
    whole = explained(there) - start
    if precise.sum() >= FEWEST_PRECISE:
        start, steps, whole = start[precise], steps[precise], whole[precise]
    scale = np.abs(whole).max() + np.abs(start).max()
    return bool(np.allclose(steps, whole, rtol=0, atol=1e-7 * scale))


# --- comparing -------------------------------------------------------------------------------


def random_rows(rows: Checked, thresholds: Mapping[int, Sequence[float]], count: int) -> Checked:
    """Return random rows within the ranges of the data.

    Numbers are uniform between the least and the largest, or a threshold, or beside one; where the
    data has whole numbers most are whole, but a request may have others. A category is any, and
    what may be missing is at times.
    """
    random = np.random.default_rng(0)
    columns = []
    for place, spec in enumerate(rows.schema.inputs):
        if isinstance(spec, Category):
            column = random.integers(len(spec.categories), size=count).astype(np.float64)
        else:
            column = random.uniform(spec.minimum, spec.maximum, count)
            seen = rows.matrix[:, place]
            if _are_whole(seen):
                column = np.where(random.random(count) < BETWEEN, column, np.round(column))
            if place in thresholds:
                column = _move_to(column, np.array(thresholds[place]), random)
        if spec.missing:
            column[random.random(count) < 0.1] = math.nan
        columns.append(column)
    return Checked(rows.schema, np.column_stack(columns))


def _are_whole(values: Floats) -> bool:
    present = values[~np.isnan(values)]
    return bool((present == np.round(present)).all())


def _move_to(column: Floats, thresholds: Floats, random: np.random.Generator) -> Floats:
    """Move some numbers to a threshold, to the next number above it, or below."""
    chosen = random.random(len(column)) < AT_THRESHOLD
    values = thresholds[random.integers(len(thresholds), size=int(chosen.sum()))]
    side = random.integers(-1, 2, size=len(values))
    beside = np.nextafter(values, np.where(side > 0, np.inf, -np.inf))
    moved = column.copy()
    moved[chosen] = np.where(side == 0, values, beside)
    return moved


def compare(engine: Engine, estimators: Mapping[str, Any], rows: Checked, takes: Takes) -> float:
    """Return the largest difference between an engine's numbers and the estimators'.

    It is relative to a prediction, or where that is less, to the spread of the predictions; for
    probabilities it is absolute. It is infinite where only one of two is finite.
    """
    given = _given(rows, takes)
    ours = engine.run(rows)
    return max(
        _difference(ours[name], ask(estimator, name, given), name)
        for name, estimator in estimators.items()
    )


def _given(rows: Checked, takes: Takes) -> Any:
    if isinstance(takes, Layout):
        return takes.restore(rows)
    return rows.schema.expand(rows) if takes == "values" else rows.schema.encode(rows)


def _difference(ours: Floats, theirs: Floats, name: str) -> float:
    if ours.shape != theirs.shape or not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return math.inf
    good = np.isfinite(theirs)
    if not good.any():
        return 0.0
    ours, theirs = ours[good], theirs[good]
    scale = np.ones(1) if name == "probabilities" else np.maximum(np.abs(theirs), theirs.std())
    apart = np.abs(ours - theirs)
    return float((apart / np.where(scale > 0, scale, 1.0)).max())
