"""Texts to train on: tables, folders and archives in the layout of aclImdb.

The public data set is the Large Movie Review Dataset v1.0 (Maas et al., "Learning word vectors for
sentiment analysis", 2011): folders train/pos and train/neg, and unlabelled reviews in train/unsup.
Its test half is never read.
"""

import hashlib
import io
import re
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlapp.errors import Fault, InvalidData, InvalidTable
from mlapp.families.text import LONGEST, Ids, clean, is_readable, without_markup
from mlapp.manifest import Data
from mlapp.schema import drop_ending, match_label, parse_text, quote
from mlapp.scoring.batch import refuse_other_values
from mlapp.store.learned import key as key
from mlapp.tables.chunks import Chunk
from mlapp.tables.decoding import BLOCK, Text
from mlapp.tables.options import holds_texts
from training.columns import NUMBER, plain_labels
from training.progress import count_of
from training.tables import Say, for_file, read_rows

IMDB = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
IMDB_SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
UNLABELLED = "unsup"  # the folder of texts without a label
NAMED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("neg", "pos"): ("Negative", "Positive")  # the folders of aclImdb
}
MOST_LABELS = 1_000
LEAST = 5  # texts per label

# Not of hidden files and folders, such as those that macOS adds to archives.
_FOLDERS = re.compile(r"(?:^|/)train/((?!\.)[^/]+)/(?!\.)[^/]+\.txt$")


@dataclass(frozen=True)
class Reviews:
    """Texts to train on.

    Attributes:
        texts: n texts.
        classes: the place of each text's label in `labels`, (n,).
        labels: the labels' names, 2 or more.
        unlabelled: texts without a label, none of them among `texts`.
        about: where the labelled texts are from.
        extra: how many of the texts, the last, may only ever be learned from.
        judged: whether judged answers are among them.
    """

    texts: list[str]
    classes: Ids
    labels: tuple[str, ...]
    unlabelled: list[str]
    about: Data
    extra: int = 0
    judged: bool = False

    @property
    def own(self) -> int:
        """How many of the texts, the first, are of the data itself."""
        return len(self.texts) - self.extra

    def pick(self, rows: Ids) -> list[str]:
        """Return the texts of some rows."""
        return [self.texts[row] for row in rows.tolist()]


def read_reviews(
    path: Path,
    unlabelled: Path | None = None,
    *,
    text_column: str = "review",
    label_column: str = "sentiment",
    labels: Sequence[str] = (),
    extra: Sequence[Path] = (),
    feedback: Path | None = None,
    say: Say = print,
    encoding: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
) -> Reviews:
    """Read labelled texts, and texts without a label where there are some.

    Args:
        path: a table in a file, as `training.tables.read_table` takes it, or a folder or .tar.gz
            in the layout of aclImdb.
        unlabelled: the same, of texts alone; by default those that an aclImdb holds.
        text_column: the table's column of texts.
        label_column: the table's column of labels.
        labels: names for the labels, in the order of the sorted values; by default the values
            themselves, or Negative and Positive for the folders neg and pos.
        extra: files of more labelled texts, which may only be learned from; their labels are
            names, or else values, and texts with a label that the data does not have are left out.
        feedback: the same, of judged answers.
        say: called with a line for each thing left out.
        encoding: of a text file; see `FileFormat`.
        decimal: the decimal mark of CSV and TSV; see `FileFormat`.
        sheet: of an Excel workbook; see `FileFormat`.

    Raises:
        InvalidData: nothing can be trained on; the message says why.
    """
    _require_names(labels)
    reading = {"encoding": encoding, "decimal": decimal, "sheet": sheet}
    all_texts, all_values, unsup, about = _read(path, text_column, label_column, reading, say)
    if unlabelled is not None:
        more, _, unsup, _ = _read(unlabelled, text_column, None, for_file(unlabelled, reading), say)
        unsup = more + unsup
    texts, values = _usable(all_texts, plain_labels(all_values, say), say)
    found = _order_labels(set(values))
    _require_labels(path, found, values, labels)
    texts, values, keys = _without_twins(texts, values, say)
    _require_labels(path, found, values, labels)
    alone, _ = _usable(unsup, [""] * len(unsup), say, "unlabelled text")
    alone = _apart(alone, keys, say)
    names = tuple(labels) or (NAMED.get(tuple(found)) if holds_texts(path) else None)
    name_of = dict(zip(found, names or found, strict=True))
    named = [name_of[value] for value in values]
    added = [*extra, *([] if feedback is None else [feedback])]
    extras, extra_named = _read_extra(
        added, text_column, label_column, reading, name_of, feedback, say
    )
    places = {name: place for place, name in enumerate(name_of.values())}
    classes = np.array([places[name] for name in named + extra_named], dtype=np.int64)
    judged = feedback is not None
    return Reviews(texts + extras, classes, tuple(places), alone, about, len(extras), judged)


