"""Axes and legends of the pages' charts: numbers of any size, and names of any length."""

import math
from collections.abc import Iterable
from typing import Any

import altair as alt
import streamlit as st

LARGE, LARGEST = 1e5, 1e15  # between them, numbers are written whole, and short on an axis
SMALL = 1e-4  # below it, numbers are written with an exponent
COUNTS = alt.Axis(tickMinStep=1)  # there are no fractions of a row
LINE = 24  # characters of a line of a name
LONGEST = 3 * LINE  # characters of a name in lines; a longer one loses its middle
SHORT = 30  # the same for a name in one line


def write(value: float) -> str:
    """Return a number as text with six digits, and whole where it has more."""
    value = value + 0.0  # which turns -0.0 into 0.0
    return f"{value:,.0f}" if LARGE <= abs(value) < LARGEST else f"{value:,.6g}"


def quiet_color() -> str:
    """Return a colour for the numbers next to bars, which can be read in the theme that is on."""
    return "#9db0ac" if st.context.theme.type == "dark" else "#52625f"


def number_axis(values: Iterable[float], **options: Any) -> alt.Axis:
    """Return an axis of numbers whose labels are short, however large or small they are.

    Args:
        values: what is drawn along the axis.
        options: further ones of the axis.
    """
    known = [value for value in values if math.isfinite(value)]
    most = max((abs(value) for value in known), default=0.0)
    if not most or SMALL <= most < LARGE:
        return alt.Axis(**options)  # Vega's own labels are short enough
    spread = max(known) - min(known)
    # Enough digits to tell ticks apart that lie close together and far from 0.
    digits = min(15, 4 + max(0, round(math.log10(most / spread)) if spread else 0))
    if most < SMALL or most >= LARGEST:
        short = f"datum.value ? format(datum.value, '.{digits}~e') : '0'"
    else:
        short = f"replace(format(datum.value, '.{digits}~s'), 'G', 'B')"  # B for billions
    return alt.Axis(labelExpr=short, **options)


def name_axis(names: Iterable[str]) -> alt.Axis:
    """Return an axis of names, with long ones in lines."""
    return alt.Axis(labelOverlap=False, labelLimit=0, labelExpr=_in_lines(names))


def name_legend(names: Iterable[str]) -> alt.Legend:
    """Return a legend of names above a chart, in as many columns as fit on the screen."""
    names = list(names)
    widest = 36 + 7 * min(LINE, max(map(len, names), default=0))
    columns = alt.ExprRef(f"max(1, min(3, floor(width / {widest})))")
    lines = _in_lines(names)
    return alt.Legend(orient="top", title=None, columns=columns, labelLimit=0, labelExpr=lines)


def bar_height(names: Iterable[str], usual: int) -> int:
    """Return the height of a bar that has room for its name in lines.

    Args:
        names: all names.
        usual: the height where they are short.
    """
    names = list(names)
    longest = min(_room(names, LONGEST), max(map(len, names), default=0))
    return max(usual, 6 + 14 * math.ceil(longest / LINE + 0.2)) if longest > LINE else usual


def elided(names: Iterable[str], most: int = SHORT) -> str:
    """Return Vega's expression for a name in one line: a long one loses its middle.

    Args:
        names: all names; more is shown where they would look alike.
        most: characters of a name that is shown whole.
    """
    room = _room(names, most)
    parts = f"slice(datum.label, 0, {room // 2}) + '\\u2026' + slice(datum.label, {1 - room // 2})"
    return f"length(datum.label) > {room} ? {parts} : datum.label"


def _in_lines(names: Iterable[str]) -> str:
    """Return the expression for a name in lines, which end at a space where there is one."""
    lines = f"regexp('(.{{1,{LINE}}})(?:\\\\s+|$)|(.{{{LINE}}})', 'g')"
    broken = f"replace({elided(names, LONGEST)}, {lines}, '$1$2\\n')"
    return f"split(replace({broken}, regexp('\\n$'), ''), '\\n')"


def _room(names: Iterable[str], most: int) -> int:
    """Return how many characters of names to show, so that no two look alike."""
    whole = set(names)
    for room in (most, 2 * most, 4 * most):
        if len({_without_middle(name, room) for name in whole}) == len(whole):
            return room
    return most


def _without_middle(name: str, room: int) -> str:
    return name if len(name) <= room else f"{name[: room // 2]}\u2026{name[1 - room // 2 :]}"
