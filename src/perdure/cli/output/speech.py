"""Messages in whatever shape a framework keeps them: who said what, which tool was called with what, what it answered.

Members decide the shape, so nothing is imported: chat messages with `role` and `content`, LangChain's `{"$": "ai"}`, the items of
OpenAI's Responses, Bedrock's and Gemini's parts, Claude's blocks, Pydantic AI's parts, Agent Framework's contents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from perdure.cli.output.text import json_shown

LANGCHAIN = frozenset({"ai", "human", "system", "tool", "function", "chat", "AIMessageChunk", "HumanMessageChunk"})
WORDS_MAX = 4_000
"""Characters of one part that are looked at for a line."""
_WHO = {"ai": "assistant", "human": "user", "model": "assistant", "AIMessageChunk": "assistant", "HumanMessageChunk": "user"}
_CALLS = ("toolUse", "tool_use", "function_call", "functionCall", "function", "executable_code")
_ANSWERS = ("toolResult", "tool_result", "function_response", "functionResponse", "code_execution_result")
_ARGUMENTS = ("arguments", "args", "input", "action")
_RESULTS = ("output", "result", "response", "content", "results")
_THOUGHTS = frozenset({"thinking", "reasoning", "text_reasoning", "redacted_thinking"})
_MEDIA = (
    "image",
    "image_url",
    "inline_data",
    "inlineData",
    "file_data",
    "source",
    "document",
    "video",
    "audio",
    "uri",
    "media_type",
    "file",
)

Kind = Literal["text", "thought", "call", "answer", "other"]


class Part(NamedTuple):
    """A piece of a message. `name` and `id` are those of the tool, `value` the call's arguments or the tool's answer."""

    kind: Kind
    text: str = ""
    name: str = ""
    id: str = ""
    value: Any = None


class Speech(NamedTuple):
    """One message."""

    who: str
    parts: tuple[Part, ...]

    @property
    def line(self) -> str:
        """All of it on one line: the text, calls as `name(argument=value)`, the tool's answer."""
        return " ".join(part for part in map(spoken, self.parts) if part)


def speech(data: Any) -> Speech | None:
    """The message that this value is, or wraps; `None` if it is none."""
    if not isinstance(data, dict):
        return None
    message = next((data[name] for name in ("message", "content") if isinstance(data.get(name), dict)), data)
    item = _item(message)
    if item is not None:
        return item
    tag = message.get("$")
    role = _text(message.get("role")) or (tag if isinstance(tag, str) and tag in LANGCHAIN else "")
    who = _text(data.get("author")) or _text(message.get("author_name")) or _WHO.get(role, role)
    if not who:
        return None
    parts = [*_parts(message), *_tool_calls(message.get("tool_calls"))]
    if role in ("tool", "function"):
        name, id = _text(message.get("name")) or _text(message.get("tool_name")), _text(message.get("tool_call_id"))
        parts = [part._replace(name=part.name or name, id=part.id or id) if part.kind == "answer" else part for part in parts] or parts
        if not any(part.kind == "answer" for part in parts):
            parts = [Part("answer", name=name, id=id, value=_content(message))]
        who = "tool"
    elif parts and all(part.kind == "answer" for part in parts):
        who = "tool"
    return Speech(who, tuple(parts))


def is_message(value: Any) -> bool:
    """Whether a value in a state looks like a message: it says who speaks and has content, or is a call or an answer."""
    if not isinstance(value, dict):
        return False
    if value.get("$") in LANGCHAIN if isinstance(value.get("$"), str) else False:
        return True
    if _item(value) is not None:
        return True
    inner = value.get("message") if isinstance(value.get("message"), dict) else value
    return (
        isinstance(inner, dict)
        and isinstance(inner.get("role"), str)
        and any(name in inner for name in ("content", "parts", "contents", "tool_calls"))
    )


def _item(item: dict[str, Any]) -> Speech | None:
    """An item of OpenAI's Responses that is no message."""
    kind = item.get("type")
    if not isinstance(kind, str) or "role" in item:
        return None
    id = _text(item.get("call_id")) or _text(item.get("id"))
    if kind.endswith(("_call_output", "_call_result")):
        return Speech("tool", (Part("answer", name=_text(item.get("name")), id=id, value=_first(item, _RESULTS)),))
    if kind.endswith("_call") and ("call_id" in item or "id" in item or "name" in item):
        name = _text(item.get("name")) or kind.removesuffix("_call")
        call = Part("call", name=name, id=id, value=_arguments(_first(item, _ARGUMENTS)))
        answer = item.get("output")
        return Speech("assistant", (call,) if answer is None else (call, Part("answer", name=name, id=id, value=answer)))
    if kind == "reasoning" and ("summary" in item or "content" in item):
        thoughts = [*_listed(item.get("summary")), *_listed(item.get("content"))]
        return Speech("assistant", (Part("thought", text=" ".join(_words(thought) for thought in thoughts)),))
    return None


def _content(message: dict[str, Any]) -> Any:
    return next((message[name] for name in ("content", "parts", "contents", "result", "output") if name in message), None)


