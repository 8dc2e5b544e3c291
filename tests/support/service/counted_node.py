"""`perdure serve` that counts its tasks when it gets SIGUSR1: `python -m tests.support.service.counted_node FILE serve …`."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from pathlib import Path

import perdure.cli


def count(place: Path) -> None:
    """Write how many tasks of all event loops have not ended."""
    gc.collect()
    tasks = sum(isinstance(each, asyncio.Task) and not each.done() for each in gc.get_objects())
    part = place.with_suffix(".part")
    part.write_text(str(tasks))
    part.rename(place)


if __name__ == "__main__":
    counted = Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: count(counted))
    perdure.cli.main()
