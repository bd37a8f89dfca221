"""A recipe of many parts: each a training run of its own, trained and measured once."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from quickstudy.errors import unknown
from quickstudy.files import write_json
from quickstudy.recipes.recipe import Setting, provenance

MEASURED = "measured.json"


class Named(Protocol):
    """What `--only` calls a part."""

    @property
    def name(self) -> str: ...


P = TypeVar("P", bound=Named)


@dataclass(frozen=True)
class PartsRecipe(ABC, Generic[P]):
    """Runs side by side; a subclass says how one is trained and what is measured of it.

    Args:
        parts: what is compared.
    """

    parts: tuple[P, ...]
    title: str
    source: str

    @abstractmethod
    def rows(self, part: P, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """Train a part in a run folder, or go on with it, and measure it: the table's rows of it."""

    def possible(self, part: P, setting: Setting) -> bool:
        """Whether a part can be run now."""
        return True

    def run(self, setting: Setting) -> dict[str, Any]:
        """Train and measure the parts asked for; the table has all that were ever measured, in these runs or
        in the results before.

        Raises:
            UserError: `setting.only` names no part.
        """
        names = {part.name: part for part in self.parts}
        for name in setting.only:
            if name not in names:
                raise unknown("part", name, names)
        before = rows_before(setting.before)
        found: list[dict[str, Any]] = []
        for part in self.parts:
            out = setting.runs / setting.name / part.name
            measured = json.loads((out / MEASURED).read_bytes()) if (out / MEASURED).exists() else None
            missing = measured is None or measured["asked"] != setting.tasks
            asked = not setting.only or part.name in setting.only
            if missing and asked and self.possible(part, setting):
                measured = {"asked": setting.tasks, "rows": self.rows(part, out, setting)}
                out.mkdir(parents=True, exist_ok=True)  # nothing was trained of a control
                write_json(out / MEASURED, measured)
            found += before.get(part.name, []) if measured is None else measured["rows"]
        return {
            **provenance(setting),
            "title": self.title,
            "published": self.source,
            "results": found,
        }


def rows_before(path: Path | None) -> dict[str, list[dict[str, Any]]]:
    """The rows of a file of results, by part; none where there is no such file, or one of something else."""
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for row in json.loads(path.read_bytes())["results"] if path else []:
            found.setdefault(row["part"], []).append(row)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found