def _require_names(labels: Sequence[str]) -> None:
    """Refuse names of labels that judged answers could not have.

    Raises:
        InvalidData: one counts as a missing value.
    """
    for name in labels:
        if parse_text(name) is None:
            raise InvalidData(f"--labels: got {name!r}, which counts as a missing value")


def _read_extra(
    paths: Sequence[Path],
    text_column: str,
    label_column: str,
    reading: Mapping[str, str | None],
    name_of: Mapping[str, str],
    feedback: Path | None,
    say: Say,
) -> tuple[list[str], list[str]]:
    """Return more texts with the names of their labels.

    Args:
        paths: the files of the texts.
        text_column: the tables' column of texts.
        label_column: the tables' column of names or values of labels.
        reading: the options to read the data.
        name_of: the name of each value.
        feedback: which of the files holds judged answers, whose labels are names.
        say: called with a line for each thing left out.

    Raises:
        InvalidData: a file cannot be read, or its labels mean others as names than as values.
    """
    texts, values = list[str](), list[str | None]()
    for path in paths:
        found = _read(path, text_column, label_column, for_file(path, reading), say)
        given = {value for value in found[1] if value is not None}
        names = _first_names(given, name_of)
        if path != feedback:
            names = _names_in(path, given, name_of) or names
        texts += found[0]
        values += [None if value is None else names.get(value, value) for value in found[1]]
    texts, named = _usable(texts, values, say, "extra text")
    kept = [row for row, name in enumerate(named) if name in name_of.values()]
    if len(kept) < len(named):
        left_out = count_of(len(named) - len(kept), "extra text")
        say(f"Left out {left_out} with a label that the data lacks")
    texts, named = [texts[row] for row in kept], [named[row] for row in kept]
    texts, named, _ = _without_twins(texts, named, say, "extra text")
    return texts, named


def _first_names(given: Iterable[str], name_of: Mapping[str, str]) -> dict[str, str]:
    """Return the label that each name or value means; what is spelled as a name is one."""
    names, found = tuple(name_of.values()), dict[str, str]()
    for each in given:
        value = match_label(each, name_of)
        if value is not None and not _are_spelled([each], names):
            found[each] = name_of[value]
        elif (meant := match_label(each, names)) is not None:
            found[each] = meant
    return found


def _names_in(path: Path, given: set[str], name_of: Mapping[str, str]) -> dict[str, str] | None:
    """Return the name of each label of a file whose labels are all values of the data.

    It is None where one is not.

    Raises:
        InvalidData: they are all names, too, and mean other labels.
    """
    values = {each: match_label(each, name_of) for each in given}
    found = {each: name_of[value] for each, value in values.items() if value is not None}
    if len(found) < len(given):
        return None
    names = tuple(name_of.values())
    meant = {each: match_label(each, names) for each in given}
    closer = _are_spelled(given, name_of) and not _are_spelled(given, names)
    if None not in meant.values() and meant != found and not closer:
        renamed = ", ".join(f"{value!r} is named {name!r}" for value, name in name_of.items())
        raise InvalidData(
            f"{path}: the labels {quote(sorted(given))} are values of the data and names of other"
            f" labels, since {renamed}; give them other names with --labels"
        )
    return found


def _are_spelled(given: Iterable[str], labels: Collection[str]) -> bool:
    """Return whether all are labels as written, and not only other words for true and false."""
    return all(each in labels or drop_ending(each) in labels for each in given)


# --- reading ---------------------------------------------------------------------------------


