"""Low-rank adapters in a frozen transformer, meta-learned by MAML, on the pen strokes of Quick, Draw!.

    python examples/lora_strokes.py

A small transformer with random weights reads a drawing as a sequence of points. Its weights stay frozen:
MAML learns, and adapts to a task, only adapters of rank 8 (Hu et al. 2021, 2106.09685) and a linear head. On
classes never seen it is set beside its floors, the same frozen net without adapters: nearest class mean of
its features, and a head alone trained on the support set.

Measured, 5-way 1-shot, 600 tasks, in some 2.5 minutes of one processor core (300 meta-steps of 4 tasks):

    frozen, nearest class mean  32.6 ± 0.8 %
            frozen, head alone  33.0 ± 0.8 %
      adapters of rank 8, MAML  46.8 ± 1.0 %

It shows what adapters are worth where the base may not change; a base that is pretrained on the meta-train
classes, all weights of it, starts higher than this ends.

The strokes are the publisher's simplified drawings, `quickdraw/simplified/CATEGORY.ndjson` in the folder
`$QUICKSTUDY_DATA`.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import quickstudy as qs
from quickstudy.data.cache import find
from quickstudy.data.quickdraw import categories
from quickstudy.data.strokes import read_strokes

POINTS = 32


def encoded(strokes: Sequence[ndarray], points: int = POINTS) -> ndarray:
    """A drawing as `[points, 5]`: points at equal distances along the pen's way, in the air too.

    Args:
        strokes: one array `[n, 2]` of x and y a stroke.

    Returns:
        x and y from -1 to 1, their change since the point before, and whether the pen was in the air.
    """
    path = np.concatenate(strokes)
    lifted = np.zeros(len(path))
    lifted[np.cumsum([len(stroke) for stroke in strokes])[:-1]] = 1  # on the way to a stroke's first point
    along = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    at = np.linspace(0, along[-1], points)
    xy = np.stack([np.interp(at, along, axis) for axis in path.T], -1)
    size = max(np.ptp(path, axis=0).max(), 1.0)
    xy = (xy - (path.max(0) + path.min(0)) / 2) / (size / 2)
    change = np.diff(xy, axis=0, prepend=xy[:1])
    air = lifted[np.minimum(np.searchsorted(along, at), len(path) - 1)]
    return np.concatenate([xy, change, air[:, None]], -1).astype(np.float32)


def drawings(each: int = 20) -> qs.ClassDataset:
    """The first drawings of each category: `[M, 1, points, 5]`."""
    x, y = [], []
    for name in categories():
        path = find([f"quickdraw/simplified/{name}.ndjson"])
        if path is None:
            raise SystemExit(f"quickdraw/simplified/{name}.ndjson is not in $QUICKSTUDY_DATA")
        x += [encoded(drawing.strokes) for drawing in read_strokes(path, each)]
        y += [name] * each
    return qs.ClassDataset.from_arrays(np.stack(x), y, name="quickdraw strokes")


class Transformer(nn.Module):
    """Points `[B, 1, points, 5]` → features `[B, width]`: their mean after two layers of attention."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.into, self.place = nn.Linear(5, width), nn.Parameter(torch.randn(POINTS, width) / 10)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.features = width

    def forward(self, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels are not made for many tasks at once
            return self.layers(self.into(x.squeeze(1)) + self.place).mean(1)


def main(iterations: int, rank: int, tasks: int) -> None:
    """Meta-train the adapters and print them beside their floors."""
    torch.backends.mha.set_fastpath_enabled(False)  # nor is this
    torch.manual_seed(0)
    train, _, test = drawings().split("random", seed=0)
    base = Transformer().requires_grad_(False)
    learner = qs.MAML(
        qs.nets.lora(copy.deepcopy(base), rank), way=5, inner_params="lora|head", inner_lr=0.2, steps=3
    )
    learned = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    print(f"{learned} of {sum(p.numel() for p in learner.parameters())} weights are learned")
    source = qs.tasks(train, way=5, shot=1, query=5)
    qs.meta_train(learner, source, iterations=iterations, meta_batch=4, outer_lr=3e-3, progress=True)
    rows: dict[str, qs.Learner] = {
        "frozen, nearest class mean": qs.Untrained(base),
        "frozen, head alone": qs.Scratch(base, way=5),
        f"adapters of rank {rank}, MAML": learner,
    }
    for name, each in rows.items():
        measured = qs.evaluate(each, qs.tasks(test, way=5, shot=1, query=10, seed=2), n_tasks=tasks)
        print(f"{name:>28}  {100 * (measured.accuracy or 0):.1f} ± {100 * measured.ci95:.1f} %")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="Low-rank adapters, meta-learned by MAML, on pen strokes.")
    options.add_argument("--iterations", type=int, default=300, help="meta-steps of 4 tasks")
    options.add_argument("--rank", type=int, default=8, help="of each adapter")
    options.add_argument("--tasks", type=int, default=600, help="meta-test tasks")
    main(**vars(options.parse_args()))
