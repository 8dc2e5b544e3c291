"""The public test suite of JSON Patch (npm: json-patch-test-suite), as it was published, through a node's PATCH and the evaluation alone.

Its cases are sent byte for byte, so that the one whose operation has two members `op` arrives as such. Cases that the suite has disabled
are run as well: what it leaves open, RFC 6902 does not.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from perdure.errors import Conflict, Invalid
from perdure.model.state import apply
from perdure.model.values import freeze, thaw
from perdure.service.call import decode_json
from perdure.service.patch.evaluate import equal, evaluate
from perdure.service.patch.parse import parse_patch
from scripts.fetch_suites import SUITES
from tests.servers.node import Nodes
from tests.support.needs import missing

pytestmark = pytest.mark.fetched
(SUITE,) = [suite for suite in SUITES if suite.package == "json-patch-test-suite"]
HERE = all((SUITE.folder / name).exists() for name in SUITE.files)
OURS = 428
"""What a node answers for indices, `move` and `copy` without a version, where the suite knows no versions."""


class Case(msgspec.Struct, frozen=True):
    """A case of the suite."""

    doc: msgspec.Raw
    patch: msgspec.Raw
    expected: msgspec.Raw = msgspec.Raw()
    error: str | None = None

    @property
    def outcome(self) -> Any:
        """The document that it ends with, which is the one that it begins with where it says nothing or refuses."""
        return msgspec.json.decode(self.expected if bytes(self.expected) else self.doc)

    @property
    def rests_on_a_version(self) -> bool:
        """Whether it moves, copies, or names an index."""
        return re.search(rb'"op": *"(move|copy)"|/[0-9]+["/]', bytes(self.patch)) is not None


CASES = {
    f"{name.removesuffix('.json')}-{number}": case
    for name in (SUITE.files if HERE else ())
    for number, case in enumerate(msgspec.json.decode((SUITE.folder / name).read_bytes(), type=list[Case]))
}


@pytest.fixture(autouse=True)
def _suite() -> None:
    if not HERE:
        missing("the public test suite of JSON Patch is not here: python3 dev.py fetch")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    """A connection to one node, which is a process, for all cases: a session for each."""
    nodes = Nodes(tmp_path_factory.mktemp("node"))
    try:
        nodes.start()
        with closing(http.client.HTTPConnection("127.0.0.1", nodes.port("node0"), timeout=30)) as connection:
            yield connection
    finally:
        nodes.stop()


class Session:
    """A session that has the document of a case as its state."""

    def __init__(self, node: http.client.HTTPConnection, name: str, case: Case) -> None:
        self._node, self._path = node, f"/v1/sessions/{name}"
        start = b'{"ops": [{"op": "set", "path": "", "value": ' + bytes(case.doc) + b"}]}"
        status, self.tag, _ = self._ask("POST", "/commits", start, {"Content-Type": "application/json"})
        assert status == 201

    def patch(self, patch: msgspec.Raw, **headers: str) -> int:
        """The status of the answer."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._ask("PATCH", "", bytes(patch), {"Content-Type": "application/json-patch+json", **headers})[0]

    def state(self) -> Any:
        """Its state."""
        return self._ask("GET", "", None, {})[2]["state"]

    def _ask(self, method: str, rest: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, str, Any]:
        self._node.request(method, self._path + rest, body, headers)
        answer = self._node.getresponse()
        data = answer.read()
        return answer.status, answer.headers.get("ETag", ""), msgspec.json.decode(data) if data else None


@pytest.mark.parametrize("name", CASES)
def test_a_node_does_what_the_suite_says(node: http.client.HTTPConnection, name: str) -> None:
    """On the version that `If-Match` names, the state becomes what is expected, or the patch is refused and nothing is written."""
    case = CASES[name]
    session = Session(node, name, case)
    status = session.patch(case.patch, If_Match=session.tag)
    assert status in ((200, 204) if case.error is None else (400, 409)), case.error
    assert equal(session.state(), case.outcome)


@pytest.mark.parametrize("name", CASES)
def test_without_a_version_it_does_the_same_or_asks_for_one(node: http.client.HTTPConnection, name: str) -> None:
    """428, and nothing is written, only where the patch moves, copies or names an index; else what the suite says."""
    case = CASES[name]
    session = Session(node, f"plain-{name}", case)
    status = session.patch(case.patch)
    if status == OURS:
        assert case.rests_on_a_version
        assert equal(session.state(), msgspec.json.decode(case.doc))
    else:
        assert status in ((200, 204) if case.error is None else (400, 409)), case.error
        assert equal(session.state(), case.outcome)


@pytest.mark.parametrize("name", CASES)
def test_the_evaluation_does_what_the_suite_says(name: str) -> None:
    """The operations that a patch becomes make the expected document of the first one, or there are none."""
    case = CASES[name]
    state = freeze(msgspec.json.decode(case.doc))
    try:
        found = evaluate(state, parse_patch(decode_json(bytes(case.patch), Any)), on_version=True, copy_bytes=1 << 20)
    except (Conflict, Invalid):
        assert case.error is not None
    else:
        assert case.error is None
        assert equal(thaw(apply(state, found.ops)), case.outcome)


def test_the_suite_is_whole() -> None:
    """Its 95 cases, among them 25 that refuse and 4 that it has disabled: a file that lost some would not be noticed."""
    assert len(CASES) == 95
    assert sum(case.error is not None for case in CASES.values()) == 25
    disabled = [case for name in SUITE.files for case in msgspec.json.decode((SUITE.folder / name).read_bytes()) if case.get("disabled")]
    assert len(disabled) == 4
