"""Every block of every page: Python runs, commands run or are parsed by the real command line."""

from __future__ import annotations

import importlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy as qs
from quickstudy.app.cli import COMMANDS, main
from quickstudy.data import glyphs

from .pages import DOCS, PAGES, ROOT, Block, blocks, commands

SHORTER: dict[str, dict[str, str]] = {
    "index.md": {
        "--channels 16 --iterations 300": "--channels 4 --iterations 5 --validation-tasks 5 --threads 1",
        "evaluate runs/first": "evaluate runs/first --tasks 10",
        "channels=16": "channels=4",
        "iterations=100": "iterations=5",
        "n_tasks=200": "n_tasks=10",
    },
    "tutorial.md": {
        "--channels 32 --iterations 400": "--channels 4 --iterations 5 --validation-tasks 5 --threads 1",
        "evaluate runs/mine\n": "evaluate runs/mine --tasks 10\n",
        "evaluate runs/mine --shot 5": "evaluate runs/mine --shot 5 --tasks 10",
    },
    "add_a_learner.md": {
        "n_tasks=100": "n_tasks=40",
        "--ridge 0.5": "--ridge 0.5 --channels 4 --iterations 5 --validation-tasks 5 --threads 1",
    },
    "recipes.md": {
        "iterations=3000": "iterations=5, channels=4, validation_tasks=5",
        "tasks=600": "tasks=10",
    },
}
"""What takes minutes, and what stands in for it here."""

RUN = ("index.md", "tutorial.md", "add_a_learner.md")
"""Pages whose commands run; those of others are parsed, since their data, runs or machines are not here."""
PARSED = ("serve", "--floors", "recipe run")
"""Commands that are parsed on every page: they do not end, or take minutes whatever is asked for."""
OTHER_PROGRAMS = {
    "index.md": {"source"},
    "serving.md": {"pip"},
    "distributed.md": {"ip", "tc", "for", "first=$(scontrol"},
}
"""What else a page's shell blocks begin with, and nobody runs here."""
SPHINX = {"{toctree}", "{eval-rst}", "{literalinclude}"}
"""Blocks that the site is made of: tests/docs/test_site.py."""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of prototypical networks on Glyphs, a few meta-steps with 4 filters."""
    path = tmp_path_factory.mktemp("runs") / "a"
    options = "--data glyphs --samples-per-class 6 --learner protonet --channels 4 --iterations 5 --query 3"
    more = "--train-way 5 --train-query 2 --validation-tasks 5 --threads 1"
    assert main(["train", *options.split(), *more.split(), "--out", str(path)]) == 0
    return path


def none(run: Path, monkeypatch: pytest.MonkeyPatch, ending: ExitStack) -> dict[str, Any]:
    """A page that stands by itself."""
    return {}


def for_meta_gradients(run: Path, monkeypatch: pytest.MonkeyPatch, ending: ExitStack) -> dict[str, Any]:
    return {"qs": qs, "torch": torch, "body": qs.nets.conv4(4)}


def for_distributed(run: Path, monkeypatch: pytest.MonkeyPatch, ending: ExitStack) -> dict[str, Any]:
    """A learner and tasks, and a meta-training and an evaluation of few of them."""
    source = qs.Sinusoids(shot=3, query=3)
    train, measure = qs.meta_train, qs.evaluate
    monkeypatch.setattr(
        qs, "meta_train", lambda *given, **how: train(*given, iterations=2, meta_batch=2, **how)
    )
    monkeypatch.setattr(qs, "evaluate", lambda *given: measure(*given, n_tasks=4))
    learner = qs.MAML(qs.nets.mlp(1, (4,)), way=1, inner_lr=0.01)
    return {"learner": learner, "tasks": source, "validation": source, "test": source}


def for_serving(run: Path, monkeypatch: pytest.MonkeyPatch, ending: ExitStack) -> dict[str, Any]:
    """A server of the run where the page looks for one, and pictures of two classes."""
    import httpx
    from PIL import Image

    from quickstudy.app.server.running import Running

    running, client = Running([run], port=0, device="cpu"), httpx.Client
    thread = threading.Thread(target=running.run)
    thread.start()
    ending.callback(thread.join, 30)
    ending.callback(setattr, running.server, "should_exit", True)
    until = time.monotonic() + 30
    while not running.server.started:
        assert time.monotonic() < until
        time.sleep(0.01)

    def ours(base_url: str) -> httpx.Client:
        told = "http://127.0.0.1:8000/"
        assert base_url.startswith(told)
        return ending.enter_context(client(base_url=base_url.replace(told, f"{running.url}/"), timeout=60))

    monkeypatch.setattr(httpx, "Client", ours)
    signs = glyphs(classes=45, samples_per_class=4)
    names, files = [], []
    for c in (43, 44):
        for i in range(3):
            files.append(Path(f"{c}-{i}.png"))
            names.append(f"sign {c}")
            Image.fromarray(signs.examples(c)[i, 0].numpy()).save(files[-1])
    return {"files": files, "names": names, "new_file": files[0]}


GIVEN: dict[str, Callable[[Path, pytest.MonkeyPatch, ExitStack], dict[str, Any]]] = {
    "meta_gradients.md": for_meta_gradients,
    "distributed.md": for_distributed,
    "serving.md": for_serving,
}
"""Names that a page takes as given."""


def shortened(page: str, text: str) -> str:
    for old, new in SHORTER.get(page, {}).items():
        text = text.replace(old, new)
    return text


def test_every_substitution_is_of_what_is_there() -> None:
    for page, words in SHORTER.items():
        text = "".join(block.text for block in blocks(page))
        for old in words:
            assert old in text, (page, old)
    for page, programs in OTHER_PROGRAMS.items():
        first = {words[0] for b in blocks(page) if is_shell(b) for words in commands(b.text)}
        assert programs <= first, page


def is_shell(block: Block) -> bool:
    return block.language in ("bash", "console")


class Parsed(Exception):
    """The options of a command are as the command wants them."""


def parse_only(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand `quickstudy` words to the command's own parser, and no further."""
    assert words[0] in COMMANDS, words
    module: Any = importlib.import_module(f"quickstudy.app.{words[0]}")
    parse = module.parse

    def stop(*given: Any) -> None:
        raise Parsed(parse(*given))

    with monkeypatch.context() as patch:
        patch.setattr(module, "parse", stop)
        with pytest.raises((Parsed, SystemExit)) as ended:
            module.main(words[1:])
    assert ended.type is Parsed or "--help" in words


