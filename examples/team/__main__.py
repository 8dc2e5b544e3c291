"""Four agents plan one trip: a planner, two searchers and a reviewer, each a process of its own, on one session.

    python -m examples.team                                        # on SQLite, in the file team.db
    python -m examples.team postgresql://localhost/agents          # on PostgreSQL
    python -m examples.team --kill 6                               # kill some of them by chance; the result is the same

Run it again with the same store and it says what it has: nothing is done twice. There is no model here, only what one would answer.
"""

from __future__ import annotations

import argparse
import asyncio

import perdure

from .desk import Desk
from .processes import Team, nobody, somebody
from .roles import SESSION
from .story import story


async def main() -> None:
    """Run the team and print what it did."""
    parser = argparse.ArgumentParser(prog="python -m examples.team", description="Four agents on one session.")
    parser.add_argument("url", nargs="?", default="sqlite:///team.db", help="the store (sqlite:///team.db)")
    parser.add_argument("--desk", default="desk.db", help="the file of the booking desk (desk.db)")
    parser.add_argument("--kill", type=int, default=0, metavar="N", help="kill one of the team up to N times, 16 at most")
    parser.add_argument("--seed", type=int, default=1, help="who is killed when (1)")
    parser.add_argument("--thinking", type=float, default=0.02, help="seconds that a thought takes (0.02)")
    given = parser.parse_args()
    team = Team(given.url, given.desk, given.thinking)
    await team.run(somebody(given.kill, given.seed) if given.kill else nobody)
    async with perdure.open(given.url) as store:
        for line in await story(store, SESSION):
            print(line)
    for name, total, number in Desk(given.desk).booked():
        print(f"\nThe desk has booking {number}: {name}, {total} euros.")
    if given.kill:
        print("Killed:", ", ".join(team.killed))


if __name__ == "__main__":
    asyncio.run(main())
