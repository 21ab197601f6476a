"""Make the film reviews that ship with the project.

    python data/make_reviews_sample.py [FILE]

The reviews are synthetic: sentences of our own, put together at random. They let the whole
training run in seconds, on a fresh clone too. A model trained on them knows their few words and
nothing else; the shipped one is trained on real reviews.

The result is the same, bit for bit, at every run.
"""

import argparse
import random
from pathlib import Path

REVIEWS = 480
SEED = 7

LABELS = ("Negative", "Positive")
THINGS = (
    "the film", "this movie", "the story", "the acting", "the script", "the music", "the ending",
    "the first hour", "the cast", "the dialogue", "the camera work", "the humour",
)  # fmt: skip
WORDS = (
    ("awful", "boring", "dull", "a waste of time", "terrible", "weak", "clumsy", "painful",
     "a mess", "pathetic", "lifeless", "predictable", "disappointing", "the worst in years"),
    ("wonderful", "gripping", "lovely", "worth every minute", "brilliant", "strong", "clever",
     "a joy", "a gem", "moving", "full of life", "surprising", "delightful", "the best in years"),
)  # fmt: skip
MILD = (
    ("bad", "boring", "weak", "predictable", "clumsy"),
    ("good", "funny", "clever", "moving", "surprising"),
)
DEGREES = ("", "simply ", "really ", "quite ", "absolutely ")
VERDICTS = (
    (
        "I want my two hours back.",
        "Save your money!",
        "I nearly fell asleep.",
        "Do yourself a favour and stay at home.",
        "I looked at my watch all the time.",
        "What were they thinking?",
        "2/10.",
    ),
    (
        "I would see it again tomorrow.",
        "Go and see it!",
        "I laughed and I cried.",
        "Do yourself a favour and buy a ticket.",
        "I forgot the time.",
        "Who could ask for more?",
        "9/10.",
    ),
)
FACTS = (
    "We saw it on a rainy Sunday.",
    "It runs for about two hours.",
    "The story is set in a small town by the sea.",
    "Two brothers inherit a lighthouse.",
    "My sister had chosen it.",
    "It is the third film of the series.",
    "Most of it takes place on a train.",
)


def make_sentence(label: int, draw: random.Random) -> str:
    """Return an opinion: plain, negated, or turned round by a second half."""
    thing = draw.choice(THINGS)
    form = draw.random()
    if form < 0.5:
        text = f"{thing} is {draw.choice(DEGREES)}{draw.choice(WORDS[label])}"
    elif form < 0.7:
        never = draw.choice(("is not", "isn't", "is never", "was not", "wasn't"))
        text = f"{thing} {never} {draw.choice(MILD[1 - label])}" + draw.choice(("", " at all"))
    elif form < 0.85:
        first, second = draw.choice(MILD[1 - label]), draw.choice(WORDS[label])
        text = f"{thing} may be {first}, but all in all it is {second}"
    else:
        return draw.choice(VERDICTS[label])
    return text[0].upper() + text[1:] + draw.choice(".....!")


def make_reviews() -> list[tuple[str, str]]:
    """Return reviews with their labels, as many of each label, no review twice."""
    draw = random.Random(SEED)
    made: dict[str, int] = {}
    while len(made) < REVIEWS:
        label = len(made) % 2
        sentences = [make_sentence(label, draw) for _ in range(draw.randint(1, 4))]
        if draw.random() < 0.5:
            sentences.insert(draw.randrange(len(sentences) + 1), draw.choice(FACTS))
        made.setdefault(draw.choice((" ", " ", "<br /><br />")).join(sentences), label)
    return [(LABELS[label], text) for text, label in made.items()]


def main() -> None:
    """Write the reviews."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).with_name("reviews_sample.tsv")
    parser.add_argument("file", type=Path, nargs="?", default=default)
    lines = ["sentiment\treview", *("\t".join(row) for row in make_reviews())]
    parser.parse_args().file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
