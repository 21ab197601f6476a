"""Model cards: what a version is, its data, quality and limits, and how to reproduce it.

After Mitchell et al., "Model cards for model reporting" (2019).
"""

import html
from collections.abc import Iterable, Mapping

from mlapp.manifest import Manifest, command_of

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
        f"<p>Predictions for {kind.takes}s like those that it was trained on. Values outside the"
        " training range get a notice; the model was not tested on them. It does not model"
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
        "<p>On data that it was not trained on, unless a name ends in <code>in_sample</code>.</p>",
        _table(
            {key: value for key, value in manifest.metrics.items() if not isinstance(value, dict)}
        ),
        "<h2>Drift</h2>",
        "<p>Requests of the last week, compared with the training data.</p>" + _table(drift)
        if drift
        else "<p>There are no figures for the last week.</p>",
        "<h2>How to reproduce it</h2>",
        f"<pre>{_text(command_of(manifest) or 'unknown')}</pre>",
        _table(dict(manifest.libraries)),
    ]
    title = f"{_text(manifest.name)} {manifest.version}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _inputs(manifest: Manifest) -> Iterable[str]:
    if manifest.labels:
        yield f"<p>Labels: {_text(', '.join(manifest.labels))}</p>"
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
