"""Meta-training that begins with the body of another run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quickstudy.errors import RunError
from quickstudy.evaluation.floors import equal_pictures
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.session import train
from quickstudy.outer.start import body

Quick = Callable[..., TrainConfig]


@pytest.mark.parametrize("learner", ["protonet", "maml"])
def test_a_run_begins_with_the_body_of_another(quick: Quick, tmp_path: Path, learner: str) -> None:
    train(quick(learner="pretrain-centroid", outer_lr=0.1), tmp_path / "first")
    pretrained = body(load_run(tmp_path / "first")[0]).state_dict()
    config = quick(learner=learner, start=str(tmp_path / "first"), iterations=0)
    train(config, tmp_path / "next")
    begun, found, _ = load_run(tmp_path / "next")
    assert found.start == str(tmp_path / "first")
    for name, value in body(begun).state_dict().items():
        assert torch.equal(value, pretrained[name]), name
    fresh = body(config.make_learner((1, 8, 8), 4)).state_dict()
    assert any(not torch.equal(fresh[name], value) for name, value in pretrained.items())


@pytest.mark.parametrize("mirrored", [(False, True), (True, True), (True, False)])
def test_mirrored_or_not_the_net_is_the_same(
    quick: Quick, tmp_path: Path, mirrored: tuple[bool, bool]
) -> None:
    before, after = mirrored
    train(quick(mirrored=before, augment="drawing"), tmp_path / "first")
    start = str(tmp_path / "first")
    config = quick(mirrored=after, augment="drawing", start=start, learner="maml", iterations=0)
    train(config, tmp_path / "next")
    ends = [[*body(load_run(tmp_path / name)[0]).state_dict().values()] for name in ("first", "next")]
    assert all(map(torch.equal, *ends))


def test_a_run_goes_on_though_the_first_is_gone(quick: Quick, tmp_path: Path) -> None:
    train(quick(), tmp_path / "first")
    config = quick(start=str(tmp_path / "first"))
    train(config, tmp_path / "next")
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    longer = quick(start=str(tmp_path / "first"), iterations=8)
    assert train(longer, tmp_path / "next", resume=True).iteration == 8
    load_run(tmp_path / "next")


def test_what_a_run_cannot_begin_with(quick: Quick, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere"):
        train(quick(start=str(tmp_path / "nowhere")), tmp_path / "a")
    train(quick(), tmp_path / "first")
    start = str(tmp_path / "first")
    with pytest.raises(RunError, match=r"the body of .*first is another: give the same --body, --channels"):
        train(quick(start=start, channels=3), tmp_path / "b")
    with pytest.raises(RunError, match=r"first has seen other parts of digits: its split and pictures"):
        train(quick(start=start, split="random", split_seed=5), tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_floors_see_as_many_pictures_as_both_runs(quick: Quick, tmp_path: Path) -> None:
    config = quick(iterations=5)
    train(config, tmp_path / "first")
    alone, splits = equal_pictures(config, config.splits()), config.splits()
    assert equal_pictures(quick(start=str(tmp_path / "first"), iterations=5), splits) == 2 * alone
