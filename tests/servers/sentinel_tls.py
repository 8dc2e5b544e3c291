"""A primary, its replica and three Sentinels that speak TLS: Redis 7.0 of Debian, for Valkey's wheel is built without."""

from __future__ import annotations

import ssl
from pathlib import Path

from tests.servers.process import HOST
from tests.servers.tls import Authority
from tests.servers.valkey import ValkeySentinel, ask
from tests.servers.versions import Redis7


class SecureSentinel(Redis7, ValkeySentinel):
    """All five vouched for by `authority`, for the loopback address."""

    name = "redis-sentinel-tls"
    plain: tuple[str, ...] = ()
    """The nodes that listen in plain text; what they say to others is TLS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.authority = Authority(self.folder, "ours")
        self._file = str(self.authority.file(HOST))
        self._context = ssl.create_default_context(cafile=str(self.authority.ca))

    @property
    def url(self) -> str:
        return f"{super().url.replace('redis+', 'rediss+')}?ca={self.authority.ca}"

    def listening(self, node: str) -> dict[str, str]:
        port = {"port": str(self.port(node))} if node in self.plain else {"port": "0", "tls-port": str(self.port(node))}
        files = {"tls-cert-file": self._file, "tls-key-file": self._file, "tls-ca-cert-file": str(self.authority.ca)}
        return port | files | {"tls-auth-clients": "no", "tls-replication": "yes"}

    def ask(self, node: str, *words: str) -> str:
        return ask(self.port(node), *words, host=self.host(node), security=None if node in self.plain else self._context)


class HalfSecureSentinel(SecureSentinel):
    """Sentinels that listen in plain text before nodes that do not."""

    name = "redis-sentinel-half-tls"
    plain = ValkeySentinel.sentinels
