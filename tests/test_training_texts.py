import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlapp.errors import InvalidData
from training.download import download
from training.texts import Reviews, key, read_reviews

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def quiet(line: str) -> None:
    """Say nothing."""


def made(rows: int = 60) -> pd.DataFrame:
    labels = [place % 2 for place in range(rows)]
    texts = [f"review number {place} is {['bad', 'good'][place % 2]}" for place in range(rows)]
    return pd.DataFrame({"id": range(rows), "sentiment": labels, "review": texts})


def read(path: Path, unlabelled: Path | None = None, **options: object) -> Reviews:
    return read_reviews(path, unlabelled, say=quiet, **options)  # type: ignore[arg-type]


# --- tables -----------------------------------------------------------------------------------


def test_the_chapters_file_is_read_as_it_is(tmp_path: Path) -> None:
    lines = ["id\tsentiment\treview"]
    lines += [
        f'"{place}_8"\t{place % 2}\t"He said ""no"", ""{place}"".<br /><br />\\"Really\\"?"'
        for place in range(60)
    ]
    path = tmp_path / "reviews.tsv.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("reviews.tsv", "\n".join(lines))
    reviews = read(path)
    assert reviews.texts[0] == '"He said ""no"", ""0"".<br /><br />\\"Really\\"?"'
    assert reviews.labels == ("0", "1")
    assert list(reviews.classes[:4]) == [0, 1, 0, 1]
    assert (reviews.about.source, reviews.about.rows) == ("reviews.tsv.zip", 60)
    assert reviews.about.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet"])
def test_tables_of_ones_own_are_read_with_any_columns(tmp_path: Path, suffix: str) -> None:
    frame = made(90).rename(columns={"review": "words", "sentiment": "mood"})
    frame["mood"] = [["happy", "sad", "so-so"][place % 3] for place in range(90)]
    path = tmp_path / f"mine.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        text = frame.to_csv(index=False, sep="\t" if suffix == "tsv" else ",").encode()
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    reviews = read(path, text_column="words", label_column="mood")
    assert reviews.labels == ("happy", "sad", "so-so")
    assert reviews.texts == list(frame["words"])
    assert list(reviews.classes[:3]) == [0, 1, 2]


def test_quoted_fields_of_a_csv_may_hold_commas_and_lines(tmp_path: Path) -> None:
    frame = made()
    frame["review"] = 'well, "this"\nis ' + frame["review"]
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    assert read(path).texts == list(frame["review"])


def test_labels_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    made().to_csv(path, index=False)
    assert read(path, labels=["Bad", "Good"]).labels == ("Bad", "Good")
    with pytest.raises(InvalidData, match=r"--labels names 'a', 'b', 'c'; .* has 2 labels"):
        read(path, labels=["a", "b", "c"])
    with pytest.raises(InvalidData, match="--labels"):
        read(path, labels=["a", "a"])


@pytest.mark.parametrize("name", ["NA", " null ", ""])
def test_names_that_count_as_missing_values_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mine.csv"
    made().to_csv(path, index=False)
    with pytest.raises(InvalidData) as caught:
        read(path, labels=["Good", name])
    assert str(caught.value) == f"--labels: got {name!r}, which counts as a missing value"


# --- folders and archives ---------------------------------------------------------------------


@pytest.fixture
def imdb(tmp_path: Path) -> Path:
    root = tmp_path / "aclImdb"
    for part, label, count in [
        ("train", "pos", 25),
        ("train", "neg", 25),
        ("train", "unsup", 5),
        ("test", "pos", 3),
    ]:
        folder = root / part / label
        folder.mkdir(parents=True)
        for place in range(count):
            text = f"{part} {label} café {place}"
            (folder / f"{place}_7.txt").write_text(text, encoding="utf-8")
        (folder / "._0_7.txt").write_bytes(b"\0\5\x16\7")  # as macOS adds them
    (root / "train" / "urls_pos.txt").write_text("no review")
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_or_archive_like_aclimdb_is_read_without_its_test_half(
    imdb: Path, packed: bool
) -> None:
    path = imdb
    if packed:
        path = imdb.with_name("aclImdb_v1.tar.gz")
        with tarfile.open(path, "w:gz") as archive:
            archive.add(imdb, "aclImdb")
    reviews = read(path)
    assert reviews.labels == ("Negative", "Positive")
    assert len(reviews.texts) == 50
    assert {reviews.texts[row].split()[1] for row in range(50) if reviews.classes[row]} == {"pos"}
    assert sorted(reviews.unlabelled) == [f"train unsup café {place}" for place in range(5)]
    assert not any(text.startswith("test") for text in reviews.texts)


