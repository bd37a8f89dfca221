"""The learners that are served, by the names of their runs, and forms of them that were asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.app.estimators.in_use import in_use
from quickstudy.app.server.inside import shows
from quickstudy.app.server.limits import LIMITS
from quickstudy.app.server.tasks import UnseenTasks
from quickstudy.errors import DataError, UserError, unknown
from quickstudy.evaluation.floors import kept_control
from quickstudy.learners import Learner
from quickstudy.learners.descent import DescentLearner
from quickstudy.outer.run_folder import RunFolder

BESIDE = ("scratch", "pretrain-finetune")
"""The controls that answer from the same examples: trained on these alone, or pretrained and fine-tuned."""
FORMS = 16
"""Copies of learners, with other options than their own, that are kept."""


@dataclass(frozen=True)
class Model:
    """A run that is served.

    Args:
        name: of the run's folder, made different where two are alike.
        classifier: not fitted; its learner is the run's.
        unseen: tasks of its meta-test classes.
        controls: those of networks that were not meta-trained, to be seen beside it, by name.
    """

    name: str
    classifier: FewShotClassifier
    unseen: UnseenTasks
    controls: Mapping[str, FewShotClassifier]

    @property
    def learner(self) -> Learner:
        """The learner, at its best weights."""
        learner = self.classifier.learner
        assert learner is not None
        return learner

    def describe(self) -> dict[str, Any]:
        """What a client may want to know, as JSON."""
        config, learner, pictures = dict(self.classifier.config or {}), self.learner, self.classifier.pictures
        assert pictures is not None
        settings = config.get("settings", {})
        return {
            "name": self.name,
            "learner": config.get("learner"),
            "data": Path(str(config.get("data"))).name,
            "shape": list(pictures.shape),
            "polarity": pictures.polarity,
            "most_classes": config.get("way") if type(learner).fixed_way(settings) else None,
            "steps": learner.steps_in_use if isinstance(learner, DescentLearner) else None,
            "transductive": "batch" in learner.modes,
            "shows": shows(learner),
            "controls": list(self.controls),
        }


class Models:
    """The runs that are served.

    Args:
        runs: their folders.
        device: cpu, cuda …; by default a CUDA GPU where there is one.
        data_dir: where data lies, for tasks of it.
        classes: that a classifier may have.

    Raises:
        RunError: one of them is no run folder.
        DataError: one was not trained on pictures.
    """

    def __init__(
        self,
        runs: Sequence[str | Path],
        device: str | None = None,
        data_dir: Path | None = None,
        classes: int = LIMITS.classes,
    ) -> None:
        if not runs:
            raise UserError("no run is named: quickstudy serve runs/a")
        self.models: dict[str, Model] = {}
        self.forms: OrderedDict[tuple[str, int | None, bool], Learner] = OrderedDict()
        self.lock = threading.Lock()
        for path in runs:
            run = RunFolder.open(path)
            if len(run.config.get("pictures", {}).get("shape", "CHW")) != 3:
                raise DataError(f"{path} was not trained on pictures, which are what is served")
            classifier = FewShotClassifier.from_run(path, device=device)
            base = Path(path).resolve().name
            name, number = base, 2
            while name in self.models:
                name, number = f"{base}-{number}", number + 1
            controls = {}
            for control in BESIDE:
                found = kept_control(control, run, classes, device)
                if found is not None:
                    options = {**run.config, **found[1].json()}
                    controls[control] = FewShotClassifier.of_run(found[0], options)
            self.models[name] = Model(name, classifier, UnseenTasks(run, data_dir), controls)

    def __iter__(self) -> Any:
        return iter(self.models.values())

    def get(self, name: str | None) -> Model:
        """The run of this name; the first for None.

        Raises:
            UserError: there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise unknown("run", name, self.models)
        return self.models[name]

    def classifier(
        self, name: str | None, steps: int | None, transductive: bool, control: str | None = None
    ) -> FewShotClassifier:
        """A classifier to be fitted, of a run's learner in the form that is asked for, or of a control.

        Raises:
            UserError: steps of a learner that takes none, queries that look at each other where they
                cannot, or a control that is not there.
        """
        model = self.get(name)
        learner, own = model.learner, model.classifier
        if control is not None:
            if steps is not None or transductive:
                raise UserError(f"{control} is as it was tuned on meta-validation: it takes no options")
            if control not in model.controls:
                raise unknown("control", control, model.controls)
            return model.controls[control]
        key = (model.name, steps, transductive)
        with self.lock:
            form = self.forms.pop(key, None) or in_use(learner, steps, transductive)
            if form is not learner:  # one copy for all who ask for it
                self.forms[key] = form
            while len(self.forms) > FORMS:
                self.forms.popitem(last=False)
        return FewShotClassifier(
            form, steps=steps, transductive=transductive, pictures=own.pictures, config=own.config
        )
