"""`quickstudy data`: what data sets there are, where they lie, what they would download."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from quickstudy.app.options import parse
from quickstudy.data import describe, load, names
from quickstudy.errors import UserError
from quickstudy.tasks.families import FAMILIES

EXAMPLES = """The built-in data sets.

Examples:
  quickstudy data list                 all of them, and which are here
  quickstudy data info omniglot        classes, splits, licence, files, where they belong
  quickstudy data prepare omniglot     download what is missing and build the cache"""


@dataclass(frozen=True)
class Data:
    """What to do.

    Args:
        action: list, info or prepare.
        name: the data set, for info and prepare; prepare takes a folder too.
        data_dir: where data lies; by default $QUICKSTUDY_DATA, then the cache folder.
    """

    action: tyro.conf.Positional[Literal["list", "info", "prepare"]]
    name: tyro.conf.Positional[str] = ""
    data_dir: Path | None = None


def main(args: Sequence[str]) -> int:
    """Parse and show."""
    given = parse(Data, args, "data", EXAMPLES)
    out = Console(highlight=False)
    if given.action == "list":
        table = Table("name", "classes", "examples", "here", "about")
        for name in names():
            info = describe(name)
            here = "yes" if info.ready(given.data_dir) else f"{info.bytes / 1e6:.0f} MB to download"
            table.add_row(name, str(info.classes or "any"), str(info.examples), here, info.about)
        out.print(table)
        functions = ", ".join(FAMILIES)
        out.print(f"functions to learn from points, drawn as needed: {functions}", soft_wrap=True)
        return 0
    if not given.name:
        raise UserError(f"data {given.action} needs the name of a data set (known: {', '.join(names())})")
    if given.action == "prepare":
        out.print(str(load(given.name, root=given.data_dir)), soft_wrap=True)
        return 0
    info = describe(given.name)
    out.print(f"{info.name}: {info.about}")
    for label, value in (
        ("classes", info.classes or "as many as asked for"),
        ("examples a class", info.examples),
        ("splits (train/val/test classes)", ", ".join(f"{k} {v}" for k, v in info.splits.items())),
        ("licence", info.licence),
        ("cite", info.citation),
    ):
        out.print(f"  {label}: {value}", soft_wrap=True)
    if info.files:
        out.print(f"  looked for in: {', '.join(map(str, info.places(given.data_dir)))}", soft_wrap=True)
        found = Counter(path.parent for path in info.present(given.data_dir))
        for folder, count in found.items():
            out.print(f"  here: {count} of {len(info.files)} files, in {folder}", soft_wrap=True)
        if not info.ready(given.data_dir):
            out.print(
                f"  would download {info.bytes / 1e6:.1f} MB to {info.target(given.data_dir)}:",
                soft_wrap=True,
            )
            for url in info.urls:
                out.print(f"    {url}", soft_wrap=True)
    return 0
