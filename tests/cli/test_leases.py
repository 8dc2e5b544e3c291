"""`perdure leases`, `perdure lease` and `--control`: who holds what, as people and scripts see it."""

from __future__ import annotations

from pathlib import Path

import perdure.sync
from perdure import Event
from tests.cli.conftest import Run


def test_holders_are_listed_shown_and_broken(run: Run, tmp_path: Path) -> None:
    """The rows name owner, token and ttl; a break frees the session, says who did it, and fences the holder."""
    url = f"sqlite:///{tmp_path}/leases.db"
    with perdure.sync.open(url) as store, store.lease("trip-42", owner="worker-7", ttl=30, exclusive=True) as lease:
        store.append("trip-42", Event("note"), lease=lease)
        (row,) = run("--url", url, "leases").rows
        assert (row["session"], row["owner"], row["token"], row["ttl"]) == ("trip-42", "worker-7", lease.token, 30.0)
        assert (row["exclusive"], row["challenged"]) == (True, False)
        assert run("--url", url, "lease", "show", "trip-42").rows == [row]
        assert "worker-7" in run("--url", url, "--no-json", "leases").out
        assert run("--url", url, "lease", "break", "trip-42", "--actor", "ann").rows == [row]
        assert run("--url", url, "lease", "break", "trip-42").status == 3
        assert run("--url", url, "lease", "show", "trip-42").status == 3
        assert run("--url", url, "lease", "show", "nobody").status == 3
        assert run("--url", url, "lease", "steal", "trip-42").status == 2
        assert run("--url", url, "leases").out == ""
        try:
            store.append("trip-42", Event("late"), lease=lease)
        except perdure.Fenced:
            pass
        else:
            raise AssertionError("The holder whose lease was broken has written.")


def test_the_log_shows_lease_commits_when_it_is_asked_to(run: Run, tmp_path: Path) -> None:
    """Without `--control` only what was done under the lease."""
    url = f"sqlite:///{tmp_path}/leases.db"
    with perdure.sync.open(url) as store, store.lease("trip-42", owner="worker-7", ttl=30) as lease:
        store.append("trip-42", Event("note"), lease=lease)
    assert [row["kind"] for row in run("--url", url, "log", "trip-42").rows] == ["data"]
    assert [row["kind"] for row in run("--url", url, "log", "trip-42", "--control").rows] == ["lease", "data", "lease"]
    shown = run("--url", url, "--no-json", "log", "trip-42", "--control").out
    assert f"by worker-7, token {lease.token}" in shown
    assert "free again" in shown
    watched = run("--url", url, "watch", "trip-42", "--after", "0", "--limit", "3", "--control").rows
    assert [row["kind"] for row in watched] == ["lease", "data", "lease"]


def test_doctor_says_whether_a_failover_loses_leases(run: Run, tmp_path: Path) -> None:
    """A file has no failover."""
    url = f"sqlite:///{tmp_path}/leases.db"
    with perdure.sync.open(url) as store:
        store.append("s", Event("note"))
    assert run("--url", url, "doctor").rows[0]["failover_loses_leases"] is False
