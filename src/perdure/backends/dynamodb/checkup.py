"""What weakens a DynamoDB table, and how to fix it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.backends.dynamodb.layout import FEED_INDEX
from perdure.backends.dynamodb.table import Table
from perdure.backends.spi import Checkup, Finding
from perdure.errors import Error

_UNKNOWN: Mapping[str, Any] = {}


async def checkup(table: Table) -> Checkup:
    """Ask the service; see `spi.Examined`. What the login may not ask, or an emulator does not know, is "unknown"."""
    described = (await _described(table, "describe_table")).get("Table", _UNKNOWN)
    backups = (await _described(table, "describe_continuous_backups")).get("ContinuousBackupsDescription", _UNKNOWN)
    expiry = (await _described(table, "describe_time_to_live")).get("TimeToLiveDescription", _UNKNOWN)
    region = table.client.meta.region_name
    status = str(described.get("TableStatus", "unknown"))
    indexes = {index["IndexName"]: str(index.get("IndexStatus", "ACTIVE")) for index in described.get("GlobalSecondaryIndexes", [])}
    billing = described.get("BillingModeSummary", _UNKNOWN).get("BillingMode", "PROVISIONED") if described else "unknown"
    recovery = str(backups.get("PointInTimeRecoveryDescription", _UNKNOWN).get("PointInTimeRecoveryStatus", "unknown"))
    ttl = str(expiry.get("TimeToLiveStatus", "unknown"))
    replicas = [str(replica.get("RegionName")) for replica in described.get("Replicas", [])]
    strong = described.get("MultiRegionConsistency") == "STRONG"
    facts = {
        "server": f"DynamoDB (API {table.client.meta.service_model.api_version}), {region}",
        "endpoint": str(table.client.meta.endpoint_url),
        "table": f"{table.name}, {status.lower()}",
        "billing": billing.lower(),
        "point-in-time recovery": recovery.lower(),
        "time to live": ttl.lower(),
        "deletion protection": {True: "on", False: "off"}.get(described.get("DeletionProtectionEnabled"), "unknown"),
        "feed index": indexes.get(FEED_INDEX, "missing" if described else "unknown").lower(),
        "replicas": ", ".join(replicas) or "none",
    }
    named = f"--table-name {table.name}"
    findings = []

    def find(level: Any, code: str, what: str, mend: str) -> None:
        findings.append(Finding(level, code, what, mend))

    if ttl in ("ENABLED", "ENABLING"):
        attribute = expiry.get("AttributeName", "?")
        mend = f'aws dynamodb update-time-to-live {named} --time-to-live-specification "Enabled=false,AttributeName={attribute}"'
        find("bad", "corrupt", f"The table has a time to live (attribute {attribute!r}): items can vanish from under a chain.", mend)
    if described and status not in ("ACTIVE", "UPDATING"):
        what = f"The table is {status.lower()}."
        find("bad", "unavailable", what, "wait, or look for the reason in the AWS console (an archived table has lost its key)")
    if described and FEED_INDEX not in indexes:
        what = f"The table has no index {FEED_INDEX!r}: the feed of all changes cannot be read."
        find("bad", "invalid", what, "add it with aws dynamodb update-table; see docs/engines/dynamodb.md")
    if replicas and strong:
        what = "The table is a global one with strong consistency, which takes no transactions."
        find("bad", "invalid", what, "use a table of one region, or a global one with eventual consistency that is written in one region")
    elif replicas:
        what = f"The table is replicated ({', '.join(replicas)}): of writes in two regions one is lost, whatever its condition was."
        find("warning", "corrupt", what, "write in one region alone; open the others only to read, after a failover")
    if recovery == "DISABLED":
        mend = f"aws dynamodb update-continuous-backups {named} --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
        find("warning", "corrupt", "Point-in-time recovery is off: what a person deletes is gone.", mend)
    if described.get("DeletionProtectionEnabled") is False:
        mend = f"aws dynamodb update-table {named} --deletion-protection-enabled"
        find("warning", "not_found", "Deletion protection is off: one command deletes the table.", mend)
    if billing == "PROVISIONED":
        mend = f"aws dynamodb update-table {named} --billing-mode PAY_PER_REQUEST, or watch its auto scaling"
        find("warning", "unavailable", "Capacity is provisioned: above it commits wait, and then fail.", mend)
    return Checkup(facts, findings)


async def _described(table: Table, operation: str) -> Mapping[str, Any]:
    try:
        return await table.ask(operation, TableName=table.name)
    except Error:
        return _UNKNOWN
