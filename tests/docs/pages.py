"""The blocks of a page: what language they are in, what their commands are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


class Block(NamedTuple):
    """What stands between two fences, and in which line of the page it begins."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = (DOCS / page).read_text()
    found = []
    for match in re.finditer(r"^```(\S*)[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        found.append(Block(match[1], match[2], text[: match.start()].count("\n") + 2))
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(found), f"{page}: an odd fence"
    return found


def commands(text: str) -> list[list[str]]:
    """The words of each line of a shell block, continued lines joined, comments and "…" left out."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [[word for word in line if word != "…"] for line in words if line]
