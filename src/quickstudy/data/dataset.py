"""`ClassDataset`: every example in one tensor, rows grouped by class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.split import Parts, random_parts
from quickstudy.errors import DataError, unknown

TOGETHER = "split together"
"""The class attribute that keeps classes in one part of every split: turned ones, close relatives."""


class Splits(NamedTuple):
    """Meta-train, meta-validation and meta-test: datasets over disjoint classes."""

    train: ClassDataset
    val: ClassDataset
    test: ClassDataset


@dataclass(frozen=True, eq=False)
class ClassDataset:
    """Labelled examples of many classes, all in memory, rows grouped by class.

    Args:
        x: examples `[M, C, H, W]`, uint8 (0 to 255) or float32; class `c` is the rows
            `offsets[c]` to `offsets[c + 1]`.
        offsets: int64 `[classes + 1]`, from 0 to `M`.
        names: the class names, all different.
        attributes: per-example labels besides the class, by name (drawer, country …): int64 `[M]`.
        class_attributes: per-class labels, by name (alphabet …): one string a class.
        splits: ready-made splits, by name: (train, val, test) class indices.
        name: what the data set is called in messages and in the run folder.
        note: how the pixels were made (polarity, size, resampling filter), for the record.

    Raises:
        DataError: two classes of one name, or parts whose lengths do not fit together.

    Example:
        >>> data = ClassDataset.from_arrays(np.zeros((6, 8, 8), np.uint8), list("aabbcc"))
        >>> len(data), data.counts.tolist(), data.image_shape
        (3, [2, 2, 2], (1, 8, 8))
    """

    x: Tensor
    offsets: Tensor
    names: tuple[str, ...]
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    class_attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    splits: Mapping[str, Parts] = field(default_factory=dict)
    name: str = "data"
    note: str = ""

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"{self.name}: two classes are both called {twice[0]!r}")
        if len(self.offsets) != len(self.names) + 1:
            raise DataError(f"{self.name}: {len(self.names)} names for {len(self.offsets) - 1} classes")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.x) or (self.offsets.diff() < 0).any():
            raise DataError(f"{self.name}: the offsets must rise from 0 to the {len(self.x)} examples")
        for name, values in self.attributes.items():
            if len(values) != len(self.x):
                raise DataError(f"{self.name}: attribute {name!r} has {len(values)} rows, not {len(self.x)}")
        for name, words in self.class_attributes.items():
            if len(words) != len(self):
                raise DataError(f"{self.name}: {len(words)} values of {name!r} for {len(self)} classes")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        low, high = (int(self.counts.min()), int(self.counts.max())) if len(self) else (0, 0)
        each = f"{low}" if low == high else f"{low} to {high}"
        shape = "x".join(map(str, self.image_shape))
        return f"ClassDataset({self.name}: {len(self)} classes, {each} examples each, {shape} {self.x.dtype})"

    @property
    def counts(self) -> Tensor:
        """Examples per class, int64 `[classes]`."""
        return self.offsets.diff()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one example, `(C, H, W)` for pictures."""
        return tuple(self.x.shape[1:])

    def examples(self, c: int) -> Tensor:
        """All examples of class `c`, `[count, C, H, W]`, a view; -1 is the last class."""
        c = range(len(self))[c]
        return self.x[self.offsets[c] : self.offsets[c + 1]]

    def labels(self) -> Tensor:
        """The class of each row, int64 `[M]`: with `x`, an ordinary supervised data set."""
        return torch.repeat_interleave(torch.arange(len(self)), self.counts)

    def fingerprint(self) -> str:
        """16 hex digits that change with any pixel, name or order."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(
            repr((self.names, self.offsets.tolist(), tuple(self.x.shape), str(self.x.dtype))).encode()
        )
        digest.update(np.ascontiguousarray(self.x.numpy()).data)
        return digest.hexdigest()

    def rows(self, rows: Tensor, offsets: Tensor, names: Sequence[str], **changes: Any) -> ClassDataset:
        """The dataset made of these rows of this one, regrouped."""
        attributes = {k: v[rows] for k, v in self.attributes.items()}
        return replace(
            self, x=self.x[rows], offsets=offsets, names=tuple(names), attributes=attributes, **changes
        )

    def subset(self, classes: Sequence[int], name: str | None = None) -> ClassDataset:
        """The dataset of these classes only, in this order.

        >>> data = ClassDataset.from_arrays(np.zeros((6, 8, 8), np.uint8), list("aabbcc"))
        >>> data.subset([2, 0]).names
        ('c', 'a')
        """
        classes = [range(len(self))[int(c)] for c in classes]
        spans = [torch.arange(int(self.offsets[c]), int(self.offsets[c + 1])) for c in classes]
        counts = torch.tensor([len(s) for s in spans], dtype=torch.int64)
        return self.rows(
            torch.cat(spans) if spans else torch.zeros(0, dtype=torch.int64),
            torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
            [self.names[c] for c in classes],
            class_attributes={k: tuple(v[c] for c in classes) for k, v in self.class_attributes.items()},
            splits={},
            name=name or self.name,
        )

    def limit(self, samples_per_class: int, seed: int | None = None) -> ClassDataset:
        """Keep this many examples of each class: the first ones, or with `seed` a random choice.

        Raises:
            DataError: less than one, or a class has fewer; the message names it.
        """
        if samples_per_class < 1:
            raise DataError(f"{self.name}: {samples_per_class} examples a class; at least 1 is needed")
        for class_name, count in zip(self.names, self.counts.tolist(), strict=True):
            if count < samples_per_class:
                raise DataError(
                    f"{self.name}: class {class_name!r} has {count} examples, fewer than the "
                    f"{samples_per_class} asked for"
                )
        rng = np.random.default_rng(seed)
        chosen = []
        for start, count in zip(self.offsets.tolist(), self.counts.tolist(), strict=False):
            picks = np.arange(count) if seed is None else np.sort(rng.permutation(count)[:samples_per_class])
            chosen.append(torch.from_numpy(picks[:samples_per_class] + start))
        offsets = torch.arange(len(self) + 1) * samples_per_class
        return self.rows(torch.cat(chosen), offsets, self.names)

    def rotated(self) -> ClassDataset:
        """Each class four times: as it is and turned by 90, 180 and 270 degrees, as classes of their own.

        A class and its turns are in the same part of every split, ready-made or random, made before
        turning or after.
        """
        if len(self.image_shape) != 3 or self.image_shape[1] != self.image_shape[2]:
            raise DataError(f"{self.name}: only square pictures can be turned, not {self.image_shape}")
        turns = [torch.rot90(self.x, k, (-2, -1)) for k in range(4)]
        steps = [self.offsets[:-1] + k * len(self.x) for k in range(4)]
        end = torch.tensor([4 * len(self.x)])
        base = self.class_attributes.get(TOGETHER, self.names)
        return replace(
            self,
            x=torch.cat(turns),
            offsets=torch.cat([*steps, end]),
            names=tuple(f"{name}/rot{90 * k:03d}" for k in range(4) for name in self.names),
            attributes={k: v.repeat(4) for k, v in self.attributes.items()},
            class_attributes={k: v * 4 for k, v in {**self.class_attributes, TOGETHER: base}.items()},
            splits={
                how: (self._turns(a), self._turns(b), self._turns(c))
                for how, (a, b, c) in self.splits.items()
            },
        )

    def _turns(self, classes: Sequence[int]) -> tuple[int, ...]:
        return tuple(c + k * len(self) for k in range(4) for c in classes)

    def split(
        self,
        how: str | None = None,
        *,
        seed: int | None = None,
        fractions: tuple[float, float] | None = None,
    ) -> Splits:
        """Meta-train, meta-validation and meta-test classes, disjoint.

        Args:
            how: the name of a ready-made split; "random" for one by `seed`; by default the first
                ready-made one, else "random".
            seed: of a random split; by default 0.
            fractions: meta-train and meta-validation shares of a random split, by default 0.6 and 0.2; at
                least 3 classes go to each of the three where there are 9 or more.

        Raises:
            UserError: an unknown split, impossible shares, too few classes, or a seed or shares for a
                ready-made split.
        """
        how = how or next(iter(self.splits), "random")
        if how != "random" and how not in self.splits:
            raise unknown(f"split of {self.name}", how, [*self.splits, "random"])
        if how != "random" and not (seed is None and fractions is None):
            raise DataError(
                f"{self.name}: the split {how!r} is ready-made; a seed or shares are for the split 'random'"
            )
        if how == "random":
            groups = self.class_attributes.get(TOGETHER, self.names)
            parts = random_parts(groups, seed or 0, fractions or (0.6, 0.2), self.name)
        else:
            parts = self.splits[how]
        return Splits(*(self.subset(p, self.name) for p in parts))

    @staticmethod
    def from_arrays(x: object, y: object, **options: Any) -> ClassDataset:
        """An array of examples and one label each; see `quickstudy.data.from_arrays`."""
        from quickstudy.data.from_arrays import from_arrays

        return from_arrays(x, y, **options)

    @staticmethod
    def from_folder(path: str | Path, **options: Any) -> ClassDataset:
        """The pictures below a folder, one folder per class; see `quickstudy.data.from_folder`."""
        from quickstudy.data.folder import from_folder

        return from_folder(path, **options)

    @staticmethod
    def from_torch(dataset: Any, **options: Any) -> ClassDataset:
        """The pairs of a torch data set; see `quickstudy.data.from_torch`."""
        from quickstudy.data.from_torch import from_torch

        return from_torch(dataset, **options)
