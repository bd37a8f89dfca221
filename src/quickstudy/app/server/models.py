"""The learners that are served, by the names of their runs, and forms of them that were asked for."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.errors import DataError, UserError, unknown
from quickstudy.learners import EmbeddingLearner, Learner
from quickstudy.learners.descent import DescentLearner

FORMS = 16
"""Copies of learners, with other options than their own, that are kept."""


@dataclass(frozen=True)
class Model:
    """A run that is served.

    Args:
        name: of the run's folder, made different where two are alike.
        classifier: not fitted; its learner is the run's.
    """

    name: str
    classifier: FewShotClassifier

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
        descends = isinstance(learner, DescentLearner)
        settings = config.get("settings", {})
        return {
            "name": self.name,
            "learner": config.get("learner"),
            "data": Path(str(config.get("data"))).name,
            "shape": list(pictures.shape),
            "polarity": pictures.polarity,
            "most_classes": config.get("way") if type(learner).fixed_way(settings) else None,
            "steps": learner.steps if isinstance(learner, DescentLearner) else None,
            "transductive": "batch" in learner.modes,
            "shows": "steps" if descends else "map" if isinstance(learner, EmbeddingLearner) else None,
        }


class Models:
    """The runs that are served.

    Args:
        runs: their folders.
        device: cpu, cuda …; by default a CUDA GPU where there is one.

    Raises:
        RunError: one of them is no run folder.
        DataError: one was not trained on pictures.
    """

    def __init__(self, runs: Sequence[str | Path], device: str | None = None) -> None:
        if not runs:
            raise UserError("no run is named: quickstudy serve runs/a")
        self.models: dict[str, Model] = {}
        self.forms: OrderedDict[tuple[str, int | None, bool], Learner] = OrderedDict()
        self.lock = threading.Lock()
        for path in runs:
            classifier = FewShotClassifier.from_run(path, device=device)
            if classifier.pictures is None:
                raise DataError(f"{path} was not trained on pictures, which are what is served")
            base = Path(path).resolve().name
            name, number = base, 2
            while name in self.models:
                name, number = f"{base}-{number}", number + 1
            self.models[name] = Model(name, classifier)

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

    def classifier(self, name: str | None, steps: int | None, transductive: bool) -> FewShotClassifier:
        """A classifier to be fitted, of a run's learner in the form that is asked for.

        Raises:
            UserError: steps of a learner that takes none, or queries that look at each other where they
                cannot.
        """
        model = self.get(name)
        learner = model.learner
        if steps is not None and not isinstance(learner, DescentLearner):
            raise UserError(f"{model.name} takes no inner steps")
        if transductive and "batch" not in learner.modes:
            raise UserError(f"{model.name} cannot be transductive: its net has no batch normalisation")
        key = (model.name, steps, transductive)
        with self.lock:
            found = self.forms.pop(key, None)
            if found is None and (steps is not None or transductive):
                found = copy.deepcopy(learner)
                if isinstance(found, DescentLearner) and steps is not None:
                    found.test_steps = steps
                if transductive:
                    found.statistics = "batch"
            if found is not None:
                self.forms[key] = found
            while len(self.forms) > FORMS:
                self.forms.popitem(last=False)
        own = model.classifier
        return FewShotClassifier(found or learner, pictures=own.pictures, config=own.config)
