"""The parts of the page Monitor: traffic, drift, quality, and the latest answers and files."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import altair as alt
import pandas as pd
import streamlit as st

from mlapp.dashboard import answers
from mlapp.dashboard.axes import SHORT, elided
from mlapp.dashboard.markup import literal
from mlapp.families.contract import Model
from mlapp.records import bins, drift, quality, queries, reference
from mlapp.records.bins import Series
from mlapp.records.database import Database
from mlapp.records.drift import Drift
from mlapp.records.quality import Figure
from mlapp.store import artifacts

BADGES: Mapping[str, tuple[str, str]] = {
    "green": ("Green", "green"),
    "watch": ("Watch", "orange"),
    "act": ("Act", "red"),
    "unknown": ("Too few", "gray"),
    "unreferenced": ("No reference", "gray"),
}
SHOWN = 100  # answers that the page lists
FILES_SHOWN = 20  # scored files that the page lists
MOST_NAMED = 20  # bins that all have room for their names
CHANNELS = {
    "page": "Dashboard",
    "form": "Form",
    "v1": "REST v1",
    "v2": "REST v2",
    "file": "Files",
    "command": "Command line",
}

Counts: TypeAlias = Mapping[Series, Mapping[int, int]]  # by series and bin


def show_traffic(counts: Counts, files: Counts) -> None:
    """Show requests, errors and latency by channel.

    Args:
        counts: what `queries.totals` returned.
        files: what `queries.count_runs` returned; each file is one more request.
    """
    st.header("Traffic")
    table = traffic(counts, files)
    if table.empty:
        st.caption("There were no requests in this period.")
        return
    requests, errors = int(table["requests"].sum()), int(table["errors"].sum())
    with st.grid(3, min_column_width=170):
        meaning = "All requests, with those that got no answer. A scored file is one."
        st.metric("Requests", f"{requests:,}", border=True, help=meaning)
        st.metric("Errors", f"{errors:,}", border=True, help="Requests that got no answer.")
        st.metric("Error rate", f"{errors / requests:.1%}", border=True)
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "median": st.column_config.TextColumn("median time, at most"),
            "p95": st.column_config.TextColumn("95% within"),
        },
        alt="Requests, errors and latency by channel",
    )


def traffic(counts: Counts, files: Counts) -> pd.DataFrame:
    """Return a row for each channel: requests, errors, and the bins of the median and 95% time.

    Requests include errors and scored files; times are of those that were answered.
    """
    rows = []
    for channel, title in CHANNELS.items():
        series = Series("seconds", channel)
        times = Counter(counts.get(series, {})) + Counter(files.get(series, {}))
        failed = sum(counts.get(Series("error", channel), {}).values())
        if times or failed:
            rows.append(
                {
                    "channel": title,
                    "requests": times.total() + failed,
                    "errors": failed,
                    "median": _within(times, 0.5),
                    "p95": _within(times, 0.95),
                }
            )
    return pd.DataFrame(rows)


def _within(times: Mapping[int, int], share: float) -> str:
    """Return the upper edge of the bin in which a share of the times is reached."""
    total, seen = sum(times.values()), 0
    for place in sorted(times):
        seen += times[place]
        if seen >= share * total:
            edges = bins.SECONDS.edges
            return f"{edges[place] * 1000:g} ms" if place < len(edges) else "over 10 s"
    return ""


def show_drift(root: Path, model: Model, database: Database, since: int) -> None:
    """Show how far each input, the further columns of answers, and the answers have moved.

    Raises:
        RecordsUnavailable: the records cannot be read.
    """
    st.header("Drift")
    known = reference.read(root, model.manifest.name, model.manifest.version)
    found = drift.measure(model, known, database, since)
    found.sort(key=lambda each: ("act", "watch", "green", "unknown").index(each.state))
    if known is None:
        st.info(
            "This version was published without a reference. Train it again to compare requests"
            " with its training data.",
            title="Nothing to compare with",
        )
        return
    worst = [each for each in found if each.state in ("act", "watch")]
    if worst:
        names = ", ".join(each.series.name for each in worst)
        show = st.error if worst[0].state == "act" else st.warning
        show(literal(f"Moved significantly: {names}."), title="Drift detected")
    elif all(each.state == "unknown" for each in found):
        reasons = dict.fromkeys(str(each.reason) for each in found)
        st.caption(f"Drift cannot be measured yet: {'; '.join(reasons)}.")
    else:
        st.success("Nothing moved significantly.", title="No significant drift")
    st.dataframe(
        pd.DataFrame([_line(each) for each in found]),
        hide_index=True,
        column_config={
            "state": st.column_config.MultiselectColumn(
                options=[title for title, _ in BADGES.values()],
                color=[color for _, color in BADGES.values()],
                width="small",
            ),
            "PSI": st.column_config.NumberColumn(
                format="%.3f",
                help="Population stability index: 0 means no change, 0.25 a large one.",
            ),
            "p": st.column_config.NumberColumn(
                format="%.2g", help="How often chance alone would move the values this far."
            ),
            **dict.fromkeys(
                ("missing", "outside"), st.column_config.NumberColumn(format="percent")
            ),
        },
        alt="How far each input and the answers have moved",
    )
    st.caption(
        f"Watch: chance alone would move the values this far in fewer than {drift.CHANCE:.1%} of"
        f" weeks. Act: the index (PSI) is {drift.LARGE} or more as well."
    )
    by_name = {f"{each.series.name} ({each.series.kind})": each for each in found if each.bins}
    if by_name:
        chosen = str(st.selectbox("Distribution of", list(by_name), key="_monitor_series"))
        st.altair_chart(
            distribution(by_name[chosen]), alt=f"The distribution of {chosen}, then and now"
        )


def _line(each: Drift) -> dict[str, Any]:
    return {
        "state": [BADGES[each.state if each.reference else "unreferenced"][0]],
        "what": each.series.name,
        "kind": each.series.kind,
        "PSI": each.psi,
        "p": each.p,
        "rows": each.rows,
        "missing": each.missing,
        "outside": each.outside,
        "refused": each.refused,
    }


def distribution(each: Drift) -> alt.Chart:
    """Draw the shares of each bin in training and now, side by side."""
    data = pd.DataFrame(each.bins, columns=["bin", "training", "now"])
    order = data["bin"].tolist()
    below = 5 * max(0, min(SHORT, max(map(len, order), default=0)) - 10)  # for the slanted names
    long = data.melt("bin", ["training", "now"], "when", "share")
    drawn: alt.Chart = (
        alt.Chart(long)
        .mark_bar()
        .encode(
            x=alt.X(
                "bin:N",
                sort=order,
                title=None,
                axis=alt.Axis(
                    labelAngle=-45,
                    labelOverlap="parity" if len(order) > MOST_NAMED else False,
                    labelLimit=0,
                    labelExpr=elided(order),
                ),
            ),
            xOffset=alt.XOffset("when:N", sort=["training", "now"]),
            y=alt.Y("share:Q", axis=alt.Axis(format=".0%")),
            color=alt.Color(
                "when:N", sort=["training", "now"], legend=alt.Legend(orient="top", title=None)
            ),
            tooltip=["bin:N", "when:N", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=300 + below)
    )
    return drawn


def show_shadows(database: Database, name: str, since: int) -> None:
    """Show how often the answers of a shadow candidate differ from those that were served.

    Raises:
        RecordsUnavailable: the records cannot be read.
    """
    found = queries.shadowed(database, name, since)
    if not found:
        return
    st.header("Candidates in shadow mode")
    percent = st.column_config.NumberColumn(format="percent")
    rows = [
        {
            "candidate": each.candidate,
            "beside version": each.version,
            "answers": each.rows,
            "differing": each.differing / each.rows,
            "outside the interval": None if each.mean is None else each.outside / each.rows,
            "mean difference": each.mean,
        }
        for each in found
    ]
    table = pd.DataFrame(rows).dropna(axis="columns", how="all")
    shares = dict.fromkeys(("differing", "outside the interval"), percent)
    st.dataframe(
        table,
        hide_index=True,
        column_config=answers.significant(table) | shares,
        alt="How often the candidates differ from what was served",
    )


QUALITIES = {
    "accuracy": ("accuracy", "{:.1%}"),
    "ece": ("calibration error", "{:.1%}"),
    "r2": ("R²", "{:.3f}"),
    "mae": ("MAE", "{:.4g}"),
    "coverage": ("interval coverage", "{:.1%}"),
}


def show_quality(root: Path, database: Database, name: str, since: int) -> None:
    """Show the quality of answers by feedback, by version and week, with the held-out figures.

    Raises:
        RecordsUnavailable: the records cannot be read.
    """
    st.header("Was it right?")
    manifests = artifacts.readable_manifests(root, name)
    found = quality.measure(database, name, manifests, since)
    if not found:
        st.caption(
            'No answer from this period has feedback yet. Give it with "Was this right?" below an'
            " answer, `POST /v1/feedback` or `mlapp feedback`."
        )
        return
    rows = []
    for each in found:
        row: dict[str, Any] = {"version": each.version, "judged": each.rows}
        row["week of"] = "all" if each.week is None else each.week.isoformat()
        for key, figure in each.figures.items():
            title, form = QUALITIES[key]
            row[title] = _interval(figure, form)
            held_out = figure.held_out
            row[f"{title}, held out"] = "" if held_out is None else form.format(held_out)
        rows.append(row)
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        alt="Quality of the judged answers by version and week",
    )
    st.caption(
        f"{quality.LEVEL:.0%} intervals are in brackets. They account for chance, not for"
        " selection: answers with feedback are seldom a random sample."
    )


def _interval(figure: Figure, form: str) -> str:
    if figure.value is None:
        return "unknown"
    shown = form.format(figure.value)
    if figure.lower is None or figure.upper is None:
        return shown
    return f"{shown} ({form.format(figure.lower)} to {form.format(figure.upper)})"


def show_latest(database: Database, name: str) -> None:
    """List the latest answers of a model.

    Raises:
        RecordsUnavailable: the records cannot be read.
    """
    rows = [
        {key: value for key, value in row.items() if value is not None and key != "inputs"}
        for row in queries.latest(database, name, SHOWN)
    ]
    if not rows:
        return
    st.header("Latest answers")
    table = pd.DataFrame(rows)
    table["time"] = pd.to_datetime(table["time"], unit="ms", utc=True)
    table["channel"] = table["channel"].map(CHANNELS)
    table["ms"] = table.pop("seconds") * 1000
    first = ["time", "channel", "version"]
    last = [name for name in ("ms", "key", "id", "place") if name in table]
    others = [name for name in table if name not in [*first, *last, "model", "rows"]]
    st.dataframe(
        table[[*first, *others, *last]],
        hide_index=True,
        column_config=answers.significant(table)
        | {
            "time": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss"),
            "ms": st.column_config.NumberColumn(
                format="%.2f", help="Time the model took for the request, in milliseconds."
            ),
            "place": st.column_config.NumberColumn(
                help="Position of the row in its request, from 0."
            ),
        },
        alt="The latest answers",
    )


def show_files(database: Database, name: str, since: int) -> None:
    """List the files that a model scored last, with what came of their rows.

    Raises:
        RecordsUnavailable: the records cannot be read.
    """
    rows = queries.latest_runs(database, name, FILES_SHOWN, since)
    if not rows:
        return
    st.header("Latest files")
    table = pd.DataFrame(rows).rename(columns={"channel": "from"})
    table["time"] = pd.to_datetime(table["time"], unit="ms", utc=True)
    table["from"] = table["from"].map(CHANNELS)
    shown = ("time", "version", "from", "rows", "scored", "noticed", "refused", "seconds")
    number = st.column_config.NumberColumn
    st.dataframe(
        table[[*shown, "complete", "id"]],
        hide_index=True,
        column_config={
            "time": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss"),
            "noticed": number(help="Rows that were scored with a notice."),
            "refused": number(help="Rows that were not scored."),
            "seconds": number(format="%.2f"),
            "complete": st.column_config.CheckboxColumn(
                help="Whether the end of the file was reached."
            ),
        },
        alt="The files that were scored last",
    )
