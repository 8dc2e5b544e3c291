"""What weakens durability on a replica set, and how to fix it."""

from __future__ import annotations

from perdure.backends.mongodb.connections import Connections
from perdure.backends.mongodb.layout import COLLECTIONS, SESSION, Doc
from perdure.backends.mongodb.schema import VALIDATOR
from perdure.backends.spi import Checkup, Finding
from perdure.errors import Error

MEMBERS = 3
"""Data-bearing members from which one may die and commits go on."""


async def checkup(connections: Connections, failed: Error | None) -> Checkup:
    """Ask the server; see `spi.Examined`. `failed`: why records could not be moved out of tails, if so."""
    hello = await connections.hello()
    build = await connections.ask({"buildInfo": 1}) or {}
    config = await connections.ask({"replSetGetConfig": 1}, admin=True)
    status = await connections.ask({"serverStatus": 1}, admin=True)
    holders = len(hello.get("hosts", ())) + len(hello.get("passives", ()))
    journaled = config["config"].get("writeConcernMajorityJournalDefault", True) if config else None
    engine = status["storageEngine"]["name"] if status else None
    facts = {
        "server": f"MongoDB {build.get('version', '')}".strip(),
        "replica set": hello["setName"],
        "members with data": str(holders),
        "arbiters": str(len(hello.get("arbiters", ()))),
        "majority is journaled": {True: "yes", False: "no", None: "not to be seen"}[journaled],
        "storage engine": engine or "not to be seen",
    }
    findings = [*_members(holders, hello), *await _collections(connections)]
    if journaled is False:
        what = "writeConcernMajorityJournalDefault is false: commits whose answer was lost are not known to be on disk."
        findings.append(Finding("bad", "unknown", what, "set it to true with rs.reconfig()"))
    if engine == "inMemory":
        what = "The storage engine keeps all in memory: nothing outlives the nodes."
        findings.append(Finding("bad", "unavailable", what, "use members with --storageEngine wiredTiger"))
    if config is None:
        what = "This user may not read the set's configuration: commits whose answer was lost count as `buffered`."
        findings.append(Finding("warning", "unauthorized", what, "grant it the role clusterMonitor on admin"))
    if failed is not None:
        what = f"Records could not be moved out of the sessions' tails: {failed.detail}"
        findings.append(Finding("bad", failed.code, what, "fix that before a session's document reaches 16 MiB"))
    return Checkup(facts, findings)


def _members(holders: int, hello: Doc) -> list[Finding]:
    if holders == 1:
        what = "The replica set has one member with data: its disk is the only one that holds the commits."
        return [Finding("warning", "unavailable", what, "add members, up to three: rs.add()")]
    if holders < MEMBERS:
        also = " and an arbiter" if hello.get("arbiters") else ""
        what = f"The replica set has {holders} members with data{also}: while one is down nothing can be committed."
        return [Finding("warning", "unavailable", what, "have three members with data: rs.add()")]
    return []


async def _collections(connections: Connections) -> list[Finding]:
    """What someone did to our collections."""
    listed = await connections.ask(
        {"listCollections": 1, "filter": {"name": {"$in": [*map(connections.collection, COLLECTIONS)]}}, "cursor": {}}
    )
    options = {one["name"]: one.get("options", {}) for one in listed["cursor"]["firstBatch"]} if listed else {}
    findings = []
    for name in map(connections.collection, COLLECTIONS):
        if name not in options:
            what = f"The collection {name!r} was dropped: what it held is gone."
            findings.append(Finding("bad", "corrupt", what, "restore the whole database from a backup"))
            continue
        if name == connections.collection(SESSION) and options[name].get("validator") != VALIDATOR:
            what = f"The collection {name!r} has lost its validator: an append to a session that is gone is found out too late."
            mend = f'run db.runCommand({{collMod: "{name}", validator: {{$jsonSchema: {{required: ["created"]}}}}}})'
            findings.append(Finding("bad", "corrupt", what, mend))
        indexes = await connections.ask({"listIndexes": name})
        for index in indexes["cursor"]["firstBatch"] if indexes else ():
            if "expireAfterSeconds" in index:
                what = f"The index {index['name']!r} lets documents of {name!r} expire: commits will be lost."
                findings.append(Finding("bad", "corrupt", what, f'run db["{name}"].dropIndex("{index["name"]}")'))
    return findings