def try_command(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of a shell block."""
    while re.match(r"[A-Z_]+=", words[0]):  # what is set for this command alone
        words = words[1:]
    program = words[0]
    if program in ("torchrun", "srun"):
        if "quickstudy" in words:
            parse_only(words[words.index("quickstudy") + 1 :], monkeypatch)
        return
    if program == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    elif program == "python":
        assert (ROOT / words[1]).is_file(), words
    elif program == "export":
        name, _, value = words[1].partition("=")
        monkeypatch.setenv(name, value)
        if name == "PYTHONPATH":
            monkeypatch.syspath_prepend(os.path.abspath(value))
    elif program == "quickstudy" and words[1:] == ["--help"]:
        assert main(["--help"]) == 0
    elif program == "quickstudy":
        if page in RUN and not any(part in " ".join(words) for part in PARSED):
            assert main(words[1:]) == 0, words
        else:
            parse_only(words[1:], monkeypatch)
    else:
        assert program in OTHER_PROGRAMS.get(page, ()), f"{page}: {program} is neither run nor known"


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    """What is to be closed when a page has run."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("page", [page for page in PAGES if page.partition("/")[0] != "api"])
def test_the_blocks_of_a_page(
    page: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: ExitStack
) -> None:
    """In order, in an empty folder; Python blocks share their names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("QUICKSTUDY_DATA", raising=False)
    (tmp_path / "runs").mkdir()
    names: dict[str, Any] = {"__name__": page, **GIVEN.get(page, none)(run, monkeypatch, ending)}
    for block in blocks(page):
        text = shortened(page, block.text)
        if block.language == "python":
            if page == "add_a_learner.md" and "import Mahalanobis" not in text:
                (tmp_path / "my_learner.py").write_text(text)  # the file that the page says it is
                monkeypatch.syspath_prepend(str(tmp_path))
                sys.modules.pop("my_learner", None)
            exec(compile(text, f"{page}, line {block.line}", "exec"), names)
        elif is_shell(block):
            for words in commands(text):
                try_command(page, words, monkeypatch)
        else:
            assert block.language == "text" or block.language in SPHINX, (
                f"{page}: what is {block.language!r}?"
            )
    check: Callable[[Mapping[str, Any]], None] = AFTER.get(page, lambda names: None)
    check(names)
    sys.modules.pop("my_learner", None)


def after_tutorial(names: Mapping[str, Any]) -> None:
    assert Path("runs/mine/evaluations").is_dir()
    assert Path("mine.onnx").stat().st_size > 0
    loaded = qs.FewShotClassifier.load("mine.safetensors")
    assert set(loaded.predict(names["unknown"])) <= {f"sign {c}" for c in range(60, 64)}


def after_add_a_learner(names: Mapping[str, Any]) -> None:
    """It learns, its options are kept with its run, and the page's own tests pass; it is short."""
    assert names["after"].accuracy > names["before"].accuracy + 0.1
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
    learner, config, _ = qs.load_run("runs/mahalanobis")
    assert type(learner).__name__ == "Mahalanobis"
    assert config.settings == {"ridge": 0.5}
    lines = [line for line in blocks("add_a_learner.md")[0].text.splitlines() if line.strip()]
    assert len(lines) <= 40


def after_meta_gradients(names: Mapping[str, Any]) -> None:
    assert issubclass(names["MetaSGD"], qs.MAML)


AFTER: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "tutorial.md": after_tutorial,
    "add_a_learner.md": after_add_a_learner,
    "meta_gradients.md": after_meta_gradients,
}
"""What is to be true when a page has run."""


def test_a_wrong_option_or_program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(qs.errors.UserError, match="chanels"):
        parse_only(["train", "--chanels", "3", "--out", "a"], monkeypatch)
    with pytest.raises(AssertionError):
        try_command("index.md", ["quickstudies", "train"], monkeypatch)
    with pytest.raises(AssertionError):
        try_command("index.md", ["make", "nothing"], monkeypatch)


def test_pages_link_to_what_is_there() -> None:
    """As files, as a code host shows them; anchors and the site's links are checked by building it."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text()):
            assert ((DOCS / page).parent / link).exists(), (page, link)
