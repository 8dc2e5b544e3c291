"""TLS before any server on loopback: certificates of our own, and a front that speaks TLS to clients and plainly to the server.

The wheels of Valkey and PostgreSQL are built without TLS. What a client does before it trusts an address is the same with this front.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.process import HOST
from tests.servers.proxy import Listening

GSS_REQUEST = (8).to_bytes(4) + (80877104).to_bytes(4)
"""How a client of PostgreSQL asks for Kerberos, before it asks for TLS."""


class Authority:
    """An authority that nobody else trusts; `ca` is its certificate's file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(self._sign(self._key, self._name, [], ca=True))

    def certificate(self, *names: str, clients: Authority | None = None) -> ssl.SSLContext:
        """A server's context, with a certificate for these hosts and addresses. `clients`: it serves those alone whom this one knows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file(*names))
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients.ca)
        return context

    def file(self, *names: str) -> Path:
        """A file, its owner's alone, with a key and its certificate, for these hosts and addresses or, with one name, a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self._folder / f"{names[0]}-of-{self.ca.name}"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.touch(0o600)
        file.write_bytes(private + self._sign(key, _named(names[0]), names, ca=False))
        return file

    def _sign(self, key: ec.EllipticCurvePrivateKey, subject: x509.Name, names: Sequence[str], *, ca: bool) -> bytes:
        now = datetime.now(UTC)
        mine = self._key.public_key()
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(mine), critical=False)
            .add_extension(_usage(ca=ca), critical=True)
        )
        if names:
            built = built.add_extension(x509.SubjectAlternativeName([_host(name) for name in names]), critical=False)
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, ca: bool) -> x509.KeyUsage:
    off = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_encipherment=not ca, key_cert_sign=ca, crl_sign=ca, **off)


class Front(Listening):
    """Listens on a port of its own with TLS and passes bytes to `port` and back. `asked`: clients ask for TLS first, as PostgreSQL's do.
    `trouble`: `cut` closes at the first bytes of a handshake, `garbage` answers them with something else, `silent` not at all."""

    def __init__(self, port: int, context: ssl.SSLContext, *, asked: bool = False, trouble: str = "") -> None:
        self._target, self._context, self._asked, self._trouble = port, context, asked, trouble
        self._clients: dict[asyncio.Task[None], asyncio.Transport] = {}
        self.handshakes = 0
        """How many clients have trusted it."""

    def replace(self, context: ssl.SSLContext) -> None:
        """Cut all connections; who comes now meets another certificate."""
        self._context = context
        for transport in self._clients.values():
            transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, transport = asyncio.current_task(), writer.transport
        assert task is not None
        self._clients[task] = transport
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._talk(reader, writer)
        finally:
            writer.close()
            transport.abort()
            del self._clients[task]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._asked:
            if await reader.readexactly(8) != GSS_REQUEST:
                writer.write(b"S")
                break
            writer.write(b"N")
        if self._trouble:
            await reader.read(1 << 16)
            if self._trouble == "garbage":
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)
                await writer.drain()
            elif self._trouble == "silent":
                await asyncio.sleep(60)
            return
        await writer.start_tls(self._context)
        self.handshakes += 1
        there, back = await asyncio.open_connection(HOST, self._target)
        requests = asyncio.create_task(_pass(reader, back))
        try:
            await _pass(there, writer)
        finally:
            requests.cancel()
            back.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
