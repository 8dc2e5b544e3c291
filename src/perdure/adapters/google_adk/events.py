"""ADK events as events of the log: the JSON of ADK's own model, and the state's changes as operations beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from google.adk.events.event import Event as AdkEvent
from google.adk.events.event_actions import EventActions
from pydantic import ValidationError

from perdure.adapters.common.json_diff import diff_json
from perdure.adapters.common.models import model_json
from perdure.adapters.common.surrogates import unescape
from perdure.errors import Invalid, Unsupported
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.pointer import escape
from perdure.model.state import Fold
from perdure.model.values import thaw

STATE = "/state"
"""The path of a session's own state in its document: {"state": {…}}, and "life" from the second life on."""
CREATED = "session_created"
"""The event that starts a session's life; after a deletion a second one may follow."""
SHARED = "state_shared"
"""The event by which an app's or a user's shared state changes."""
TYPES = frozenset({"message", "tool_call", "tool_result", "state_changed", "rewound", "compacted", "agent_event"})
FROM_STATE = "delta_from_state"
"""Beside the ADK event: keys of its state delta that are not repeated there. Each is the state's value as of this commit."""
IMPORTED = "imported"
"""Beside the ADK event: it was brought over from a database of ADK's, and what it shares with it."""
_ALWAYS = frozenset({"id", "invocation_id", "author", "actions", "timestamp"})
LARGE = 1024
"""Bytes of JSON from which a list or an object in a state delta is stored as its difference, where that is shorter by half."""


def as_json(event: AdkEvent) -> dict[str, Any]:
    """The event as ADK's own stores write it, less the members that are empty anyway; text is escaped (see `surrogates`).

    Values that JSON cannot say are replaced as ADK replaces them, with its warning. Raises `Invalid` for what cannot be replaced, or not
    be read again.
    """
    return trimmed(model_json(event, "An event", exclude_none=True))


def check_event(event: object) -> None:
    """Raise `Invalid` for what is no event of ADK's."""
    if not isinstance(event, AdkEvent) or not isinstance(event.actions, EventActions):
        raise Invalid("An event is ADK's Event, with EventActions as its actions.")


def trimmed(data: dict[str, Any]) -> dict[str, Any]:
    """An event's JSON without `actions` that are empty objects, and without a path that is empty: ADK's model fills them in."""
    data["actions"] = {name: value for name, value in data.get("actions", {}).items() if value != {}}
    if data.get("node_info") == {"path": ""}:
        del data["node_info"]
    return data


def delta_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The state delta in an event's JSON."""
    delta: dict[str, Any] = data["actions"].get("state_delta", {})
    return delta


def safe_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state as events carry it: bytes are URL-safe base64. Raises `Invalid` for what JSON cannot say and ADK does not replace."""
    try:
        event = AdkEvent(author="user", actions=EventActions(state_delta=dict(state)))
    except (TypeError, ValueError) as error:
        raise Invalid(f"A state is a dict with strings as keys: {error}.") from error
    delta: dict[str, Any] = model_json(event, "A state")["actions"]["state_delta"]
    return delta


def own(delta: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a state delta that belongs to the session itself."""
    return {key: value for key, value in delta.items() if not key.startswith(("app:", "user:", "temp:"))}


def is_shared(delta: Mapping[str, Any]) -> bool:
    """Whether a part of a state delta goes to the app or the user."""
    return any(key.startswith(("app:", "user:")) for key in delta)


def shared(delta: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The part of a state delta that goes to the app or the user, without the prefix."""
    return {key.removeprefix(prefix): value for key, value in delta.items() if key.startswith(prefix)}


def setting(values: Mapping[str, Any], at: str = "") -> tuple[Op, ...]:
    """The operations that set these keys of the object at a pointer; the store checks them."""
    return tuple([Op("set", f"{at}/{escape(key)}", value) for key, value in values.items()])


def is_large(values: Mapping[str, Any]) -> bool:
    """Whether a value may be worth comparing with the one before it."""
    return any(isinstance(value, (dict, list)) and len(msgspec.json.encode(value)) >= LARGE for value in values.values())


def written(data: dict[str, Any], mine: Mapping[str, Any], state: Mapping[str, Any] | None) -> Event:
    """The event to append for an ADK event's JSON, of whose state delta `mine` is the session's `own` part.

    With the `state` before it, large values are stored as what changed in them.
    """
    if not mine:
        return Event(_kind(data), data)
    differences = {} if state is None else _differences(mine, state)
    if differences:
        left = {key: value for key, value in delta_of(data).items() if key not in differences}
        data = {**data, "actions": {**data["actions"], "state_delta": left}, FROM_STATE: list(differences)}
    ops = setting({key: value for key, value in mine.items() if key not in differences}, STATE)
    return Event(_kind(data), data, ops + tuple([step for steps in differences.values() for step in steps]))


def _differences(values: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = {}
    for key, value in values.items():
        old = state.get(key)
        if isinstance(value, (dict, list)) and isinstance(old, dict if isinstance(value, dict) else list):
            size = len(msgspec.json.encode(value))
            steps = diff_json(old, value, f"{STATE}/{escape(key)}") if size >= LARGE else None
            if steps is not None and 2 * len(msgspec.json.encode(steps)) < size:
                found[key] = steps
    return found


def _kind(data: Mapping[str, Any]) -> str:
    parts = (data.get("content") or {}).get("parts") or ()
    actions = data["actions"]
    for name, kind in (("function_call", "tool_call"), ("function_response", "tool_result")):
        for part in parts:
            if name in part:
                return kind
    if "rewind_before_invocation_id" in actions:
        return "rewound"
    if "compaction" in actions:
        return "compacted"
    if parts:
        return "message"
    return "state_changed" if "state_delta" in actions else "agent_event"


def is_adk(event: Event) -> bool:
    """Whether an event of the log is an ADK event, and not one that something else added."""
    return event.type in TYPES and isinstance(event.data, dict) and event.data.keys() >= _ALWAYS


def is_created(event: Event) -> bool:
    """Whether an event of the log is the first of an ADK session's life."""
    return event.type == CREATED and isinstance(event.data, dict) and event.data.keys() >= {"timestamp", "actions"}


def needs_state(commit: Commit) -> bool:
    """Whether an event of the commit has values of its delta in the state alone."""
    return any(is_adk(event) and FROM_STATE in event.data for event in commit.events)


def read_back(session: str, commits: Sequence[Commit], state: Any = None) -> list[AdkEvent]:
    """The ADK events of these commits, oldest first. `state` is the session's before the first commit, if one `needs_state`.

    Raises `Unsupported` for what the installed google-adk does not understand.
    """
    fold = Fold(state)
    found = []
    for commit in commits:
        for event in commit.events:
            if state is not None:
                fold.apply(event.ops)
            if is_adk(event):
                found.append(_read(session, commit, event.data, fold))
    return found


def _read(session: str, commit: Commit, data: dict[str, Any], fold: Fold) -> AdkEvent:
    if FROM_STATE in data:
        state = fold.state["state"]
        delta = delta_of(data) | {key: thaw(state.get(key)) for key in data[FROM_STATE]}
        data = {**data, "actions": {**data["actions"], "state_delta": delta}}
    try:
        return AdkEvent.model_validate(unescape(data))
    except ValidationError as error:
        raise Unsupported(
            f"Version {commit.version} of session {session!r} holds an event that this google-adk does not understand: {error}",
            session=session,
            version=commit.version,
        ) from error
