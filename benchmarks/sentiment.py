"""How fast a text is classified, compared with the same network in Keras.

    python benchmarks/sentiment.py [--texts 600] [--runs 30] [--starts 3]

Method: a network of the shipped model's size is built in Keras with random weights, and exported
by the training's own exporter, so that all ways have the same weights; only the 8-bit ones are
rounded. Texts are drawn from the shipped vocabulary, with lengths as film reviews have them:
log-normal, median 200 words, most between 60 and 700. "Network" goes from ids to scores, as the
ways of Keras do; "text to answer" also reads and checks the text, and makes the row that the
service sends. All ways take turns in one process.

One review: the median over runs of a text of 200 words. Many reviews: Keras takes them in batches
of 64 of similar length through one compiled function on all cores; ours takes the list. First
prediction: a fresh process, from its start to the answer, with its resident memory then, medians;
"network alone" is onnxruntime without mlapp, which is what the Keras process does too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from mlapp.families.contract import replay
from mlapp.families.network import HEAD, NETWORK, TOKENIZER, Network, Pooling
from mlapp.families.sentiment import REPORT, SentimentModel
from mlapp.manifest import Artifact
from mlapp.store import artifacts
from training.export import export_head, export_network
from training.network import Shape, build, pad, score

ROOT = Path(__file__).resolve().parents[1]
MEDIAN = 200  # words
BATCH = 64  # texts per Keras batch

Ids: TypeAlias = npt.NDArray[np.int64]

RESIDENT = "int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0]) / 1000"
FIRST = {
    "ours": """
import os, sys
os.environ["MLAPP_ARTIFACTS"] = sys.argv[1]
from mlapp.loaders import load_sentiment
load_sentiment().predict([open(sys.argv[2]).read()])
""",
    "network alone": """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1] + "/sentiment/1/network.onnx", options)
session.run(["states"], {"ids": numpy.load(sys.argv[3]).astype("int64")})
""",
    "Keras": """
import sys
import keras, numpy
import training.network
keras.models.load_model(sys.argv[4], custom_objects={"MaskedMax": training.network.MaskedMax}
    ).predict(numpy.load(sys.argv[3]), verbose=0)
