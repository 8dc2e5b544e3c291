"""What a mistake is answered with: what was wrong in our words, and what would be right."""

from __future__ import annotations

import pytest

import perdure
from tests.cli.conftest import Run

HINTS = [
    (["ls", "--url", "agents.db"], 6, "write 'sqlite:///agents.db'"),
    (["ls", "--url", "./agents.db"], 6, "write 'sqlite:///agents.db'"),
    (["ls", "--url", "/data/agents.db"], 6, "write 'sqlite:////data/agents.db'"),
    (["ls", "--url", "C:\\agents.db"], 6, "sqlite:///C:"),
    (["append", "s", "note", "--url", "agents.db"], 6, "write 'sqlite:///agents.db'"),
    (["ls", "--url", "sqlite:///perdure.db?busy_timeout=long"], 6, "busy_timeout must be a number"),
    (["show", "trip-42", "--at", "2026-11-29 23:00"], 6, "2026-11-29T23:00:00Z for UTC"),
    (["ls", "--updated-after", "2026-11-29 23:00"], 6, "2026-11-29T23:00:00Z for UTC"),
    (["ls", "--updated-before", "2026-11-29"], 6, "2026-11-29T00:00:00Z for UTC"),
    (["show", "trip-42", "--at", "0"], 6, "--at takes a version, and versions count from 1"),
    (["fork", "trip-42", "--at", "0"], 6, "--at takes a version, and versions count from 1"),
    (["log", "trip-42", "--limit", "-3"], 6, "--limit takes a whole number, 0 or more"),
    (["log", "trip-42", "--before", "9" * 30], 6, "--before takes a whole number"),
    (["ls", "--limit", "x"], 2, "--limit takes a whole number, not 'x'"),
    (["diff", "trip-42", "x"], 2, "FIRST takes a whole number, not 'x'"),
    (["log"], 2, "`perdure log` needs SESSION"),
    (["log", "trip-42", "extra"], 2, "There is more than the command takes: 'extra'"),
    (["log", "trip-42", "--typ", "x"], 2, "See `perdure log --help`"),
    (["append", "s", "note", "--data", "hello"], 6, "A string needs its own quotes"),
    (["show", "nobody"], 3, "`perdure ls` shows which there are"),
    (["doctor", "a", "--url", "b"], 2, "Name the store once"),
]


@pytest.mark.parametrize(("arguments", "status", "hint"), HINTS, ids=[" ".join(arguments)[:40] for arguments, _, _ in HINTS])
def test_a_mistake_is_answered_with_what_would_be_right(run: Run, url: str, arguments: list[str], status: int, hint: str) -> None:
    """The line on stderr says what was wrong in words of the shell, never in those of a library behind it."""
    ran = run(*arguments)
    assert ran.status == status and hint in ran.err, ran.err
    assert not any(word in ran.err for word in ("None", "`int`", "$.", "datetime", "<class"))


@pytest.mark.parametrize(
    ("arguments", "unfit"),
    [
        (["show", "trip-42", "--path", "/no"], "tenant"),
        (["show", "trip-42", "--at", "99"], "tenant"),
        (["fork", "trip-42", "--id", "hello"], "condition"),
        (["append", "trip-42", "x", "--op", '["add", "/status", 1]'], "call again"),
        (["ls", "--url", "sqlite:///nowhere.db"], "the id"),
        (["show", "gone"], "as true"),
    ],
)
def test_advice_stands_only_where_it_fits(run: Run, url: str, arguments: list[str], unfit: str) -> None:
    """What the error's class advises for calls in general is left out where it is about something else."""
    with perdure.sync.open(url) as store:
        store.append("gone", perdure.Event("x"))
        store.delete("gone")
    ran = run(*arguments)
    assert ran.status and unfit not in ran.err, ran.err


def test_the_library_says_its_own_advice_or_none() -> None:
    """An error's advice is that of its class, what was given in its place, or nothing."""
    assert str(perdure.NotFound("Gone.")).startswith("Gone. Nothing was changed.")
    assert str(perdure.NotFound("Gone.", advice="Look elsewhere.")) == "Gone. Look elsewhere."
    assert str(perdure.NotFound("Gone.", advice="")) == "Gone."
    with pytest.raises(perdure.Invalid, match="cache_bytes must be a whole number, not '64 MB'"):
        perdure.sync.open("memory:", cache_bytes="64 MB")
    with pytest.raises(perdure.Invalid, match="format must be one of 'json', 'msgpack', not 'yaml'"):
        perdure.sync.open("memory:", format="yaml")
    with pytest.raises(perdure.Invalid, match=r"write 'sqlite:///agents\.db'"):
        perdure.sync.open("agents.db")


def test_common_options_may_stand_before_the_command(run: Run, url: str) -> None:
    """--url, --tenant, --json and --quiet are taken before the command as after it; -V is the version."""
    assert run("--url", url, "ls", "tr").rows == run("ls", "tr", "--url", url).rows != []
    assert run(f"--url={url}", "--tenant", "other", "--no-json", "-q", "ls").out == ""
    assert run("--json", "log", "trip-42").rows == run("log", "trip-42").rows
    assert run("-V").out == run("--version").out == f"{perdure.__version__}\n"
    assert run("--url", url).status == 2 or "Usage" in run("--url", url).out
    assert run("doctor", url).rows[0]["store_id"] == run("doctor", "--url", url).rows[0]["store_id"]


def test_a_path_is_a_json_pointer(run: Run, url: str) -> None:
    """An index has no leading zero, no sign and only ASCII digits; `-` and what is behind the end are not there."""
    run("append", "s", "x", "--op", '["set", "/l", [10, 11, 12, 13]]', "--op", '["set", "/03", "key"]')
    assert run("show", "s", "--path", "/l/3").rows[0]["state"] == 13
    assert run("show", "s", "--path", "/03").rows[0]["state"] == "key"
    for path in ("/l/03", "/l/-1", "/l/-", "/l/4", "/l/\u0663", "/l/+1", "/l/1_0", "/l/" + "9" * 50, "/l/0/x"):
        assert run("show", "s", "--path", path).status == 3, path
