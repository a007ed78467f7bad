"""Proxy in front of an MLflow server that delays, refuses and loses answers, for tests of what runs make of that."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "host")

PASS, REFUSE, REFUSE_AFTER, LOSE = "pass", "refuse", "refuse after it was done", "lose the answer"
"""Things that happen to a request: answered; answered with 500 in place of the server; done by the server and answered
with 500; done by the server, and the connection ends without an answer."""


class FaultyProxy:
    """Passes requests on to a server, in threads of its own.

    Attributes:
        uri: Its address.
        fate: Says what happens to a request, from its method and path. It may sleep.
        counts: Number of requests by what happened to them.
    """

    def __init__(self, server: str, fate: Callable[[str, str], str] = lambda method, path: PASS) -> None:
        self.fate = fate
        self.counts: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self._body()
                fate = proxy.fate(self.command, self.path)
                proxy.counts[fate] += 1
                status, headers, content = 500, {}, b"made up by the proxy"
                if fate != REFUSE:
                    sent = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                    try:
                        done = requests.request(
                            self.command, server + self.path, data=body, headers=sent, timeout=60, allow_redirects=False
                        )
                    except requests.RequestException:  # as if this were the server
                        self.close_connection = True
                        return
                    if fate == PASS:
                        status, content = done.status_code, done.content
                        headers = {n: v for n, v in done.headers.items() if n.lower() not in HOP_BY_HOP}
                if fate == LOSE:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._listening.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._listening.server_address[1]}"
        threading.Thread(target=self._listening.serve_forever, name="proxy", daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown()
        self._listening.server_close()


def slowly(seconds: float) -> Callable[[str, str], str]:
    """A fate for each request: an answer after some seconds."""

    def fate(method: str, path: str) -> str:
        time.sleep(seconds)
        return PASS

    return fate
