"""Durations as people write them, 30d or 1h30m, and as they read them."""

from __future__ import annotations

import re
from datetime import timedelta

UNITS = {"w": 7 * 86_400, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
"""Seconds of a week, a day, an hour, a minute, a second."""
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([wdhms])")


def parse(text: str) -> timedelta | None:
    """`30d`, `12h`, `1h30m`, `45s`, or seconds as a number; `None` for what is none."""
    try:
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return timedelta(seconds=float(text))
        if re.fullmatch(rf"(?:{_PART.pattern})+", text):
            return timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text)))
    except OverflowError:
        return timedelta.max
    return None


def show(duration: timedelta) -> str:
    """In the largest units that it has, two at most: `30d`, `1h 30m`."""
    left, parts = round(duration.total_seconds()), []
    for unit, seconds in UNITS.items():
        count, left = divmod(left, seconds) if unit != "w" else (0, left)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
