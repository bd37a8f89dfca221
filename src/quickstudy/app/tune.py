"""`quickstudy tune`: search over a run's options on meta-validation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from quickstudy.app.console import announce
from quickstudy.app.options import parse
from quickstudy.app.train import asked, learner_options, refuse_others
from quickstudy.errors import UserError
from quickstudy.evaluation.tuning import Trial, Tuned, tune, usual_space
from quickstudy.evaluation.tuning.pictures import draw_search
from quickstudy.evaluation.tuning.space import adjusted
from quickstudy.evaluation.tuning.study import PrunerName
from quickstudy.learners import learner_class
from quickstudy.learners.registry import options
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.progress import Bar

EXAMPLES = """Search over a run's options: train again and again, each time with options chosen by how those
before did on meta-validation. Meta-test classes are not looked at.

Examples:
  quickstudy tune --data omniglot --learner maml --channels 16 --iterations 300 --out runs/search
  quickstudy tune … --search inner_lr=0.001..0.5 steps=1..5 channels=16,32 --trials 50
  quickstudy tune … --steps 5                           not searched: it is given
  quickstudy tune --data sinusoid --shot 10 --learner maml --out runs/sines     functions, by their error
  quickstudy tune … --out runs/search --resume          go on; or, in another terminal, share the work
  quickstudy tune … --storage postgresql://…            many machines share it, each with its --out, --resume

It takes the options of train. Without --search the outer rate is searched, and each option of the learner
whose default says its scale, but for those that are given. With it, what it names, beginning at what is
given. The first trial is the run as given, if that is among what is searched; hopeless ones end early.

It needs one more package: pip install 'quickstudy[tune]'"""
SHOWN = 5
"""Trials in the table."""


def command(learner: str, data: str = TrainConfig.data) -> type[TrainConfig]:
    """The options of `tune` with those of a learner, as one dataclass."""

    def option(name: str, kind: Any, default: Any, text: str) -> tuple[str, Any, Any]:
        return name, Annotated[kind, tyro.conf.arg(help=text)], default

    searched = (
        "what to search: NAME=LOW..HIGH for numbers, fractions by their logarithm where above 0; NAME=A,B,C "
        "for choices"
    )
    return dataclasses.make_dataclass(
        "Tune",
        [
            ("out", Annotated[Path, tyro.conf.arg(help="the search's folder to make")]),
            *learner_options(learner, data),
            option("search", tuple[str, ...], (), searched),
            option("trials", int, 20, "how many there are to be in all, whoever runs them"),
            option("pruner", PrunerName, "median", "which trials end early"),
            option(
                "storage",
                str | None,
                None,
                "where trials are recorded: the URL of a database, or the path of a journal file, which many "
                "processes can share; by default an SQLite file in --out",
            ),
            option("study", str | None, None, "the search's name in the storage; by default that of --out"),
            option("resume", bool, False, "go on with the search in --out, or share its work"),
            option("json", bool, False, "print one JSON object on standard output"),
        ],
        bases=(TrainConfig,),
        kw_only=True,
        frozen=True,
    )


class Quiet(Bar):
    """A line with the trial and a bar, without a line a validation."""

    def validated(self, record: dict[str, Any]) -> None:
        pass


def main(args: Sequence[str]) -> int:
    """Parse, search, tell what was best."""
    learner = asked("learner", args)
    kind = command(learner, asked("data", args))
    refuse_others(learner, args, kind)
    given: Any = parse(kind, args, "tune", EXAMPLES)
    common = {f.name: getattr(given, f.name) for f in dataclasses.fields(TrainConfig)}
    settings = {name: getattr(given, name) for name in options(learner_class(learner))}
    config = TrainConfig(**{**common, "settings": settings})
    space: Any = said(given.search) or usual_space(config, named(args))
    found = tune(
        config,
        given.out,
        space,
        trials=given.trials,
        storage=given.storage,
        study=given.study,
        pruner=given.pruner,
        resume=given.resume,
        show=lambda number, values: Quiet(f"trial {number} of {given.trials}: {in_words(values)}"),
        told=tell,
        say=announce,
    )
    draw_search(found)
    if given.json:
        print(json.dumps(found.json()))
    else:
        report(found, Console(highlight=False, soft_wrap=True))
    announce(f"kept: {found.out} with best.json, trials.csv, trials.json and pictures")
    return 0


def said(words: Sequence[str]) -> dict[str, str]:
    """What `--search` names, and the words of each.

    >>> said(["inner-lr=0.01..1", "distance=cosine,euclidean"])
    {'inner_lr': '0.01..1', 'distance': 'cosine,euclidean'}
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, values = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not values:
            raise UserError(f"--search {word}: say NAME=LOW..HIGH, or NAME=A,B,C")
        if name in found:
            raise UserError(f"--search names {name} twice")
        found[name] = values
    return found


def named(args: Sequence[str]) -> set[str]:
    """The options that these words give.

    >>> sorted(named(["--inner-lr", "0.1", "--no-learned-rates", "--steps=3"]))
    ['inner_lr', 'learned_rates', 'steps']
    """
    flags = [word.split("=")[0].removeprefix("--") for word in args if word.startswith("--")]
    return {flag.removeprefix("no-").replace("-", "_") for flag in flags}


def in_words(values: dict[str, Any]) -> str:
    """Options with their values, in a line."""
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items())


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()


def reached(trial: Trial, found: Tuned) -> str:
    """A trial's accuracy with its interval, in percent, or its error or log-likelihood."""
    value = found.said(trial.value)
    if value is None:
        return "–"
    if found.judged != "accuracy":
        return f"{value:.4g}"
    interval = "" if trial.ci95 is None else f" ± {100 * trial.ci95:.1f}"
    return f"{100 * value:.1f}{interval} %"


def tell(trial: Trial, found: Tuned) -> None:
    """A line about a trial that ended."""
    how = {"complete": "", "pruned": ", ended early", "failed": ", failed"}.get(trial.outcome, "")
    best = f"; best {reached(found.best, found)}, trial {found.best.number}" if found.ranked else ""
    announce(f"{reached(trial, found):>7}{how}{f' ({trial.why})' if trial.why else ''}{best}")


def report(found: Tuned, out: Console) -> None:
    """The best trials, what mattered, and the command for the best."""
    table = Table("trial", found.judged, *(name.replace("_", " ") for name in found.space), "minutes")
    for t in found.ranked[:SHOWN]:
        minutes = "" if t.seconds is None else f"{t.seconds / 60:.1f}"
        table.add_row(
            str(t.number), reached(t, found), *(_text(t.values[name]) for name in found.space), minutes
        )
    ended = [t.outcome for t in found.trials]
    first = found.trials[0]
    counts = {kind: ended.count(kind) for kind in ("complete", "pruned", "failed", "running")}
    out.print(table)
    out.print(f"{len(ended)} trials: " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n))
    as_given = adjusted(found.base, first.values) == found.base
    if first.number == 0 and first != found.best and as_given:
        out.print(f"the first, as given: {reached(first, found)}")
    if found.importance:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.importance.items())
        out.print(f"what mattered: {shares}")
    if found.run is not None:
        out.print(f"the best run: {found.run} (quickstudy evaluate {found.run})", markup=False)
    out.print("the same again:")
    out.print(f"  {found.command}", markup=False)
