"""`Learner`: a meta-learning method, written for one task.

A learner and its predictors may be shared between threads: a net has one set of weights at a time, so that
adapting and predicting wait for each other. Meta-training, and whoever sets a learner's options, needs it to
itself; so do learners that share a net.
"""

from __future__ import annotations

import copy
import inspect
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import DataError, UserError, unknown
from quickstudy.inner.choice import Strategy
from quickstudy.inner.functional import with_weights
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Params
from quickstudy.learners.calling import explained
from quickstudy.learners.predictor import Predictor
from quickstudy.learners.support import checked, copied, shuffled
from quickstudy.learners.targets import log_likelihood, task_loss
from quickstudy.nets.norm import BatchNorm, Moments, Norm, Statistics
from quickstudy.tasks.augment import AugmentName
from quickstudy.tasks.task import Query, Support, Task, as_input

TrainsOn = Literal["tasks", "batches", "nothing"]
OptimizerName = Literal["adam", "adamw", "sgd", "adam-hd", "sgd-hd"]
ScheduleName = Literal["constant", "linear", "cosine", "halving"]


@dataclass(frozen=True)
class Outer:
    """How a learner is usually meta-trained; every value can be overridden.

    Args:
        optimizer: a torch optimiser's name: adam, adamw or sgd; or adam-hd or sgd-hd, which adapt their rate.
        outer_lr: its rate.
        schedule: constant, linear (to zero), cosine (to zero) or halving (every fifth of the run).
        meta_batch: tasks a meta-step.
        clip: the largest norm of the meta-gradient; None is any.
        train_way: classes of a meta-training task; None trains on the way to be solved.
        train_query: query examples a class in meta-training; None is the default number.
        unlabelled: further examples of each class that it is given, without labels.
        strategy: how tasks are mapped: loop, threads, vmap, compile, or auto, the fastest of them by a rule.
        augment: how pictures of meta-training are distorted, a name of `tasks.AUGMENTATIONS`, or none. Of a
            run; who calls `meta_train` gives it distorted tasks, `tasks.Augmented(source, "drawing")`.
        norm: how a body normalises. Of a run, as `augment`; who makes a body says how.
    """

    optimizer: OptimizerName = "adam"
    outer_lr: float = 1e-3
    schedule: ScheduleName = "constant"
    meta_batch: int = 16
    clip: float | None = None
    train_way: int | None = None
    train_query: int | None = None
    unlabelled: int = 0
    strategy: Strategy = "auto"
    augment: AugmentName = "none"
    norm: Norm = "support"


