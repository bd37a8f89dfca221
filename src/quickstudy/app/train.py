"""`quickstudy train`."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from quickstudy.app.console import announce
from quickstudy.app.options import parse
from quickstudy.app.pictures import draw_curve
from quickstudy.errors import UserError
from quickstudy.learners import CONTROLS, LEARNERS, learner_class
from quickstudy.learners.registry import option_help, options
from quickstudy.outer.checkpoint import History
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.distributed import world
from quickstudy.outer.progress import Bar
from quickstudy.outer.provenance import peak_memory_mb
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.session import train
from quickstudy.outer.tracking import tensorboard
from quickstudy.tasks.families import FAMILIES

EXAMPLES = """Meta-train a learner on many classes, so that it learns new ones from a few examples.

Examples:
  quickstudy train --data glyphs --learner protonet --out runs/a
  quickstudy train --data omniglot --learner maml --way 5 --shot 1 --iterations 3000 --out runs/b
  quickstudy train --data my/pictures --learner protonet --out runs/c     one folder a class
  quickstudy train --data sinusoid --shot 10 --learner maml --out runs/d  functions from 10 points
  quickstudy train … --out runs/b --resume                                go on after an interruption

Learners:
{learners}

Controls, to compare with:
{controls}

Name a learner before --help to see its own options: quickstudy train --learner reptile --help""".format(
    **{
        kind: textwrap.fill(", ".join(names), 78, initial_indent="  ", subsequent_indent="  ")
        for kind, names in (("learners", LEARNERS), ("controls", CONTROLS))
    }
)


def learner_options(learner: str, data: str = TrainConfig.data) -> list[tuple[str, Any, Any]]:
    """The options that a learner has, or has usual values for, as fields of a dataclass."""
    kind, kinds = learner_class(learner), get_type_hints(TrainConfig)
    own_usual = kind.for_functions if data in FAMILIES else {}
    helps = option_help(kind)
    own: list[tuple[str, Any, Any]] = []
    for name, usual in dataclasses.asdict(kind.outer).items():
        told = f"--{name.removeprefix('train_')}" if name.startswith("train_") else "none"
        told = told if usual is None else f"{usual}, usual for {learner}"
        hint = tyro.conf.arg(help_behavior_hint=f"(default: {told})")
        own.append((name, Annotated[kinds[name], hint], None))
    for name, parameter in options(kind).items():
        off = f"(on; --no-{name.replace('_', '-')} turns it off) " if parameter.default is True else ""
        text = f"option of {learner}: {off}{helps.get(name, '')}"
        default = own_usual.get(name, parameter.default)
        own.append((name, Annotated[parameter.annotation, tyro.conf.arg(help=text)], default))
    return own


def command(learner: str, data: str = TrainConfig.data) -> type[TrainConfig]:
    """The options of `train` with those of a learner, as one dataclass."""
    return dataclasses.make_dataclass(
        "Train",
        [
            ("out", Annotated[Path, tyro.conf.arg(help="the run folder to make")]),
            *learner_options(learner, data),
            ("resume", Annotated[bool, tyro.conf.arg(help="go on with the run in --out")], False),
            ("tensorboard", Annotated[bool, tyro.conf.arg(help="keep TensorBoard event files too")], False),
        ],
        bases=(TrainConfig,),
        kw_only=True,
        frozen=True,
    )


def asked(option: str, args: Sequence[str]) -> str:
    """What these words name as --learner or --data, or what is usual.

    >>> asked("learner", ["--learner", "protonet"]), asked("learner", ["--way", "5"])
    ('protonet', 'maml')
    """
    found: str = getattr(TrainConfig, option)
    for i, word in enumerate(args):
        if word == f"--{option}" and i + 1 < len(args):
            found = args[i + 1]
        elif word.startswith(f"--{option}="):
            found = word.split("=", 1)[1]
    return found


def refuse_others(learner: str, args: Sequence[str], kind: type[TrainConfig]) -> None:
    """An option that only other learners have is told as such."""
    known = {f.name for f in dataclasses.fields(kind)}
    for word in args:
        name = word[2:].split("=")[0].replace("-", "_")
        if not word.startswith("--") or name in known:
            continue
        owners = [k for k, kind in {**LEARNERS, **CONTROLS}.items() if name in options(kind)]
        if owners:
            have = "has" if len(owners) == 1 else "have"
            raise UserError(f"{learner} has no option {word.split('=')[0]}; {', '.join(owners)} {have} it")


def best(history: History) -> tuple[str, float]:
    """What weights were chosen by, and the best of it.

    >>> best(History([{"val_loss": 0.4}], best=-0.4))
    ('mean squared error', 0.4)
    """
    value, found = history.best or 0.0, history.records[-1] if history.records else {}
    if "val_accuracy" in found:
        return "accuracy", value
    return ("log-likelihood", value) if "val_log_likelihood" in found else ("mean squared error", -value)


def main(args: Sequence[str]) -> int:
    """Parse and train."""
    learner = asked("learner", args)
    kind = command(learner, asked("data", args))
    refuse_others(learner, args, kind)
    given: Any = parse(kind, args, "train", EXAMPLES)
    common = {f.name: getattr(given, f.name) for f in dataclasses.fields(TrainConfig)}
    settings = {name: getattr(given, name) for name in options(learner_class(learner))}
    config = TrainConfig(**{**common, "settings": settings})
    logging: Any = {"log": tensorboard(RunFolder(given.out))} if given.tensorboard else {}
    history = train(
        config,
        given.out,
        resume=given.resume,
        **logging,
        progress=Bar(f"{learner} on {config.data}"),
        say=announce,
    )
    if history.best is not None and world().leads:
        announce(
            "best {} on meta-validation {:.4f}".format(*best(history))
            + f" at meta-step {history.best_iteration} of {history.iteration}"
        )
        draw_curve(RunFolder(given.out))
    memory = peak_memory_mb()
    announce(f"{history.seconds / 60:.1f} min" + (f", peak memory {memory:.0f} MB" if memory else ""))
    announce(f"next: quickstudy evaluate {given.out}")
    return 0
