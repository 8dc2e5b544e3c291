"""What weakens a store on objects: rules of the bucket that remove them, versions that outlive a purge, what could not be asked."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.backends.objects.bucket import Bucket
from perdure.backends.objects.shard import Shard
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Checkup, Durability, Finding


async def checkup(bucket: Bucket, shards: Sequence[Shard], durability: Durability) -> Checkup:
    """Ask the service; see `spi.Examined`. What could not be asked is a fact that says so, and where to look."""
    await gather_all(*[shard.sync() for shard in shards])
    settings = await bucket.settings()
    unasked = f"not asked; look with: {settings.look}"
    facts = {
        "server": bucket.server,
        "place": bucket.place,
        "shards": str(len(shards)),
        "segments": ", ".join(f"{shard.position:,}" for shard in shards),
        "sessions": f"{sum(len(shard.chains) for shard in shards):,}",
        "conditional put": "honoured",
        "rules that remove objects": unasked if settings.removing is None else "; ".join(settings.removing) or "none",
        "what was replaced or deleted": unasked if settings.keeping is None else "; ".join(settings.keeping) or "is gone",
    }
    findings = []
    for rule in settings.removing or ():
        what = f"A rule of the bucket concerns the store's objects: {rule}. Commits will be gone, for good."
        findings.append(Finding("bad", "corrupt", what, f"take the store's prefix out of the rule; see it with: {settings.look}"))
    for rule in settings.keeping or ():
        what = f"What is truncated or purged can still be read by who may read old versions: {rule}."
        mend = "where purged means gone, turn it off, or let it end soon; where people delete by mistake, it is good to have"
        findings.append(Finding("warning", "unsupported", what, mend))
    if durability == Durability.buffered:
        what = "What this service's answer to a write is worth cannot be seen, so receipts say 'buffered'."
        findings.append(Finding("warning", "unsupported", what, "ask those who run it whether an object is synced before its answer"))
    if unclean := [session.id for shard in shards for session, chain in shard.chains.items() if chain.unclean]:
        what = f"{len(unclean)} sessions may have bytes left that were truncated or purged, {unclean[0]!r} for one."
        findings.append(Finding("warning", "unavailable", what, "truncate or purge them again: it goes on where it ended"))
    return Checkup(facts, findings)
