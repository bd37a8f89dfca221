"""`MetaTrainer`: meta-training, the outer side, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from quickstudy.app.estimators.classifier import FewShotClassifier
from quickstudy.data import ClassDataset, from_arrays
from quickstudy.errors import UserError
from quickstudy.evaluation.evaluate import SEED, evaluate
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.progress import Bar
from quickstudy.outer.session import train
from quickstudy.tasks import tasks


class MetaTrainer(BaseEstimator):
    """Meta-trains a learner on many classes, so that it learns new ones from a handful of examples.

    The same as `quickstudy train`: the classes are divided into meta-train, meta-validation and meta-test
    ones, and the weights that are best on meta-validation are kept.

    Args:
        learner: its name: protonet, maml … (`quickstudy train --help` has them all).
        way: classes of the tasks to be solved.
        shot: examples of each class that they give.
        iterations: meta-steps.
        channels: filters a block of the net.
        seed: of initial weights and all tasks.
        out: the run folder to make, or to go on with; None keeps nothing on disk.
        options: any further option of `TrainConfig`, and of the learner, by name.
        progress: whether a bar, and a line a validation, is shown on standard error, while it trains and
            while it scores.

    Attributes:
        learner_: the learner, at its best weights.
        history_: how training went.
        config_: every option that was used.

    Example:
        >>> import quickstudy as qs
        >>> drawings = qs.data.glyphs(classes=30, samples_per_class=4)
        >>> trainer = MetaTrainer("protonet", way=3, iterations=2, channels=4, options={"query": 2})
        >>> classifier = trainer.fit(drawings).classifier()
        >>> unseen = qs.data.glyphs(classes=33, samples_per_class=4).subset([30, 31, 32])
        >>> classifier.fit(unseen.x[::2], [0, 0, 1, 1, 2, 2]).predict(unseen.x[1::2]).shape
        (6,)
    """

    def __init__(
        self,
        learner: str = "protonet",
        *,
        way: int = 5,
        shot: int = 1,
        iterations: int = 3000,
        channels: int = 64,
        seed: int = 0,
        out: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> None:
        self.learner = learner
        self.way = way
        self.shot = shot
        self.iterations = iterations
        self.channels = channels
        self.seed = seed
        self.out = out
        self.options = options
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:
        """Meta-train.

        Args:
            X: a `ClassDataset`; or the name of a built-in data set, or a folder with one folder of pictures
                a class; or examples, as `from_arrays` takes them, with
            y: their classes.

        Raises:
            UserError: an option, or data, that cannot be trained with; the message names it.
        """
        data = self._data(X, y)
        named = data if isinstance(data, str) else data.name
        known = {f.name for f in fields(TrainConfig)} - {"settings"}
        options = dict(self.options or {})
        settings = {name: options.pop(name) for name in list(options) if name not in known}
        own = ("learner", "way", "shot", "iterations", "channels", "seed")
        if twice := [name for name in (*own, "data") if name in options]:
            raise UserError(f"{twice[0]} is given by itself, not among the options")
        config = TrainConfig(
            data=named, **{name: getattr(self, name) for name in own}, **options, settings=settings
        )
        given = None if isinstance(data, str) else data
        bar = Bar(f"{self.learner} on {named}") if self.progress else None
        with self._place() as out:
            self.history_ = train(config, out, data=given, resume=True, progress=bar)
            self.learner_, self.config_, run = load_run(out, config.data_dir, config.device)
            self._run_config = run.config
        return self

    def classifier(self) -> FewShotClassifier:
        """A classifier that adapts the learner to new classes; it is to be fitted to their examples."""
        check_is_fitted(self)
        return FewShotClassifier.of_run(self.learner_, self._run_config)

    def score(self, X: Any, y: Any = None, *, n_tasks: int = 200) -> float:
        """The mean accuracy on tasks drawn from classes that were not trained on.

        Args:
            X: a `ClassDataset`, or examples with their classes y; pictures of the size trained on.
            n_tasks: how many.
        """
        check_is_fitted(self)
        data = self._data(X, y)
        if isinstance(data, str):
            raise UserError(f"score takes a ClassDataset of unseen classes, or arrays, not a name: {data}")
        source = tasks(data, way=self.way, shot=self.shot, seed=SEED)
        accuracy = evaluate(self.learner_, source, n_tasks=n_tasks, progress=self.progress).accuracy
        assert accuracy is not None  # classes, not values
        return accuracy

    @staticmethod
    def _data(X: Any, y: Any) -> ClassDataset | str:
        if isinstance(X, (ClassDataset, str, Path)):
            if y is not None:
                raise UserError("y is for examples in an array; a data set has its classes already")
            return X if isinstance(X, ClassDataset) else str(X)
        if y is None:
            raise UserError("examples in an array need their classes: fit(X, y); or give a ClassDataset")
        return from_arrays(X, y)

    @contextmanager
    def _place(self) -> Iterator[Path]:
        if self.out is not None:
            yield Path(self.out)
            return
        with TemporaryDirectory(prefix="quickstudy-") as folder:
            yield Path(folder) / "run"
