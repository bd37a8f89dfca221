"""The API: make a classifier of examples, add to it, predict, look inside, save, list, delete; tasks of
unseen classes; health and metrics.

Every answer is JSON (metrics are Prometheus's text); a mistake is answered by a status from 400 to 499 and a
sentence, `{"error": …}`. The schema is at /api/v1/openapi.json.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from PIL import Image
from starlette.exceptions import HTTPException

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.app.server import received, schema
from quickstudy.app.server.batches import Answer, Batches
from quickstudy.app.server.guard import LOOPBACK, Guard
from quickstudy.app.server.inside import inside
from quickstudy.app.server.limits import LIMITS, Limits
from quickstudy.app.server.metrics import Metrics
from quickstudy.app.server.models import Models
from quickstudy.app.server.pages import pages
from quickstudy.app.server.store import Entry, Store
from quickstudy.errors import TaskError, UserError
from quickstudy.learners.descent import DescentLearner
from quickstudy.version import __version__

V1 = "/api/v1"
KIND = "application/octet-stream"
WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": schema.Problem, "description": why}
    for status, why in {
        400: "The request cannot be read.",
        401: "A token is needed.",
        403: "The request comes from a page of another origin.",
        408: "The request took too long to arrive.",
        413: "The request is too long, or asks for more than a classifier may hold.",
        415: "The request is no JSON.",
        421: "The server does not go by that name.",
        422: "The request is read, but cannot be done: a picture that is damaged, too many classes …",
    }.items()
}
MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": schema.Problem, "description": "There is no such classifier, or it has been forgotten."}
}
BUSY: dict[int | str, dict[str, Any]] = {
    409: {"model": schema.Problem, "description": "Examples are being added to this classifier."}
}
SAID = {
    "Not Found": "there is no such page",
    "Method Not Allowed": "this address is not for that method",
    "There was an error parsing the body": "the request is no JSON",
}
"""What Starlette and FastAPI say, and what we do."""
GONE = "there is no such classifier, or it was not used for so long that it is gone"
_log = logging.getLogger("quickstudy")


def make_app(
    models: Models,
    limits: Limits = LIMITS,
    *,
    hosts: frozenset[str] | None = LOOPBACK,
    token: str | None = None,
) -> Guard:
    """The server as an ASGI application.

    Args:
        models: the runs that are served.
        limits: of what a client may ask for.
        hosts: names that the server goes by; None for any.
        token: that clients must have; None for none.

    Example:
        >>> app = make_app(Models(["runs/a"]))  # doctest: +SKIP
        >>> uvicorn.run(app, port=8000)  # doctest: +SKIP
    """
    app = FastAPI(
        title="quickstudy",
        version="1",
        summary="Classifiers of a handful of examples, by meta-trained learners.",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{V1}/openapi.json",
        responses=WRONG,
    )
    store, batches = Store(limits.classifiers, limits.idle), Batches()
    counted = Metrics(app)
    adding: set[str] = set()

    def kept(id: str) -> Entry:
        entry = store.get(id)
        if entry is None:
            raise HTTPException(404, GONE)
        return entry

    def pictures(classifier: FewShotClassifier, data: Sequence[str], what: str) -> list[Image.Image]:
        assert classifier.pictures is not None
        size = classifier.pictures.shape[1]
        return received.pictures(data, what, size, limits)

    def fitted(classifier: FewShotClassifier, examples: Sequence[schema.Example]) -> FewShotClassifier:
        """Another classifier, of these examples too."""
        labels = [example.label for example in examples]
        before = getattr(classifier, "_y", np.array([], dtype=str))
        count, classes = len(before) + len(labels), len({*before.tolist(), *labels})
        if count > limits.examples:
            raise HTTPException(413, f"{count} examples: a classifier may have {limits.examples}")
        if classes > limits.classes:
            raise HTTPException(413, f"{classes} classes: a classifier may have {limits.classes}")
        learner = classifier.learner
        steps = learner.steps_in_use if isinstance(learner, DescentLearner) else 1
        if steps > limits.steps:
            raise HTTPException(413, f"{steps} inner steps: a classifier may take {limits.steps}")
        if any(len(label) > limits.label for label in labels):
            raise HTTPException(413, f"a class's name may have {limits.label} letters")
        if count * steps > limits.work:
            raise HTTPException(
                413, f"{count} examples and {steps} inner steps: their product may be {limits.work}"
            )
        read = pictures(classifier, [example.image for example in examples], "example")
        return copy.copy(classifier).partial_fit(read, labels)

    async def asked(entry: Entry, images: Sequence[str]) -> list[Image.Image]:
        if len(images) > limits.images:
            raise HTTPException(413, f"{len(images)} pictures: a request may have {limits.images}")
        return await batches.run(pictures, entry.classifier, images, "image")

    @app.get(f"{V1}/health", tags=["server"])
    async def health() -> schema.Health:
        """Whether the server is there."""
        return schema.Health(version=__version__, classifiers=len(store))

    @app.get(f"{V1}/metrics", tags=["server"], response_class=PlainTextResponse)
    async def metrics() -> str:
        """Requests and seconds by route, and classifiers, in Prometheus's text format."""
        return counted.text(len(store))

    @app.get(f"{V1}/runs", tags=["runs"])
    async def runs() -> schema.Runs:
        """The runs whose learners are served; the first is the usual one."""
        return schema.Runs(runs=[schema.Run(**model.describe()) for model in models])

    @app.post(f"{V1}/classifiers", tags=["classifiers"], status_code=201)
    async def create(given: schema.NewClassifier) -> schema.Classifier:
        """Make a classifier of a few examples of each class."""
        model = models.get(given.run)
        options = given.options
        asked_for = model.name, options.steps, options.transductive, options.control
        empty = await batches.run(models.classifier, *asked_for)  # it may wait for who adapts
        made = await batches.run(fitted, empty, given.examples)
        entry = store.add(model.name, options.model_dump(), made)
        return schema.Classifier(**store.describe(entry))

    @app.get(f"{V1}/classifiers", tags=["classifiers"])
    async def every() -> schema.Classifiers:
        """The classifiers that there are."""
        return schema.Classifiers(classifiers=[schema.Classifier(**store.describe(e)) for e in store])

    @app.get(f"{V1}/classifiers/{{id}}", tags=["classifiers"], responses=MISSING)
    async def one(id: str) -> schema.Classifier:
        """A classifier's classes, and how many examples of each it has."""
        return schema.Classifier(**store.describe(kept(id)))

    @app.post(f"{V1}/classifiers/{{id}}/examples", tags=["classifiers"], responses={**MISSING, **BUSY})
    async def add(id: str, given: schema.MoreExamples) -> schema.Classifier:
        """Add examples, of known classes or of new ones, and adapt anew."""
        entry = kept(id)
        if id in adding:
            raise HTTPException(409, "examples are being added to this classifier: wait for the answer")
        adding.add(id)
        try:
            entry.classifier = await batches.run(fitted, entry.classifier, given.examples)
        finally:
            adding.discard(id)
        return schema.Classifier(**store.describe(entry))

    @app.post(f"{V1}/classifiers/{{id}}/predict", tags=["classifiers"], responses=MISSING)
    async def predict(id: str, given: schema.Queries) -> schema.Predictions:
        """Classify pictures."""
        entry = kept(id)
        return predictions(await batches.predict(entry, await asked(entry, given.images)))

    @app.post(f"{V1}/classifiers/{{id}}/inside", tags=["classifiers"], responses=MISSING)
    async def look_inside(id: str, given: schema.Looked) -> schema.Inside:
        """How the learner came to its answers: its course by inner step, or the map of its embedding."""
        entry = kept(id)
        read = await asked(entry, given.images)
        return schema.Inside(**await batches.run(inside, entry.classifier, read))

    @app.get(
        f"{V1}/classifiers/{{id}}/file",
        tags=["classifiers"],
        responses={**MISSING, 200: {"content": {KIND: {}}, "description": "A safetensors file."}},
        response_class=Response,
    )
    async def download(id: str) -> Response:
        """A classifier as a file: FewShotClassifier.load reads it, and answers as here."""
        content = await batches.run(saved, kept(id).classifier)
        how = {"content-disposition": 'attachment; filename="classifier.safetensors"'}
        return Response(content, media_type=KIND, headers=how)

    @app.post(f"{V1}/tasks", tags=["runs"])
    async def task(given: schema.NewTask) -> schema.Task:
        """A task of classes that a run has never seen, with the answers."""
        model = models.get(given.run)
        sizes = given.way, given.shot, given.query
        found = await batches.run(model.unseen.task, *sizes, given.number, limits)
        return schema.Task(run=model.name, **found)

    @app.delete(f"{V1}/classifiers/{{id}}", tags=["classifiers"], responses=MISSING)
    async def delete(id: str) -> schema.Deleted:
        """Forget a classifier."""
        if not store.remove(id):
            raise HTTPException(404, GONE)
        return schema.Deleted(deleted=id)

    for address, (content, kind) in pages().items():
        app.add_api_route(address, given_out(content, kind), methods=["GET", "HEAD"], include_in_schema=False)

    @app.exception_handler(RequestValidationError)
    async def unreadable(request: Request, error: RequestValidationError) -> Response:
        return problem(422, told(error))

    @app.exception_handler(UserError)
    async def wrong(request: Request, error: UserError) -> Response:
        return problem(413 if isinstance(error, TaskError) else 422, str(error))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        said = SAID.get(str(error.detail), str(error.detail))
        return problem(error.status_code, said, error.headers)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        _log.error("a request failed", exc_info=error)
        return problem(500, "a fault of the server's, which it has noted")

    return Guard(counted, limits, hosts, token)


