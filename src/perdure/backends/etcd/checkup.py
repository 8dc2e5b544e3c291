"""What weakens an etcd cluster, and how to fix it."""

from __future__ import annotations

from perdure.backends.etcd.gateway import Gateway
from perdure.backends.spi import Checkup, Finding

QUORUM = 3
"""Members from which a write is on a majority of several disks."""
_SIZE_WARN = 1 << 30
"""Bytes of database from which etcd's usual quota of 2 GiB comes near."""


async def checkup(gateway: Gateway) -> Checkup:
    """Ask the cluster; see `spi.Examined`."""
    status = await gateway.call("maintenance/status", {})
    members = (await gateway.call("cluster/member/list", {})).get("members", [])
    voters = sum(1 for member in members if not member.get("isLearner"))
    alarms = (await gateway.call("maintenance/alarm", {"action": "GET"})).get("alarms", [])
    size, used = int(status.get("dbSize", 0)), int(status.get("dbSizeInUse", 0))
    facts = {
        "server": f"etcd {status.get('version', 'unknown')}",
        "members": str(len(members)),
        "database": f"{size:,} bytes, {used:,} in use",
    }
    findings = []
    if voters < QUORUM:
        what = f"The cluster has {voters} voting member{'s' if voters > 1 else ''}: a commit is on no majority of several disks."
        findings.append(Finding("warning", "unavailable", what, "add members, up to three or five: etcdctl member add"))
    for alarm in alarms:
        kind = alarm.get("alarm", "NONE")
        if kind == "NOSPACE":
            mend = "compact and defragment (etcdctl compact, defrag), raise --quota-backend-bytes, then etcdctl alarm disarm"
            findings.append(Finding("bad", "unavailable", "The space quota is used up: nothing can be written.", mend))
        elif kind == "CORRUPT":
            findings.append(
                Finding("bad", "corrupt", "A member holds other data than the rest.", "replace that member: etcdctl member remove")
            )
    if size > _SIZE_WARN:
        what = f"The database has {size:,} bytes; etcd stops taking writes at its quota, 2 GiB if nothing else is set."
        findings.append(Finding("warning", "unavailable", what, "raise --quota-backend-bytes (8 GiB at most), or choose another engine"))
    return Checkup(facts, findings)
