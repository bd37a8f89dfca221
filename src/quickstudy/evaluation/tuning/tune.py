"""Search over a run's options: each trial is a run of `train`, judged by its accuracy on meta-validation; of
functions by its log-likelihood or error."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from quickstudy.data import ClassDataset, Splits
from quickstudy.errors import DataError, NonFiniteError, RunError, UserError, in_brief
from quickstudy.evaluation.tuning.space import Space, adjusted, space_of, start_of, usual_space
from quickstudy.evaluation.tuning.study import PrunerName, Study, library, opened, quietly
from quickstudy.evaluation.tuning.trials import Judged, Trial, Tuned
from quickstudy.learners import learner_class
from quickstudy.options import at_least_one
from quickstudy.outer.checkpoint import History
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.measure import worth
from quickstudy.outer.progress import Progress
from quickstudy.outer.session import fingerprints, train
from quickstudy.tasks.families import FunctionParts

Show = Callable[[int, dict[str, Any]], Progress | None]


def tune(
    config: TrainConfig,
    out: str | Path,
    space: Mapping[str, Any] | None = None,
    *,
    trials: int = 20,
    storage: Any = None,
    study: str | None = None,
    pruner: PrunerName = "median",
    data: ClassDataset | None = None,
    resume: bool = False,
    show: Show = lambda number, values: None,
    told: Callable[[Trial, Tuned], None] = lambda trial, found: None,
    say: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Train with one set of options after another, each chosen by how the others did on meta-validation.

    Every trial has the same seed, meta-training tasks and meta-validation tasks; meta-test classes are not
    looked at. The first trial is `config` as it is, so that a search never ends below it; but where one of
    its values is outside of what is searched, which `say` is told. The folder keeps the best trial's run, and
    of the others the curves.

    Args:
        config: the run; what is searched are its first values.
        out: the folder of the search.
        space: by option a range `(low, high)` or choices `[a, b, …]`, of the learner's options or `outer_lr`,
            `meta_batch`, `optimizer`, `schedule`, `clip`, `channels` …; by default `usual_space(config)`.
        trials: how many there are to be in all, whoever runs them.
        storage: where trials are recorded: the URL of a database or the path of a journal file, which many
            processes and machines can share, or a storage of optuna's; by default an SQLite file in `out`.
        study: the search's name in the storage, by default that of `out`.
        pruner: which trials end early: those below the "median" of the others at the same meta-step; by
            "hyperband"; or "none".
        data: what to train on, instead of what is found by the name `config.data`.
        resume: go on with the search in `out`, or share its work with other processes; begin where there is
            none. A trial whose process was killed goes on from its checkpoint.
        show: a display of a trial's training, from its number and values.
        told: called with each trial that ended, and what was found until then.
        say: called with a line about the tasks before training begins.

    Raises:
        RunError: `out` exists without `resume`, or holds a search with other options or on other data.
        UserError: optuna is not installed, an option that cannot be searched, or no trial came to its end.

    Example:
        >>> config = TrainConfig(data="omniglot", iterations=500)
        >>> found = tune(config, "runs/search", {"inner_lr": (0.01, 1.0), "steps": (1, 5)})  # doctest: +SKIP
        >>> found.best.value, found.config, found.importance  # doctest: +SKIP
    """
    library()
    at_least_one(trials=trials)
    if learner_class(config.learner).trains_on == "nothing" or config.iterations < 1:
        raise UserError(
            f"{config.learner} is not meta-trained for a single step: there is nothing to judge trials by"
        )
    searched = usual_space(config) if space is None else space_of(config, space)
    if not searched:
        raise UserError("nothing is searched: name an option and its values")
    start, judged = start_of(searched, config), judged_by(config)
    if outside := [name for name in searched if name not in start]:
        given = {**config.json(), **config.settings}
        told_of = ", ".join(f"{name} {given[name]}" for name in outside)
        say(f"not among what is searched: {told_of}; the first trial draws it")
    if not config.functions:
        data = config.loaded() if data is None else data
    splits = config.parts(data)
    for part in (splits.val, splits.test):  # mistakes are told before the folder is made
        config.problem(part)
    if isinstance(splits, Splits):
        config.training_tasks(splits.train)
    options = {**config.json(), "pruner": pruner, "splits": fingerprints(splits)}
    settings = {**options.pop("settings"), **options}
    settings["search"] = {name: str(values) for name, values in searched.items()}
    with quietly():
        search = opened(
            Path(out),
            storage,
            study,
            settings,
            start=start,
            seed=config.seed,
            trials=trials,
            pruner=pruner,
            iterations=config.iterations,
            resume=resume,
        )
        while True:
            with search.next(searched) as taken:
                if taken is None:
                    break
                trial, values = taken
                run_trial(search, trial, adjusted(config, values), data, show(trial.number, values), say)
                found = so_far(search, config, searched, judged)
                found.write()
                tidy(search, found)
                told(next(t for t in found.trials if t.number == trial.number), found)
                say = silent
        found = so_far(search, config, searched, judged, importance=True)
    found.write()
    if not found.ranked:
        why = next((t.why for t in found.trials if t.why), "others are still under way")
        raise UserError(f"no trial came to its end: {why}")
    return found


