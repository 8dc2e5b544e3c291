"""What `open` and `edit` return is of use only after `async with`, `with` or `await`. Used before, it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn

from perdure.errors import Invalid


class TooEarly(Invalid, AttributeError):
    """Enter it first, and use what that gives."""


class Unentered:
    """A base for what has to be entered first. A type checker sees none of this, and refuses the same mistakes by itself."""

    _right: ClassVar[str]
    """How it is used rightly, as an example."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):  # Python asks for many of these by itself.
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            raise TooEarly(f"{type(self).__name__} has no {name!r}, it was not entered: write `{self._right}`.")


class Asynchronous(Unentered):
    """The same for what blocks nothing: `with` in place of `async with` is the mistake."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise Invalid(f"This is asynchronous: write `{self._right}`, or use perdure.sync for blocking code.")

        def __exit__(self, *_: object) -> None: ...

        def __await__(self) -> NoReturn:
            raise Invalid(f"This is not awaited by itself: write `{self._right}`.")


class Blocking(Unentered):
    """The same for what blocks: `async with` in place of `with` is the mistake."""

    if not TYPE_CHECKING:

        async def __aenter__(self) -> NoReturn:
            raise Invalid(f"This is the blocking API: write `{self._right}`, or use perdure.open for asynchronous code.")

        async def __aexit__(self, *_: object) -> None: ...
