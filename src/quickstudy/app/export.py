"""`quickstudy export`: a predictor, or an embedding, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.app.estimators.exporting import export_embedding
from quickstudy.app.options import parse
from quickstudy.app.predict import support_files
from quickstudy.data.polarity import Polarity
from quickstudy.errors import UserError
from quickstudy.outer.load_run import load_run

EXAMPLES = """Write an ONNX file, which any program with an ONNX runtime can use, without Python or torch.

With --support, one folder a class, it holds the predictor adapted to these: pictures [n, C, H, W] of the
run's size as fractions from 0 to 1 → the probability of each class [n, N], whose names are in its metadata.
Without, it holds the embedding of a learner that compares: pictures → features [n, D].

Examples:
  quickstudy export runs/a --support my/classes --out signs.onnx
  quickstudy export runs/a --out embedding.onnx

It needs two more packages: pip install 'quickstudy[export]'"""


@dataclass(frozen=True)
class Export:
    """What to write.

    Args:
        run: the run folder.
        out: the file to write.
        support: a folder with one folder of pictures a class, to adapt to.
        polarity: what the given pictures are, where that cannot be seen from the examples.
    """

    run: tyro.conf.Positional[Path]
    out: Path
    support: Path | None = None
    polarity: Polarity | None = None


def main(args: Sequence[str]) -> int:
    """Parse, adapt, write."""
    given = parse(Export, args, "export", EXAMPLES)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    if given.out.exists():
        raise UserError(f"{given.out} exists already: choose another --out")
    if given.support is None:
        learner, _, run = load_run(given.run, device="cpu")
        facts = run.config["pictures"]
        how = export_embedding(learner, tuple(facts["shape"]), given.out, facts["polarity"])
        what = f"embedding of pictures {shown(facts['shape'])}" + (f", {how}" if how else "")
    else:
        classes = support_files(given.support)
        classifier = FewShotClassifier.from_run(given.run, polarity=given.polarity, device="cpu")
        if classifier.pictures is None:
            raise UserError(f"{given.run} was not trained on pictures")
        files = [file for members in classes.values() for file in members]
        labels = [name for name, members in classes.items() for _ in members]
        classifier.fit(files, labels).export(given.out)
        what = f"predictor of {len(classes)} classes for pictures {shown(classifier.pictures.shape)}"
    say(escape(f"{given.out}: {what}, {given.out.stat().st_size / 1e6:.1f} MB"))
    return 0


def shown(shape: Sequence[int]) -> str:
    """A shape in words: `1×28×28`."""
    return "×".join(map(str, shape))