def test_files_of_a_folder_are_read_in_the_encoding_that_is_named(imdb: Path) -> None:
    (imdb / "train" / "pos" / "0_7.txt").write_bytes("très déjà".encode("windows-1252"))
    with pytest.raises(
        InvalidData, match=r"pos/0_7\.txt is not valid UTF-8: .* option encoding, such as w"
    ):
        read(imdb)
    for file in imdb.rglob("*.txt"):
        file.write_bytes(f"déjà {file.parent.name} {file.name}".encode("windows-1252"))
    assert all(text.startswith("déjà ") for text in read(imdb, encoding="windows-1252").texts)


def test_a_folder_without_reviews_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"train/LABEL/\*\.txt"):
        read(tmp_path)


def test_a_damaged_archive_is_reported(imdb: Path) -> None:
    path = imdb.with_name("aclImdb_v1.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(imdb, "aclImdb")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(InvalidData, match="cannot be unpacked"):
        read(path)


# --- what is left out -------------------------------------------------------------------------


def test_equal_texts_are_kept_once_and_reported(tmp_path: Path) -> None:
    frame = made()
    twin = frame.iloc[[3]].assign(review="REVIEW number: 3 is   good!")
    path = tmp_path / "mine.csv"
    pd.concat([frame, twin]).to_csv(path, index=False)
    said: list[str] = []
    reviews = read_reviews(path, say=said.append)
    assert len({key(text) for text in reviews.texts}) == len(reviews.texts) == 60
    assert said == ["Left out 1 text that repeats another"]


def test_equal_texts_with_different_labels_are_all_left_out(tmp_path: Path) -> None:
    frame = made()
    path = tmp_path / "mine.csv"
    pd.concat([frame, frame.iloc[[3]].assign(sentiment=0)]).to_csv(path, index=False)
    said: list[str] = []
    reviews = read_reviews(path, say=said.append)
    assert frame["review"][3] not in reviews.texts
    assert said == ["Left out 2 texts that occur with different labels"]


def test_texts_that_differ_in_punctuation_may_have_different_labels(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        [(f"{place} plus 1{end}", end) for place in range(30) for end in ".?"],
        columns=["review", "sentiment"],
    )
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    assert len(read(path).texts) == 60


def test_texts_of_which_nothing_is_read_are_reported(tmp_path: Path) -> None:
    frame = made()
    frame.loc[0, "review"] = "https://example.org/a?b=1"
    frame.loc[1, "review"] = "<img src=x onerror=alert(1)>"
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    said: list[str] = []
    assert len(read_reviews(path, say=said.append).texts) == 60
    assert said == ["2 texts hold only markup or web addresses, which are not read"]


def test_more_than_two_words_for_true_and_false_are_two_labels(tmp_path: Path) -> None:
    words = (["true", "TRUE"], ["False", "false"])
    frame = made().assign(sentiment=[words[row % 2][row % 4 // 2] for row in range(60)])
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    said: list[str] = []
    assert read_reviews(path, say=said.append).labels == ("False", "True")
    assert said == ["The labels 'False', 'TRUE', 'false', 'true' are read as True and False"]


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        (["v1.0", "v2.0"], ["v1.0", "v2.0"], [0, 1]),
        (["no", "yes"], ["0", "1"], [0, 1]),
        (["yes", "no"], ["0", "1"], [0, 1]),  # a value is no other label's name
        (["yes", "no"], ["1.0", "0.0"], [1, 0]),
        (["no", "yes"], ["True", "false"], [1, 0]),
        (["Bad", "Good"], ["Good", "0"], [1, 0]),
    ],
)
def test_extra_texts_have_names_or_values_as_labels(
    tmp_path: Path, labels: list[str], given: list[str], expected: list[int]
) -> None:
    data, extra = tmp_path / "data.csv", tmp_path / "extra.csv"
    made().to_csv(data, index=False)
    pd.DataFrame({"review": ["one", "two"], "sentiment": given}).to_csv(extra, index=False)
    reviews = read(data, labels=labels, extra=[extra])
    assert reviews.classes[60:].tolist() == expected


def test_every_file_is_read_with_the_options_that_apply_to_it(tmp_path: Path) -> None:
    data, extra, more = tmp_path / "data.csv", tmp_path / "extra.csv", tmp_path / "more.parquet"
    judged = tmp_path / "judged.parquet"
    frame = made().assign(review=[f"прекрасно {row}" for row in range(60)])
    frame.to_csv(data, index=False, encoding="koi8-r")
    frame[:1].assign(review="ужасно").to_csv(extra, index=False, encoding="koi8-r")
    frame[:1].assign(review="скучно").to_parquet(more)
    frame[:1].assign(review="неплохо").to_parquet(judged)
    given = [extra, extra, more]  # repeated texts count once, also those of other files
    reviews = read(data, more, extra=given, feedback=judged, encoding="koi8-r")
    assert reviews.texts[0] == "прекрасно 0"
    assert reviews.texts[60:] == ["ужасно", "скучно", "неплохо"]
    assert reviews.unlabelled == ["скучно"]


def test_values_that_are_no_texts_are_left_out_as_scoring_refuses_them(tmp_path: Path) -> None:
    rows = [{"review": text, "sentiment": place % 2} for place, text in enumerate(made()["review"])]
    others = [5, ["a"], {"a": "b"}, True, 0.5]
    lines = [{"review": value, "sentiment": 1} for value in others]
    lines += [{"review": "5", "sentiment": 1}, {"review": None, "sentiment": 1}, *rows]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    said: list[str] = []
    reviews = read_reviews(path, say=said.append)
    assert reviews.texts == ["5", *(str(row["review"]) for row in rows)]
    assert reviews.about.rows == 67
    assert said[0].startswith("Left out 5 rows whose 'review' is not a text, such as ")
    assert said[1:] == ["Left out 1 text without a letter, digit or symbol"]


def test_a_file_without_any_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"review": 5, "sentiment": 1}\n' * 3)
    with pytest.raises(InvalidData, match="no usable text with a label"):
        read(path)


def test_texts_without_words_or_label_are_left_out_and_reported(tmp_path: Path) -> None:
    frame = made().astype({"sentiment": object})
    frame.loc[0, "review"] = " ?! "
    frame.loc[1:2, "sentiment"] = None
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    said: list[str] = []
    assert len(read_reviews(path, say=said.append).texts) == 57
    assert said == [
        "Left out 1 text without a letter, digit or symbol",
        "Left out 2 texts without a label",
    ]


def test_unlabelled_texts_repeat_no_labelled_one(tmp_path: Path) -> None:
    labelled, unlabelled = tmp_path / "l.csv", tmp_path / "u.csv"
    frame = made()
    frame.to_csv(labelled, index=False)
    texts = [frame["review"][5].upper(), "another", "Another!", "one more"]
    pd.DataFrame({"review": texts}).to_csv(unlabelled, index=False)
    assert read(labelled, unlabelled).unlabelled == ["another", "one more"]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentiment": 1}, "one label only, '1'"),
        ({"sentiment": ""}, "no usable text with a label"),
        ({"sentiment": [int(place < 1) for place in range(60)]}, "1 usable text labelled '1'"),
        (
            {"sentiment": [str(place) for place in range(60)]},
            "1 usable text labelled '0'; at least 5 are needed; 59 more labels have too few",
        ),
        (
            {"sentiment": [min(place, 2) for place in range(60)]},
            "1 usable text labelled '0'; at least 5 are needed; 1 more label has too few",
        ),
        ({"review": "the same"}, "0 usable texts labelled '0'"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "mine.csv"
    made().assign(**change).to_csv(path, index=False)  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match=message):
        read(path)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"text_column": "text"}, "no column 'text'; choose --text-column from id, sentiment, rev"),
        ({"label_column": "mood"}, "no column 'mood'; choose --label-column from id, "),
        (
            {"label_column": "review"},
            "--text-column and --label-column: got 'review' for both, expected two columns",
        ),
    ],
)
def test_a_column_that_cannot_be_used_is_reported(
    tmp_path: Path, option: dict[str, Any], message: str
) -> None:
    path = tmp_path / "mine.csv"
    made().to_csv(path, index=False)
    with pytest.raises(InvalidData, match=message):
        read(path, **option)


