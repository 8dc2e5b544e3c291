"""What the tests of the ADK adapter share: one user of one app, events in short, loading."""

from __future__ import annotations

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from perdure.adapters.google_adk import PerdureSessionService

WHO = {"app_name": "shop", "user_id": "ann"}
SESSION = "adk/shop/sessions/ann/s"
"""The Perdure session of ann's ADK session `s`."""


def said(text: str = "", author: str = "user", **delta: object) -> Event:
    """An event with a text, and a state delta of keys that are Python names."""
    content = types.Content(role="user", parts=[types.Part(text=text)]) if text else None
    return Event(invocation_id="i", author=author, content=content, actions=EventActions(state_delta=delta))


def with_delta(delta: dict[str, object]) -> Event:
    """An event that only changes state."""
    return Event(invocation_id="i", author="user", actions=EventActions(state_delta=delta))


def texts(session: Session) -> list[str]:
    """What was said, in order."""
    return [event.content.parts[0].text for event in session.events]


async def load(service: PerdureSessionService, id: str = "s", user: str = "ann", **config: object) -> Session:
    """A session that must be there."""
    found = await service.get_session(app_name="shop", user_id=user, session_id=id, config=GetSessionConfig(**config) if config else None)
    assert found is not None
    return found
