"""Text from outside, made safe to show: as literal Markdown, and as HTML with words marked."""

import html
import re
from collections.abc import Iterable, Sequence

from mlapp.families.contract import Span

MARKED = 200  # the most words that are marked: those with the largest weights
LEAST = 0.05  # the smallest weight of a marked word, as a share of the largest

# A colour for each direction that is readable on light and dark, and a line for the colour-blind.
_STYLES = {
    True: "background:rgba(13,148,136,{alpha:.2f});border-bottom:2px solid rgb(13,148,136)",
    False: "background:rgba(234,88,12,{alpha:.2f});border-bottom:2px dashed rgb(234,88,12)",
}
_FRAME = (
    "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;line-height:1.9;"
    "max-height:26rem;overflow-y:auto"
)
# Browsers cannot show these, or JSON cannot carry them.
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


_MARKDOWN = re.compile(
    r"""[\\`*\[\]<>$~|@]  # emphasis, code, links and pictures, HTML, mathematics, tables, addresses
    | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])  # emphasis; within a word it is a character
    | :(?=\S) | (?i:(?<=www))\.  # emoji, icons and colours, and links that need no brackets
    | &(?=[#A-Za-z])
    | \A[#=] | \A[-+](?![0-9]) | \A[0-9]{1,9}[.)](?=\s|\Z)  # headings and lists
    """,
    re.VERBOSE,
)


def literal(text: str) -> str:
    """Return Markdown, in one line, that shows a text literally.

    Whatever comes from a link, a file or a manifest must be escaped: its Markdown could load
    images from another site, which would then learn who reads the page.
    """
    line = " ".join(_UNSHOWABLE.sub("\ufffd", text).split())
    return _MARKDOWN.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)


def bullets(texts: Iterable[str]) -> str:
    """Return a Markdown list of literal texts."""
    return "\n".join(f"- {literal(text)}" for text in texts)


def mark(text: str, spans: Sequence[Span]) -> str:
    """Return a text as HTML with the spans of the largest weights marked.

    Args:
        text: any text; it is escaped, and characters that cannot be shown become U+FFFD.
        spans: in order, not overlapping; positive weights get a solid line, negative a dashed one.
    """
    shown = _UNSHOWABLE.sub("\ufffd", text)
    heaviest = max((abs(span.weight) for span in spans), default=0.0)
    decisive = [span for span in spans if heaviest and abs(span.weight) >= LEAST * heaviest]
    decisive = sorted(decisive, key=lambda span: -abs(span.weight))[:MARKED]
    parts, end = [], 0
    for span in sorted(decisive, key=lambda span: span.start):
        share = abs(span.weight) / heaviest
        style = _STYLES[span.weight > 0].format(alpha=0.1 + 0.4 * share)
        weight = ";font-weight:600" if share > 0.5 else ""
        word = html.escape(shown[span.start : span.end])
        parts += [
            html.escape(shown[end : span.start]),
            f'<span title="{span.weight:+.2f}" style="{style}{weight}">{word}</span>',
        ]
        end = span.end
    return f'<div dir="auto" style="{_FRAME}">{"".join(parts)}{html.escape(shown[end:])}</div>'