""",
}


def median_time(work: Callable[[], Any], runs: int) -> float:
    """Return the median seconds that a piece of work takes, after it was done twice."""
    times = []
    for _ in range(runs + 2):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def first_prediction(way: str, arguments: list[str]) -> tuple[float, float]:
    """Return seconds and resident MB of a fresh process that predicts once."""
    code = f"{FIRST[way]}\nprint({RESIDENT})"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - began, float(done.stdout.split()[-1])


def publish(
    root: Path, shipped: Artifact, pooling: Pooling, network: keras.Model, int8: bool
) -> None:
    """Publish a network with the shipped tokenizer, to be opened as any other."""
    files = {
        NETWORK: export_network(network, int8),
        TOKENIZER: shipped.files[TOKENIZER],
        HEAD: export_head(network, pooling).dump(),
        REPORT: b"{}",
    }
    kept = ("task", "data", "labels", "training", "metrics")
    fields = {name: getattr(shipped.manifest, name) for name in kept}
    drafted = artifacts.draft("sentiment", files, ("mlapp",), golden=(), **fields)
    artifacts.publish(root, drafted, lambda artifact: replay(SentimentModel(artifact)))


def answer_texts(model: SentimentModel, texts: list[str]) -> list[dict[str, Any]]:
    """Classify texts, from the text to the answer as REST gives it."""
    return model.answer(model.check(texts)).records()


def draw(words: list[str], count: int) -> list[Ids]:
    """Return so many texts as the numbers of their words, after a first one of `MEDIAN` words."""
    random = np.random.default_rng(0)
    lengths = np.clip(MEDIAN * np.exp(random.normal(0, 0.6, count)), 10, 2000).astype(int)
    known = [place for place, word in enumerate(words) if place > 1 and word.isalpha()]
    return [random.choice(known, length).astype(np.int64) for length in (MEDIAN, *lengths)]


def ways_of(model: SentimentModel, texts: list[str]) -> dict[str, Callable[[], Any]]:
    """Return what is timed of a published model on texts."""
    return {
        "network": partial(model.scorer.scores, model.check(texts).read),
        "text to answer": partial(answer_texts, model, texts),
    }


def time_one(
    network: keras.Model, ours: dict[int, SentimentModel], drawn: list[Ids], text: str,
    runs: int,
) -> None:  # fmt: skip
    """Print how long one text takes."""
    one = pad(drawn[:1])
    compiled = tf.function(network, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    predict = median_time(lambda: network.predict(one, verbose=0), runs)
    function = median_time(lambda: compiled(one), runs)
    title = f"one review of {MEDIAN} words"
    print(f"\n{title:37}ms   model.predict takes   tf.function takes")
    print(f"{'Keras model.predict':30}{predict * 1000:9.2f}")
    print(f"{'one tf.function':30}{function * 1000:9.2f}")
    for bits, model in ours.items():
        for way, work in ways_of(model, [text]).items():
            took = median_time(work, runs)
            line = f"{f'{way}, {bits}-bit weights':30}{took * 1000:9.2f}"
            print(f"{line}{predict / took:16.0f} times{function / took:14.1f} times")


def time_many(
    network: keras.Model, ours: dict[int, SentimentModel], drawn: list[Ids], texts: list[str]
) -> None:
    """Print how many texts are classified per second."""
    batches = median_time(lambda: score(network, drawn, BATCH), 5)
    print(f"\n{len(texts)} reviews              reviews per second    Keras")
    print(f"{'bucketed Keras batches':30}{len(texts) / batches:9.0f}")
    for bits, model in ours.items():
        for way, work in ways_of(model, texts).items():
            took = median_time(work, 5)
            line = f"{f'{way}, {bits}-bit weights':30}{len(texts) / took:9.0f}"
            print(f"{line}{batches / took:16.1f} times as many")


def time_first(network: keras.Model, root: Path, drawn: list[Ids], text: str, starts: int) -> None:
    """Print how long a fresh process takes until its first answer, and its memory then."""
    with tempfile.TemporaryDirectory() as folder:
        texts, ids, saved = (Path(folder) / name for name in ("text", "ids.npy", "network.keras"))
        texts.write_text(text, encoding="utf-8")
        np.save(ids, pad(drawn[:1]))
        network.save(saved)
        arguments = [str(path) for path in (root, texts, ids, saved)]
        print("\nfirst prediction           s     MB   share of Keras")
        found = {}
        for way in FIRST:
            measured = [first_prediction(way, arguments) for _ in range(starts)]
            found[way] = [statistics.median(values) for values in zip(*measured, strict=True)]
        for way, (seconds, resident) in found.items():
            shares = (seconds / found["Keras"][0], resident / found["Keras"][1])
            print(f"{way:20}{seconds:8.2f}{resident:7.0f}{shares[0]:9.2f}{shares[1]:9.2f}")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Compare a text classifier with Keras.")
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()

    shipped = artifacts.open(ROOT / "artifacts", "sentiment")
    served = Network(shipped.files)
    recipe: dict[str, Any] = json.loads(json.dumps(shipped.manifest.training["recipe"]))
    words = served.vocabulary.words
    keras.utils.set_random_seed(0)
    network = build(Shape(len(words), recipe["dimensions"], recipe["units"], len(served.head.bias)))
    drawn = draw(words, options.texts)
    texts = [" ".join(words[place] for place in ids) for ids in drawn]
    with tempfile.TemporaryDirectory() as folder:
        roots = {bits: Path(folder) / str(bits) for bits in (8, 32)}
        for bits, root in roots.items():
            publish(root, shipped, served.head.pooling, network, int8=bits == 8)
        ours = {
            bits: SentimentModel(artifacts.open(root, "sentiment")) for bits, root in roots.items()
        }
        scores = ours[32].scorer.scores(ours[32].check(texts).read)
        gap = np.abs(score(network, drawn) - scores).max()
        print(f"{os.cpu_count()} cores; our scores differ from those of Keras by at most {gap:.1e}")
        time_one(network, ours, drawn, texts[0], options.runs)
        time_many(network, ours, drawn[1:], texts[1:])
        time_first(network, roots[8], drawn, texts[0], options.starts)


if __name__ == "__main__":
    main()
