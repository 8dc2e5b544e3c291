"""`perdure serve` that counts its tasks when it gets SIGUSR1: `python -m tests.support.service.counted_node FILE serve …`."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path

import perdure.cli


def count(place: Path) -> None:
    """Write what the tasks of all event loops run that have not ended, and how many of each there are."""
    gc.collect()
    tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]
    part = place.with_suffix(".part")
    part.write_text(json.dumps(Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)))
    part.rename(place)


if __name__ == "__main__":
    counted = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: count(counted))
    perdure.cli.main()
