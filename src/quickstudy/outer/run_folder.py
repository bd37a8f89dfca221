"""The run folder: everything a run is, in files that need no pickle and survive a crash at any moment.

==========================  =======================================================================
config.json                 the options of the run, and the version of this layout
environment.json            versions, commit, threads, machine
metrics.jsonl               one line a record: training averages, validation
checkpoint.safetensors      weights, optimiser state and progress of the last checkpoint, one file
best.safetensors            weights at the best validation
summary.json                written last: the run is finished
curve.png                   loss and accuracy by meta-step
evaluations/                what `quickstudy evaluate` measured, with pictures
==========================  =======================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from quickstudy.errors import RunError
from quickstudy.files import append, write_bytes, write_json
from quickstudy.outer.provenance import environment
from quickstudy.outer.tensor_file import VERSION, read_tensors, write_tensors
from quickstudy.version import __version__

ENVIRONMENT = "environment.json"
TEMPORARY = re.compile(r"(config|environment|summary|curve|best|checkpoint|metrics)\.\w+\.\d+\.tmp")
"""What `files.write_bytes` leaves when the power goes."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Args:
        path: the folder.
    """

    path: Path

    @staticmethod
    def create(path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """Make a run folder.

        Raises:
            RunError: something is there already, or the place cannot be written to.
        """
        folder = RunFolder(Path(path))
        if not folder.vacant:
            raise RunError(f"{path} exists already: choose another --out, or go on with it by --resume")
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error
        with folder.claimed():
            if not folder.vacant:
                raise RunError(f"{path} exists already: another process has just begun a run there")
            write_json(folder.path / ENVIRONMENT, environment())
            write_json(folder.path / "config.json", {"version": VERSION, **config})
        return folder

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """An existing run.

        Raises:
            RunError: no such folder, not a run, a damaged file, or another version's.
        """
        folder = RunFolder(Path(path))
        if not folder.path.is_dir():
            what = "it is a file" if folder.path.exists() else "there is no such folder"
            raise RunError(f"{path} is not a run folder: {what}")
        if not (folder.path / "config.json").is_file():
            raise RunError(f"{path} is not a run folder: it has no config.json")
        version = folder.config.get("version")
        if version != VERSION:
            raise RunError(
                f"{path} was written in layout version {version}; this quickstudy "
                f"{__version__} reads version {VERSION}"
            )
        return folder

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Within this block no other process, and no thread, can claim this run.

        Where the file system or the platform has no locks, nothing is checked.

        Raises:
            RunError: another has claimed it.
        """
        try:
            import fcntl

            folder = os.open(self.path, os.O_RDONLY)
        except (ImportError, OSError):
            yield
            return
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.path} is in use: another process is training it") from None
            except OSError:
                pass
            yield
        finally:
            os.close(folder)

    @property
    def vacant(self) -> bool:
        """Whether nothing is here, or only what a crash within `create` left."""
        try:
            return all(p.name == ENVIRONMENT or TEMPORARY.fullmatch(p.name) for p in self.path.iterdir())
        except FileNotFoundError:
            return True
        except NotADirectoryError:
            return False
        except OSError as error:
            raise RunError(f"cannot read the run folder {self.path}: {error.strerror or error}") from error

    @property
    def config(self) -> dict[str, Any]:
        """The options of the run."""
        return self.read_json("config.json")

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "summary.json").is_file()

    def read_json(self, name: str) -> dict[str, Any]:
        """One of the folder's JSON files."""
        path = self.path / name
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no {name}") from error
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise RunError(f"{path} is damaged: not a JSON object")
        return value

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the folder's JSON files, atomically."""
        write_json(self.path / name, dict(value))

    def save(self, name: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Tensors and a JSON header in one file, atomically, with checksums over both."""
        write_tensors(self.path / name, tensors, meta)

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `save` wrote.

        Raises:
            RunError: the file is missing or damaged.
        """
        try:
            return read_tensors(self.path / name)
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no {name}: the run has not got that far") from error

    def digest(self, name: str) -> str:
        """16 hex digits that change with any byte of one of the folder's files.

        Raises:
            RunError: the file is missing.
        """
        try:
            return hashlib.blake2b((self.path / name).read_bytes(), digest_size=8).hexdigest()
        except OSError as error:
            raise RunError(f"{self.path} has no {name}: the run has not got that far") from error

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; NaN and infinity become null, since JSON has no word for them."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        append(self.path / "metrics.jsonl", (json.dumps(plain) + "\n").encode())

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a crash is left out.

        Raises:
            RunError: another line is damaged.
        """
        path = self.path / "metrics.jsonl"
        try:
            *lines, cut = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror or error}") from error
        del cut  # what follows the last line's end: nothing, or what a crash left of the next
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                raise RunError(f"{path} is damaged in line {number}: {error}") from error
            if not isinstance(record, dict) or not isinstance(record.get("iteration"), int):
                raise RunError(f"{path} is damaged in line {number}: not a record of an iteration")
            yield record

    def sweep(self) -> None:
        """Remove the half-written files that a crash left."""
        for left in self.path.iterdir():
            if TEMPORARY.fullmatch(left.name):
                left.unlink(missing_ok=True)

    def rewind(self, iteration: int) -> None:
        """Drop what a crash left: half-written files, and records after the checkpoint's iteration."""
        self.sweep()
        if (self.path / "metrics.jsonl").exists():
            kept = [json.dumps(r) + "\n" for r in self.records() if r["iteration"] <= iteration]
            write_bytes(self.path / "metrics.jsonl", "".join(kept).encode())


@contextmanager
def kept_in(run: str | Path | RunFolder | None, options: dict[str, Any]) -> Iterator[RunFolder | None]:
    """The run folder that is given; or the one at a path, made if there is none, and claimed.

    Raises:
        RunError: what is there was begun with other options, or is in use.
    """
    if run is None or isinstance(run, RunFolder):
        yield run
        return
    options = json.loads(json.dumps(options))
    if RunFolder(Path(run)).vacant:
        place = RunFolder.create(run, options)
    else:
        place = RunFolder.open(run)
        before = each(place.config)
        for name, value in each(options).items():
            if before.get(name, value) != value:
                raise RunError(
                    f"{run} was begun with {name}={before[name]}, not {value}: choose another folder"
                    + " (or strategy='auto', which goes on as it was begun)" * (name == "strategy")
                )
    with place.claimed():
        yield place


def each(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, those of the learner among them.

    >>> each({"seed": 0, "settings": {"steps": 5}})
    {'seed': 0, 'steps': 5}
    """
    return {**{k: v for k, v in options.items() if k != "settings"}, **options.get("settings", {})}


def noted(run: str | Path | RunFolder | None, name: str) -> Any:
    """What a run at a path noted by this name when it was begun; None where there is none, or no note."""
    if not isinstance(run, (str, Path)) or RunFolder(Path(run)).vacant:
        return None
    return RunFolder.open(run).config.get(name)