def saved(classifier: FewShotClassifier) -> bytes:
    """A classifier as the content of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classifier.safetensors"
        classifier.save(path)
        return path.read_bytes()


def given_out(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    """An answer that is always the same."""

    async def answer() -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


def problem(status: int, error: str, headers: Any = None) -> Response:
    """A status and a sentence."""
    return JSONResponse({"error": error[:500]}, status, headers=headers)


def told(error: RequestValidationError) -> str:
    """What is wrong with a request, in a sentence: the first thing, and where it is."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")[:100]
    if first["type"] == "json_invalid":
        return "the request is no JSON"
    if not where:
        return "the request must be an object of JSON, {…}"
    if first["type"] == "string_pattern_mismatch":
        return f"{where}: only spaces, or characters that cannot be seen"
    return f"{where}: {first['msg'].lower()}"


def predictions(found: Answer) -> schema.Predictions:
    """Probabilities `[n, N]` as they are answered."""
    p, classes = found
    entropy = -(p * np.log(np.clip(p, 1e-12, None))).sum(-1) / max(math.log(len(classes)), 1e-12)
    return schema.Predictions(
        predictions=[
            schema.Prediction(
                label=classes[int(row.argmax())],
                probabilities={label: round(float(v), 6) for label, v in zip(classes, row, strict=True)},
                uncertainty=round(min(1.0, max(0.0, float(h))), 6),
            )
            for row, h in zip(p, entropy, strict=True)
        ]
    )
