"""SQLite's file, and the objects of an object store: in a folder or in a bucket of S3."""

from __future__ import annotations

from pathlib import Path

import boto3
from botocore.config import Config

from tests.servers.process import Server
from tests.servers.seaweedfs import BUCKET, SeaweedFS
from tests.support.golden.places import Dump, data, fresh, text


class SQLiteFile:
    """The file itself."""

    def __init__(self, _: Server | None, folder: Path) -> None:
        self._path = folder / f"{fresh()}.db"
        self.url = f"sqlite:///{self._path}"

    def dump(self) -> Dump:
        """See `Place`. Nothing may lie beside the file of a store that is closed."""
        assert [path.name for path in self._path.parent.glob(f"{self._path.name}*")] == [self._path.name]
        return {"file": text(self._path.read_bytes())}

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        self._path.write_bytes(data(dump["file"]))


class ObjectsFolder:
    """Objects as files."""

    def __init__(self, _: Server | None, folder: Path) -> None:
        self._root = folder / fresh()
        self.url = f"file://{self._root}?namespace=n&shards=4"

    def dump(self) -> Dump:
        """See `Place`."""
        root = self._root / "n"
        return {str(path.relative_to(root)): text(path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()}

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        for name, content in dump.items():
            path = self._root / "n" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data(content))


class ObjectsBucket:
    """Objects below a prefix of a bucket."""

    def __init__(self, server: SeaweedFS, _: Path) -> None:
        self._prefix = f"{fresh()}/"
        self.url = f"{server.url}&namespace={self._prefix[:-1]}&shards=4"
        self._client = boto3.client(
            "s3", endpoint_url=server.endpoint, aws_access_key_id="test", aws_secret_access_key="secret", region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip

    def dump(self) -> Dump:
        """See `Place`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self._prefix)
        names = sorted(found["Key"] for page in pages for found in page.get("Contents", []))
        return {name.removeprefix(self._prefix): text(self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()) for name in names}

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        for name, content in dump.items():
            self._client.put_object(Bucket=BUCKET, Key=self._prefix + name, Body=data(content))
