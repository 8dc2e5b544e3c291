"""One of several processes that write to one session: `python -m tests.support.backends.contender URL TASKS COMMITS HOW`.

Prints what it wrote.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import perdure
from perdure import Event, op
from perdure.telemetry import Telemetry


async def contend(url: str, tasks: int, commits: int, how: str) -> dict[str, object]:
    """So many tasks, each with so many commits to the session `s`; errors by their code, and how often a try was overtaken."""
    errors: Counter[str] = Counter()
    lost: list[int] = []
    Telemetry.committed = lambda self, operation, conflicts=0: lost.append(conflicts)  # type: ignore[method-assign]

    async def one(store: perdure.Store) -> None:
        for _ in range(commits):
            try:
                if how == "events":
                    await store.append("s", Event("one"))
                elif how == "append":
                    await store.append("s", Event("one", None, (op.add("/n", 1),)))
                elif how == "update":
                    await store.update("s", lambda draft: draft.state.update(n=draft.state.get("n", 0) + 1))
                else:
                    async with store.edit("s") as draft:
                        draft.add("/n", 1)
            except perdure.Error as error:
                errors[error.code] += 1

    async with perdure.open(url) as store:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*[one(store) for _ in range(tasks)])
    return {"commits": len(lost), "tries": len(lost) + sum(lost), "errors": errors}


if __name__ == "__main__":
    url, tasks, commits, how = sys.argv[1:]
    print(json.dumps(asyncio.run(contend(url, int(tasks), int(commits), how))), flush=True)