class _Turn:
    """A learner's lock: functional_call and `in_use` change the live modules for a while. A deep copy of a
    learner, whose modules are its own, gets a lock of its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple[type[_Turn], tuple[()]]:
        return _Turn, ()


class Learner(nn.Module, ABC):
    """A meta-learning method. A subclass says how it learns from a support set, in `learn`.

    Keyword arguments of a subclass's `__init__` are its options: they are its command-line flags and are
    saved with a run, so each is kept as an attribute of the same name.
    """

    trains_on: ClassVar[TrainsOn] = "tasks"
    outer: ClassVar[Outer] = Outer()
    needs_every_class: ClassVar[bool] = False
    """Whether a class without support examples cannot be answered, as where it has no prototype."""
    compares_maps: ClassVar[bool] = False
    """Whether it looks at feature maps, so that a body had better leave some (`conv4(halvings=2)`)."""
    uses_unlabelled: ClassVar[bool] = False
    """Whether it learns from a support set's unlabelled examples too."""
    for_functions: ClassVar[Mapping[str, Any]] = {}
    """Its options' usual values where it learns functions, for those that differ from classes."""
    steers: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that it moves itself, in `after_step`, by their meta-gradients."""
    statistics: Statistics | None = None

    def __init__(self) -> None:
        super().__init__()
        self._turn = _Turn()

    @abstractmethod
    def learn(self, support: Support) -> Predictor:
        """The inner learning, for one task."""

    def adapt(self, x: object, y: object = None) -> Predictor:
        """Learn a new task; the learner stays as it is, and the predictor keeps no tensor of the caller's.

        Args:
            x: examples `[n, …]` (tensor, array or list, of any type of number), or a `Support`, whose padding
                is taken out.
            y: their labels `[n]`, whole numbers from 0, or real targets.

        Returns:
            A predictor whose answers are on the learner's device.

        Raises:
            DataError: what cannot be learned from: see `Support.of`.
            UserError: labels beside a `Support`, or a net that fails.

        >>> from quickstudy.nets import conv4
        >>> from quickstudy.learners.protonet import ProtoNet
        >>> x, y = torch.rand(4, 1, 28, 28), torch.tensor([0, 0, 1, 1])
        >>> ProtoNet(conv4(8)).adapt(x, y)(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 2])
        """
        if isinstance(x, Support):
            if y is not None:
                raise UserError("a Support holds its labels already: adapt(support)")
            support = checked(x, self.needs_every_class)
        elif y is None:
            raise UserError("adapt needs labels beside the examples: adapt(x, y)")
        else:
            support = Support.of(x, y)
        if support.x.ndim == 4 and support.x.min() >= 0 and support.x.max() > 2:
            warnings.warn(
                f"pictures with values up to {support.x.max():.4g}, where floats are fractions, 0 to 1: give "
                "uint8, or divide by 255",
                stacklevel=2,
            )
        like = next(self.parameters(), as_input(support.x))
        device, dtype, shape = like.device, like.dtype, support.x.shape[1:]  # the learner's, as it is now
        fractions = bool(support.x.ndim == 4 and support.x.min() >= 0 and support.x.max() <= 1)
        support = copied(shuffled(support) if self.reads_in_order else support, device, dtype)
        with explained(shape), self.in_use(), torch.no_grad():
            predictor = self.learn(support)

        def predict(x: Tensor) -> Tensor:
            if x.shape[1:] != shape:
                raise DataError(
                    f"inputs of shape {tuple(x.shape)}, but this predictor learned from examples of shape "
                    f"{tuple(shape)}: give [q, {', '.join(map(str, shape))}]"
                )
            if not torch.isfinite(x).all():
                raise DataError("inputs: an example holds NaN or infinity")
            if fractions and len(x) and x.max() > 2:
                raise DataError(
                    f"inputs: values up to {x.max():.4g}, but the examples it learned from are fractions, "
                    "0 to 1: give uint8, or divide by 255"
                )
            with self.in_use():
                return predictor.function(x.to(device, dtype))

        return replace(predictor, function=predict, bare=predictor.function)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within this block every module is in evaluation mode (running averages, no dropout), and no other
        thread adapts this learner or predicts with it."""
        with self._turn.lock:
            training = [module for module in self.modules() if module.training]
            try:
                for module in training:
                    module.training = False
                yield
            finally:
                for module in training:
                    module.training = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with a lock of its own, made while no other thread uses this learner: its modules hold a
        task's weights meanwhile."""
        with self._turn.lock:
            found = type(self).__new__(type(self))
            memo[id(self)] = found
            found.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
            return found

    @property
    def reads_in_order(self) -> bool:
        """Whether the order of a support set matters."""
        return False

    @classmethod
    def fixed_way(cls, settings: Mapping[str, Any]) -> bool:
        """Whether it answers no more ways than it is made for, with these options."""
        return "way" in inspect.signature(cls).parameters

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """What answers `[q, …]` cost: cross-entropy for labels, the mean squared error for targets."""
        return task_loss(output, y)

    def judge(self, task: Task) -> Outcome:
        """Adapt on the support set; what the answers to the query set are worth."""
        return self.judged(self.learn(task.support), task.query)

    def judged(self, predictor: Predictor, query: Query) -> Outcome:
        """What a predictor's answers to a query set are worth, by `scored`."""
        found = self.scored(predictor(query.x), query.y, predictor.spread)
        return replace(found, stats=self.stats(predictor.moments))

    def scored(self, output: Tensor, y: Tensor, spread: bool = False) -> Outcome:
        """Loss and metrics of answers `[q, …]`: accuracy where they are to classes.

        With `spread` they are means and log standard deviations: the loss is minus the log-likelihood, and
        the metrics are the mean's squared error as "loss", and "log_likelihood", in nats a point.
        """
        if spread:
            nats = log_likelihood(output, y)
            error = F.mse_loss(output.chunk(2, -1)[0], y)
            return Outcome(-nats, {"loss": error, "log_likelihood": nats}, outputs=output)
        loss = self.loss(output, y)
        metrics = {"loss": loss}
        if not y.is_floating_point():
            metrics["accuracy"] = (output.argmax(-1) == y).to(output.dtype).mean()
        return Outcome(loss, metrics, outputs=output)

    def forward(self, task: Task) -> Outcome:
        """The outer objective of one task: by default what it is judged by."""
        return self.judge(task)

    def prepare(self, batch: Task, generator: torch.Generator) -> Task:
        """Draw all chance a batch of tasks needs (into `extra`) before it is mapped over."""
        return batch

    def after_step(self, stats: Mapping[str, Tensor], gradient: Params, progress: float) -> None:
        """What changes between meta-steps besides ω: here the running averages of `BatchNorm`.

        Raises:
            UserError: they are what queries are normalised by, and no layer's moments were handed on.
        """
        layers = self.norms()
        noted = [name for name in layers if f"{name}.mean" in stats]
        if self.statistics == "running" and layers and not noted:
            raise UserError(
                f"{type(self).__name__} normalises by running averages, but hands on no moments to average: "
                "return Predictor(…, moments=moments) from learn"
            )
        with torch.no_grad():
            for name in noted:
                layers[name].average(stats[f"{name}.mean"], stats[f"{name}.var"])

    def candidates(self) -> list[dict[str, Any]]:
        """Values of adaptation options to choose among on meta-validation; empty where there are none."""
        return []

    @property
    def modes(self) -> list[Statistics]:
        """The normalisation modes that can be evaluated; empty for nets without batch normalisation.

        A learner that is never trained, or whose averages never moved, has none to normalise by.
        """
        layers = self.norms()
        if not layers:
            return []
        averaged = self.statistics == "running" or any(layer.averaged for layer in layers.values())
        running = averaged and self.trains_on != "nothing"
        return ["support", "running", "batch"] if running else ["support", "batch"]

    def outer_parameters(self) -> Params:
        """What the meta-optimiser moves: all that is trainable but for what the learner `steers` itself."""
        return {k: p for k, p in self.named_parameters() if p.requires_grad and k not in self.steers}

    def norms(self) -> dict[str, BatchNorm]:
        """The batch normalisation layers, by name."""
        return {name: m for name, m in self.named_modules() if isinstance(m, BatchNorm)}

    @property
    def transductive(self) -> bool:
        """Whether predictions depend on the other queries of the same call."""
        return bool(self.norms()) and self.statistics == "batch"

    # -- how a net is called: explicit weights, explicit statistics -------------------------------------

    def accept(self, body: nn.Module) -> nn.Module:
        """Take a body: note how it normalises, refuse what cannot run inside an inner loop."""
        for name, module in body.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise UserError(
                    f"layer {name!r} is torch's batch normalisation, which does not say whose statistics it "
                    "uses and writes running averages: call quickstudy.nets.convert_batch_norm(net) first"
                )
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
                raise UserError(
                    f"layer {name!r} writes running averages while it computes: make it with "
                    "track_running_stats=False"
                )
            if any(map(nn.parameter.is_lazy, module.parameters(recurse=False))):
                raise UserError(f"layer {name!r} has no weights yet: call the net with an example first")
        norm: Any = getattr(body, "norm", None)
        if isinstance(norm, str) and norm not in get_args(Norm):
            raise unknown("norm", norm, get_args(Norm))
        self.statistics = norm if norm in get_args(Statistics) else "support"
        if self.statistics == "running" and self.trains_on == "nothing":
            self.statistics = "support"  # a net that is never trained has no averages
        return body

    def weights(self, net: nn.Module) -> Params:
        """The net's parameters and buffers by name; copies where no gradient is wanted, so that a predictor
        does not change when its learner is trained on."""
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        if torch.is_grad_enabled():
            return tensors
        return {k: v.detach().clone() for k, v in tensors.items()}

    def held(self, net: nn.Module) -> Callable[..., Any]:
        """The net as a function with the weights of now: for heads, and what else does not normalise."""
        weights = self.weights(net)
        return lambda *inputs: with_weights(net, weights, inputs)

    def support_moments(self, *, kept: bool = True, step: int | None = None) -> Moments:
        """The statistics for a call on the support set; `kept` where queries may be normalised by them, in an
        inner step where there is one."""
        running = self.statistics == "running" and not self.training
        if running:
            return Moments("running", step=step)
        carry = kept and self.statistics == "support" and torch.is_grad_enabled()
        return Moments("batch", fused=not carry, step=step)

    def set_moments(self) -> Moments:
        """The statistics for a net that reads the support set alone, as a set encoder: always its own."""
        return Moments("batch", fused=True, noting=False, step=0)

    def query_moments(self, support: Moments) -> Moments:
        """The statistics for a call on queries, after the call on the support set, in the same inner step."""
        if self.statistics == "support":
            return Moments("given", support.seen, step=support.step)
        return replace(self.support_moments(step=support.step), noting=False)

    def stats(self, support: Moments) -> dict[str, Tensor]:
        """The support set's moments by layer name, for the running averages; the mean of a layer's uses."""
        names = {module: name for name, module in self.named_modules()}
        return {
            f"{names[layer]}.{kind}": torch.stack([pair[i] for pair in pairs]).mean(0).detach()
            for layer, pairs in support.seen.items()
            for i, kind in enumerate(("mean", "var"))
        }
