"""What clients send and what they are answered, as the API's schema states it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from quickstudy.app.server.limits import LIMITS

PIXEL = (  # a black one
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQ"
    "AAAABJRU5ErkJggg=="
)
PictureData = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LIMITS.body,
        description="A PNG, JPEG, WebP, GIF or BMP file in base64, or as a data: URL of it.",
        examples=[PIXEL],
    ),
]
HIDDEN = r"\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Characters that cannot be seen, and those that turn the direction of the text after them."""
Label = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LIMITS.label,
        pattern=rf"^[^{HIDDEN}]*[^\s{HIDDEN}][^{HIDDEN}]*$",
        description="The class's name: something to be seen in it, and no control characters.",
        examples=["cat"],
    ),
]


class Given(BaseModel):
    """What a client sends: nothing that is not stated."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Example(Given):
    """A picture and its class."""

    label: Label
    image: PictureData


class Options(Given):
    """How the learner adapts."""

    steps: int | None = Field(
        None,
        ge=0,
        le=LIMITS.steps,
        description="Inner steps, of a learner that takes some; by default its own.",
    )
    transductive: bool = Field(False, description="Whether queries of one request look at each other.")
    control: str | None = Field(
        None,
        max_length=LIMITS.label,
        description="One of the run's controls instead of its learner: a network that was not meta-trained.",
    )


class NewClassifier(Given):
    """A classifier to be made of examples."""

    run: str | None = Field(None, max_length=200, description="Which run's learner; by default the first.")
    examples: list[Example] = Field(min_length=1, max_length=LIMITS.examples)
    options: Options = Field(default_factory=lambda: Options(steps=None, transductive=False, control=None))


class MoreExamples(Given):
    """Examples for a classifier there is, of its classes or of new ones."""

    examples: list[Example] = Field(min_length=1, max_length=LIMITS.examples)


class Queries(Given):
    """Pictures to be classified."""

    images: list[PictureData] = Field(min_length=1, max_length=LIMITS.images)


class Looked(Given):
    """Pictures to be looked at too."""

    images: list[PictureData] = Field(max_length=LIMITS.images)


class NewTask(Given):
    """Which task is wanted."""

    run: str | None = Field(None, max_length=200, description="Of which run's data; by default the first.")
    way: int = Field(5, ge=2, le=LIMITS.classes, description="Classes.")
    shot: int = Field(1, ge=1, le=LIMITS.examples, description="Examples of each.")
    query: int = Field(5, ge=1, le=LIMITS.images, description="Queries of each.")
    number: int | None = Field(None, ge=0, lt=2**31, description="Which of them; by default any.")


class Problem(BaseModel):
    """What was wrong, in a sentence."""

    error: str


class Health(BaseModel):
    """That the server is there."""

    status: str = "ok"
    version: str
    classifiers: int


class Run(BaseModel):
    """A run that is served."""

    name: str
    learner: str | None = Field(description="The method.")
    data: str | None = Field(description="What it was meta-trained on.")
    shape: list[int] = Field(description="Of the pictures: channels, height, width.")
    polarity: str | None = Field(description="Of the pictures it was trained on.")
    most_classes: int | None = Field(
        description="Classes that it can tell apart at most; null for any number."
    )
    steps: int | None = Field(description="Inner steps that it usually takes; null where it takes none.")
    transductive: bool = Field(description="Whether it can let queries look at each other.")
    shows: str | None = Field(description="What there is to see of how it learned: steps, map or nothing.")
    controls: list[str] = Field(
        description="Networks that were not meta-trained, which learn the same examples."
    )


class Runs(BaseModel):
    """The runs that are served."""

    runs: list[Run]


class ClassCount(BaseModel):
    """A class and how many examples of it there are."""

    label: str
    examples: int


class Classifier(BaseModel):
    """A classifier that was made."""

    id: str
    run: str
    options: dict[str, Any]
    classes: list[ClassCount]
    expires_in: float = Field(description="Seconds until it is forgotten, unless it is used before.")


class Classifiers(BaseModel):
    """The classifiers there are."""

    classifiers: list[Classifier]


class Prediction(BaseModel):
    """What a picture is taken for."""

    label: str
    probabilities: dict[str, float]
    uncertainty: float = Field(
        description="The entropy of the probabilities, from 0, sure, to 1, as good as no answer."
    )


class Predictions(BaseModel):
    """What pictures are taken for, in their order."""

    predictions: list[Prediction]


class Step(BaseModel):
    """An inner step of a learner that takes some."""

    step: int
    loss: float = Field(description="On the examples, after the step.")
    accuracy: float = Field(description="On the examples, after the step.")
    probabilities: list[dict[str, float]] = Field(description="Of the pictures' classes, after the step.")


class Point(BaseModel):
    """A place on the map."""

    x: float
    y: float


class Named(Point):
    """A place on the map, of a class."""

    label: str


class Map(BaseModel):
    """The plane on which the features of the examples vary most."""

    shown: float = Field(description="The share of the variance that it shows.")
    examples: list[Named]
    means: list[Named] = Field(description="Of each class: its prototype.")
    queries: list[Point]


class Inside(BaseModel):
    """How a learner came to its answers."""

    kind: str = Field(description="steps or map.")
    steps: list[Step] | None = None
    map: Map | None = None


class Drawn(BaseModel):
    """A picture of a class."""

    label: str
    image: str = Field(description="A PNG as a data: URL, dark on light.")


class Task(BaseModel):
    """A task of classes that the run has never seen."""

    run: str
    number: int = Field(description="The same number, sizes and run are the same task again.")
    examples: list[Drawn]
    queries: list[Drawn] = Field(description="With their classes, which are to be held back.")


class Deleted(BaseModel):
    """That a classifier is gone."""

    deleted: str
