"""A local server that publishes files as the real ones do, and breaks connections on request."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Publisher:
    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.ranges = True
        """True if parts of files can be requested."""
        self.cut_after: int | None = None
        """Bytes after which the connection breaks."""
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, str | None]] = []
        """Path and Range of each request."""
        self.kaggle_status = 200
        """Status of the answers of Kaggle's service."""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        wanted = handler.headers.get("Range")
        self.requests.append((path, wanted))
        if path not in self.files:
            handler.send_error(404)
            return
        file = self.files[path]
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if begin >= len(file):
            handler.send_error(416)
            return
        rest = file[begin:]
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(rest)))
        if self.ranges:
            handler.send_header("Accept-Ranges", "bytes")
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(rest[: self.cut_after])

    def answer_as_kaggle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers as Kaggle does: version 7 of each data set, redirected to the file /archive."""
        self.requests.append((urlsplit(handler.path).path, handler.headers.get("Range")))
        if self.kaggle_status != 200:
            handler.send_error(self.kaggle_status)
            return
        if handler.path.endswith("/GetDataset"):
            content = json.dumps({"currentVersionNumber": 7}).encode()
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
            return
        checksum = base64.b64encode(hashlib.md5(self.files["/archive"]).digest()).decode()
        self.headers = {"X-Goog-Hash": f"md5={checksum}", "Content-Type": "application/zip"}
        handler.send_response(302)
        handler.send_header("Location", self.url("archive"))
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@contextmanager
def publish() -> Iterator[Publisher]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            publisher.answer(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            publisher.answer_as_kaggle(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the client has closed the connection

    with Server(("127.0.0.1", 0), Handler) as server:
        publisher = Publisher(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield publisher
        finally:
            server.shutdown()
            thread.join()
