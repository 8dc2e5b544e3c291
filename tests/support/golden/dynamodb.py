"""DynamoDB: how the table was made, and its items."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import boto3

from tests.servers.ministack import MiniStack
from tests.support.golden.places import Dump, fresh

NAMESPACE = "golden"


class DynamoDBTable:
    """A table of its own; the store in it has always the same namespace."""

    def __init__(self, server: MiniStack, _: Path) -> None:
        self._table = fresh()
        self.url = f"dynamodb://key:secret@eu-west-1/{self._table}?endpoint={server.endpoint}&create=true&namespace={NAMESPACE}"
        self._client = boto3.client(
            "dynamodb", endpoint_url=server.endpoint, region_name="eu-west-1", aws_access_key_id="key", aws_secret_access_key="secret"
        )

    def dump(self) -> Dump:
        """See `Place`."""
        described = self._client.describe_table(TableName=self._table)["Table"]
        items = [item for page in self._client.get_paginator("scan").paginate(TableName=self._table) for item in page["Items"]]
        return {"table": _made(described), "items": sorted(map(_json, items), key=lambda item: (item["pk"]["S"], item["sk"]["S"]))}

    def load(self, dump: Dump) -> None:
        """See `Place`."""
        self._client.create_table(TableName=self._table, **dump["table"])
        self._client.get_waiter("table_exists").wait(TableName=self._table)
        for item in dump["items"]:
            self._client.put_item(TableName=self._table, Item=_plain(item))


def _made(described: dict[str, Any]) -> dict[str, Any]:
    """What `create_table` takes to make it alike."""
    indexes = [
        {name: index[name] for name in ("IndexName", "KeySchema", "Projection")} for index in described.get("GlobalSecondaryIndexes", [])
    ]
    attributes = sorted(described["AttributeDefinitions"], key=lambda attribute: attribute["AttributeName"])
    return {
        "AttributeDefinitions": attributes,
        "KeySchema": described["KeySchema"],
        "GlobalSecondaryIndexes": indexes,
        "BillingMode": "PAY_PER_REQUEST",
    }


def _json(value: Any) -> Any:
    """An item with its bytes in base64."""
    if isinstance(value, dict):
        return {
            name: base64.b64encode(bytes(one)).decode() if name == "B" and _is_bytes(one) else _json(one) for name, one in value.items()
        }
    return [_json(one) for one in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Back from `_json`."""
    if isinstance(value, dict):
        return {name: base64.b64decode(one) if name == "B" and isinstance(one, str) else _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _is_bytes(value: Any) -> bool:
    return not isinstance(value, dict | list | str)