def silent(text: str) -> None:
    """Say nothing."""


def run_trial(
    search: Study,
    trial: Any,
    config: TrainConfig,
    data: ClassDataset | None,
    progress: Progress | None,
    say: Callable[[str], None],
) -> None:
    """Train as one trial says, and tell the study how it ended.

    What the user has to mend ends the search, and a next one goes on with the trial: a disk that is full,
    data that changed. What these values alone brought about ends the trial.
    """
    study, states = search.study, library().trial.TrialState
    out = search.out / Trial(trial.number, "running", None, None, {}).name
    reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(record: Mapping[str, Any]) -> None:
        value = worth({k[4:]: v for k, v in record.items() if k.startswith("val_") and v is not None})
        if record["iteration"] not in reported:
            trial.report(value, record["iteration"])
            reported.add(record["iteration"])

    def behind(record: dict[str, Any]) -> bool:
        report(record)
        pruned = bool(trial.should_prune()) and record["iteration"] < config.iterations
        if pruned:
            trial.set_user_attr("pruned", True)
        return pruned

    try:
        history = train(config, out, data=data, resume=True, progress=progress, stop=behind, say=say)
    except NonFiniteError as error:  # values to keep away from: to the sampler the worst of all
        trial.set_user_attr("why", in_brief(error))
        study.tell(trial, state=states.PRUNED)
        return
    except UserError as error:
        if isinstance(error, (RunError, DataError)):
            raise
        trial.set_user_attr("why", in_brief(error))
        study.tell(trial, state=states.FAIL)
        return
    for record in history.records:  # those before it was killed, which may not all have been told
        report(record)
    note(trial, history)
    if "pruned" in trial.user_attrs:
        study.tell(trial, state=states.PRUNED)
    elif history.best is None or not math.isfinite(history.best):
        trial.set_user_attr("why", "no validation came to a number")
        study.tell(trial, state=states.FAIL)
    else:
        study.tell(trial, history.best)


def note(trial: Any, history: History) -> None:
    """Keep how a trial's run went, beside its values."""
    trial.set_user_attr("seconds", round(history.seconds, 1))
    best = next((r for r in history.records if r["iteration"] == history.best_iteration), {})
    trial.set_user_attr("best", [history.best, best.get("val_accuracy_ci95")])


def judged_by(config: TrainConfig) -> Judged:
    """What a run of these options is judged by on meta-validation, as `worth` has it."""
    if not config.functions:
        return "accuracy"
    with torch.no_grad():
        task = config.problem(FunctionParts.of(config.data).val).task(0)
        metrics = config.make_learner((1,), 1).cpu().judge(task).metrics
    return "log-likelihood" if "log_likelihood" in metrics else "mean squared error"


def so_far(
    search: Study, config: TrainConfig, space: Space, judged: Judged, *, importance: bool = False
) -> Tuned:
    """What was found until now."""
    shares = search.importance() if importance else {}
    return Tuned(config, space, search.out, search.found(), shares, judged)


def tidy(search: Study, found: Tuned) -> None:
    """Of this folder's runs that came to an end keep the best: weights of the others are of no use."""
    mine = search.mine()
    best = next((t for t in found.ranked if t.number in mine), None)
    for t in found.trials:
        if t.number in mine and t.outcome != "running" and t != best:
            shutil.rmtree(search.out / t.name, ignore_errors=True)
            (search.out / f".{t.name}.lock").unlink(missing_ok=True)
