"""What `perdure doctor` says of a database of Google's: the emulator tells nothing, so a front says what the admin API documents."""

from __future__ import annotations

import grpc
import pytest
from google.cloud.firestore_admin_v1 import types

from perdure.backends.google.checkup import KINDS
from tests.backends.google.test_services import SERVICES
from tests.servers.fixture import Servers
from tests.servers.grpc_front import GrpcFront
from tests.servers.process import Server
from tests.support.backends.engines import Engine, diagnosis

services = pytest.mark.parametrize("service", SERVICES, ids=repr)


@services
def test_times_to_live_and_what_protects_a_database(servers: Servers[Server], service: Engine) -> None:
    """Of every kind of the store the times to live are asked for, and told with the command that takes them away; so is what keeps people
    from losing the database. None is bad: Perdure writes no time that a policy could act on."""
    server = servers(service.server)
    parents: list[str] = []

    def fields(request: bytes) -> bytes:
        asked = types.ListFieldsRequest.deserialize(request)
        assert asked.filter == "ttlConfig:*"
        parents.append(asked.parent)
        found = [types.Field(name=f"{asked.parent}/fields/expireAt", ttl_config={"state": "ACTIVE"})] * asked.parent.endswith("/record")
        return bytes(types.ListFieldsResponse.serialize(types.ListFieldsResponse(fields=found)))

    def database(request: bytes) -> bytes:
        name = types.GetDatabaseRequest.deserialize(request).name
        assert name == "projects/test/databases/(default)"
        off = {"point_in_time_recovery_enablement": 2, "delete_protection_state": 1}
        return bytes(types.Database.serialize(types.Database(name=name, **off)))

    with GrpcFront(server.port("emulator")) as front:
        front.say(fields, to="ListFields")
        front.say(database, to="GetDatabase")
        told = diagnosis(service.url(server).replace(str(server.port("emulator")), str(front.port)))
    assert parents and {*parents} == {f"projects/test/databases/(default)/collectionGroups/{kind}" for kind in KINDS}
    assert told["healthy"]
    assert told["server"]["times to live"] == "record.expireAt"
    assert (told["server"]["point-in-time recovery"], told["server"]["delete protection"]) == ("off", "off")
    fixes = " ".join(finding["fix"] for finding in told["findings"])
    for part in ("ttls update expireAt --collection-group=record --disable-ttl", "--enable-pitr", "--delete-protection"):
        assert part in fixes


@pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, None], ids=["no right", "an emulator"])
@services
def test_what_was_not_asked_is_said(servers: Servers[Server], service: Engine, code: grpc.StatusCode | None) -> None:
    """Where the admin API refuses, or is not there as on an emulator, the doctor says so, with the commands that a person can run."""
    server = servers(service.server)
    with GrpcFront(server.port("emulator")) as front:
        if code is not None:
            front.say(code, "Missing or insufficient permissions.", to="FirestoreAdmin")
        told = diagnosis(service.url(server).replace(str(server.port("emulator")), str(front.port)))
    assert told["healthy"]
    for fact in ("times to live", "point-in-time recovery", "delete protection"):
        assert told["server"][fact].startswith("not asked; look with: gcloud firestore fields ttls list --project=test")
