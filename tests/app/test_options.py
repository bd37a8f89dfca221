from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from quickstudy.app.options import parse
from quickstudy.errors import UserError
from quickstudy.learners import LEARNERS, learner_class


@dataclass(frozen=True)
class Some:
    """What to do.

    Args:
        count: how many.
        kind: which.
        place: where.
        word: any.
        loud: whether it is heard.
        names: a pattern, or from Python a function.
    """

    count: int | None = None
    kind: Literal["a", "b"] | None = None
    place: Path | None = None
    word: str = "x"
    loud: bool = False
    names: str | Callable[[str], bool] = "all"


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ([], Some()),
        (["--count", "3", "--kind", "b"], Some(3, "b")),
        (["--place", "None", "--word", "None"], Some(place=Path("None"), word="None")),
        (["--loud"], Some(loud=True)),
        (["--names", r"^body\.0|bias$"], Some(names=r"^body\.0|bias$")),
    ],
)
def test_an_optional_value_is_asked_for_as_such(args: list[str], wanted: Some) -> None:
    given = parse(Some, args, "some")
    assert isinstance(given, Some)
    assert vars(given) == vars(wanted)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--count", "x"], "^--count: 'x' is not a whole number"),
        (["--kind", "c"], r"invalid choice 'c' for argument '--kind'. Expected one of \('a', 'b'\)"),
        (["--kind"], "Missing value for argument '--kind'"),
        (["--coun", "3"], "Unrecognized options: --coun, 3"),
    ],
)
def test_a_mistake_is_one_line(args: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(Some, args, "some")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("(quickstudy some --help)")


def test_help_shows_no_default_that_is_to_leave_the_option_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(Some, ["--help"], "some")
    text = capsys.readouterr().out
    assert "--count INT" in text
    assert "--kind {a,b}" in text
    assert "(default: x)" in text
    assert "None" not in text
    assert "False" not in text


@pytest.mark.parametrize("learner", LEARNERS)
def test_train_shows_the_defaults_of_its_learner(command: Callable[..., Any], learner: str) -> None:
    text = " ".join(command("train", "--learner", learner, "--help").out.replace("│", " ").split())
    outer = learner_class(learner).outer
    assert f"tasks a meta-step. (default: {outer.meta_batch}, usual for {learner})" in text
    assert f"(default: {outer.train_way or '--way'}" in text
    assert "None" not in text
