"""Serves one page to browsers on this machine, and tells them when there is a newer version.

Only the page and its version are served, no files. Other machines cannot reach the address.
Requests must name this host, which keeps out pages of other sites (DNS rebinding).
"""

import json
import os
import re
import socketserver
import sys
import threading
import time
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gradflow.errors import ConfigurationError

HOST = "127.0.0.1"
_METHODS = ("GET", "HEAD")
_KEY = re.compile(r"[0-9A-Za-z]{1,64}")
_MAX_READERS = 64
# In seconds. Browsers let a page in the background ask only once a minute.
_FORGET_SECONDS = 75.0
_CLIENT_TIMEOUT = 10.0
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A page cannot set this in its own policy.
    "Content-Security-Policy": "frame-ancestors 'none'",
}


@dataclass(frozen=True)
class ServedPage:
    """The page that is served, its version, the status of training, and when it was built."""

    page: bytes
    version: str
    status: str
    ended: bool
    built: float


class PageServer:
    """Serves one page on a port of this machine, from its own thread, as a context manager.

    Args:
        page, version, status: served first; see `publish`.
        port: the port; 0 takes a free one.

    Raises `ConfigurationError` if the port is not available.
    """

    def __init__(self, page: bytes, version: str, status: str, port: int = 0) -> None:
        self.served = ServedPage(page, version, status, ended=False, built=time.monotonic())
        self._readers: dict[str, tuple[float, bool]] = {}
        self._lock = threading.Lock()
        try:
            self._server = _Server(self, port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "not a port number"
            raise ConfigurationError(
                f"port {port} of {HOST} cannot be used ({reason}): "
                "name another with --port, or leave --port out"
            ) from error
        self.port: int = self._server.server_address[1]
        self.address = f"http://{HOST}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> "PageServer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, page: bytes, version: str, status: str) -> None:
        """Serve `page` from now on; open pages that show another version reload."""
        self.served = ServedPage(page, version, status, ended=False, built=time.monotonic())

    def set_status(self, status: str, *, ended: bool = False) -> None:
        """Show `status` in open pages; if training has `ended`, they stop asking."""
        self.served = replace(self.served, status=status, ended=ended)

    def note_reader(self, reader: str, shown: str, answer: ServedPage) -> None:
        """Record that the open page `reader`, which shows version `shown`, now gets `answer`."""
        settled = answer.ended and shown == answer.version
        with self._lock:
            self._readers.pop(reader, None)
            while len(self._readers) >= _MAX_READERS:
                del self._readers[next(iter(self._readers))]
            self._readers[reader] = (time.monotonic(), settled)

    @property
    def open_pages(self) -> int:
        """The number of open pages that have asked recently."""
        return len(self._recent_readers())

    @property
    def outdated_pages(self) -> int:
        """How many open pages do not yet show the last version, or know that it is the last."""
        return self._recent_readers().count(False)

    def _recent_readers(self) -> list[bool]:
        since = time.monotonic() - _FORGET_SECONDS
        with self._lock:
            return [settled for asked, settled in self._readers.values() if asked > since]


class _Server(ThreadingHTTPServer):
    """An HTTP server that only this machine can reach."""

    daemon_threads = True
    # On Windows it would let two programs use one port; elsewhere SO_REUSEPORT would do so.
    allow_reuse_address = os.name == "posix"
    allow_reuse_port = False

    def __init__(self, owner: PageServer, port: int) -> None:
        self.owner = owner
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's method would ask the network for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that closes the connection during an answer is not an error.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page and its version, and refuses everything else."""

    server: _Server
    timeout = _CLIENT_TIMEOUT

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if self.command not in _METHODS:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return False
        own = [f"{name}:{self.server.server_port}" for name in (HOST, "localhost")]
        named = self.headers.get_all("Host") or []
        if len(named) != 1 or named[0].lower() not in own:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return False
        return True

    def do_GET(self) -> None:
        """The page, or its version as JSON."""
        served = self.server.owner.served
        path, query = self._target()
        if path == "/":
            self._send("text/html; charset=utf-8", served.page)
        elif path == "/version":
            self._note_reader(query, served)
            age = None if served.version == "" else time.monotonic() - served.built
            content = {
                "version": served.version,
                "standing": served.status,
                "ended": served.ended,
                "age": age,
            }
            self._send("application/json", json.dumps(content).encode())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with one line of text; the standard library would repeat the request."""
        status = HTTPStatus(code)
        self._send("text/plain; charset=utf-8", f"{code} {status.phrase}\n".encode(), status)

    def version_string(self) -> str:
        return "gradflow"

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal shows one line per report, not one per request."""

    def _target(self) -> tuple[str, dict[str, list[str]]]:
        try:
            target = urlsplit(self.path)
            return target.path if not target.netloc else "", parse_qs(target.query)
        except ValueError:
            return "", {}

    def _note_reader(self, query: dict[str, list[str]], answer: ServedPage) -> None:
        reader, shown = (query.get(name, [""])[0] for name in ("reader", "shown"))
        if _KEY.fullmatch(reader) and (shown == "" or _KEY.fullmatch(shown)):
            self.server.owner.note_reader(reader, shown, answer)

    def _send(self, content_type: str, content: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", ", ".join(_METHODS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
