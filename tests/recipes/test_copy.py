"""The copy task by nets whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.errors import RunError
from quickstudy.inner import estimate
from quickstudy.outer import measure
from quickstudy.recipes import RECIPES, Setting
from quickstudy.recipes import copy as copying
from quickstudy.recipes.copy import Copier, CopyRecipe, copier, nets
from quickstudy.tasks.copy import CopyTasks
from quickstudy.tasks.task import Support


class Tape(nn.Module):
    """A queue written by hand: what was shown first comes out first, right or each bit the other way."""

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.new_zeros(10), x.new_zeros(9, 10), x.new_zeros(())

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, tape, shown = state
        if x[8:].any():  # a mark
            return x, tape, shown
        if bool(shown < self.length):
            return x, torch.cat([tape[1:], x[None]]), shown + 1
        at = int(shown - self.length)
        return tape[9 - self.length + at], tape, shown + 1

    length = 4


@pytest.mark.parametrize(("sign", "wrong"), [(1, 0), (-1, 32)])
def test_wrong_bits_are_counted(sign: int, wrong: int) -> None:
    learner = Copier(Tape())
    with torch.no_grad():
        learner.head.weight.copy_(sign * torch.eye(10)[:8])
        learner.head.bias.zero_()
    measured = measure(learner, CopyTasks(4), 3, strategy="loop")
    assert measured.mean("wrong_bits") == wrong
    bit = torch.nn.functional.softplus(torch.tensor(-1.0 * sign)).item()
    assert measured.mean("loss") == pytest.approx(bit)


def test_an_element_of_zeros_is_no_blank() -> None:
    nothing = torch.zeros(1, 10)
    seen: list[Tensor] = []

    class Watched(Tape):
        def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(x)
            return super().forward(x, state)

    Copier(Watched()).learn(Support(torch.zeros(4, 8), torch.zeros(4, 8)))(torch.zeros(4, 1))
    assert [bool(torch.equal(x[None], nothing)) for x in seen] == [False] * 6 + [True] * 4


@pytest.mark.parametrize("name", copying.CELLS)
def test_what_is_said_depends_on_what_was_shown_alone(name: str) -> None:
    learner, task = copier(name).double(), CopyTasks(3).batch(np.arange(2)).to(torch.float64)
    one, other = task.unbatch()
    said = learner.learn(one.support)(one.query.x)
    assert torch.equal(learner.learn(one.support)(other.query.x), said)
    torch.testing.assert_close(learner.learn(one.support)(other.query.x[:2]), said[:2])  # of more, the first
    assert (learner.learn(other.support)(one.query.x) - said).abs().max() > 1e-6
    looped, mapped = (estimate(learner, task, how) for how in ("loop", "vmap"))
    torch.testing.assert_close(mapped[0].loss, looped[0].loss)
    for k, v in looped[1].items():
        torch.testing.assert_close(mapped[1][k], v)


def test_the_recipe_measures_both_lengths_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LENGTH", 3)
    monkeypatch.setattr(copying, "META_BATCH", 2)
    setting = Setting("ntm-copy", tmp_path, tasks=3)
    result = CopyRecipe(nets(), iterations=2).run(setting)
    rows = {(row["learner"], row["length"]): row["wrong_bits"] for row in result["results"]}
    assert set(rows) == {(name, length) for name in copying.CELLS for length in (3, 6)}
    assert all(0 <= v <= 8 * length for (_, length), v in rows.items())
    assert CopyRecipe(nets(), iterations=2).run(setting)["results"] == result["results"]
    [row, _] = CopyRecipe(nets(), iterations=2).run(replace(setting, only=("lstm",), tasks=4))["results"][2:]
    assert (row["learner"], row["tasks"]) == ("lstm", 4)
    with pytest.raises(RunError, match="ntm holds another run"):
        CopyRecipe(nets(), iterations=3).run(replace(setting, tasks=5))
    assert RECIPES["ntm-copy"].title
