"""The server does what its schema says, whatever fits the schema or nearly does: schemathesis makes it up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from quickstudy.app.server.limits import Limits

from .drawn import API, serving


@pytest.fixture(scope="module")
def api(run: Path) -> Iterator[Any]:
    """The schema of a server that listens."""
    with serving([run], limits=Limits(body=100_000, pixels=100_000)) as client:
        yield schemathesis.openapi.from_url(str(client.base_url).removesuffix("/") + "/openapi.json")


PATHS = {
    f"{API}/health": ["get"],
    f"{API}/metrics": ["get"],
    f"{API}/runs": ["get"],
    f"{API}/classifiers": ["get", "post"],
    f"{API}/classifiers/{{id}}": ["get", "delete"],
    f"{API}/classifiers/{{id}}/examples": ["post"],
    f"{API}/classifiers/{{id}}/predict": ["post"],
    f"{API}/classifiers/{{id}}/inside": ["post"],
    f"{API}/classifiers/{{id}}/file": ["get"],
    f"{API}/tasks": ["post"],
}
LONG = 1000


@pytest.mark.parametrize("count", [15, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        (path, method, mode)
        for path, methods in PATHS.items()
        for method in methods
        for mode in GenerationMode
        if mode.is_positive or method == "post"  # an address alone is never wrong
    ],
)
def test_answers_are_as_the_schema_says(
    api: Any, path: str, method: str, mode: GenerationMode, count: int
) -> None:
    """What fits the schema, and what nearly does.

    A schema cannot say what a picture is, so that what fits may be refused; and what is too long is refused
    by 413, of which schemathesis does not think.
    """
    operation = api[path][method]

    @settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=count != LONG,
        database=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        answer = case.call_and_validate(excluded_checks=[positive_data_acceptance, negative_data_rejection])
        assert mode.is_positive or 400 <= answer.status_code < 500

    check()


def test_every_address_of_the_api_is_in_the_schema(api: Any) -> None:
    assert {path: list(methods) for path, methods in api.raw_schema["paths"].items()} == PATHS
