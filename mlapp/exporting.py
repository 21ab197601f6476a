"""A published version as a folder that other servers can load.

folder     NAME/VERSION/, to be copied into another artifact folder
mlflow     for `mlflow models serve`: an MLmodel file, the version, and the code that opens it
mlserver   for `mlserver start`: the same, with a model-settings.json that names it
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from mlapp.disk import writing
from mlapp.errors import OutputError
from mlapp.families.contract import Model
from mlapp.families.engines import SKLEARN
from mlapp.store import open_model

Target: TypeAlias = Literal["mlflow", "mlserver", "folder"]

TARGETS: tuple[Target, ...] = get_args(Target)
_CODE = ("families", "store", "tables")
_FILES = (
    "__init__.py",
    "dates.py",
    "disk.py",
    "errors.py",
    "exported.py",
    "manifest.py",
    "schema.py",
    "settings.py",
)
# The libraries of the code; MLflow requires older versions of some than mlapp does.
_LIBRARIES = ("joblib", "numpy>=2.0", "onnxruntime>=1.32", "pandas", "pyarrow", "pydantic>=2.10")
_TYPES = {"FP64": "double", "INT64": "long", "BOOL": "boolean", "BYTES": "string"}


def export(root: Path, name: str, version: int | None, target: Target, to: Path) -> Path:
    """Write a version as a new folder, and return its path.

    Args:
        root: the artifact folder.
        name: the model's name.
        version: by default the one that is served.
        target: what will load it; see above.
        to: the new folder.

    Raises:
        ArtifactError: the version cannot be opened.
        OutputError: the folder already exists, or cannot be written.
    """
    model = open_model(root, name, version)
    if to.exists():
        raise OutputError(f"{to} already exists")
    try:
        with writing(str(to)):
            _write(root, model, target, to)
    except BaseException:
        shutil.rmtree(to, ignore_errors=True)  # half a folder must not be loaded
        raise
    return to


def _write(root: Path, model: Model, target: Target, to: Path) -> None:
    name, version = model.manifest.name, model.manifest.version
    if target == "folder":
        _copy_version(root, name, version, to)
    elif target == "mlflow":
        _write_mlflow(root, model, to)
    else:
        _write_mlflow(root, model, to / "model")
        settings = {
            "name": name,
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": "./model", "version": f"v{version}"},
        }
        _write_json(to / "model-settings.json", settings)


def _copy_version(root: Path, name: str, version: int, to: Path) -> None:
    shutil.copytree(root / name / str(version), to / name / str(version))


def _write_mlflow(root: Path, model: Model, to: Path) -> None:
    manifest = model.manifest
    to.mkdir(parents=True)
    _copy_version(root, manifest.name, manifest.version, to / "data")
    package = Path(__file__).parent
    for folder in _CODE:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package / folder, to / "code" / "mlapp" / folder, ignore=ignored)
    for file in _FILES:
        shutil.copy(package / file, to / "code" / "mlapp" / file)
    libraries = list(_LIBRARIES)
    if model.takes.kind == "text":
        libraries.append("tokenizers")
    else:
        saved = manifest.libraries
        libraries += [f"{each}=={saved[each]}" for each in (SKLEARN, "skops") if each in saved]
    (to / "requirements.txt").write_text("\n".join(libraries) + "\n", encoding="utf-8")
    python = ".".join(map(str, sys.version_info[:3]))
    environment = {"python": python, "dependencies": ["-r requirements.txt"]}
    _write_json(to / "python_env.yaml", environment)  # JSON is YAML
    flavor = {
        "loader_module": "mlapp.exported",
        "code": "code",
        "data": "data",
        "python_version": python,
        "env": {"virtualenv": "python_env.yaml"},
    }
    stated = {
        "flavors": {"python_function": flavor},
        "signature": {"inputs": json.dumps(_inputs(model)), "outputs": json.dumps(_outputs(model))},
        "utc_time_created": f"{manifest.created:%Y-%m-%d %H:%M:%S}",
    }
    _write_json(to / "MLmodel", stated)


def _inputs(model: Model) -> list[dict[str, Any]]:
    """Return the inputs for MLflow's signature."""
    return [
        {
            "name": spec.name,
            "type": "double" if spec.kind == "number" else "string",
            "required": not spec.missing,
        }
        for spec in model.takes.inputs
    ]


def _outputs(model: Model) -> list[dict[str, Any]]:
    return [
        {"name": field.name, "type": _TYPES[field.datatype], "required": True}
        for field in model.gives.table_fields
    ]


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
