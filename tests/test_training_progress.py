import io
import re

from training.progress import Progress


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_rewritten_to_its_end() -> None:
    stream = Terminal()
    progress = Progress("epoch 1/2", 4, stream=stream)
    for _ in range(4):
        progress.advance(1, "loss 0.5")
    shown = stream.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n")
    assert re.search(r"\r\[#{24}\] epoch 1/2 100%, 0 s left, loss 0\.5", shown)


def test_elsewhere_a_line_is_written_at_every_tenth() -> None:
    stream = io.StringIO()
    progress = Progress("download", 1000, stream=stream)
    for _ in range(1000):
        progress.advance(1)
    lines = stream.getvalue().splitlines()
    assert [line.split("%")[0] for line in lines] == [
        f"download {tenth:3d}" for tenth in range(10, 101, 10)
    ]


def test_what_was_done_before_is_shown_and_not_timed() -> None:
    stream = io.StringIO()
    progress = Progress("download", 100, done=80, stream=stream)
    progress.advance(30)
    assert stream.getvalue().startswith("download 100%, 0 s left")


def test_a_long_time_left_is_given_in_minutes() -> None:
    stream = io.StringIO()
    progress = Progress("epoch", 1000, stream=stream)
    progress._began -= 60
    progress.advance(100)
    assert "9 min 00 s left" in stream.getvalue()
