"""`quickstudy predict`: classify pictures of new classes from a few examples of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.app.functions import predict_values
from quickstudy.app.options import parse
from quickstudy.data.folder import class_folders, ignored
from quickstudy.data.images import SUFFIXES
from quickstudy.data.pictures import Pictures, others
from quickstudy.data.polarity import Polarity, polarity
from quickstudy.errors import DataError, UserError
from quickstudy.outer.load_run import load_run

EXAMPLES = """Classify pictures of new classes, given a few labelled examples of each.

The support folder holds one folder a class, its name being the label:
  my/classes/cat/1.png  my/classes/cat/2.png  my/classes/dog/1.png …

Examples:
  quickstudy predict runs/a --support my/classes --query new1.png new2.png
  quickstudy predict runs/a --support my/classes --query my/new --json      a folder of pictures
  quickstudy predict … --unlabelled my/more             pictures to learn from that have no labels
  quickstudy predict runs/d --support points.csv --query 0.5 1.5            of a run on functions
  quickstudy predict … --polarity dark-on-light                             ink on shaded paper

The net computes in float32, also that of a run with --precision bf16."""


@dataclass(frozen=True)
class Predict:
    """What to learn from, and what to classify.

    Args:
        run: the run folder.
        support: a folder with one folder of pictures a class; of functions, a CSV file, x and y in a line.
        query: picture files, or folders of them; of functions, numbers, or files of them.
        unlabelled: pictures to learn from without their labels, for learners that can.
        polarity: what the given pictures are, where that cannot be seen from the examples.
        json: print one JSON object on standard output.
        device: cpu, cuda, cuda:1 …; by default a CUDA GPU where there is one.
    """

    run: tyro.conf.Positional[Path]
    support: Path
    query: tuple[Path, ...]
    unlabelled: tuple[Path, ...] = ()
    polarity: Polarity | None = None
    json: bool = False
    device: str | None = None


def pictures_in(folder: Path) -> list[Path]:
    """The picture files below a folder, in order; a file is itself."""
    if not folder.exists():
        raise DataError(f"{folder}: there is no such file or folder")
    if folder.is_file():
        return [folder]
    try:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    found = [p for p in files if not any(map(ignored, p.relative_to(folder).parts))]
    if not found:
        raise DataError(f"{folder}: holds no pictures")
    return found


def support_files(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, found as in a folder to train on."""
    classes = class_folders(folder)
    if len(classes) < 2:
        raise DataError(f"{folder}: holds {len(classes)} class folders; at least 2 are needed")
    return classes


def main(args: Sequence[str]) -> int:
    """Parse, adapt, predict."""
    given = parse(Predict, args, "predict", EXAMPLES)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    learner, config, run = load_run(given.run, device=given.device)
    if config.functions:
        if given.unlabelled or given.polarity:
            raise UserError(f"{config.data} are functions: leave --unlabelled and --polarity away")
        return predict_values(learner, given.support, given.query, given.json)
    classes = support_files(given.support)
    if given.unlabelled and not learner.uses_unlabelled:
        raise UserError(f"{config.learner} learns from labelled examples only: leave --unlabelled away")
    if not run.finished:
        say(escape(f"{run.path} has not come to its end: this is its best so far (train --resume goes on)"))
    facts = run.config["pictures"]
    shape = facts["shape"]
    if len(shape) != 3:
        raise DataError(f"{given.run} was not trained on pictures but on examples of shape {shape}")
    names = list(classes)
    files = [f for name in names for f in classes[name]]
    labels = [i for i, name in enumerate(names) for _ in classes[name]]
    queries = [f for path in given.query for f in pictures_in(path)]
    if not queries:
        raise DataError("--query names no pictures to classify")
    unlabelled = [f for path in given.unlabelled for f in pictures_in(path)]
    asked = [*queries, *unlabelled]
    pictures = Pictures(tuple(shape), facts["polarity"])
    x, q = pictures.of(files), pictures.of(asked)
    odd = [] if given.polarity else others(q, x)
    inverts, done = pictures.inverts(x, given.polarity), ""
    if inverts:
        done = f"; inverted to {pictures.polarity}, as the run was trained"
    elif inverts is None:
        done = (
            "; not inverted: the examples have no clear polarity (--polarity says what they are), the run's "
            f"pictures are {pictures.polarity}"
        )
    q, u = np.split(q, [len(queries)])
    counts = sorted({len(v) for v in classes.values()})
    shots = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    beside = f", {len(u)} unlabelled" if len(u) else ""
    say(f"{len(names)} classes, {shots} examples each{beside}; {len(queries)} to classify")
    kind = "colour" if shape[0] == 3 else "grey"
    say(f"pictures brought to {shape[1]}×{shape[2]} {kind}{done}")
    for i in odd:
        say(escape(f"careful: {asked[i]} is of another polarity than the examples, and may be misread"))
    if learner.transductive:
        say("transductive: a prediction depends on the other pictures of the same call")
    classifier = FewShotClassifier(learner, pictures=pictures, polarity=given.polarity or polarity(x))
    p = classifier.fit(x, labels, unlabelled=u if len(u) else None).predict_proba(q)  # [q, N]
    best = p.argmax(-1).tolist()
    if given.json:
        rows = [
            {
                "file": str(f),
                "label": names[b],
                "probabilities": {n: round(v, 6) for n, v in zip(names, row, strict=True)},
            }
            for f, b, row in zip(queries, best, p.tolist(), strict=True)
        ]
        print(json.dumps({"predictions": rows}))
        return 0
    table = Table(Column("file", overflow="fold"), "label", "probability", "next")
    for f, b, row in zip(queries, best, p, strict=True):
        second = int(row.argsort()[-2])
        table.add_row(
            escape(str(f)),
            escape(names[b]),
            f"{row[b]:.3f}",
            escape(f"{names[second]} {row[second]:.3f}"),
        )
    Console(file=sys.stdout).print(table)
    return 0
