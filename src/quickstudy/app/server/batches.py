"""Predictions that are asked for at the same time are made together: a net is faster on many pictures."""

from __future__ import annotations

import asyncio
import copy
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from quickstudy.app.estimators import FewShotClassifier
from quickstudy.app.server.inside import DIVERGED
from quickstudy.app.server.store import Entry
from quickstudy.errors import UserError

T = TypeVar("T")
Answer = tuple[np.ndarray, list[str]]


class Batches:
    """Work for the nets, in threads beside the one that answers clients.

    Args:
        threads: how many.
    """

    def __init__(self, threads: int = 2) -> None:
        # Each works on one core: two that wait for each other's cores are slower than either alone.
        self.threads = ThreadPoolExecutor(threads, "net", torch.set_num_threads, (1,))
        self.workers: set[asyncio.Task[None]] = set()

    async def run(self, work: Callable[..., T], *given: Any) -> T:
        """What `work(*given)` returns, in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *given)

    async def predict(self, entry: Entry, pictures: Sequence[Image.Image]) -> Answer:
        """What a classifier says of these pictures, asked together with those that others ask for meanwhile.

        What a transductive predictor says of one client's pictures would depend on those of another: there
        each request is answered by itself.
        """
        if entry.classifier.predictor_.transductive:
            return finite(await self.run(answer, entry.classifier, list(pictures)))
        found: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        entry.waiting.append((list(pictures), found))
        if not entry.busy:
            entry.busy = True
            worker = asyncio.ensure_future(self.work(entry))
            self.workers.add(worker)  # what nobody holds may be collected before it is done
            worker.add_done_callback(self.workers.discard)
        return finite(await found)

    async def work(self, entry: Entry) -> None:
        """Answer all that wait for a classifier, until nobody does."""
        while entry.waiting:
            taken, entry.waiting = entry.waiting, []
            try:
                every = [picture for pictures, _ in taken for picture in pictures]
                p, classes = await self.run(answer, entry.classifier, every)
                ends = np.cumsum([len(pictures) for pictures, _ in taken])[:-1]
                for (_, found), part in zip(taken, np.split(p, ends), strict=True):
                    if not found.done():  # its client may be gone
                        found.set_result((part, classes))
            except Exception as error:
                for _, found in taken:
                    if not found.done():
                        found.set_exception(copy.copy(error))
        entry.busy = False


def answer(classifier: FewShotClassifier, pictures: list[Image.Image]) -> Answer:
    """Probabilities `[n, N]`, and the labels of these."""
    with warnings.catch_warnings(action="ignore"):  # of polarity: there is nobody to read it
        return classifier.predict_proba(pictures), [str(label) for label in classifier.classes_]


def finite(found: Answer) -> Answer:
    """The same, where it is one: what one client's pictures come to is not told to others."""
    if not np.isfinite(found[0]).all():
        raise UserError(DIVERGED)
    return found
