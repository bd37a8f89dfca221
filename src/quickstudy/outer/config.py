"""`TrainConfig`: everything a meta-training run depends on. The command line, and the JSON saved with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints, overload

import numpy as np

from quickstudy import nets
from quickstudy.data import ClassDataset, Splits, describe, names
from quickstudy.data import load as load_data
from quickstudy.errors import RunError, TaskError, UserError, unknown
from quickstudy.inner.choice import Strategy
from quickstudy.inner.precision import Precision
from quickstudy.learners import Learner, build, learner_class
from quickstudy.learners.base import OptimizerName, ScheduleName
from quickstudy.learners.registry import options
from quickstudy.nets.norm import Norm
from quickstudy.outer.device import find_device
from quickstudy.outer.seeds import seeded
from quickstudy.tasks import Augmented, ClassTasks, SupervisedBatches, TaskSource
from quickstudy.tasks.augment import AugmentName
from quickstudy.tasks.families import FAMILIES, FunctionParts, Functions
from quickstudy.tasks.regression import FunctionTasks
from quickstudy.tasks.rows import Rows

USUAL = ("optimizer", "outer_lr", "schedule", "meta_batch", "clip")
"""The options that a learner has usual values for."""
OUTER = (*USUAL, "iterations", "precision", "seed", "validate_every", "validation_tasks", "patience")
"""The options that `meta_train` takes under the same names."""
LEAST: dict[str, float] = {
    **dict.fromkeys(("way", "train_way", "train_classes"), 2),
    **dict.fromkeys(("shot", "query", "train_shot", "train_query", "samples_per_class"), 1),
    **dict.fromkeys(("meta_batch", "validate_every", "validation_tasks", "patience"), 1),
    **dict.fromkeys(("channels", "size", "threads"), 1),
    **dict.fromkeys(("iterations", "outer_lr", "split_seed", "unlabelled", "distractors"), 0),
}
"""The smallest value of each numeric option that has one."""
OF_CLASSES = (
    *("way", "train_way", "unlabelled", "distractors", "labelled", "start", "mirrored", "norm", "size"),
    *("split", "split_seed", "samples_per_class", "train_classes", "augment", "rotations"),
)
"""The options that functions have no use for."""
TRAINED_AT, SOLVED_AT = 20, 100
"""Points at which a function is judged unless one says otherwise: in meta-training, and when it is solved."""
LARGEST = 1024
"""Pictures of more pixels a side are beyond the nets here, and soon beyond memory."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Meta-train a learner on many classes, so that it learns new ones from a few examples.

    Args:
        data: a built-in data set (omniglot, quickdraw, glyphs, digits) or a folder with one folder a class;
            or functions to learn from points: sinusoid, harmonics, lines, five-modes, gaussian-process.
        learner: the method, for example maml, protonet, or a class of yours, module:Class; its own options
            follow when it is named.
        way: classes of a task to solve (validation, and what evaluate does by default).
        shot: support examples a class; of functions, points that are shown.
        query: query examples a class; by default 15, or what the classes have left. Of functions, points to
            be judged at, by default 100.
        train_way: classes of a meta-training task.
        train_shot: support examples a class in meta-training; by default --shot.
        train_query: query examples a class in meta-training.
        unlabelled: further examples of each class, given without labels, for learners that use them; by
            default as many as such a learner usually has.
        distractors: classes that appear among these only.
        labelled: the share of a meta-training class's examples that have labels; the others are for
            --unlabelled.
        iterations: meta-steps.
        seed: of initial weights and all tasks.
        start: a run folder whose body, with its best weights, is begun with: such as one of --learner
            pretrain-centroid on the same classes. By default initial weights are random.
        meta_batch: tasks a meta-step.
        optimizer: the meta-optimiser; adam-hd and sgd-hd adapt their rate as they go.
        outer_lr: the meta-optimiser's rate.
        schedule: of that rate; linear and cosine end at zero, halving halves it every fifth of the run.
        clip: largest norm of the meta-gradient; by default the learner's, mostly any.
        precision: in which the net computes while it is trained and validated: float32, or bf16, which is for
            GPUs. Weights, losses and gradients stay float32; evaluate and predict use float32 always.
        validate_every: meta-steps between validations; by default a twentieth of the run, from 50 to 500.
        validation_tasks: meta-validation tasks a validation.
        patience: stop after this many validations without a better one; by default never.
        body: the net that looks at an example; flatten is none, and hands on its numbers.
        channels: filters a block of conv4 (and the first of resnet), or hidden units of mlp.
        mirrored: answer by the mean of the features of a picture and of its mirror image: for pictures that
            mean the same mirrored, drawings of things, not of letters. For --augment drawing, which mirrors
            half of those of meta-training.
        norm: whose statistics normalise a query: support, batch (transductive), running; or group, layer,
            none. By default support, of learners that read a stream layer, for mlp and flatten none.
        size: pictures are brought to this height and width.
        split: which classes are meta-train, meta-validation, meta-test; by default the data set's own.
        split_seed: of a random split.
        samples_per_class: use only this many examples of each class; by default all, but 20 of
            quickdraw and glyphs.
        train_classes: meta-train on so many of the classes for it only, drawn at random.
        augment: how the pictures of meta-training are distorted, each time anew: none; affine, turned and
            shifted a little; drawing, also mirrored, bent and by another pen. For few examples a class.
            By default as the learner's paper does, mostly none; but drawing on quickdraw.
        rotations: pictures turned by quarters as further classes: none; train, of meta-training only; all.
            By default none, but all on Omniglot's character splits, as its protocol has it.
        strategy: how tasks are mapped on this machine.
        threads: processor threads; by default torch's choice.
        device: cpu, cuda, cuda:1 …; by default a CUDA GPU where there is one.
        data_dir: where data lies; by default $QUICKSTUDY_DATA, then the cache folder.
    """

    data: str = "glyphs"
    learner: str = "maml"
    way: int = 5
    shot: int = 1
    query: int | None = None
    train_way: int | None = None
    train_shot: int | None = None
    train_query: int | None = None
    unlabelled: int | None = None
    distractors: int = 0
    labelled: float = 1.0
    iterations: int = 3000
    seed: int = 0
    start: str | None = None
    meta_batch: int | None = None
    optimizer: OptimizerName | None = None
    outer_lr: float | None = None
    schedule: ScheduleName | None = None
    clip: float | None = None
    precision: Precision = "float32"
    validate_every: int | None = None
    validation_tasks: int = 200
    patience: int | None = None
    body: Literal["conv4", "resnet", "mlp", "flatten"] = "conv4"
    channels: int = 64
    mirrored: bool = False
    norm: Norm | None = None
    size: int = 28
    split: str | None = None
    split_seed: int = 0
    samples_per_class: int | None = None
    train_classes: int | None = None
    augment: AugmentName | None = None
    rotations: Literal["none", "train", "all"] | None = None
    strategy: Strategy | None = None
    threads: int | None = None
    device: str | None = None
    data_dir: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check_kinds()
        kind = learner_class(self.learner)
        if self.functions:
            self.settle_functions()
        usual = {k: v for k, v in asdict(kind.outer).items() if k in (*USUAL, "augment", "unlabelled")}
        if self.data in names() and kind.outer.augment == "none":
            usual["augment"] = describe(self.data).augment
        usual["norm"] = "none" if self.body in ("mlp", "flatten") else kind.outer.norm
        for name, value in usual.items():  # what is used is what is kept with the run
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        own = {name: option.default for name, option in options(kind).items()}
        own |= {k: v for k, v in kind.for_functions.items() if self.functions and k in own}
        object.__setattr__(self, "settings", {**own, **self.settings})
        if self.data not in names() and Path(self.data).expanduser().is_dir():  # found from anywhere
            object.__setattr__(self, "data", str(Path(self.data).expanduser().resolve()))
        check_folder(self.data_dir)
        if self.size > LARGEST:
            raise UserError(f"size must be at most {LARGEST} pixels, not {self.size}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            least = 1 if self.functions and name == "way" else least
            if value is not None and value < least:
                raise UserError(f"{name.replace('_', '-')} must be at least {least}, not {value}")
        if (self.unlabelled or self.distractors) and not kind.uses_unlabelled:
            raise UserError(f"{self.learner} learns from labelled examples only: leave --unlabelled away")
        for name, value in self.settings.items():
            if callable(value):
                raise UserError(
                    f"{name.replace('_', '-')} is a function, which cannot be kept with a run: give words "
                    "or a pattern, or make the learner yourself and train it by meta_train"
                )
        rates = {"outer_lr": self.outer_lr, "clip": self.clip, **self.settings}
        for name, value in rates.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{name.replace('_', '-')} must be a finite number, not {value}")
        if not -(2**63) <= self.seed < 2**63:
            raise UserError(f"seed must be a number of 64 bits, not {self.seed}")
        if self.clip is not None and self.clip <= 0:
            raise UserError(f"clip must be above 0, not {self.clip}")

    @property
    def functions(self) -> bool:
        """Whether what is learned are functions, not classes."""
        return self.data in FAMILIES

    def settle_functions(self) -> None:
        """Refuse the options that functions have no use for, and set them to what does nothing."""
        as_of = {"way": 1, "unlabelled": 0, "augment": "none", "norm": "none", "body": "mlp"}
        usual = {f.name: f.default for f in fields(TrainConfig)}
        for name in OF_CLASSES:
            if getattr(self, name) not in (usual[name], as_of.get(name)):
                flag = name.replace("_", "-")
                raise UserError(f"{self.data} has no classes of pictures: leave --{flag} away")
        if self.body not in ("mlp", usual["body"]):
            raise UserError(f"points of {self.data} are single numbers: --body mlp, not {self.body}")
        if learner_class(self.learner).trains_on != "tasks":
            raise UserError(f"{self.learner} is not meta-trained on tasks: it cannot learn {self.data}")
        for name, value in as_of.items():
            object.__setattr__(self, name, value)

    def check_kinds(self) -> None:
        """Refuse what an option's type does not allow: other words, fractions for whole numbers."""
        for name, kind in get_type_hints(TrainConfig).items():
            value, kinds = getattr(self, name), get_args(kind)
            if value is None and type(None) in kinds:
                continue
            words = [word for k in (kind, *kinds) if get_origin(k) is Literal for word in get_args(k)]
            if words and value not in words:
                raise unknown(name, str(value), words)
            whole = int in (kind, *kinds) and bool not in (kind, *kinds)
            if whole and (isinstance(value, bool) or not isinstance(value, int)):
                raise UserError(f"{name.replace('_', '-')} must be a whole number, not {value!r}")
            if float in (kind, *kinds) and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise UserError(f"{name.replace('_', '-')} must be a number, not {value!r}")

    def json(self) -> dict[str, Any]:
        """The options as JSON, without what is this machine's: data folder, threads, device."""
        values = asdict(self)
        for name in ("data_dir", "threads", "device"):
            del values[name]
        return values | {"settings": dict(self.settings)}

    @staticmethod
    def from_json(
        values: Mapping[str, Any], data_dir: Path | None = None, device: str | None = None
    ) -> TrainConfig:
        """The options that `json` wrote.

        Raises:
            RunError: they are not those of a training run.
        """
        known = {f.name for f in fields(TrainConfig)}
        given = {k: v for k, v in values.items() if k in known}
        try:
            saved = TrainConfig(**given)
        except (TypeError, UserError) as error:
            raise RunError(f"these are not a training run's options: {error}") from error
        return replace(saved, data_dir=data_dir, device=device)

    def outer(self) -> dict[str, Any]:
        """The options of the outer loop, as `meta_train` takes them."""
        return {name: getattr(self, name) for name in OUTER}

    def splits(self, data: ClassDataset | None = None) -> Splits:
        """The data, split by classes, turned where the protocol turns it.

        Args:
            data: by default what goes by the name `data`.
        """
        data = self.loaded() if data is None else data
        parts = data.split(self.split, seed=self.split_seed or None)
        if self.train_classes is not None:
            parts = Splits(self.fewer(parts.train, self.train_classes), parts.val, parts.test)
        self.check_ways(parts)
        published = "all" if self.data == "omniglot" and self.split in (None, "vinyals") else "none"
        turned = {"none": 0, "train": 1, "all": 3}[self.rotations or published]
        return Splits(*(p.rotated() if i < turned else p for i, p in enumerate(parts)))

    def parts(self, data: ClassDataset | None = None) -> Splits | FunctionParts:
        """The data in its three parts: classes as of `splits`, or functions."""
        return FunctionParts.of(self.data) if self.functions and data is None else self.splits(data)

    def loaded(self) -> ClassDataset:
        """What goes by the name `data`; mistakes that can be told before it is read are told."""
        if self.functions:
            raise UserError(f"{self.data} are functions, not classes: what takes classes cannot do with them")
        if self.data in names() and self.split is not None:
            known = [*describe(self.data).splits, "random"]
            if self.split not in known:
                raise unknown(f"split of {self.data}", self.split, known)
        with seeded(self.seed):
            self.make_body((1, self.size, self.size))  # pictures may be too small for a net
        return load_data(
            self.data,
            root=self.data_dir,
            samples_per_class=self.samples_per_class,
            size=self.size,
        )

    def fewer(self, data: ClassDataset, classes: int) -> ClassDataset:
        """So many of the classes for meta-training, always the same ones."""
        if classes > len(data):
            raise TaskError(f"{data.name}: {classes} classes for meta-training, but there are {len(data)}")
        order = np.random.default_rng(self.split_seed).permutation(len(data))
        return data.subset(sorted(order[:classes].tolist()), data.name)

    def check_ways(self, parts: Splits) -> None:
        """Refuse a split that leaves too few classes in a part for the tasks to be solved."""
        counts = [len(part) for part in parts]
        if min(counts) < self.way:
            remedy = f"--way {min(counts)} will do" if min(counts) > 1 else "at least 6 are needed"
            raise TaskError(
                f"{parts.train.name}: its {sum(counts)} classes are split {'/'.join(map(str, counts))} into "
                f"meta-train/validation/test, too few in a part for {self.way} ways: {remedy}"
            )

    def training_tasks(self, data: ClassDataset | Functions) -> TaskSource:
        """What the learner is meta-trained on."""
        if isinstance(data, Functions):
            return data.tasks(self.train_shot or self.shot, self.train_query or TRAINED_AT, self.seed)
        tasks = self.plain_tasks(data)
        how = self.augment or "none"
        if self.mirrored and how != "drawing":
            raise UserError(
                f"mirrored is for --augment drawing, which mirrors half of the pictures, not {how}"
            )
        return tasks if how == "none" else Augmented(tasks, how, self.seed)

    def plain_tasks(self, data: ClassDataset) -> TaskSource:
        """What the learner is meta-trained on, as it is in the data."""
        kind = learner_class(self.learner)
        if kind.trains_on == "batches":
            if self.labelled < 1:
                raise UserError(f"{self.learner} is trained on all labels, not on --labelled {self.labelled}")
            return SupervisedBatches(data, seed=self.seed)
        way = self.train_way or min(kind.outer.train_way or self.way, len(data) - self.distractors)
        if kind.fixed_way(self.settings) and way > self.way:
            raise TaskError(f"{self.learner} has a head for {self.way} ways and cannot train on {way}")
        shot, query = self.train_shot or self.shot, self.train_query
        if query is None and kind.outer.train_query:  # as many of these as there are
            apart = self.labelled < 1  # then unlabelled examples are not taken from the same ones
            fewest = Rows.of(data).parted(self.labelled)[0].counts.min()
            left = int(fewest) - shot - (0 if apart else self.unlabelled or 0)
            query = min(kind.outer.train_query, max(1, left))
        return ClassTasks(
            data,
            way,
            shot,
            query,
            seed=self.seed,
            unlabelled=self.unlabelled or 0,
            distractors=self.distractors,
            labelled=self.labelled,
        )

    @overload
    def problem(self, data: ClassDataset, *, seed: int = 1, **changes: Any) -> ClassTasks: ...
    @overload
    def problem(self, data: Functions, *, seed: int = 1, **changes: Any) -> FunctionTasks: ...
    def problem(
        self, data: ClassDataset | Functions, *, seed: int = 1, **changes: Any
    ) -> ClassTasks | FunctionTasks:
        """The tasks to solve, on other classes or of other functions: validation and evaluation."""
        if isinstance(data, Functions):
            query = self.query or SOLVED_AT
            return data.tasks(**{"shot": self.shot, "query": query, "seed": seed, **changes})
        names = ("way", "shot", "query", "unlabelled", "distractors")
        options = {name: getattr(self, name) for name in names} | changes
        return ClassTasks(data, seed=seed, **options)

    def make_learner(self, image_shape: tuple[int, ...], classes: int) -> Learner:
        """A fresh learner for such pictures; initial weights are a function of `seed`."""
        with seeded(self.seed):
            body = self.make_body(image_shape)
            body = nets.Mirrored(body) if self.mirrored else body
            learner = build(self.learner, body, way=self.way, classes=classes, settings=self.settings)
        return learner.to(find_device(self.device))

    def make_body(self, image_shape: tuple[int, ...]) -> Any:
        """The net."""
        if self.body in ("mlp", "flatten"):
            hidden = (self.channels, self.channels) if self.body == "mlp" else ()
            return nets.mlp(math.prod(image_shape), hidden, norm=self.norm or "none")
        if len(image_shape) != 3:
            raise UserError(f"examples of shape {image_shape} are not pictures: use --body mlp")
        channels, size, norm = image_shape[0], min(image_shape[1:]), self.norm or "support"
        if self.body == "resnet":
            widths = [self.channels * 2**i for i in range(4)]
            return nets.resnet(widths, in_channels=channels, norm=norm)
        halvings = 2 if learner_class(self.learner).compares_maps else None
        return nets.conv4(self.channels, in_channels=channels, size=size, norm=norm, halvings=halvings)


def check_folder(data_dir: str | Path | None) -> None:
    """Refuse a data folder that is not there."""
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise UserError(f"data-dir: there is no folder {data_dir}")
