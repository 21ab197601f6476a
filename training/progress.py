"""A progress bar: one line that is rewritten on a terminal, a line every tenth elsewhere."""

import sys
import time
from typing import TextIO

WIDTH = 24  # characters of the bar
MANY = 5_000  # texts from which on training takes so long that it says how long
PAUSE = 0.2  # seconds between two drawings on a terminal


class Progress:
    """Progress towards a total, with the time left."""

    def __init__(self, title: str, total: int, done: int = 0, stream: TextIO | None = None) -> None:
        """Begin at `done` of `total`; the stream is standard error by default."""
        self.title, self.total, self.done = title, max(1, total), done
        self._stream = sys.stderr if stream is None else stream
        self._began, self._first = time.monotonic(), done
        self._drawn, self._tenth = 0.0, int(10 * done / self.total)

    def advance(self, amount: int, note: str = "") -> None:
        """Go on by an amount, and show it with a note."""
        self.done = min(self.total, self.done + amount)
        now = time.monotonic()
        spent = now - self._began
        left = spent / max(1, self.done - self._first) * (self.total - self.done)
        text = f"{self.title} {self.done / self.total:4.0%}, {_duration(left)} left"
        text += f", {note}" if note else ""
        if self._stream.isatty():
            if now - self._drawn > PAUSE or self.done == self.total:
                full = WIDTH * self.done // self.total
                bar = "#" * full + "-" * (WIDTH - full)
                end = "\n" if self.done == self.total else ""
                self._stream.write(f"\r[{bar}] {text}\x1b[K{end}")
                self._drawn = now
        elif (tenth := 10 * self.done // self.total) > self._tenth:
            self._tenth = tenth
            self._stream.write(f"{text}\n")
        self._stream.flush()


def describe_seconds(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun, whose plural ends in s: 1 text, 2,000 texts."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
