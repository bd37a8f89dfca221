"""`quickstudy data`: what there is and what it would download, without downloading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quickstudy.data import names


def test_list(command: Callable[..., Any]) -> None:
    said = command("data", "list")
    assert said.code == 0
    assert all(name in said.out for name in names())
    assert "MB to" in said.out


def test_info(command: Callable[..., Any], tmp_path: Any) -> None:
    said = command("data", "info", "omniglot", "--data-dir", tmp_path)
    assert said.code == 0
    assert "1623" in said.out
    assert "vinyals 1028/172/423" in said.out
    assert f"looked for in: {tmp_path}" in said.out
    assert "would download" in said.out
    assert not list(tmp_path.glob("omniglot*"))


def test_prepare_what_is_made(command: Callable[..., Any]) -> None:
    said = command("data", "prepare", "digits")
    assert said.code == 0
    assert "10 classes, 174 to 183 examples each" in said.out


def test_mistakes(refused: Callable[..., str]) -> None:
    assert "unknown data set 'omniglto': did you mean 'omniglot'" in refused("data", "info", "omniglto")
    assert "needs the name of a data set" in refused("data", "info")
    assert "'lisst'" in refused("data", "lisst")
    assert "missing" in refused("data")
