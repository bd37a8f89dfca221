"""The copy task of neural Turing machines (Graves, Wayne, Danihelka 2014, arXiv 1410.5401, section 4.1).

A machine is shown a sequence of up to 20 random vectors of 8 bits, then a mark, and says the sequence again
with nothing more to look at. One that has learned how to copy can also copy sequences of twice the length.

Bits are shown as −1 and 1. A feed-forward controller has no state that tells whether it is shown a sequence
or to say one: by 0 and 1 it took an element of zeros, which one in thirteen sequences of length 20 has, for a
blank, and only these went wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.inner.outcome import Outcome
from quickstudy.learners.base import Learner, Outer
from quickstudy.learners.predictor import Predictor
from quickstudy.nets import LSTMCell, NTMCell
from quickstudy.nets.ntm import FeedForward
from quickstudy.nets.scan import scan
from quickstudy.outer import measure
from quickstudy.outer.seeds import seeded
from quickstudy.outer.session import threads
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting, about, trained_on
from quickstudy.tasks.copy import CopyTasks
from quickstudy.tasks.task import Support, Task

LENGTH, BITS = 20, 8
TASKS = 1000
META_BATCH, OUTER_LR, CLIP = 16, 1e-3, 10.0
CELLS: dict[str, Callable[[int], nn.Module]] = {
    "ntm": lambda inputs: NTMCell(inputs, hidden=100, rows=128, width=20, controller=FeedForward),
    "lstm": lambda inputs: LSTMCell(inputs, 256),
}


class Copier(Learner):
    """Shown a sequence, it says it again: a recurrent net reads the support set, its state is the predictor.

    Args:
        cell: the net, for inputs of `bits` and two marks (of a beginning, and of an end).
        bits: of each element of the sequence.
    """

    cell: Any
    outer = Outer(meta_batch=META_BATCH, outer_lr=OUTER_LR, strategy="vmap")

    def __init__(self, cell: nn.Module, bits: int = BITS) -> None:
        super().__init__()
        self.cell = cell
        given_out, *_ = self.cell.start(torch.zeros(bits + 2))
        self.head = nn.Linear(len(given_out), bits)

    def learn(self, support: Support) -> Predictor:
        cell, head = self.held(self.cell), self.held(self.head)
        begin, end = torch.eye(support.x.shape[1] + 2, dtype=support.x.dtype, device=support.x.device)[-2:]
        shown = torch.cat([begin[None], F.pad(2 * support.x - 1, (0, 2)), end[None]])
        _, state = scan(cell, shown, self.cell.start(begin))

        def say(blank: Tensor) -> Tensor:
            """As many elements as there are blanks `[L, …]`: logits of their bits `[L, bits]`."""
            said, _ = scan(cell, end.new_zeros(len(blank), len(end)), state)
            return head(said)

        return Predictor(say, None)

    def judge(self, task: Task) -> Outcome:
        """The mean cross-entropy of a bit, and how many bits of the sequence are wrong."""
        said, y = self.learn(task.support)(task.query.x), task.query.y
        loss = F.binary_cross_entropy_with_logits(said, y)
        wrong = ((said > 0) != (y > 0.5)).to(y.dtype).sum()
        return Outcome(loss, {"loss": loss, "wrong_bits": wrong})


def copier(name: str, seed: int = 0) -> Copier:
    """A net of `CELLS`; initial weights are a function of the seed.

    >>> copier("lstm").learn(Support(torch.ones(5, 8), torch.ones(5, 8)))(torch.zeros(5, 1)).shape
    torch.Size([5, 8])
    """
    with seeded(seed):
        return Copier(CELLS[name](BITS + 2))


@dataclass(frozen=True)
class Copying:
    """One net that is to copy, of `CELLS`."""

    name: str


@dataclass(frozen=True)
class CopyRecipe(PartsRecipe[Copying]):
    """A neural Turing machine and an LSTM, each measured at the longest trained length and at twice that.

    Args:
        iterations: meta-steps of each.
        growing: meta-steps over which sequences grow from 1 vector to 20.
        seed: of initial weights and tasks.
    """

    title: str = "copying 1 to 20 vectors of 8 bits, feed-forward neural Turing machine; an LSTM beside it"
    source: str = "Graves et al. 2014, arXiv 1410.5401, section 4.1 (plotted only)"
    iterations: int = 6000
    growing: int = 600
    seed: int = 0

    def rows(self, part: Copying, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """Wrong bits a sequence of either length, with intervals."""
        training = CopyTasks((1, LENGTH), BITS, META_BATCH, self.growing * META_BATCH, seed=3 * self.seed)
        learner, n_tasks = copier(part.name, self.seed), setting.tasks or TASKS
        trained = {"data": "copy", "learner": part.name, "growing": self.growing, "seed": self.seed}
        with threads(1):
            run = trained_on(
                training,
                learner,
                out,
                trained | {"iterations": self.iterations},
                f"copying, {part.name}",
                validation=CopyTasks(LENGTH, BITS, seed=3 * self.seed + 1),
                iterations=self.iterations,
                meta_batch=META_BATCH,
                outer_lr=OUTER_LR,
                clip=CLIP,
                schedule="cosine",
                validation_tasks=100,
            )
            found = []
            for length in (LENGTH, 2 * LENGTH):
                measured = measure(learner, CopyTasks(length, BITS, seed=3 * self.seed + 2), n_tasks)
                told = {"part": part.name, **trained, "length": length, "tasks": n_tasks}
                wrong = {"wrong_bits": measured.mean("wrong_bits"), "ci95": measured.ci95("wrong_bits")}
                target = 0.1 if (part.name, length) == ("ntm", LENGTH) else None
                found.append({**told, **about(learner, run), **wrong, "target": target})
        return found


def nets() -> tuple[Copying, ...]:
    """All of them."""
    return tuple(map(Copying, CELLS))
