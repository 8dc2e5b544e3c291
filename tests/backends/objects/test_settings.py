"""What `perdure doctor` says of a bucket: rules that remove objects, what outlives a purge, and what it could not ask."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import botocore.config
import botocore.session
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from perdure.backends.objects import gs, s3
from perdure.backends.objects.cloud import cloud_address
from perdure.backends.objects.settings import Asking
from tests.backends.objects.test_clouds import CLOUDS
from tests.servers.azurite import Azurite
from tests.servers.fake_gcs import BUCKET, FakeGCS
from tests.servers.fixture import Servers
from tests.servers.process import HOST, free_port
from tests.servers.proxy import Proxy, answered
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine, diagnosis
from tests.support.backends.scenarios import opened

REMOVING, KEEPING = "rules that remove objects", "what was replaced or deleted"


def bad(told: dict[str, Any]) -> list[str]:
    """What the doctor says is bad."""
    return [finding["what"] for finding in told["findings"] if finding["level"] == "bad"]


def test_rules_and_versions_of_a_bucket_of_s3(servers: Servers[SeaweedFS]) -> None:
    """A rule that expires the store's objects is bad and named; one for others is none; versions that are kept are worth a warning. All is
    asked of a real server, under a signature of ours that it checks."""
    server = servers(SeaweedFS)
    settings = botocore.config.Config(s3={"addressing_style": "path"})
    login = {"aws_access_key_id": "test", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    owner = botocore.session.get_session().create_client("s3", endpoint_url=server.endpoint, config=settings, **login)
    owner.create_bucket(Bucket="ruled")
    url = server.url.replace("@test/", "@ruled/agents/")
    told = diagnosis(url)
    assert (told["healthy"], told["server"][REMOVING], told["server"][KEEPING]) == (True, "none", "is gone")
    rules = [
        {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 7}},
        {"ID": "all old ones", "Status": "Enabled", "Filter": {"Prefix": "agents/"}, "Expiration": {"Days": 30}},
    ]
    owner.put_bucket_lifecycle_configuration(Bucket="ruled", LifecycleConfiguration={"Rules": rules[:1]})
    owner.put_bucket_versioning(Bucket="ruled", VersioningConfiguration={"Status": "Enabled"})
    told = diagnosis(url)
    assert (told["healthy"], told["server"][REMOVING], told["server"][KEEPING]) == (True, "none", "versioning is on")
    assert any("purged can still be read" in finding["what"] for finding in told["findings"])
    owner.put_bucket_lifecycle_configuration(Bucket="ruled", LifecycleConfiguration={"Rules": rules})
    told = diagnosis(url)
    assert told["status"] != 0
    (found,) = bad(told)
    assert "all old ones (prefix 'agents/') removes them after days 30" in found
    owner.close()


def asking(url: str) -> Asking:
    """For the store `agents/perdure/` of a bucket."""
    options = gs.OPTIONS if url.startswith("gs") else s3.OPTIONS
    return Asking(cloud_address(url, options), "agents/perdure/", 0)


ENDS = "<Expiration><Days>1</Days></Expiration>"
LARGE = "<And><Prefix>agents/perdure/log/</Prefix><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan></And>"


@pytest.mark.parametrize(
    ("concerned", "does", "says"),
    [
        ("<Filter><Prefix>other/</Prefix></Filter>", ENDS, ""),
        ("<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>", ENDS, ""),
        ("<Filter/>", "<NoncurrentVersionExpiration><NoncurrentDays>9</NoncurrentDays></NoncurrentVersionExpiration>", ""),
        ("<Filter/>", "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>", ""),
        ("<Filter/>", "<Transition><Days>9</Days><StorageClass>STANDARD_IA</StorageClass></Transition>", ""),
        ("<Filter/>", "<Transition><Days>9</Days><StorageClass>GLACIER</StorageClass></Transition>", "moves them to GLACIER"),
        ("<Prefix/>", "<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration>", "removes them after date 2030"),
        ("<Filter><Prefix>agents/</Prefix></Filter>", ENDS, "removes them after days 1"),
        (f"<Filter>{LARGE}</Filter>", ENDS, "removes them after days 1"),
    ],
)
def test_rules_as_s3_writes_them(concerned: str, does: str, says: str) -> None:
    """Of the forms that S3 documents, those that concern the store's own objects are told, and no other; none of a rule that is off."""
    for status in ("Enabled", "Disabled"):
        rule = ET.fromstring(f"<Rule><ID>r</ID><Status>{status}</Status>{concerned}{does}</Rule>")
        found = s3._removing(asking("s3://bucket/agents"), rule)
        assert bool(found) == bool(says and status == "Enabled")
        assert not found or says in found