def zipped(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for place in range(count):
            archive.writestr(f"{place}.csv", "a,b\n")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"review,sentiment\n", "a header but no rows"),
        ("a.csv", b"review,sentiment\n\xff,1\n", "not valid UTF-8"),
        ("a.csv", b'review,sentiment\n"never closed,1\n', "cannot be read as a table"),
        ("a.tsv.zip", zipped(1)[:60], "is damaged"),
        ("a.tsv.zip", zipped(2), "got 2 files .*expected one"),
        ("a.csv.gz", gzip.compress(b"review,sentiment\n")[:12], "is damaged"),
        ("a.parquet", b"PAR1", "is damaged"),
    ],
)
def test_a_damaged_or_empty_file_is_reported(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=message):
        read(tmp_path / name)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"gone\.csv cannot be read: No such file"):
        read(tmp_path / "gone.csv")


# --- downloading ------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; what it does with ranges, and how soon it hangs up, can be set."""

    ranges, hang_up_after = True, len(CONTENT)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.server.hang_up_after])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_downloaded_checked_and_kept(server: Server, tmp_path: Path) -> None:
    path = download(server.url, DIGEST, tmp_path / "cache", quiet)
    assert path.read_bytes() == CONTENT
    assert download(server.url, DIGEST, tmp_path / "cache", quiet) == path
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_is_resumed(
    server: Server, tmp_path: Path, ranges: bool
) -> None:
    server.hang_up_after = 300_000
    with pytest.raises(InvalidData, match="Run the command again"):
        download(server.url, DIGEST, tmp_path, quiet)
    assert not (tmp_path / "data.tar.gz").exists()
    server.hang_up_after, server.ranges = len(CONTENT), ranges
    assert download(server.url, DIGEST, tmp_path, quiet).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_a_download_that_was_whole_but_not_kept_is_not_asked_for_again(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "data.tar.gz.part").write_bytes(CONTENT)
    assert download(server.url, DIGEST, tmp_path, quiet).read_bytes() == CONTENT


def test_a_file_with_another_digest_is_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="expected 0000"):
        download(server.url, "0" * 64, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz").write_bytes(b"damaged")
    assert download(server.url, DIGEST, tmp_path, quiet).read_bytes() == CONTENT


def test_a_server_that_does_not_answer_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="cannot be downloaded"):
        download("http://127.0.0.1:9/data.tar.gz", DIGEST, tmp_path, quiet)


def test_a_column_that_holds_no_texts_is_reported_with_its_type(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    made().assign(review=range(60)).to_parquet(path)
    with pytest.raises(InvalidData, match="the column 'review' holds int64, expected texts"):
        read(path)


@pytest.mark.parametrize("content", ['{"review": "a", "sentiment": 1}', '[{"review": "a"}]'])
def test_json_that_is_no_json_lines_is_not_read_as_csv(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(InvalidData, match=r"got '\.json', expected \.csv, \.tsv or \.jsonl"):
        read(path)
