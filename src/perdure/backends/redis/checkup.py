"""What a Redis server is set to, what weakens durability on it, and how to fix it."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from perdure.backends.redis.connections import Connections
from perdure.backends.spi import Checkup, Durability, Finding
from perdure.errors import Error, Unsupported

_SETTINGS = ("appendfsync", "maxmemory", "maxmemory-policy", "min-replicas-to-write")
NEEDED = 7
"""Major version: the first with functions."""


class Settings(NamedTuple):
    """`level`: what an answer means on this server. `fails_over`: whether another node may take its place. `None` in `config`: hidden."""

    info: dict[str, str]
    config: dict[str, str] | None
    level: Durability
    fails_over: bool


async def settings_of(connections: Connections, key: str) -> Settings:
    """Ask the primary that has this key. Raises `Unsupported` for a server without functions."""
    raw = await connections.one(key, "INFO")
    info = dict(line.split(":", 1) for line in raw.decode(errors="replace").splitlines() if ":" in line)
    version = info.get("redis_version", "0")
    if int(version.partition(".")[0]) < NEEDED:
        raise Unsupported(f"Redis at {connections.place} is {version}: Perdure needs Redis 7.0 or Valkey, which have functions.")
    config: dict[str, str] | None = None
    with suppress(Error):
        answers = await connections.each([(key, ("CONFIG", "GET", name)) for name in _SETTINGS])
        config = {found[0].decode(): found[1].decode() for found in answers if found}
    on = info.get("aof_enabled") == "1"
    synced = config is not None and config.get("appendfsync") == "always"
    level = (Durability.local if synced else Durability.buffered) if on else Durability.memory
    return Settings(info, config, level, connections.route.fails_over or info.get("connected_slaves", "0") != "0")


async def checkup(connections: Connections, key: str) -> Checkup:
    """See `spi.Examined`."""
    info, config, level, fails_over = await settings_of(connections, key)
    name = "Valkey" if "valkey_version" in info else "Redis"
    shown = config or {}
    policy = info.get("maxmemory_policy", shown.get("maxmemory-policy", "not to be seen"))
    facts = {
        "server": f"{name} {info.get('valkey_version', info.get('redis_version', ''))}",
        "mode": info.get("redis_mode", "standalone"),
        "append-only file": "on" if info.get("aof_enabled") == "1" else "off",
        "appendfsync": shown.get("appendfsync", "not to be seen"),
        "maxmemory": info.get("maxmemory_human", shown.get("maxmemory", "not to be seen")),
        "maxmemory-policy": policy,
        "replicas": info.get("connected_slaves", "0"),
    }
    findings = []
    if policy not in ("noeviction", "not to be seen"):
        what = f"maxmemory-policy is {policy}: when memory is full the server throws sessions away."
        findings.append(Finding("bad", "corrupt", what, "CONFIG SET maxmemory-policy noeviction, and in its configuration file"))
    if level == Durability.memory:
        what = "There is no append-only file: a restart loses everything since the last snapshot file, or all."
        findings.append(Finding("bad", "unavailable", what, "CONFIG SET appendonly yes, and in its configuration file"))
    elif config is None:
        what = "CONFIG is not allowed here, so nothing says how often the log is synced: commits count as `buffered`."
        findings.append(Finding("warning", "unauthorized", what, "allow CONFIG GET for this user"))
    elif level == Durability.buffered:
        what = f"appendfsync is {shown.get('appendfsync')}: up to a second of commits, or more, is lost with the machine."
        findings.append(Finding("warning", "unavailable", what, "CONFIG SET appendfsync always, and in its configuration file"))
    if fails_over and shown.get("min-replicas-to-write", "0") == "0":
        what = "A primary that is cut off goes on taking commits, which are lost when another takes its place."
        findings.append(Finding("warning", "rewound", what, "CONFIG SET min-replicas-to-write 1, and ?replicas=1 in the URL"))
    if info.get("aof_last_write_status", "ok") != "ok":
        what = "The last write to the append-only file failed."
        findings.append(Finding("bad", "unavailable", what, "look at the server's log and its disk"))
    return Checkup(facts, findings)
