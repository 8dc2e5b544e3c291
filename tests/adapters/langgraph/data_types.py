"""Data types as users of the framework write them. They stay in this module, for the golden values name it."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter, OrderedDict, defaultdict, deque
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.v1
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableSerializable
from pydantic import BaseModel, ConfigDict, HttpUrl, ImportString, PrivateAttr, RootModel, SecretStr

T = TypeVar("T")


class Color(enum.Enum):
    """An enum, one of whose members is a tuple."""

    RED = "r"
    MIX = (1, (2, 3))
    ADD = len


class Level(enum.IntEnum):
    """An enum that is an integer."""

    HIGH = 3


class Mood(enum.StrEnum):
    """An enum that is a string."""

    GOOD = "good"


class Right(enum.Flag):
    """An enum whose members combine."""

    READ = 1
    WRITE = 2


class Place(BaseModel):
    """A base model."""

    name: str


class Hotel(Place):
    """A model that extends another, with a field more."""

    stars: int = 0


class Trip(BaseModel):
    """A model with containers, a base type and messages."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    place: Place
    messages: list[BaseMessage] = []
    counts: Counter[str] = Counter()
    groups: Any = None
    link: HttpUrl | None = None
    secret: SecretStr | None = None
    path: Path = Path()
    _seen: list[int] = PrivateAttr(default_factory=list)

    @cached_property
    def shout(self) -> str:
        """What is computed once and no field."""
        return self.place.name.upper()

    class Leg(BaseModel):
        """A nested model."""

        miles: int


class Open(BaseModel):
    """A model that takes more than its fields."""

    model_config = ConfigDict(extra="allow")

    x: int = 1


class Rows(RootModel[list[int]]):
    """A model that is a list."""


class Box(BaseModel, Generic[T]):
    """A generic model."""

    held: T


IntBox = Box[int]


class Strict(BaseModel):
    """A model that would change what it holds if it were validated again."""

    text: str

    @pydantic.field_validator("text")
    @classmethod
    def again(cls, value: str) -> str:
        """A validator that is not idempotent."""
        return value + "!"

    @pydantic.field_serializer("text")
    def fails(self, value: str) -> str:
        """A serializer that fails."""
        raise RuntimeError("no serializer is called")


class Old(pydantic.v1.BaseModel):
    """A model of pydantic's first version."""

    x: int
    y: list[int] = []


@dataclasses.dataclass
class Note:
    """A dataclass with a field that its constructor does not take, and an attribute that is no field."""

    text: str
    tags: Any = dataclasses.field(default_factory=list)
    length: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.text)
        self.more = [self.length]


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """A frozen dataclass with slots."""

    x: int
    y: tuple[int, ...] = ()


@pydantic.dataclasses.dataclass
class Checked:
    """A dataclass of pydantic's."""

    x: int = 1


@attrs.define
class Piece:
    """An attrs class with slots."""

    a: int
    b: list[Any] = attrs.Factory(list)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A struct of msgspec's."""

    a: int
    b: Any = None


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: Any = 0


class Text(str):
    """An extension of a built-in class."""

    __slots__ = ()


class Bag(dict[str, Any]):
    """An extension of a built-in class with attributes of its own."""


class Settings(pydantic.v1.BaseSettings):
    """A class that reads the environment when it is made."""

    home: str = ""


class Importing(BaseModel):
    """A model that imports by name."""

    call: list[ImportString[Any]] | None = None


class Client(RunnableSerializable[str, str]):
    """A part of a program, which LangChain can serialise."""

    key: str = "k"

    def invoke(self, input: str, config: Any = None, **more: Any) -> str:
        """Ask a model."""
        return input


@dataclasses.dataclass
class Closing:
    """A class that runs code when an object of it goes."""

    x: int = 1

    def __del__(self) -> None:
        """Run something."""


CALL = {"name": "search", "args": {"city": "Lisbon"}, "id": "call-1", "type": "tool_call"}


def objects() -> list[Any]:
    """Objects of all these types."""
    trip = Trip(
        place=Hotel(name="Sol", stars=4),
        messages=[HumanMessage("hi"), AIMessage("", tool_calls=[CALL])],
        counts=Counter("aab"),
        groups=defaultdict(list, {"a": [Spot(1)]}),
        link=HttpUrl("https://example.org/a?b=1"),
        secret=SecretStr("s"),
        path=Path("/a"),
    )
    trip._seen.append(3)
    _ = trip.shout
    more = Open(x=2, **{"$": 1, "fields": Spot(1)})
    note = Note("hi", deque([1, 2], maxlen=2))
    return [
        *(Color.RED, Color.MIX, Color.ADD, Level.HIGH, Mood.GOOD, Right.READ, Right.READ | Right.WRITE, Right(0)),
        *(trip, Trip.Leg(miles=3), more, Open(), Rows([1, 2]), IntBox(held=1), Box(held=[Hotel(name="x")]), Strict(text="a"), Old(x=1)),
        *(note, Spot(1, (2, 3)), Checked(2), Piece(1, [Spot(2)]), Row(a=1, b={1, 2}), Point(1, OrderedDict(b=1, a=2))),
        {"deep": [{"a": (trip, [note])}], "level": {Level.HIGH: Mood.GOOD, Spot(1): 2}},
    ]
