"""`perdure configure`, `due` and `sweep`: policies from the shell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import perdure.sync
from perdure.cli.output import durations
from tests.cli.conftest import Run

DURATIONS = {"30d": timedelta(days=30), "1h30m": timedelta(minutes=90), "45s": timedelta(seconds=45), "2w": timedelta(weeks=2), "0.5": None}


@pytest.mark.parametrize("text", ["30d", "1h30m", "45s", "2w", "90", "1.5h"])
def test_durations_are_read_as_they_are_shown(text: str) -> None:
    """What is shown is read as the same duration."""
    found = durations.parse(text)
    assert found is not None
    assert durations.parse(durations.show(found).replace(" ", "")) == found
    assert DURATIONS.get(text) in (None, found)


@pytest.mark.parametrize("text", ["", "d", "30 days", "-1d", "1d-", "1e5", "inf", "nan", "٣d"])
def test_what_is_no_duration(text: str) -> None:
    """It is refused, and not read as something else."""
    assert durations.parse(text) is None


def test_a_policy_is_set_and_shown(run: Run, url: str) -> None:
    """Options change it, `none` takes away, without options it is shown; people get sentences."""
    ran = run("configure", "trip-42", "--expire-after", "30d", "--wake-every", "1h", "--wake", "claim", "--keep", "100", "--drop")
    assert ran.rows[0] | {"wake_at": None} == {
        "session": "trip-42", "for_prefix": None, "version": 4, "expire_after": 2_592_000.0, "grace": None, "archive_after": None,
        "wake_at": None, "wake_every": 3_600.0, "wake": "claim", "keep": {"commits": 100}, "drop": True, "prefix": None,
    }  # fmt: skip
    assert run("configure", "trip-42", "--keep", "7d").rows[0]["keep"] == {"seconds": 604_800.0}
    ran = run("configure", "trip-42", "--wake-every", "none", "--no-json")
    assert ran.out.splitlines() == [
        "expires 30d after its last data commit, and is purged 7d later",
        "keeps the commits of the last 7d; older ones are removed",
    ]
    assert run("configure", "trip-42").rows[0]["version"] is None
    assert "nothing is to happen" in run("configure", "hello", "--no-json").err


def test_a_prefix_is_configured(run: Run, url: str) -> None:
    """`--prefix` takes the place of the session; sessions that are started begin with it, and say so."""
    assert run("configure", "--prefix", "p-", "--expire-after", "1d").rows[0]["for_prefix"] == "p-"
    run("append", "p-1", "note")
    assert run("configure", "p-1").rows[0]["prefix"] == "p-"
    assert "by the policy of the prefix 'p-'" in run("configure", "p-1", "--no-json").out
    assert "by the policy" not in run("configure", "--prefix", "p-", "--no-json").out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("configure",), 2, "Name a session"),
        (("configure", "s", "--prefix", "p"), 2, "Name a session"),
        (("configure", "hello", "--expire-after", "soon"), 2, "30d, 12h"),
        (("configure", "hello", "--keep", "many", "--drop"), 2, "30d, 12h"),
        (("configure", "hello", "--keep", "5"), 9, "or pass --drop"),
        (("configure", "hello", "--expire-after", "0"), 6, "1 second"),
        (("configure", "none", "--expire-after", "1d"), 3, "no session"),
        (("configure", "hello", "--wake-at", "tomorrow"), 6, "no time"),
        (("sweep", "sqlite:///x.db", "--url", "sqlite:///y.db"), 2, "Name the store once"),
        (("sweep", "sqlite:///x.db"), 3, "x.db"),
        (("sweep", "--every", "0", "--once"), 6, "every takes"),
        (("due", "--before", "tomorrow"), 6, "no time"),
        (("due", "--limit", "-1"), 6, "whole number"),
    ],
)
def test_what_is_refused(run: Run, url: str, arguments: tuple[str, ...], status: int, words: str) -> None:
    """Each mistake has its exit code and says what would be right."""
    ran = run(*arguments)
    assert (ran.status, ran.out) == (status, "")
    assert words in ran.err


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_a_round_from_the_shell(run: Run, url: str, columns: int) -> None:
    """What is due is listed, a dry run names it, a round does it, and says in sums what it did; nothing is wider than the terminal."""
    with perdure.sync.open(url) as store:
        store.configure("trip-42", wake_at=datetime.now(UTC) - timedelta(days=1))
        store.configure("hello", expire_after=timedelta(days=30))
    listed = run("due", "--no-json", columns=columns)
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["hello", "look"], ["trip-42", "wake"]]
    assert all(len(line) <= columns for line in listed.out.splitlines())
    assert [row["why"] for row in run("due", "--json", "--all-tenants").rows] == ["look", "wake"]
    dry = run("sweep", "--dry-run", "--no-json", columns=columns)
    assert dry.status == 0
    assert dry.out.splitlines()[-1] == "2 sessions were due: 1 woken. Nothing was changed."
    ran = run("sweep", "--once", "--json")
    assert [row["action"] for row in ran.rows[:-1]] == ["looked", "woken"]
    assert ran.rows[-1]["swept"]["woken"] == 1
    assert run("sweep", "--once", "--no-json").out == "0 sessions were due.\n"
    assert [row["why"] for row in run("due", "--json").rows] == ["expire"]
    assert run("due", "--deleted", "--no-json").err.strip() == "No session is due."
    assert "woken" in run("log", "trip-42", "--no-json", columns=columns).out


def test_the_log_of_a_session_that_dropped_commits(run: Run, url: str) -> None:
    """People are shown what is left, and that older ones were dropped; machines get the error after the rows."""
    with perdure.sync.open(url) as store:
        for _ in range(8):
            store.append("trip-42", perdure.Event("more"))
    run("configure", "trip-42", "--keep", "4", "--drop")
    assert run("sweep", "--once", "--json").rows[-1]["swept"]["trimmed"] == 1
    ran = run("log", "trip-42", "--no-json")
    assert (ran.status, len(ran.out.splitlines())) == (0, 6)
    assert ran.err == "Commits before version 9 were dropped.\n"
    ran = run("log", "trip-42", "--json")
    assert (ran.status, len(ran.rows)) == (3, 5)
    assert run("verify", "trip-42").status == 0
