"""The families of models, each in one file.

contract        what a model takes and gives; nothing else is known about it elsewhere
cores           work spread over the cores
varying         how an answer varies with one input of a row
text            the check and the tokenizer of texts, shared with training
network, linear_text  the two text classifiers: scores, and what each word adds to them
units           texts as units and n-grams
engines         the runtimes that compute a table model's numbers
shapley         Shapley values: what each input of a row adds to any function of it
table           the base class of table models
regression      a row to a number
classification  a row to labels
sentiment       a text to a label

To add a family: write a class that is a `contract.Model`, in one file here, and add its task to
`FAMILIES`. A family of another distribution needs no change here: that distribution names it as an
entry point of the group `mlapp.families`, under its task.
"""

from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import cast

from mlapp.errors import ArtifactError
from mlapp.families.contract import Family, Model
from mlapp.manifest import Artifact

# Imported with the first model of the family, since each needs other libraries.
FAMILIES = {
    "classification": "mlapp.families.classification:ClassificationModel",
    "regression": "mlapp.families.regression:RegressionModel",
    "text-classification": "mlapp.families.sentiment:SentimentModel",
}
GROUP = "mlapp.families"


def from_artifact(artifact: Artifact) -> Model:
    """Load the model of an opened artifact.

    Raises:
        ArtifactError: it cannot be loaded, or no family has its task.
    """
    task = artifact.manifest.task
    if task in FAMILIES:
        family = resolve_name(FAMILIES[task])
    elif others := entry_points(group=GROUP, name=task):
        family = next(iter(others)).load()
    else:
        raise ArtifactError(f"Nothing here serves the task {task!r}", "upgrade mlapp")
    return cast(Family, family)(artifact)
