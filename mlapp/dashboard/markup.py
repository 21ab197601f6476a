"""Any text made safe to show: as literal Markdown, and as HTML with its decisive words marked."""

import html
import re
from collections.abc import Iterable, Sequence

from mlapp.families.contract import Span

MARKED = 200  # words that are marked at most: the heaviest
LEAST = 0.05  # share of the heaviest weight below which a word is not marked

# A colour for each direction that is readable on light and dark, and a line for those without.
_STYLES = {
    True: "background:rgba(13,148,136,{alpha:.2f});border-bottom:2px solid rgb(13,148,136)",
    False: "background:rgba(234,88,12,{alpha:.2f});border-bottom:2px dashed rgb(234,88,12)",
}
_FRAME = (
    "white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;line-height:1.9;"
    "max-height:26rem;overflow-y:auto"
)
# A browser, or the way to it, cannot carry these.
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


_MARKDOWN = re.compile(
    r"""[\\`*\[\]<>$~|@]  # emphasis, code, links and pictures, HTML, mathematics, tables, addresses
    | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])  # emphasis; within a word it is a character
    | :(?=\S) | (?i:(?<=www))\.  # emoji, icons and colours, and links that need no brackets
    | &(?=[#A-Za-z])
    | \A\s*[-+#=] | (?<=\A[0-9])[.)]  # headings and lists
    """,
    re.VERBOSE,
)


def literal(text: str) -> str:
    """Return Markdown, in one line, that shows a text as it is.

    Whatever comes from a link, a file or a manifest is written so: Markdown of others could load
    pictures from elsewhere, and tell who looks at it.
    """
    line = " ".join(_UNSHOWABLE.sub("\ufffd", text).split())
    return _MARKDOWN.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)


def bullets(texts: Iterable[str]) -> str:
    """Return a Markdown list of texts, each as it is."""
    return "\n".join(f"- {literal(text)}" for text in texts)


def mark(text: str, spans: Sequence[Span]) -> str:
    """Return a text as HTML with the heaviest spans marked by how much they weigh.

    Args:
        text: any text; nothing in it is read as markup. What cannot be shown becomes U+FFFD.
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
