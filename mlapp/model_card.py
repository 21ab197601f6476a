"""Model cards: what a version is, its data, quality and limits, and how to reproduce it.

After Mitchell et al., "Model cards for model reporting" (2019).
"""

import html
from collections.abc import Iterable, Mapping

from mlapp.manifest import Manifest, command_of
from mlapp.schema import quote

# What metrics are called and how they are written, as on the dashboard; the most telling first.
METRICS: Mapping[str, tuple[str, str]] = {
    "r2": ("R²", "{:.3f}"),
    "rmse": ("RMSE", "{:.6g}"),
    "mae": ("MAE", "{:.6g}"),
    "coverage": ("Interval coverage", "{:.1%}"),
    "accuracy": ("Accuracy", "{:.1%}"),
    "balanced_accuracy": ("Balanced accuracy", "{:.1%}"),
    "ece": ("Calibration error", "{:.1%}"),
    "log_loss": ("Log loss", "{:.3f}"),
    "roc_auc": ("ROC AUC", "{:.3f}"),
}
UNUSUAL = {
    "row": "Values outside the training range",
    "text": "Texts of mostly unknown words",
}

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;"
    "color-scheme:light dark}table{border-collapse:collapse}td,th{text-align:left;"
    "padding:.2rem .8rem .2rem 0;vertical-align:top}pre{white-space:pre-wrap}"
)


def write_card(manifest: Manifest, drift: Mapping[str, str] | None = None) -> str:
    """Return the model card of a version as an HTML page.

    Args:
        manifest: of the version.
        drift: how far what comes in has moved, in words, by input or output; None where nothing
            is known.
    """
    kind = manifest.kind
    what = {"number": "a number", "labels": f"one of {len(manifest.labels or ())} labels"}
    parts = [
        f"<h1>{_text(manifest.name)}, version {manifest.version}</h1>",
        f"<p>Takes a {kind.takes}, gives {what[kind.gives]}. Published"
        f" {manifest.created:%d %B %Y, %H:%M} UTC.</p>",
        "<h2>Intended use and limits</h2>",
        f"<p>Predictions for {kind.takes}s like those that it was trained on. {UNUSUAL[kind.takes]}"
        " get a notice; the model was not tested on them. It does not model"
        " causes: it says what usually goes with its input, not what would happen if the input"
        " were changed.</p>",
        "<h2>Data</h2>",
        _table(
            {
                "source": manifest.data.source,
                "used": manifest.describe_use(),
                "columns": manifest.data.columns,
                "SHA-256": manifest.data.sha256,
            }
        ),
        *_inputs(manifest),
        "<h2>Quality</h2>",
        _table(describe_quality(manifest.metrics)),
        "<h2>Drift</h2>",
        "<p>Requests of the last week, compared with the training data.</p>" + _table(drift)
        if drift
        else "<p>There are no figures for the last week.</p>",
        "<h2>How to reproduce it</h2>",
        f"<pre>{_text(command_of(manifest) or 'unknown')}</pre>",
        *_judged(manifest),
        _table(dict(manifest.libraries)),
    ]
    title = f"{_text(manifest.name)} {manifest.version}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def describe_quality(metrics: Mapping[str, object]) -> dict[str, str]:
    """Return the metrics of a manifest as text, by what they are called.

    The name says where a metric is not of held-out data, but of the model's own or a baseline.
    """
    kinds = {
        "{}": "{}, held out",
        "{}_in_sample": "{}, on its own training data",
        "baseline_{}": "{} of a baseline that ignores the inputs",
    }
    return {
        named.format(title): _write_metric(form, float(value))
        for key, named in kinds.items()
        for metric, (title, form) in METRICS.items()
        if isinstance(value := metrics.get(key.format(metric)), int | float)
    }


def _write_metric(form: str, value: float) -> str:
    """Return a metric as text, with four digits where it is very small or large."""
    shown = form.format(value)
    is_small = 0 < abs(value) < 1e-3 and not shown.endswith("%")
    return f"{value:.4g}" if is_small or abs(value) >= 1e9 else shown


def _judged(manifest: Manifest) -> Iterable[str]:
    """Yield that judged answers were learned from, too, which the command does not say."""
    if manifest.training.get("judged_answers"):
        yield "<p>and judged answers, which <code>mlapp retrain</code> took from the records</p>"


def _inputs(manifest: Manifest) -> Iterable[str]:
    if labels := manifest.labels:
        yield f"<p>Labels: {_text(quote(labels, len(labels)))}</p>"
    if manifest.input_schema:
        yield "<h2>Inputs</h2>"
        yield _table({spec.name: spec.seen for spec in manifest.input_schema.inputs})


def _table(rows: Mapping[str, object]) -> str:
    cells = "".join(
        f"<tr><th>{_text(name)}</th><td>{_text(_short(value))}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _text(text: object) -> str:
    return html.escape(str(text))
