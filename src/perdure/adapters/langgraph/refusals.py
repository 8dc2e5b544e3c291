"""Values that are refused when they are written: where they are, what they are, and why."""

from __future__ import annotations

from perdure.errors import Invalid


class Refused(Exception):
    """A value that cannot be stored. Each container on the way out adds its part of the path; `error` makes it the error that users see.

    `kind` is the type of the value, `why` the rest of a sentence that begins "… holds a value of type X, which".
    """

    def __init__(self, kind: type, why: str) -> None:
        super().__init__(why)
        self.kind, self.why = kind, why
        self.parts: list[str] = []

    def within(self, part: str) -> Refused:
        """The same, seen from the container that holds the value as this part: `[3]`, `['key']` or `.field`."""
        self.parts.append(part)
        return self

    def error(self, where: str) -> Invalid:
        """`where` names the outermost value."""
        path = "".join(reversed(self.parts))
        shown = path if len(path) <= 200 else f"{path[:120]}…{path[-60:]}"
        at = f" at {shown}" if shown else ""
        return Invalid(f"{where} holds a value of type {self.kind.__module__}.{self.kind.__qualname__}{at}, which {self.why}.", path=path)


def would_lose(kind: type, what: str) -> Refused:
    """The refusal of a value that would come back changed."""
    return Refused(kind, f"would not come back as it is: {what}")


def not_data(kind: type) -> Refused:
    """The refusal of what is no data at all."""
    return Refused(kind, "is more than data: the framework's serialiser would pickle it, or refuse it as well")
