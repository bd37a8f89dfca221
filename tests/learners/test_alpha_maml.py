from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from quickstudy.errors import UserError
from quickstudy.learners import MAML, AlphaMAML
from quickstudy.nets import mlp
from quickstudy.outer import meta_train
from quickstudy.tasks import Lines, Task

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("steps", [1, 3])
def test_the_hypergradient_by_finite_differences(
    steps: int, smooth: type[nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    agrees(AlphaMAML(smooth(), way=3, inner_lr=0.3, steps=steps), batch)


def test_the_rate_follows_its_own_gradient_whatever_its_scale() -> None:
    def moved(scale: float) -> list[float]:
        learner = AlphaMAML(mlp(2), way=2, inner_lr=0.2, hyper_lr=0.1)
        rates = []
        for h in (-1.0, -3.0, 0.5, 0.0):
            learner.after_step({}, {"log_factor": torch.tensor(scale * h)}, 0.0)
            rates.append(learner.alpha.item())
        return rates

    assert moved(1.0) == moved(1e-6)
    logs = torch.tensor([0.1, 0.2, 0.1, 0.1])
    assert moved(1.0) == pytest.approx((0.2 * logs.exp()).tolist(), rel=1e-9)


def test_a_rate_of_which_nothing_depends_stays() -> None:
    learner = AlphaMAML(mlp(2), way=2, inner_lr=0.0)
    learner.after_step({}, {"log_factor": torch.tensor(0.0)}, 0.0)
    assert learner.alpha.item() == 0.0
    with pytest.raises(UserError, match="hyper_lr must be at least 0"):
        AlphaMAML(mlp(2), way=2, hyper_lr=-1.0)


class Nothing(nn.Identity):
    """What stands before the head where all is linear: y = m x + c."""

    features = 1


def lines(inner_lr: float) -> AlphaMAML:
    torch.manual_seed(0)
    return AlphaMAML(Nothing(), way=1, inner_lr=inner_lr, hyper_lr=0.05)


@pytest.mark.parametrize("rate", [0.003, 0.6])
def test_it_comes_back_from_rates_far_too_low_and_high(rate: float) -> None:
    """One step down the squared error of y = m x solves it at 1 / (2 E[x²]) = 0.06, of y = c at 0.5."""
    learner = lines(rate)
    meta_train(learner, Lines(shot=100), iterations=200, meta_batch=8)
    assert 0.04 < learner.alpha.item() < 0.07


def test_its_steps_fall_to_nothing() -> None:
    learner = AlphaMAML(mlp(2), way=2, inner_lr=1.0, hyper_lr=0.1)
    for progress in (0.0, 0.5, 0.9, 1.0):
        learner.after_step({}, {"log_factor": torch.tensor(-1.0)}, progress)
    assert learner.log_factor.item() == pytest.approx(0.1 + 0.05 + 0.01)


def test_without_steps_of_its_rate_it_is_maml() -> None:
    """The rate's gradient counts neither in clipping nor in the meta-optimiser's angles between steps."""
    learner, maml = lines(0.1), MAML(Nothing(), way=1, inner_lr=0.1, steps=1)
    learner.hyper_lr = 0.0
    maml.net.load_state_dict(learner.net.state_dict())
    for each in (learner, maml):
        meta_train(
            each, Lines(), iterations=8, optimizer="adam-hd", outer_lr=1e-3, schedule="constant", clip=0.01
        )
    assert all(torch.equal(v, learner.net.state_dict()[k]) for k, v in maml.net.state_dict().items())


def test_a_run_goes_on_with_both_rates(tmp_path: Path) -> None:
    whole, first, second = lines(0.1), lines(0.1), lines(0.1)
    meta_train(whole, Lines(), iterations=8)

    def stop(record: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(first, Lines(), iterations=8, validate_every=4, run=tmp_path / "run", log=stop)
    meta_train(second, Lines(), iterations=8, run=tmp_path / "run")
    assert whole.alpha.item() != first.alpha.item() != 0.1
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in whole.state_dict().items())
