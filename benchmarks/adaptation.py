"""How long each learner takes to adapt to one task: all in turn, in one process, on one core.

    python benchmarks/adaptation.py

A 5-way 1-shot task of 28×28 pictures, the nets as in `quickstudy recipe run learners`: 32 channels. The times
do not depend on the weights, which are untrained.
"""

from __future__ import annotations

import statistics
import time

import torch
from record import options, record

from quickstudy.data.glyphs import glyphs
from quickstudy.learners import CONTROLS, LEARNERS, Learner
from quickstudy.recipes.learners import Part
from quickstudy.tasks import ClassTasks, Support

ROUNDS = 21


def milliseconds(learner: Learner, support: Support) -> float:
    """The time of one adaptation."""
    begun = time.perf_counter()
    learner.adapt(support)
    return 1000 * (time.perf_counter() - begun)


def main() -> None:
    """Measure and write."""
    given = options(__doc__, "adaptation").parse_args()
    torch.set_num_threads(1)
    data = glyphs(classes=20)
    tasks = ClassTasks(data, way=5, shot=1, query=1)
    learners = {
        name: Part(name, "omniglot").config(None).make_learner(data.image_shape, len(data)).eval()
        for name in (*LEARNERS, *CONTROLS)
    }
    times: dict[str, list[float]] = {name: [] for name in learners}
    for i in range(ROUNDS + 1):  # in the first, what is slow only once is over
        for name, learner in learners.items():
            times[name].append(milliseconds(learner, tasks.task(i).support))
        print(f"\rround {i} of {ROUNDS}", end="", flush=True)
    print()
    rows = []
    for name, (_, *own) in times.items():
        low, middle, high = statistics.quantiles(own, n=4)
        quartiles = [round(low, 2), round(high, 2)]
        rows.append({"learner": name, "adapt_ms": round(middle, 2), "quartiles_ms": quartiles})
        print(f"{name:20} {middle:8.1f} ms ({low:.1f} to {high:.1f})")
    title = "milliseconds to adapt to a 5-way 1-shot task, one core, 32 channels: medians of rounds in turn"
    record(given.out, title=title, rounds=ROUNDS, results=rows)


if __name__ == "__main__":
    main()
