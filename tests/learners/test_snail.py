from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.errors import DataError, TaskError, UserError
from quickstudy.learners import SNAIL
from quickstudy.nets import mlp
from quickstudy.tasks import Sinusoids, Task

pytestmark = pytest.mark.usefixtures("float64")

Make = Callable[..., SNAIL]


def test_a_query_is_the_last_of_a_sequence_without_its_label(make: Make, batch: Task) -> None:
    """The whole net applied to support set and one query as one sequence."""
    learner, task = make("snail", "layer", filters=5, reach=3), next(batch.unbatch())
    past = torch.cat([learner.body(task.support.x), F.one_hot(task.support.y, 3)], -1)
    layers, found = learner.layers, learner.adapt(task.support)(task.query.x)
    for i, x in enumerate(task.query.x):
        sequence = torch.cat([past, F.pad(learner.body(x[None]), (0, 3))])
        for layer in (layers.find, layers.gather, layers.find_again, layers.gather_again, layers.find_last):
            sequence, _ = layer(sequence, sequence)
        torch.testing.assert_close(found[i], layers.head(sequence[-1]).detach())


def test_meta_gradient_by_finite_differences(
    smooth: Callable[[], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(SNAIL(smooth(), way=3, filters=3, reach=3), batch, rtol=1e-5)


def test_support_sets_longer_than_the_convolutions_reach(make: Make) -> None:
    """Attention sees all of it: the first example matters too."""
    learner, x = make("snail", "layer", filters=5, reach=2), torch.rand(12, 1, 16, 16)
    y = torch.arange(12) % 3
    before = learner.adapt(x, y)(x[:2])
    x[0] = torch.rand(1, 16, 16)
    assert (learner.adapt(x, y)(x[1:2]) - before[1]).abs().max() > 1e-9


def test_fewer_ways_are_masked_and_more_refused(make: Make) -> None:
    learner, x = make("snail", filters=5), torch.rand(8, 1, 16, 16)
    assert learner.adapt(x[:4], [0, 1, 1, 0])(x).shape == (8, 2)
    with pytest.raises(TaskError, match="answers at most 3 ways, not 8"):
        learner.adapt(x, torch.arange(8))


def test_regression() -> None:
    learner = SNAIL(mlp(1), way=1, filters=5)
    task = Sinusoids(shot=5, query=4).task(0).to(torch.float64)
    output = learner.learn(task.support)(task.query.x)
    assert output.shape == (4, 1)
    torch.testing.assert_close(learner(task).loss, F.mse_loss(output, task.query.y))
    moved = task.support.y.clone()
    moved[0] += 1
    other = learner.adapt(task.support.x, moved)(task.query.x)
    assert (other - output).abs().max() > 1e-6


def test_a_reloaded_learner_answers_the_same(make: Make, batch: Task) -> None:
    learner, again = (make("snail", "layer", filters=5) for _ in range(2))
    task = next(batch.unbatch())
    wanted = learner.adapt(task.support)(task.query.x)
    assert not torch.equal(again.adapt(task.support)(task.query.x), wanted)
    again.load_state_dict(learner.state_dict())
    np.testing.assert_array_equal(again.adapt(task.support)(task.query.x), wanted)


@pytest.mark.parametrize("options", [{"way": 0}, {"filters": 0}, {"reach": 0}])
def test_nothing_to_do_is_an_error(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"(way|filters|reach) must be at least 1"):
        SNAIL(mlp(4), **{"way": 2, **options})


def test_targets_of_more_values_than_it_answers_are_refused() -> None:
    learner = SNAIL(mlp(2), way=1, filters=4)
    with pytest.raises(DataError, match="targets of 2 values, but this learner predicts at most 1"):
        learner.adapt(torch.rand(4, 2), torch.rand(4, 2))
