"""The description of the API says what the API does."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

import swapstore
from swapstore.serve.api import ROUTES
from swapstore.serve.api.openapi import document
from tests.serve.conftest import TOKEN, served
from tests.support.valkey import free_port
from tests.support.web import Answer, Site

DESCRIBED: dict[str, Any] = json.loads(document())


def conforms(answer: Answer, path: str, method: str = "get") -> bool:
    """Check a response against the description of this path."""
    described = DESCRIBED["paths"][path][method]["responses"][str(answer.status)]
    kind = answer.headers.get_content_type()
    schema = described["content"][kind]["schema"]
    whole = {**schema, "components": DESCRIBED["components"]}
    jsonschema_rs.validator_for(whole).validate(answer.json)
    return True


def test_the_description_is_a_valid_one(site: Site) -> None:
    """Generators of clients and documentation refuse it."""
    answer = site.get("/api/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    validate(answer.json)


def test_every_route_of_the_api_is_described_and_no_other() -> None:
    """A path exists that nobody can find, or is promised and does not exist."""
    written = {
        (re.sub(r":\w+", "", route.path), method.lower())  # type: ignore[attr-defined]
        for route in ROUTES
        for method in route.methods  # type: ignore[attr-defined]
        if method != "HEAD"
    }
    described = {(path, method) for path, methods in DESCRIBED["paths"].items() for method in methods}
    assert written - {("/api/openapi.json", "get")} == described - {("/api/health", "get")}


READS = {
    "/api/datasets": "/api/datasets",
    "/api/datasets/mena": "/api/datasets/{name}",
    "/api/datasets/nothing": "/api/datasets/{name}",
    "/api/datasets/mena/latest": "/api/datasets/{name}/latest",
    "/api/datasets/mena/latest?version=7": "/api/datasets/{name}/latest",
    "/api/datasets/mena/latest?version=x": "/api/datasets/{name}/latest",
    "/api/datasets/portwatch/members/EG": "/api/datasets/{name}/members/{member}",
    "/api/datasets/portwatch/members/XX": "/api/datasets/{name}/members/{member}",
    "/api/datasets/mena/history?limit=1": "/api/datasets/{name}/history",
    "/api/datasets/mena/history?limit=5000": "/api/datasets/{name}/history",
    "/api/datasets/mena/diff": "/api/datasets/{name}/diff",
    "/api/datasets/portwatch/diff": "/api/datasets/{name}/diff",
    "/api/health": "/api/health",
}


@pytest.mark.parametrize("path", READS)
def test_a_response_is_as_described(path: str, store: swapstore.Store, site: Site) -> None:
    """A client that was generated from the description cannot read a response."""
    store.publish("mena", {"a": 1, "b": [1, 2]}, labels={"run": "1"}, dedupe_key="one")
    store.publish("mena", {"a": 2, "c": None})
    store.pin("mena", version=1)
    store.publish_group("portwatch", {"EG": {"a": 1}})

    assert conforms(site.get(path), READS[path])


def test_a_problem_of_the_store_is_as_described() -> None:
    """A client cannot tell an outage from a mistake of its own."""
    with served(f"redis://127.0.0.1:{free_port()}/0", read_token=TOKEN) as site:
        for path in ("/api/datasets", "/api/datasets/mena/latest", "/api/health"):
            described = path.replace("mena", "{name}")
            refused = site.get(path)
            assert refused.status == 401
            assert conforms(refused, described)
            answer = site.get(path, Authorization=f"Bearer {TOKEN}")
            assert answer.status == 503
            assert conforms(answer, described)
