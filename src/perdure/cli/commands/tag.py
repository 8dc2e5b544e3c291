"""`perdure tag`: a session's tags, shown and changed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from perdure.cli.common import COMMON, Common, parse_pairs


class TagRow(msgspec.Struct, frozen=True):
    """A session's tags."""

    session: str
    """Its id."""
    version: int
    """The version at which it has them."""
    tags: dict[str, str]
    """All of its tags."""


def tag(
    session: str,
    /,
    *pairs: str,
    remove: Annotated[list[str] | None, Parameter(negative=())] = None,
    actor: str | None = None,
    common: Common = COMMON,
) -> None:
    """Show a session's tags, or change some of them: `perdure tag trip-42 team=ops`.

    Parameters
    ----------
    session
        Its id.
    pairs
        NAME=VALUE, each a tag to set; the others stay as they are.
    remove
        The name of a tag to take away; may be given several times.
    actor
        Who did it.
    """
    terminal = common.terminal()
    wanted = parse_pairs(list(pairs), "A tag is written")
    with common.open() as store:
        view = store.read(session)
        version = view.version
        tags = {name: value for name, value in {**view.tags, **wanted}.items() if name not in (remove or ())}
        if tags != view.tags:
            version = store.configure(session, tags=tags, actor=actor).version
    row = TagRow(session, version, tags)
    if terminal.json:
        terminal.object(row)
    elif tags:
        terminal.print(" ".join(f"{name}={value}" for name, value in tags.items()))
    else:
        terminal.note(f"Session {session} has no tags.")
