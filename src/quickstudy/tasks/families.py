"""Families of functions by name: data that are drawn, where a data set has classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from quickstudy.tasks.gaussian_process import GaussianProcesses
from quickstudy.tasks.regression import FiveModes, FunctionTasks, Harmonics, Lines, Sinusoids

FAMILIES: dict[str, type[FunctionTasks]] = {
    "sinusoid": Sinusoids,
    "harmonics": Harmonics,
    "lines": Lines,
    "five-modes": FiveModes,
    "gaussian-process": GaussianProcesses,
}
"""By the name that `--data` calls it."""


@dataclass(frozen=True)
class Functions:
    """One part of a family, in place of the classes of a data set: what is drawn for one part is not drawn
    for the others.

    Args:
        name: of `FAMILIES`.
        part: 0 of meta-training, 1 of meta-validation, 2 of meta-test.
    """

    name: str
    part: int
    image_shape: ClassVar[tuple[int, ...]] = (1,)

    def tasks(self, shot: int, query: int, seed: int = 0) -> FunctionTasks:
        """Tasks of functions, by the family's usual noise and range.

        >>> Functions("sinusoid", 2).tasks(shot=5, query=10, seed=1).seed
        5
        """
        return FAMILIES[self.name](shot=shot, query=query, seed=3 * seed + self.part)

    def fingerprint(self) -> str:
        """What tells this part from others."""
        return f"{self.name} {self.part}"


class FunctionParts(NamedTuple):
    """Meta-train, meta-validation and meta-test functions of a family."""

    train: Functions
    val: Functions
    test: Functions

    @staticmethod
    def of(name: str) -> FunctionParts:
        """Those of the family of this name.

        >>> FunctionParts.of("lines").val.part
        1
        """
        return FunctionParts(*(Functions(name, part) for part in range(3)))
