"""Timestamps: nanoseconds since 1970 as they are stored, as aware datetimes, and as RFC 3339 writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(at: int) -> datetime:
    """An aware datetime (UTC) from nanoseconds since 1970, rounded down to its microseconds."""
    return _EPOCH + timedelta(microseconds=at // 1000)


def to_nanoseconds(moment: datetime) -> int:
    """The last nanosecond of the microsecond that an aware datetime names."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + 999


def rfc3339(at: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, all nine digits."""
    return f"{to_datetime(at):%Y-%m-%dT%H:%M:%S}.{at % 1_000_000_000:09d}Z"


def moment(at: datetime) -> str:
    """An aware datetime as RFC 3339 in UTC, microseconds."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def shown(at: datetime) -> str:
    """An aware datetime for people, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
