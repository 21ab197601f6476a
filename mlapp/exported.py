"""The loader of exported versions for MLflow: `mlapp export --to mlflow` names this module.

It is copied into the exported folder together with what it imports, since MLflow and mlapp want
different versions of some libraries and cannot be installed side by side.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlapp.families import from_artifact
from mlapp.families.contract import Labels, Model
from mlapp.store import artifacts

if TYPE_CHECKING:
    import pandas as pd


class Scorer:
    """The model as MLflow calls it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(
        self,
        rows: "pd.DataFrame",
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> "pd.DataFrame":
        """Answer n rows; the columns are those of a file that `mlapp score` writes.

        Args:
            rows: the inputs by name; a text classifier takes one column of texts.
            params: unused; MLflow passes it.

        Raises:
            InvalidInput: with every fault of every row.
        """
        import pandas as pd

        columns = {str(name): rows[name].to_numpy() for name in rows}
        answers = self.model.answer(self.model.check_columns(columns))
        found: dict[str, Any] = dict(answers.table())
        if isinstance(answers, Labels):
            found["label"] = list(answers.labels)
        return pd.DataFrame(found)


def _load_pyfunc(path: str) -> Scorer:
    """Open the version in a folder; the name of this function is MLflow's."""
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(root)
    [name] = artifacts.names(root)
    [version] = artifacts.versions(root, name)
    return Scorer(from_artifact(artifacts.open(root, name, version)))
