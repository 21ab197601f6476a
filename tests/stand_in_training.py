"""A training of a second, with the options of the real ones: least squares on numeric columns.

python -m tests.stand_in_training --data FILE --target COLUMN --name NAME [--shift N] [--fail]
    [--artifacts FOLDER] [--candidate] [--feedback FILE]
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

import mlapp


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--shift", type=float, default=0.0)  # makes the model worse
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--artifacts", type=Path)
    parser.add_argument("--candidate", action="store_true")
    parser.add_argument("--feedback", type=Path)
    options = parser.parse_args(arguments)
    if options.fail:
        print("the disk of the stand-in is broken", file=sys.stderr)
        return 7
    table = pd.read_csv(options.data).select_dtypes("number")
    # A candidate is judged by answers alone: it has no held-out rows in common with the first.
    out = table.index % 4 == int(options.candidate)
    held_out, rows = table[out], table[~out]
    if options.feedback:
        rows = pd.concat([rows, pd.read_parquet(options.feedback)[list(table)]])
    model = make_pipeline(SimpleImputer(), LinearRegression())
    model.fit(rows.drop(columns=options.target), rows[options.target] + options.shift)
    mlapp.publish(
        model,
        rows.drop(columns=options.target),
        rows[options.target],
        options.name,
        held_out=(held_out.drop(columns=options.target), held_out[options.target]),
        root=options.artifacts,
        candidate=options.candidate,
        command=command_of(options),
    )
    return 0


def command_of(options: argparse.Namespace) -> str:
    words = ["python", "-m", "tests.stand_in_training", "--data", str(options.data)]
    words += ["--target", options.target, "--name", options.name]
    return shlex.join([*words, "--shift", "80"])


if __name__ == "__main__":
    sys.exit(main())
