"""The classifiers that clients made: a bounded number, forgotten when nobody uses them."""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from quickstudy.app.estimators import FewShotClassifier


@dataclass
class Entry:
    """A classifier of a client's.

    Args:
        id: what it is asked for by; made at random, so that no other classifier is met by mistake.
        run: whose learner it is.
        options: as they were given.
        classifier: fitted; another one takes its place when examples are added, so that whoever predicts with
            it is not disturbed.
        used: when it was last asked for.
        waiting: predictions that have been asked for, see `Batches`.
    """

    id: str
    run: str
    options: dict[str, Any]
    classifier: FewShotClassifier
    used: float
    waiting: list[Any] = field(default_factory=list, repr=False)
    busy: bool = False

    def describe(self, idle: float, now: float) -> dict[str, Any]:
        """What a client may want to know, as JSON."""
        counts = Counter(str(label) for label in self.classifier._y)
        return {
            "id": self.id,
            "run": self.run,
            "options": self.options,
            "classes": [{"label": label, "examples": counts[label]} for label in sorted(counts)],
            "expires_in": round(max(0.0, self.used + idle - now), 1),
        }


class Store:
    """Classifiers by id.

    Args:
        most: how many are kept; one more takes the place of the one that was not used for longest.
        idle: seconds after which one that nobody used is forgotten.
        clock: seconds, for tests.

    >>> store = Store(most=1, idle=60)
    >>> first = store.add("a", {}, FewShotClassifier())
    >>> second = store.add("a", {}, FewShotClassifier())
    >>> store.get(first.id) is None, store.get(second.id) is second
    (True, True)
    """

    def __init__(self, most: int, idle: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.idle, self.clock = most, idle, clock
        self.entries: OrderedDict[str, Entry] = OrderedDict()  # the one used last is the last

    def __len__(self) -> int:
        self.forget()
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        self.forget()
        return iter(list(self.entries.values()))

    def forget(self) -> None:
        """Forget those that nobody used for too long, and those that are too many."""
        until = self.clock() - self.idle
        while self.entries:
            first = next(iter(self.entries.values()))
            if first.used > until and len(self.entries) <= self.most:
                return
            del self.entries[first.id]

    def add(self, run: str, options: dict[str, Any], classifier: FewShotClassifier) -> Entry:
        """Keep a classifier."""
        entry = Entry(secrets.token_urlsafe(16), run, options, classifier, self.clock())
        self.entries[entry.id] = entry
        self.forget()
        return entry

    def get(self, id: str) -> Entry | None:
        """The classifier of this id, which now was used; None where there is none any more."""
        self.forget()
        entry = self.entries.get(id)
        if entry is not None:
            entry.used = self.clock()
            self.entries.move_to_end(id)
        return entry

    def remove(self, id: str) -> bool:
        """Forget a classifier; whether there was one."""
        self.forget()
        return self.entries.pop(id, None) is not None

    def describe(self, entry: Entry) -> dict[str, Any]:
        """What a client may want to know of a classifier, as JSON."""
        return entry.describe(self.idle, self.clock())