@pytest.mark.parametrize(
    ("action", "condition", "removes"),
    [
        ("Delete", {"age": 30}, True),
        ("Delete", {"age": 30, "matchesPrefix": ["logs/", "agents/"]}, True),
        ("Delete", {"age": 30, "matchesPrefix": ["logs/"]}, False),
        ("Delete", {"age": 30, "isLive": False}, False),
        ("Delete", {"numNewerVersions": 3}, False),
        ("SetStorageClass", {"age": 30}, False),
    ],
)
def test_rules_as_google_writes_them(action: str, condition: dict[str, Any], removes: bool) -> None:
    """Of the forms that Google documents, those that delete the store's own live objects are told, and no other."""
    rule = {"action": {"type": action, "storageClass": "ARCHIVE"}, "condition": condition}
    assert bool(gs._removing(asking("gs://bucket/agents"), rule)) == removes


async def test_a_bucket_of_google_is_asked_with_a_key_file(servers: Servers[FakeGCS], tmp_path: Path) -> None:
    """The bucket is read by the JSON API under a token that the key file signs, and its rules, versions and holds are told. Without a
    login none is sent."""
    server, key = servers(FakeGCS), tmp_path / "key.json"
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    about = {"type": "service_account", "client_email": "agent@test", "private_key_id": "1", "private_key": private.decode()}
    key.write_text(json.dumps(about | {"token_uri": f"{server.endpoint}/token", "project_id": "test"}))
    said = {
        "kind": "storage#bucket",
        "lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 30}}]},
        "versioning": {"enabled": True},
        "softDeletePolicy": {"retentionDurationSeconds": "604800"},
        "retentionPolicy": {"retentionPeriod": "86400"},
    }
    asked: list[bytes] = []

    def reply(data: bytes) -> bytes | None:
        if not data.startswith(b"GET /storage/v1/b/"):
            return None
        asked.append(data)
        return answered("200 OK", json.dumps(said).encode())

    async with Proxy(server.port("front")) as proxy:
        proxy.reply = reply
        address = f"gs://{BUCKET}/?endpoint=http://{HOST}:{proxy.port}&namespace=settings"
        for login in (f"credentials={key}", "login=no"):
            async with opened(f"{address}&{login}") as backend:
                found = await backend.checkup()
                assert found.facts[REMOVING] == 'it deletes them on the condition {"age": 30}'
                assert [part.partition(" for ")[0] for part in found.facts[KEEPING].split("; ")] == [
                    "versioning is on",
                    "deleted objects can be restored",
                    "a retention policy lets nothing be replaced or deleted",
                ]
                assert [one.code for one in found.findings if one.level == "bad"] == ["corrupt"]
        assert [b"Bearer ey" in data for data in asked] == [True, False]


def test_an_account_of_azure_says_how_long_it_keeps_what_is_deleted(server_of_my_own: Servers[Azurite]) -> None:
    """Where the key is at hand the account is asked; its lifecycle rules never are, and the command that shows them is told."""
    server = server_of_my_own(Azurite)
    url = Engine("az", Azurite).url(server)
    told = diagnosis(url)
    assert told["healthy"] and told["server"][REMOVING].startswith("not asked; look with: az storage account management-policy show")
    assert told["server"][KEEPING].startswith("not asked")
    policy = b"<DeleteRetentionPolicy><Enabled>true</Enabled><Days>7</Days></DeleteRetentionPolicy>"
    server.ask("/", {"restype": "service", "comp": "properties"}, b"<StorageServiceProperties>%b</StorageServiceProperties>" % policy)
    told = diagnosis(url)
    assert told["healthy"] and told["server"][KEEPING] == "deleted blobs can be restored for 7 days"


@pytest.mark.parametrize("cloud", CLOUDS, ids=repr)
def test_what_was_not_asked_is_said(cloud: Engine) -> None:
    """Without a login that can sign, or where nobody answers as the service does, nothing is made up: both facts are unknown, with the
    commands that show them."""
    module = importlib.import_module(f"perdure.backends.objects.{cloud.name}")
    for login in ("", "a:Yg%3D%3D@" * (cloud.name != "gs")):
        url = f"{cloud.name}://{login}bucket?endpoint=http://{HOST}:{free_port()}"
        found = module.asked(Asking(cloud_address(url, module.OPTIONS), "perdure/", 0))
        assert (found.removing, found.keeping) == (None, None)
        assert "bucket" in found.look or "--account-name" in found.look