def _read(
    path: Path,
    text_column: str,
    label_column: str | None,
    reading: Mapping[str, str | None],
    say: Say,
) -> tuple[list[str], list[str | None], list[str], Data]:
    """Return texts, their label values, texts without a label, and where they are from."""
    if holds_texts(path):
        return _read_files(path, reading.get("encoding"), labelled=label_column is not None)
    if label_column == text_column:
        raise InvalidData(
            f"--text-column and --label-column: got {text_column!r} for both, expected two columns"
        )
    table, about = _read_table(path, text_column, reading, say)
    if not about.rows:
        raise InvalidData(f"{path} is empty: it has a header row and no data rows")
    wanted = {"--text-column": text_column} | (
        {"--label-column": label_column} if label_column is not None else {}
    )
    for flag, name in wanted.items():
        if name not in table.column_names:
            raise InvalidData(
                f"{path} has no column {name!r}; choose {flag} from {', '.join(table.column_names)}"
            )
    texts = _texts_of(path, text_column, table[text_column])
    values: list[str | None] = [None] * len(texts)
    if label_column is not None:
        given = table[label_column].to_pylist()
        values = [parse_text(value) for value in given]
        lost = Counter(
            each
            for each, value in zip(given, values, strict=True)
            if value is None and isinstance(each, str) and each.strip()
        )
        if lost:
            shown = ", ".join(f"{each!r} ({count:,})" for each, count in lost.most_common(5))
            say(f"Labels that count as missing values: {shown}")
    return texts, values, [], about


def _read_table(
    path: Path, text_column: str, reading: Mapping[str, str | None], say: Say
) -> tuple[pa.Table, Data]:
    """Return the rows of a table whose text is one or missing: scoring refuses other values."""
    left_out = list[Fault]()

    def keep(chunk: Chunk) -> pa.RecordBatch:
        if text_column not in chunk.batch.schema.names:
            return chunk.batch
        if not (faults := refuse_other_values(chunk, text_column).faults):
            return chunk.batch
        left_out.extend(faults.values())
        return chunk.batch.filter([place not in faults for place in range(chunk.batch.num_rows)])

    table, about = read_rows(path, keep, **reading)
    if left_out:
        rows = count_of(len(left_out), "row")
        say(f"Left out {rows} whose {text_column!r} is not a text, such as {left_out[0].got}")
    return table, about


