"""The search's study: optuna's record of all trials, in a database that many processes can share."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quickstudy.errors import RunError, UserError, in_brief
from quickstudy.evaluation.tuning.claims import claimed
from quickstudy.evaluation.tuning.space import Space
from quickstudy.evaluation.tuning.trials import Outcome, Trial
from quickstudy.outer.run_folder import RunFolder

if TYPE_CHECKING:
    import optuna

PrunerName = Literal["median", "hyperband", "none"]
FOLDER_FILE, DATABASE = "search.json", "study.db"
UNKNOWN = timedelta(minutes=1)
"""A trial that nobody has put a name to for so long was asked for by a process that ended just then."""
FEW = 4
"""Complete trials that it takes to tell what mattered."""


def library() -> Any:
    """optuna, which is loaded only here.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("optuna is not installed: pip install 'quickstudy[tune]'") from error
    return optuna


@contextmanager
def quietly() -> Iterator[None]:
    """optuna says only what goes wrong, and of its storage in a line."""
    optuna = library()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise UserError(f"the storage failed (--resume goes on): {in_brief(error)}") from error
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def connecting() -> Iterator[None]:
    """What a database says, in a line; there are many kinds of them, and of errors."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the storage cannot be used: {type(error).__name__}: {in_brief(error)}") from error


@dataclass(frozen=True)
class Study:
    """Trials in a storage, of which this process takes one after the other.

    Args:
        study: optuna's.
        out: the folder for runs.
        place: what tells trials of this folder from those of others that share the storage.
        seed: of what is drawn. Trial i draws by (seed, i), so that a search that was killed goes on as if it
            had not been.
        trials: how many there are to be.
        start: values of the first trial.
    """

    study: optuna.Study
    out: Path
    place: str
    seed: int
    trials: int
    start: Mapping[str, Any]

    @contextmanager
    def next(self, space: Space) -> Iterator[tuple[optuna.trial.Trial, dict[str, Any]] | None]:
        """A trial to run within this block, and its values: one whose process ended, or a new one; None where
        all are done or taken."""
        with ExitStack() as held:
            with claimed(self.out / "turn.lock"):
                trial = self.lost(held) or self.new(held)
            if trial is None:
                yield None
                return
            sampler = library().samplers.TPESampler
            seed = (self.seed * 1_000_003 + trial.number) % 2**32
            self.study.sampler = sampler(seed=seed, n_startup_trials=min(10, max(3, self.trials // 4)))
            values = {name: values.draw(trial, name, self.start.get(name)) for name, values in space.items()}
            trial.set_user_attr("values", values)
            yield trial, values

    def lost(self, held: ExitStack) -> optuna.trial.Trial | None:
        """The first trial of this folder that is under way in no process."""
        trial = library().trial
        for found in self.study.get_trials(deepcopy=False, states=(trial.TrialState.RUNNING,)):
            place, since = found.user_attrs.get("place"), found.datetime_start
            nameless = place is None and since is not None and datetime.now() - since > UNKNOWN
            if (place == self.place or nameless) and self.take(found.number, held):
                taken: optuna.trial.Trial = trial.Trial(self.study, found._trial_id)
                taken.set_user_attr("place", self.place)
                return taken
        return None

    def new(self, held: ExitStack) -> optuna.trial.Trial | None:
        """A trial that nobody has taken, where there are to be more."""
        states = library().trial.TrialState
        begun = [t for t in self.study.get_trials(deepcopy=False) if t.state != states.WAITING]
        if len(begun) >= self.trials:
            return None
        trial = self.study.ask()
        if trial.number >= self.trials:  # another machine took the last one just now
            self.study.tell(trial, state=states.FAIL)
            return None
        trial.set_user_attr("place", self.place)
        self.take(trial.number, held)
        return trial

    def take(self, number: int, held: ExitStack) -> bool:
        """Hold a trial against other processes of this folder, where none does."""
        with ExitStack() as stack:
            if not stack.enter_context(claimed(self.out / f".trial-{number:03d}.lock", wait=False)):
                return False
            held.enter_context(stack.pop_all())
        return True

    def found(self) -> list[Trial]:
        """All trials that were begun, as they stand."""
        states = library().trial.TrialState
        words: dict[Any, Outcome] = {
            states.COMPLETE: "complete",
            states.PRUNED: "pruned",
            states.FAIL: "failed",
            states.RUNNING: "running",
        }
        trials = []
        for t in self.study.get_trials(deepcopy=False, states=tuple(words)):
            noted, curve = t.user_attrs, sorted(t.intermediate_values.items())
            finite = [v for _, v in curve if math.isfinite(v)]
            if "values" not in noted:
                continue  # taken too many, or just now
            value = t.value if words[t.state] == "complete" else max(finite, default=None)
            best = noted.get("best", [value, None])
            trials.append(
                Trial(
                    t.number,
                    words[t.state],
                    value,
                    best[1],
                    noted["values"],
                    [(step, v) for step, v in curve if math.isfinite(v)],
                    noted.get("seconds"),
                    noted.get("why"),
                )
            )
        return trials

    def mine(self) -> set[int]:
        """The numbers of the trials of this folder."""
        trials = self.study.get_trials(deepcopy=False)
        return {t.number for t in trials if t.user_attrs.get("place") == self.place}

    def importance(self) -> dict[str, float]:
        """The share of each option in the differences between complete trials, the greatest first."""
        optuna = library()
        states = (optuna.trial.TrialState.COMPLETE,)
        done = self.study.get_trials(deepcopy=False, states=states)
        if len(done) < FEW or len({t.value for t in done}) < 2:
            return {}
        forest = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(self.study, evaluator=forest)
        return {name: round(float(share), 4) for name, share in shares.items()}


def opened(
    out: Path,
    storage: Any,
    name: str | None,
    options: Mapping[str, Any],
    *,
    start: Mapping[str, Any],
    seed: int,
    trials: int,
    pruner: PrunerName,
    iterations: int,
    resume: bool,
) -> Study:
    """The study in a storage: begun; or joined, where `resume` allows it and its options are these.

    Args:
        start: the values of the first trial.

    Raises:
        RunError: there is one and `resume` is not said, or it has other options, or `out` is no search's.
        UserError: the storage cannot be opened.
    """
    optuna = library()
    named = name or out.resolve().name
    with connecting():
        place = None if storage is None else storage_of(storage, out)
        if place is not None and not resume and named in optuna.get_all_study_names(place):
            raise RunError(
                f"a search named {named} is in the storage already: --resume shares its work, --study names "
                "another"
            )
    folder = folder_of(out, name, resume)
    with claimed(out / "turn.lock"), connecting():
        study = optuna.create_study(
            storage=storage_of(None, out) if place is None else place,
            study_name=folder["study"],
            direction="maximize",
            pruner=pruner_of(pruner, iterations),
            load_if_exists=True,
        )
        if "options" not in study.user_attrs:
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(dict(start))
            study.set_user_attr("options", dict(options))
    before = study.user_attrs["options"]
    for key, value in options.items():
        if before.get(key) != value:
            raise RunError(
                f"{out} was begun with {key}={before.get(key)}, not {value}: resume it with the same options "
                "(more --trials are allowed), or choose another --out"
            )
    return Study(study, out, folder["place"], seed, trials, start)


def folder_of(out: Path, name: str | None, resume: bool) -> dict[str, Any]:
    """What the search's folder says of itself; made where there is none."""
    folder = RunFolder(out)
    if folder.vacant:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {out}: {error.strerror or error}") from error
        named = name or out.resolve().name
        folder.write_json(FOLDER_FILE, {"study": named, "place": secrets.token_hex(8)})
    elif not resume:
        raise RunError(f"{out} exists already: choose another --out, or go on with it by --resume")
    elif not (out / FOLDER_FILE).is_file():
        raise RunError(f"{out} is not a search's folder: it has no {FOLDER_FILE}")
    found = folder.read_json(FOLDER_FILE)
    if name is not None and name != found["study"]:
        raise RunError(f"{out} is of the search {found['study']}, not {name}: choose another --out")
    return found


def storage_of(storage: Any, out: Path) -> Any:
    """optuna's storage: one that is given, a database by its URL, a file of optuna's journal by its path; by
    default an SQLite file in the search's folder."""
    storages = library().storages
    if storage is None:
        storage = f"sqlite:///{out.resolve() / DATABASE}"
    if not isinstance(storage, (str, Path)):
        return storage
    if "://" not in str(storage):
        from optuna.storages.journal import JournalFileBackend

        return storages.JournalStorage(JournalFileBackend(str(storage)))
    patient = {"connect_args": {"timeout": 60}} if str(storage).startswith("sqlite") else None
    return storages.RDBStorage(str(storage), engine_kwargs=patient)


def pruner_of(name: PrunerName, iterations: int) -> Any:
    """Which trials are ended early: those below the median of the others at the same meta-step, after a
    quarter of the run; or by successive halving, in brackets; or none."""
    pruners = library().pruners
    if name == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=iterations // 4)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, iterations // 9), max_resource=max(1, iterations))
    return pruners.NopPruner()
