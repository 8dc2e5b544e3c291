"""A front for fake-gcs-server that knows conditional puts: `python gcs_front.py PORT SERVER_PORT`.

Clients put objects by the XML API, of which the server knows only the reading half; the front turns such a put into a multipart upload,
the one kind whose conditions the server minds. All else passes through.
"""

from __future__ import annotations

import http.client
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlencode

HOST = "127.0.0.1"
MARK = "the-parts-of-one-upload"


class Front(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        """Pass it on, under the one host's name that the server serves objects by."""
        sent = {name: value for name, value in self.headers.items() if name.lower() not in {"connection", "host"}}
        self.answer(*ask(self.command, self.path, self.body(), sent | {"Host": f"{HOST}:{sys.argv[1]}"}))

    do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for

    def do_PUT(self) -> None:
        """An object by the XML API, as a multipart upload of the JSON API with the same condition."""
        bucket, _, name = unquote(self.path.partition("?")[0]).lstrip("/").partition("/")
        query = {"uploadType": "multipart"}
        if condition := self.headers.get("x-goog-if-generation-match"):
            query["ifGenerationMatch"] = condition
        about = json.dumps({"name": name, "contentType": "application/octet-stream"}).encode()
        parts = [(b"application/json", about), (b"application/octet-stream", self.body())]
        upload = b"".join([b"--%b\r\nContent-Type: %b\r\n\r\n%b\r\n" % (MARK.encode(), kind, part) for kind, part in parts])
        path = f"/upload/storage/v1/b/{bucket}/o?{urlencode(query)}"
        status, headers, text = ask(
            "POST", path, upload + f"--{MARK}--\r\n".encode(), {"Content-Type": f"multipart/related; boundary={MARK}"}
        )
        if status == http.client.OK:
            made = json.loads(text)
            headers, text = {"x-goog-generation": made["generation"], "ETag": f'"{made["etag"]}"'}, b""
        self.answer(status, headers, text)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        ours = {"content-length", "transfer-encoding", "connection", "date", "server"}
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        for name, value in [*[(name, value) for name, value in headers.items() if name.lower() not in ours], ("Content-Length", length)]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def ask(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """What the server answers."""
    server = http.client.HTTPConnection(HOST, int(sys.argv[2]), timeout=30)
    try:
        server.request(method, path, body, headers)
        answer = server.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        server.close()


class Threads(ThreadingHTTPServer):
    """A thread a connection, many of which may come at once."""

    request_queue_size = 128


if __name__ == "__main__":
    Threads((HOST, int(sys.argv[1])), Front).serve_forever()
