"""A meta-trained learner behind scikit-learn's interface: to fit is to adapt to a handful of examples."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor

from quickstudy.app.estimators.exporting import export
from quickstudy.app.estimators.in_use import in_use
from quickstudy.app.estimators.saving import load, save
from quickstudy.data.pictures import Pictures, inverted, others
from quickstudy.data.polarity import Polarity
from quickstudy.errors import RunError, UserError
from quickstudy.learners import Learner, Predictor
from quickstudy.outer.load_run import load_run
from quickstudy.tasks import Support
from quickstudy.tasks.families import FAMILIES
from quickstudy.tasks.task import as_input

AT_ONCE = 256
"""Examples that go through the net together, where a prediction does not depend on the others."""


class FewShotEstimator(ABC, BaseEstimator):
    """What `FewShotClassifier` and `FewShotRegressor` share: how examples are read, kept and adapted to.

    A fitted estimator holds the examples it has seen and the predictor made of them; a pickled or copied one
    holds the examples, and adapts to them again when it is asked.

    Args:
        learner, steps, transductive, pictures, polarity, config: as of `FewShotClassifier`.
    """

    of_functions: ClassVar[bool]
    """Whether it is for runs that learned functions, not classes."""
    _form: tuple[int | None, bool]
    """The steps, and whether transductive, of when it was fitted."""
    _learner: Learner
    _x: Tensor
    _unlabelled: Tensor | None
    _y: np.ndarray

    def __init__(
        self,
        learner: Learner | None = None,
        *,
        steps: int | None = None,
        transductive: bool = False,
        pictures: Pictures | None = None,
        polarity: Polarity | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.learner = learner
        self.steps = steps
        self.transductive = transductive
        self.pictures = pictures
        self.polarity = polarity
        self.config = config

    @classmethod
    def from_run(cls, path: str | Path, *, device: str | None = None, **options: Any) -> Self:
        """An estimator with the learner of a run folder, at its best weights.

        Args:
            device: cpu, cuda, cuda:1 …; by default a CUDA GPU where there is one.
            options: steps, transductive and polarity, as of the class.

        Raises:
            RunError: it is not a run folder, or it is damaged, or the run learned functions where this is of
                classes, or the reverse.
        """
        learner, _, run = load_run(path, device=device)
        if not run.finished:
            warnings.warn(f"{path} has not come to its end: this is its best so far", stacklevel=2)
        return cls.of_run(learner, run.config, **options)

    @classmethod
    def of_run(cls, learner: Learner, config: Mapping[str, Any], **options: Any) -> Self:
        """An estimator with a learner that was trained by these options, a run's config.json."""
        if (config["data"] in FAMILIES) != cls.of_functions:
            what, other = ("classes", "Classifier") if cls.of_functions else ("functions", "Regressor")
            raise RunError(f"this run learned {what}, of {config['data']}: FewShot{other} takes it")
        facts = config["pictures"]
        pictures = Pictures(facts["shape"], facts["polarity"]) if len(facts["shape"]) == 3 else None
        return cls(learner, pictures=pictures, config=config, **options)

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator as one file: weights and examples as safetensors, the rest as JSON.

        Whoever has the file and quickstudy can predict; neither the run nor its data are needed.

        Raises:
            NotFittedError: it is not fitted.
            UserError: labels that are neither numbers nor text.
            RunError: the place cannot be written to.
        """
        save(self, path)

    @classmethod
    def load(cls, path: str | Path, *, learner: Learner | None = None, device: str | None = None) -> Self:
        """The fitted estimator in a file that `save` wrote; it answers as before.

        Args:
            learner: where it was not of a run: one made as before; it is given the weights in the file.
            device: cpu, cuda, cuda:1 …; by default a CUDA GPU where there is one.

        Raises:
            RunError: the file is damaged, or holds something else.
        """
        found: Self = load(cls, path, learner, device)
        return found

    def export(self, path: str | Path) -> None:
        """Write the fitted predictor as an ONNX file, which needs neither quickstudy nor torch to run.

        Its input "examples" `[n, …]`, n being any number, is of what the estimator was fitted to: plain
        numbers, or pictures of the learner's size as fractions from 0 to 1, with black and white as in the
        examples fitted. Its output is "probabilities" `[n, N]`, of the classes that its metadata name; or of
        a regressor "values", or "mean_and_log_std".

        Raises:
            UserError: onnx is not installed, or a prediction depends on the other queries.
        """
        export(self, path)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """In a line: a learner's net, and a run's options, would fill pages."""
        pictures, learner = self.pictures, self.learner
        words = [type(learner).__name__ if isinstance(learner, Learner) else repr(learner)]
        words += [] if pictures is None else [f"pictures={'×'.join(map(str, pictures.shape))}"]
        words += [f"{name}={getattr(self, name)!r}" for name in ("steps", "polarity") if getattr(self, name)]
        words += ["transductive=True"] if self.transductive else []
        return f"{type(self).__name__}({', '.join(words)})"[:N_CHAR_MAX]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        # A function, which cannot be pickled, and what is made of the learner.
        return {k: v for k, v in state.items() if k not in ("_predictor", "_learner")}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_x")

    @property
    def predictor_(self) -> Predictor:
        """What the learner made of the examples."""
        check_is_fitted(self)
        if not hasattr(self, "_predictor"):
            self._predictor = self._adapted()
        return self._predictor

    @property
    def learner_(self) -> Learner:
        """The learner as it is used: a copy, where it is with other steps than its own, or transductive."""
        check_is_fitted(self)
        if not hasattr(self, "_learner"):
            self._predictor = self._adapted()
        return self._learner

    @property
    def support_(self) -> Support:
        """The examples as the learner takes them."""
        check_is_fitted(self)
        return Support(self._x, self._targets(), unlabelled=self._unlabelled)

    @abstractmethod
    def _targets(self) -> Tensor:
        """What the learner is told of the examples: labels from 0, or real targets."""

    def _adapted(self) -> Predictor:
        assert self.learner is not None
        self._learner = in_use(self.learner, *self._form)
        return self._learner.adapt(self.support_)

    def _fit(self, X: Any, y: Any, unlabelled: Any, *, more: bool) -> Any:
        """Keep examples, and those of before if these are `more`; their labels, or values, checked."""
        if not isinstance(self.learner, Learner):
            kind = type(self).__name__
            raise UserError(
                f"{kind} needs a meta-trained learner, not {type(self.learner).__name__}: "
                f"{kind}.from_run('runs/a'), or {kind}(learner)"
            )
        more = more and self.__sklearn_is_fitted__()
        if y is None:
            raise UserError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None."
            )
        x = self._read(X, reset=not more)
        y = check_array(y, dtype=None, ensure_2d=False, input_name="y", estimator=self)
        y = y if self.of_functions else column_or_1d(y, warn=True)
        check_consistent_length(x, y)
        if unlabelled is not None:
            if not self.learner.uses_unlabelled:
                raise UserError(f"{type(self.learner).__name__} learns from labelled examples only")
            unlabelled = self._read(unlabelled, reset=False)
        if more and y.shape[1:] != self._y.shape[1:]:
            raise UserError(f"targets of shape {y.shape[1:]}, where those before had {self._y.shape[1:]}")
        if more:
            x, y = torch.cat([self._x, x]), np.concatenate([self._y, y])
            parts = [u for u in (self._unlabelled, unlabelled) if u is not None]
            unlabelled = torch.cat(parts) if parts else None
        self._x, self._unlabelled, self._form = x, unlabelled, (self.steps, self.transductive)
        self.__dict__.pop("_predictor", None)
        return y

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """Where this block fails, the estimator is as it was before: what was fitted is not lost."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _read(self, X: Any, *, reset: bool) -> Tensor:
        """Examples as the learner takes them, floats `[n, …]`; those that are fitted say what black is."""
        if self.pictures is None:
            return as_input(validate_data(self, X, reset=reset, allow_nd=True))
        if getattr(X, "ndim", None) == 2:  # rows, whose features may have names
            validate_data(self, X, reset=reset, skip_check_array=True)
        if reset:
            self._white = self.pictures.white(X)
        x = self.pictures.of(X, self._white)
        if reset and not len(x):
            raise UserError("no examples: one picture is the least to adapt to")
        if reset:
            self._inverted = bool(self.pictures.inverts(x, self.polarity))
        return as_input(inverted(x) if self._inverted else x)

    def _answers(self, X: Any, ask: Any) -> np.ndarray:
        """What the predictor says of examples, by `ask`, float64 `[n, …]`."""
        predictor = self.predictor_
        x = self._read(X, reset=False)
        if (
            self.pictures is not None
            and self.polarity is None
            and (odd := others(x.numpy(), self._x.numpy()))
        ):
            which = "all" if len(odd) == len(x) else f"{len(odd)} of {len(x)}"
            warnings.warn(
                f"{which} pictures are of another polarity than those fitted, dark on light or the reverse, "
                "and may be misread",
                stacklevel=4,
            )
        with torch.no_grad():
            parts = x.split(max(1, len(x)) if predictor.transductive else AT_ONCE)
            return torch.cat([ask(predictor, part) for part in parts]).cpu().double().numpy()
