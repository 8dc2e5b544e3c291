"""Server-Sent Events."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from perdure.wire.sse import HEARTBEAT, Message, MessageReader, message

IDS = st.none() | st.text("abc0129-.", min_size=1)
MESSAGES = st.lists(st.tuples(IDS, st.sampled_from(["", "error"]), st.none() | st.dictionaries(st.text(), st.text())), max_size=5)


@given(MESSAGES, st.data())
def test_what_is_written_is_read_in_any_pieces(messages: list[tuple[str | None, str, object]], data: st.DataObject) -> None:
    """Messages come back, however the stream was cut; comments between them are passed over."""
    written, expected = b"", []
    for id, event, value in messages:
        body = b"" if value is None else msgspec.json.encode(value)
        written += HEARTBEAT + message(body, id=id, event=event)
        if body or id is not None:
            expected.append(Message(id, event or "message", body.decode()))
    reader, found = MessageReader(), []
    while written:
        size = data.draw(st.integers(1, len(written)))
        found += reader.feed(written[:size])
        written = written[size:]
    assert found == expected


def test_lines_of_other_servers_are_read() -> None:
    """Carriage returns, several lines of data, no blank after the colon, fields that nobody knows."""
    reader = MessageReader()
    assert reader.feed(b"retry: 250\r\nid:7\r\ndata:a\r\ndata: b\r\nwhat: x\r\n\r\n: c\n\nid: 8\n\n") == [
        Message("7", "message", "a\nb"),
        Message("8", "message", ""),
    ]
    assert reader.retry == 250
