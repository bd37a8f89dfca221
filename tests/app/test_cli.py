"""The entry point: commands, exit codes, one line for every mistake."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

import quickstudy
from quickstudy.app import cli
from quickstudy.errors import UserError
from quickstudy.learners import CONTROLS, LEARNERS


def test_help_and_version(command: Callable[..., Any]) -> None:
    for args in (["--help"], ["-h"], ["help"]):
        said = command(*args)
        assert said.code == 0
        assert all(name in said.out for name in cli.COMMANDS)
        assert said.err == ""
    assert command().code == 2
    assert command("--version").out.strip() == quickstudy.__version__


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, command: Callable[..., Any]) -> None:
    said = command(name, "--help")
    assert said.code == 0
    assert f"quickstudy {name}" in said.out


@pytest.mark.parametrize("learner", [*LEARNERS, *CONTROLS])
def test_every_learner_tells_its_options(learner: str, command: Callable[..., Any]) -> None:
    from quickstudy.learners import learner_class
    from quickstudy.learners.registry import options

    said = command("train", "--learner", learner, "--help")
    assert said.code == 0
    for name in options(learner_class(learner)):
        flag = name.replace("_", "-")
        assert f"--{flag}" in said.out or f"--no-{flag}" in said.out  # what is on can be switched off


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """A function that makes `quickstudy data` raise."""

    def make(error: BaseException) -> None:
        def fail(args: object) -> int:
            raise error

        module: Any = types.ModuleType("quickstudy.app.data")
        module.main = fail
        monkeypatch.setitem(sys.modules, "quickstudy.app.data", module)

    return make


def test_a_users_mistake_is_one_line(
    faulty: Callable[[BaseException], None], refused: Callable[..., str]
) -> None:
    faulty(UserError("first line\n\tsecond line"))
    assert refused("data") == "first line second line"


def test_a_fault_of_ours_is_one_line_and_code_1(
    faulty: Callable[[BaseException], None], command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(ZeroDivisionError("division\nby zero"))
    said = command("data")
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        "quickstudy: internal error, please report it: ZeroDivisionError: division by zero "
        "(QUICKSTUDY_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("QUICKSTUDY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        command("data")


def test_an_interruption(faulty: Callable[[BaseException], None], command: Callable[..., Any]) -> None:
    faulty(KeyboardInterrupt())
    assert command("data") == (130, "", "quickstudy: interrupted\n")


def test_an_exit_code_goes_through(
    faulty: Callable[[BaseException], None], command: Callable[..., Any]
) -> None:
    faulty(SystemExit(3))
    assert command("data").code == 3


def test_unknown_names_come_with_the_nearest(refused: Callable[..., str]) -> None:
    out = ("--out", "never")
    assert "unknown command 'trian': did you mean 'train'" in refused("trian")
    assert "unknown learner 'mamll': did you mean 'maml'" in refused("train", "--learner", "mamll", *out)
    assert "unknown learner 'mamll'" in refused("train", "--learner=mamll", *out)
    assert "unknown data set 'digts': did you mean 'digits'" in refused("train", "--data", "digts", *out)
    assert "--shott" in (line := refused("train", "--shott", "3", *out))
    assert "--shot INT" in line
    assert "'sdg'" in (line := refused("train", "--optimizer", "sdg", *out))
    assert "sgd" in line


def test_mistaken_options(refused: Callable[..., str]) -> None:
    assert refused("train", "--way", "x", "--out", "never").startswith("--way: 'x' is not a whole number")
    assert refused("train", "--way", "3").startswith("missing: --out PATH")
    assert refused("train", "--shot", "-1", "--out", "never").startswith("shot must be at least 1, not -1")
    assert refused("train", "--learner", "protonet", "--steps", "3", "--out", "never").startswith(
        "protonet has no option --steps; maml, "
    )
    assert refused("train", "--learner", "protonet", "--inner-lr=3", "--out", "never").startswith(
        "protonet has no option --inner-lr; maml, "
    )