def _parts(message: dict[str, Any]) -> list[Part]:
    content = _content(message)
    if content is None or content == "":
        return []
    return [part_of(part) for part in content] if isinstance(content, list) else [part_of(content)]


def _tool_calls(calls: Any) -> Iterator[Part]:
    for call in _listed(calls):
        inner = call.get("function", call) if isinstance(call, dict) else None
        if isinstance(call, dict) and isinstance(inner, dict):
            yield Part("call", name=_text(inner.get("name")) or "?", id=_text(call.get("id")), value=_arguments(_first(inner, _ARGUMENTS)))


def part_of(part: Any) -> Part:
    """A piece of a message, in any framework's shape."""
    if isinstance(part, str):
        return Part("text", text=part)
    if not isinstance(part, dict):
        return Part("other", text=compact(part))
    kind = _kind(part)
    call = next((part[name] for name in _CALLS if isinstance(part.get(name), dict)), None)
    answer = next((part[name] for name in _ANSWERS if isinstance(part.get(name), dict)), None)
    if answer is not None:
        return _answer(answer)
    if call is not None or kind.endswith(("tool_use", "_call", "-call")) or (any(name in part for name in _ARGUMENTS) and _name(part)):
        found = part if call is None else call
        return Part("call", name=_name(found) or "?", id=_id(found) or _id(part), value=_arguments(_first(found, _ARGUMENTS)))
    if kind.endswith(("_result", "-return", "_output")) or "tool_use_id" in part or (kind == "retry-prompt" and part.get("tool_name")):
        return _answer(part)
    if part.get("tool_name") and "content" in part:
        return _answer(part)
    if kind in _THOUGHTS or part.get("thought") is True or "reasoningContent" in part:
        return Part("thought", text=_words(part))
    if isinstance(part.get("text"), (str, dict)) or isinstance(part.get("content"), (str, list)) or isinstance(part.get("refusal"), str):
        return Part("text", text=_words(part))
    if kind or any(name in part for name in _MEDIA):
        return Part("other", text=f"[{_media(part, kind)}]")
    return Part("other", text=compact(part))


def _answer(part: dict[str, Any]) -> Part:
    return Part(
        "answer",
        name=_name(part),
        id=_text(part.get("tool_use_id")) or _text(part.get("toolUseId")) or _id(part),
        value=_first(part, _RESULTS),
    )


def _media(part: dict[str, Any], kind: str) -> str:
    for holder in (part, *(part[name] for name in _MEDIA if isinstance(part.get(name), dict))):
        for name in ("mime_type", "mimeType", "media_type", "format"):
            if _text(holder.get(name)):
                return _text(holder[name])
    return kind or next(name for name in _MEDIA if name in part)


def _words(value: Any, depth: int = 0) -> str:
    """The text in a part, wherever the framework keeps it."""
    if isinstance(value, str):
        return value
    if depth < 6:
        if isinstance(value, list):
            return " ".join(_words(part, depth + 1) for part in value)
        if isinstance(value, dict):
            for name in ("text", "thinking", "content", "summary", "refusal", "reasoningContent", "reasoningText"):
                if value.get(name):
                    return _words(value[name], depth + 1)
            kind = _kind(value)
            return f"[{_media(value, kind)}]" if depth and (kind or any(name in value for name in _MEDIA)) else ""
    return "" if value is None else compact(value)


def answered(value: Any) -> str:
    """What a tool answered, as text: the text of its parts, else JSON."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and {"text", "json", "type"} & part.keys() for part in value):
        return " ".join(compact(part["json"]) if "json" in part else spoken(part_of(part)) for part in value)
    if isinstance(value, str):
        return value
    return "" if value is None else compact(value)


def spoken(part: Part) -> str:
    """A part on a line."""
    match part.kind:
        case "call":
            return f"{part.name}({arguments(part.value)})"
        case "answer":
            shown = answered(part.value)[:WORDS_MAX]
            return f"{part.name}: {shown}" if part.name else shown
        case "thought":
            return f"({part.text[:WORDS_MAX]})" if part.text else ""
        case _:
            return part.text[:WORDS_MAX]


def arguments(value: Any, most: int = 60) -> str:
    """A call's arguments: `city="Rome", nights=2`."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={_short(item, most)}" for name, item in value.items())
    return "" if value is None or value == "" else _short(value, most * 2)


def _short(value: Any, most: int) -> str:
    text = compact(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _arguments(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return value
    return value


def compact(value: Any, most: int | None = WORDS_MAX) -> str:
    """A JSON value on one line, cut where nobody would read on."""
    return json_shown(value)[:most]


def _first(holder: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((holder[name] for name in names if holder.get(name) is not None), None)


def _kind(part: dict[str, Any]) -> str:
    return _text(part.get("type")) or _text(part.get("part_kind")) or _text(part.get("kind"))


def _name(part: dict[str, Any]) -> str:
    return _text(part.get("name")) or _text(part.get("tool_name"))


def _id(part: dict[str, Any]) -> str:
    return next((part[name] for name in ("call_id", "tool_call_id", "toolUseId", "id") if _text(part.get(name))), "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
