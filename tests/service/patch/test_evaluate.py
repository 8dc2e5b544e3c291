"""JSON Patch (RFC 6902) on a state.

`cases.json` has the format of the public json-patch test suite: doc, patch, and expected or error. It holds what that suite, which
`test_public_suite.py` runs, does not try.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonpatch
import jsonpointer
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Conflict, Error, Invalid, TooLarge
from perdure.model.state import apply
from perdure.model.values import freeze, thaw
from perdure.service.patch.evaluate import equal, evaluate
from perdure.service.patch.parse import OPERATIONS_MAX, parse_patch
from perdure.service.refusals import PreconditionRequired

CASES = msgspec.json.decode(Path(__file__).with_name("cases.json").read_bytes())


def patched(doc: Any, patch: Any, *, on_version: bool = True, copy_bytes: int = 1 << 20) -> Any:
    """What the operations of a patch make of a document."""
    state = freeze(doc)
    found = evaluate(state, parse_patch(patch), on_version=on_version, copy_bytes=copy_bytes)
    assert thaw(state) == doc
    return thaw(apply(state, found.ops))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["comment"][:60])
def test_a_case(case: Any) -> None:
    """The document becomes what is expected, or the patch is refused and nothing is changed."""
    if "error" in case:
        with pytest.raises((Conflict, Invalid)):
            patched(case["doc"], case["patch"])
    else:
        assert equal(patched(case["doc"], case["patch"]), case.get("expected", case["doc"]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", "-", ""]), inner, max_size=3),
    max_leaves=8,
)
TOKENS = st.sampled_from(["a", "b", "0", "1", "2", "-", ""])
PATHS = st.lists(TOKENS, max_size=3).map(lambda tokens: "".join("/" + token for token in tokens))
STEPS = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["add", "replace", "test"]), "path": PATHS, "value": VALUES}),
    st.fixed_dictionaries({"op": st.just("remove"), "path": PATHS}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "path": PATHS, "from": PATHS}),
)


def by_the_other(doc: Any, patch: Any) -> Any:
    """What another implementation makes of it; `Error` where it refuses."""
    try:
        return jsonpatch.apply_patch(doc, patch)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, AttributeError):
        return Error


@given(st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2), st.lists(STEPS, max_size=4))
def test_another_implementation_agrees(doc: Any, patch: Any) -> None:
    """What `jsonpatch` makes of a patch is made of it here, and what it refuses is refused, but for what it takes that RFC 6902 forbids."""
    theirs = by_the_other(doc, patch)
    try:
        ours = patched(doc, patch)
    except (Conflict, Invalid):
        ours = Error
    if ours is Error or theirs is Error:
        if theirs is not Error:  # It removes the root, and a hyphen, and lets a bool be a number.
            assert any(step["op"] in ("remove", "replace", "test", "move", "copy") for step in patch)
        return
    assert equal(ours, theirs)


@pytest.mark.parametrize("path", ["/l/0", "/l/0/x", "/l/1"])
@pytest.mark.parametrize("op", ["add", "remove", "replace", "test"])
def test_an_index_rests_on_a_version(op: str, path: str) -> None:
    """Without one it is 428 and nothing else: a writer that has inserted an element meanwhile has moved the others."""
    with pytest.raises(PreconditionRequired):
        patched({"l": [{"x": 1}]}, [{"op": op, "path": path, "value": 1}], on_version=False)


def test_what_rests_on_no_version_needs_none() -> None:
    """Members of objects and the end of a list are named by themselves; moves and copies are not."""
    steps = [{"op": "add", "path": "/l/-", "value": 2}, {"op": "remove", "path": "/a"}]
    assert patched({"l": [], "a": 1}, steps, on_version=False) == {"l": [2]}
    for op in ("move", "copy"):
        with pytest.raises(PreconditionRequired):
            patched({"a": 1}, [{"op": op, "path": "/b", "from": "/a"}], on_version=False)


def test_copies_that_double_are_refused_before_they_are_made() -> None:
    """Thirty of them ask for 2^30 values: their size is known without making them."""
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{number}"} for number in range(30)]
    with pytest.raises(TooLarge):
        patched({"a": {"x": "y" * 100}}, doubling, copy_bytes=1 << 24)
    assert patched({"a": {"x": 1}}, doubling[:3])["a"].keys() == {"x", "0", "1", "2"}


def test_wide_containers_are_not_copied_again_and_again() -> None:
    """A patch that copies and changes a wide object by turns is refused when the work is too much."""
    wide = {str(number): 0 for number in range(20_000)}
    turns = [step for number in range(3000) for step in ({"op": "copy", "from": "/w/0", "path": f"/w/x{number}"},)]
    with pytest.raises(TooLarge):
        patched({"w": wide}, turns)


def test_a_patch_has_so_many_operations() -> None:
    """More are refused before any is looked at."""
    step = {"op": "test", "path": "", "value": {}}
    with pytest.raises(Invalid):
        parse_patch([step] * (OPERATIONS_MAX + 1))
    for document in (None, {}, "x", 3, step):
        with pytest.raises(Invalid):
            parse_patch(document)


def test_what_it_rests_on_is_named() -> None:
    """Tests and copies are reads: a merge must not move what they saw."""
    patch = [{"op": "test", "path": "/a", "value": 1}, {"op": "copy", "from": "/b", "path": "/c"}, {"op": "remove", "path": "/a"}]
    found = evaluate(freeze({"a": 1, "b": 2}), parse_patch(patch), on_version=True, copy_bytes=100)
    assert found.reads == ["/a", "/b"]