def _texts_of(path: Path, name: str, column: pa.ChunkedArray) -> list[str]:
    """Return a column of texts, "" for a missing one."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise InvalidData(f"{path}: the column {name!r} holds {kind}, expected texts")
    return [value or "" for value in column.to_pylist()]


def _read_files(
    path: Path, encoding: str | None, *, labelled: bool
) -> tuple[list[str], list[str | None], list[str], Data]:
    digest, texts, extra = hashlib.sha256(), list[str](), list[str]()
    values: list[str | None] = []
    files = sorted(_folder_files(path) if path.is_dir() else _archive_files(path))
    for name, label, content in files:
        digest.update(name.encode() + b"\0" + content + b"\0")
        text = _decode(name, content, encoding)
        if label == UNLABELLED:
            extra.append(text)
        else:
            texts.append(text)
            values.append(label)
    if not (texts if labelled else texts + extra):
        raise InvalidData(f"{path} holds no train/LABEL/*.txt, as aclImdb has them")
    about = Data(source=path.name, rows=len(texts), columns=2, sha256=digest.hexdigest())
    return texts, values, extra, about


def _decode(name: str, content: bytes, encoding: str | None) -> str:
    """Return the text of a file.

    Raises:
        InvalidData: it is not valid in its encoding.
    """
    try:
        text = Text(name, io.BytesIO(content), encoding=encoding)
        return b"".join(iter(partial(text.read, BLOCK), b"")).decode()
    except InvalidTable as error:
        raise InvalidData(str(error)) from error


def _folder_files(path: Path) -> Iterator[tuple[str, str, bytes]]:
    for file in path.rglob("*.txt"):
        name = file.relative_to(path.parent).as_posix()
        if match := _FOLDERS.search(f"{path.resolve().name}/{file.relative_to(path).as_posix()}"):
            yield name, match[1], file.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                match = _FOLDERS.search(member.name)
                file = archive.extractfile(member) if match and member.isfile() else None
                if match and file:
                    yield member.name, match[1], file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InvalidData(f"{path} cannot be unpacked: {error}") from error


# --- leaving out -----------------------------------------------------------------------------


def _usable(
    texts: Sequence[str], values: Sequence[str | None], say: Say, what: str = "text"
) -> tuple[list[str], list[str]]:
    """Leave out texts without words, too long, or without a label."""
    kept_texts, kept_values, reasons = [], [], defaultdict[str, int](int)
    for text, value in zip(texts, values, strict=True):
        if not is_readable(text):
            reasons["without a letter, digit or symbol"] += 1
        elif len(text) > LONGEST:
            reasons[f"longer than {LONGEST:,} characters"] += 1
        elif value is None:
            reasons["without a label"] += 1
        else:
            kept_texts.append(text)
            kept_values.append(value)
    for reason, count in reasons.items():
        say(f"Left out {count_of(count, what)} {reason}")
    if empty := sum(not is_readable(without_markup(text.lower())) for text in kept_texts):
        hold = "holds" if empty == 1 else "hold"
        say(f"{count_of(empty, what)} {hold} only markup or web addresses, which are not read")
    return kept_texts, kept_values


def _without_twins(
    texts: Sequence[str], values: Sequence[str], say: Say, what: str = "text"
) -> tuple[list[str], list[str], set[str]]:
    """Keep the first of equal texts, and none where their labels differ; return all keys too.

    Texts with one label are equal where their keys are; for two labels, where all else but case and
    spaces is, since punctuation may make the difference.
    """
    keys = [key(text) for text in texts]
    read = [" ".join(clean(text).lower().split()) for text in texts]
    labels = defaultdict[str, set[str]](set)
    for each, value in zip(read, values, strict=True):
        labels[each].add(value)
    seen, kept = set[tuple[str, str]](), []
    for row, found in enumerate(zip(keys, values, strict=True)):
        if len(labels[read[row]]) == 1 and found not in seen:
            seen.add(found)
            kept.append(row)
    disputed = sum(len(labels[each]) > 1 for each in read)
    if disputed:
        say(f"Left out {count_of(disputed, what)} that occur with different labels")
    if twins := len(keys) - len(kept) - disputed:
        say(f"Left out {count_of(twins, what)} that {_repeat(twins)} another")
    return [texts[row] for row in kept], [values[row] for row in kept], set(keys)


def _apart(texts: Sequence[str], keys: Iterable[str], say: Say) -> list[str]:
    """Keep texts that neither repeat each other nor a labelled text, which may be held out."""
    seen, kept = set(keys), []
    for text in texts:
        if (each := key(text)) not in seen:
            seen.add(each)
            kept.append(text)
    if twins := len(texts) - len(kept):
        say(f"Left out {count_of(twins, 'unlabelled text')} that {_repeat(twins)} another")
    return kept


def _repeat(count: int) -> str:
    return "repeats" if count == 1 else "repeat"


def _require_labels(
    path: Path, found: Sequence[str], values: Sequence[str], names: Sequence[str]
) -> None:
    if not found:
        raise InvalidData(f"{path} has no usable text with a label")
    shown = ", ".join(map(repr, found[:5])) + (", ..." if len(found) > 5 else "")
    if len(found) == 1:
        raise InvalidData(f"{path} has one label only, {shown}: nothing to tell apart")
    if len(found) > MOST_LABELS:
        raise InvalidData(
            f"{path} has {len(found)} labels ({shown}); at most {MOST_LABELS} are supported"
        )
    if names and (len(names) != len(found) or len(set(names)) < len(names)):
        raise InvalidData(
            f"--labels names {', '.join(map(repr, names))}; {path} has {len(found)} labels: {shown}"
        )
    counts = Counter(values)
    if rare := [label for label in found if counts[label] < LEAST]:
        have = "has" if len(rare) == 2 else "have"
        more = f"; {count_of(len(rare) - 1, 'more label')} {have} too few" if rare[1:] else ""
        raise InvalidData(
            f"{path} has {count_of(counts[rare[0]], 'usable text')} labelled {rare[0]!r}; at least"
            f" {LEAST} are needed{more}"
        )


def _order_labels(values: Iterable[str]) -> list[str]:
    """Return labels in order; where all are numbers, 2 comes before 10."""
    ordered = sorted(values)
    if all(map(NUMBER.fullmatch, ordered)):
        return sorted(ordered, key=float)
    return ordered
