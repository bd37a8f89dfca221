"""`quickstudy`: the commands. Exit codes: 0 done, 1 a fault of ours, 2 the user's input, 130 interrupted."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from quickstudy.errors import UserError, unknown
from quickstudy.inner.allocator import keep_freed_memory
from quickstudy.outer.distributed import joined
from quickstudy.version import __version__

COMMANDS = {
    "demo": "the main job in about two minutes, offline; leaves its run in runs/demo",
    "data": "list, describe or prepare the built-in data sets",
    "train": "meta-train a learner on many classes",
    "evaluate": "measure a run on classes it has never seen",
    "predict": "classify pictures of new classes from a few examples of each",
    "report": "several runs on one page: accuracies, curves, which is better, worst tasks",
    "tune": "search over rates, steps and other options on meta-validation",
    "serve": "the studio, a page to draw classes on, and classifiers by a JSON API",
    "export": "write a predictor, or an embedding, as an ONNX file for other programs",
    "recipe": "list or run the published experiments",
}
TOGETHER = ("train", "evaluate")
"""Those that many processes can share."""
HELP = """quickstudy: meta-learning from the command line

usage: quickstudy COMMAND [options]      quickstudy COMMAND --help explains each

{commands}

A first session:
  quickstudy demo                                                  see it work
  quickstudy train --data omniglot --learner protonet --out runs/a   meta-train (--help for all options)
  quickstudy evaluate runs/a --shot 5                              accuracy on unseen classes, ± 95 % interval
  quickstudy predict runs/a --support my/classes --query my/new    your own pictures, one folder a class
"""


def overview() -> str:
    """The text of `quickstudy --help`."""
    return HELP.format(commands="\n".join(f"  {k:<10}{v}" for k, v in COMMANDS.items()))


def run(args: Sequence[str]) -> int:
    """Run one command; errors are raised."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if args else 2
    if args[0] in ("--version", "-V"):
        print(__version__)
        return 0
    if args[0] not in COMMANDS:
        raise unknown("command", args[0], COMMANDS)
    keep_freed_memory()
    with joined() as processes:
        if processes.size > 1 and args[0] not in TOGETHER:
            raise UserError(f"{args[0]} is the work of one process: start it without torchrun")
        module: Any = importlib.import_module(f"quickstudy.app.{args[0]}")
        return int(module.main(list(args[1:])) or 0)


def main(args: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code."""
    args = sys.argv[1:] if args is None else args
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # no ± in this terminal's encoding loses no measurement
    try:
        return run(args)
    except UserError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        kept = (
            "; what a run folder holds is kept (--resume goes on)"
            if list(args[:1]) in (["train"], ["tune"])
            else ""
        )
        complain(f"interrupted{kept}")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    except Exception as error:
        if os.environ.get("QUICKSTUDY_DEBUG"):
            raise
        complain(
            f"internal error, please report it: {type(error).__name__}: {error} "
            "(QUICKSTUDY_DEBUG=1 shows where)"
        )
        return 1


def complain(text: str) -> None:
    """One line on standard error."""
    print("quickstudy:", " ".join(line.strip() for line in text.splitlines()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
