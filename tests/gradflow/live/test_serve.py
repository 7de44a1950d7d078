"""The server of the live page serves one page, only to this machine."""

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from gradflow.errors import ConfigurationError
from gradflow.live import serve
from gradflow.live.serve import PageServer


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    """A server shared by all tests that only send requests."""
    with PageServer(b"<p>waiting</p>", "", "waiting for the first epoch") as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[PageServer]:
    """A server for one test that changes the page, the status, or the known readers."""
    with PageServer(b"<p>waiting</p>", "", "waiting for the first epoch") as running:
        yield running


def ask(
    server: PageServer, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def ask_raw(server: PageServer, text: str) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(text.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def news(server: PageServer, query: str = "") -> dict[str, object]:
    return json.loads(ask(server, f"/version{query}")[1])


def test_page_is_what_was_published_last(fresh):
    assert ask(fresh, "/")[1] == b"<p>waiting</p>"
    fresh.publish("<p>é</p>".encode(), "v1", "epoch 1 of 2; training goes on")
    response, content = ask(fresh, "/")
    assert (response.status, content.decode()) == (200, "<p>é</p>")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert int(response.headers["Content-Length"]) == len(content)


def test_version_says_how_far_training_has_got(fresh):
    assert news(fresh) == {
        "version": "", "standing": "waiting for the first epoch", "ended": False, "age": None,
    }  # fmt: skip
    fresh.publish(b"", "v1", "epoch 1 of 1; training goes on")
    fresh.set_status("epoch 1 of 1; training has ended", ended=True)
    told = news(fresh)
    assert 0 <= told.pop("age") < 5
    assert told == {"version": "v1", "standing": "epoch 1 of 1; training has ended", "ended": True}


@pytest.mark.parametrize("path", ["/", "/version", "/absent"])
def test_head_is_get_without_the_content(server, path):
    got, content = ask(server, path)
    head, nothing = ask(server, path, "HEAD")
    assert (head.status, nothing) == (got.status, b"")
    if path != "/version":  # its age changes
        assert int(head.headers["Content-Length"]) == len(content)


@pytest.mark.parametrize(
    "path",
    [
        "/report.html", "/run.json", "/../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/", "/./",
        "/version/", "/favicon.ico", "/index.html", "/etc/passwd", "*", "/\\..\\", "/version%00",
        "http://example.org/", "//example.org/version", "http://[/",
    ],
)  # fmt: skip
def test_any_other_path_is_404(server, path):
    answer = ask_raw(server, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n")
    assert b" 404 Not Found" in answer.splitlines()[0]
    assert answer.endswith(b"\r\n\r\n404 Not Found\n")


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}"])
def test_own_names_are_answered(server, host):
    assert ask(server, "/", Host=host.format(port=server.port))[0].status == 200


@pytest.mark.parametrize(
    "host",
    ["", "attacker.example", "attacker.example:{port}", "127.0.0.1", "127.0.0.1:1",
     "127.0.0.1:{port}.attacker.example", "127.0.0.1:{port}@attacker.example", "0.0.0.0:{port}"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/version"])
def test_other_names_of_the_host_are_misdirected(server, host, path):
    response, content = ask(server, path, Host=host.format(port=server.port))
    assert (response.status, content) == (421, b"421 Misdirected Request\n")


@pytest.mark.parametrize("hosts", ["", "Host: 127.0.0.1:{port}\r\nHost: attacker.example\r\n"])
def test_no_name_or_two_are_misdirected(server, hosts):
    hosts = hosts.format(port=server.port)
    answer = ask_raw(server, f"GET / HTTP/1.1\r\n{hosts}\r\n")
    assert b" 421 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "get", "NONSENSE"]
)
@pytest.mark.parametrize("path", ["/", "/absent"])
def test_other_methods_are_not_allowed(server, method, path):
    response, _ = ask(server, path, method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/version", "/absent"])
def test_no_answer_is_kept_framed_or_shared_with_another_site(server, path):
    headers = ask(server, path, Origin="http://attacker.example")[0].headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert headers["Server"] == "gradflow"


@pytest.mark.parametrize("text", ["<script>\r\n\r\n", "GET / HTTP/9\r\n\r\n", "GET\r\n\r\n"])
def test_malformed_requests_are_refused_without_repeating_them(server, text):
    answer = ask_raw(server, text)
    assert b"script" not in answer
    assert b"Bad request" not in answer
    assert answer.endswith(b"\n")
    assert ask(server, "/")[0].status == 200


def test_other_machines_cannot_reach_it(server):
    assert server._server.socket.getsockname() == ("127.0.0.1", server.port)
    assert server.address == f"http://127.0.0.1:{server.port}/"
    # Another address of this machine: a server listening on all addresses would answer here.
    with pytest.raises(OSError):  # noqa: PT011 - refused, or unknown, depending on the system
        socket.create_connection(("127.0.0.2", server.port), timeout=2)


def test_port_in_use_is_one_sentence(server):
    with pytest.raises(ConfigurationError, match=f"port {server.port} of 127.0.0.1 cannot be used"):
        PageServer(b"", "", "", port=server.port)


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_number_that_is_no_port_is_one_sentence(port):
    with pytest.raises(ConfigurationError, match=f"port {port} .* name another with --port"):
        PageServer(b"", "", "", port=port)


def test_nothing_answers_once_it_is_left():
    with PageServer(b"", "", "") as server:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/")


def test_open_pages_follow_until_they_show_the_last_page_and_know_it(fresh):
    assert (fresh.open_pages, fresh.outdated_pages) == (0, 0)
    news(fresh, "?reader=a&shown=")
    fresh.publish(b"", "v1", "")
    news(fresh, "?reader=b&shown=v1")
    assert (fresh.open_pages, fresh.outdated_pages) == (2, 2)
    fresh.set_status("", ended=True)
    assert fresh.outdated_pages == 2
    news(fresh, "?reader=b&shown=v1")
    news(fresh, "?reader=a&shown=")
    assert fresh.outdated_pages == 1
    news(fresh, "?reader=a&shown=v1")
    assert (fresh.open_pages, fresh.outdated_pages) == (2, 0)


def test_pages_that_ask_no_more_are_forgotten(fresh, monkeypatch):
    news(fresh, "?reader=a&shown=old")
    monkeypatch.setattr(serve, "_FORGET_SECONDS", 0.0)
    assert (fresh.open_pages, fresh.outdated_pages) == (0, 0)


@pytest.mark.parametrize(
    "query", ["", "?reader=&shown=x", "?reader=%3Cb%3E", f"?reader={'a' * 65}"]
)
def test_names_of_pages_that_are_not_ours_are_not_kept(fresh, query):
    assert news(fresh, query)["version"] == ""
    assert fresh.open_pages == 0


def test_no_more_pages_are_kept_than_a_reader_could_have_open(fresh):
    for number in range(100):
        fresh.note_reader(f"r{number}", "", fresh.served)
    assert fresh.open_pages == serve._MAX_READERS


def test_browser_that_leaves_in_the_middle_costs_no_traceback(fresh, capfd):
    fresh.publish(b"x" * 10_000_000, "v1", "")
    with socket.create_connection(("127.0.0.1", fresh.port), timeout=5) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{fresh.port}\r\n\r\n".encode())
        connection.recv(100)
    assert ask(fresh, "/version")[0].status == 200
    assert capfd.readouterr().err == ""
