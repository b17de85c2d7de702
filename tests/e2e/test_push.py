"""Pushes and the server's own life: restarts, drains, its log and metrics, and what it is allowed to reach."""

import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.api import Api, serving
from tests.support.receiver import FAIL_S, Receiver, free_port, receiving
from tests.support.server import start_server

TLS = Path(__file__).parents[1] / "support" / "tls"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def put(api: Api, url: str, **push: Any) -> None:
    answer = api.http.put("/topics/t/push/p", json={"url": url, **push})
    assert answer.status_code in (200, 201), answer.text


def show(api: Api) -> dict[str, Any]:
    shown: dict[str, Any] = api.http.get("/topics/t/push/p").json()
    return shown


def wait_for(api: Api, **wanted: Any) -> None:
    until = time.monotonic() + FAIL_S
    while not wanted.items() <= (now := show(api)).items():
        assert time.monotonic() < until, f"{now} never became {wanted}"


def test_a_push_goes_on_after_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path) as api:
        api.put("t")
        api.put("gone")
        put(api, receiver.url, max_in_flight=2, timeout_s=7)
        for topic, name in (("t", "deleted"), ("gone", "p")):
            api.http.put(f"/topics/{topic}/push/{name}", json={"url": receiver.url})
        assert api.http.delete("/topics/t/push/deleted").status_code == 204
        assert api.http.delete("/topics/gone").status_code == 204
        api.post("t", b"1")
        receiver.next().answer()
        wait_for(api, delivered=1)
    with serving(tmp_path) as api:
        (push,) = api.http.get("/topics/t/push").json()["pushes"]
        assert (push["url"], push["max_in_flight"], push["timeout_s"]) == (receiver.url, 2, 7.0)
        assert (push["delivered"], push["state"]) == (0, "up")
        api.post("t", b"2")
        posted = receiver.next()
        # The ack of the first rides along with a later commit, and the server was killed.
        while posted.body == b"1":
            posted.answer()
            posted = receiver.next()
        posted.answer()
        put(api, "http://127.0.0.1:1/")
    with serving(tmp_path) as api:
        assert show(api)["url"] == "http://127.0.0.1:1/"


def test_a_receiver_that_is_killed_gets_the_message_again_when_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path) as api:
        api.put("t")
        with receiving(port) as receiver:
            put(api, f"http://127.0.0.1:{port}/")
            api.post("t", b'"x"')
            receiver.next().reset()
        suspended = api.server.wait_for("push suspended")
        assert (suspended["topic"], suspended["push"], suspended["level"]) == ("t", "p", "warning")
        assert suspended["target"] == f"http://127.0.0.1:{port}"
        metrics = api.http.get("/metrics").text
        assert "wakeq_suspended_pushes 1.0" in metrics
        with receiving(port) as receiver:
            posted = receiver.next()
            assert (posted.body, posted.headers["wakeq-attempt"]) == (b'"x"', "1")
            posted.answer()
            api.server.wait_for("push up")
            wait_for(api, state="up", delivered=1)
            api.post("t", b"2")
            receiver.next().answer(500)
            wait_for(api, failed=1)
            metrics = api.http.get("/metrics").text
        for line in ("wakeq_suspended_pushes 0.0", "wakeq_pushed_messages_total 1.0", "wakeq_failed_pushes_total 1.0"):
            assert line in metrics
        assert len(api.server.events("push suspended")) == len(api.server.events("push up")) == 1


def test_the_log_says_that_a_push_was_removed_and_no_credentials(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path) as api:
        api.put("t")
        put(api, receiver.url.replace("//", "//user:secret@") + "?token=secret")
        api.post("t", b"1")
        receiver.next().answer(410)
        removed = api.server.wait_for("push removed")
        assert (removed["topic"], removed["push"], removed["reason"]) == ("t", "p", "HTTP 410")
        assert removed["target"] == receiver.url.rstrip("/")
        assert "secret" not in str(api.server.log)


# Drains


@pytest.mark.parametrize("durability", ["memory", "fsync"])
def test_a_draining_server_waits_for_answers_and_posts_no_more(
    tmp_path: Path, receiver: Receiver, durability: str
) -> None:
    with (
        start_server(tmp_path, "--drain", "60", durability=durability) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        api = Api(server, http)
        api.put("t")
        put(api, receiver.url)
        api.post("t", b"1")
        posted = receiver.next()
        server.process.terminate()
        server.wait_for("draining")
        api.post("t", b"2")
        assert api.standing("t") == (1, 0, 1)
        posted.answer()
        assert server.wait() == 0
        assert receiver.waiting == 0
        assert not server.events("raw"), server.log
    if durability == "fsync":
        with serving(tmp_path) as api:
            assert receiver.next().body == b"2"


def test_what_is_not_answered_within_the_drain_is_undone(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path, "fsync", "--drain", "0.2") as api:
        api.put("t")
        put(api, receiver.url)
        api.post("t", b'"x"')
        receiver.next()
        assert api.server.terminate() == 0
        assert not api.server.events("raw"), api.server.log
    with serving(tmp_path) as api:
        again = receiver.next()
        assert (again.body, again.headers["wakeq-attempt"]) == (b'"x"', "1")


def test_idle_and_suspended_pushes_do_not_hold_up_a_drain(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path, "fsync", "--drain", "60") as api:
        api.put("t")
        put(api, receiver.url)
        api.put("u")
        api.http.put("/topics/u/push/p", json={"url": f"http://127.0.0.1:{free_port()}/"})
        api.post("u", b"1")
        api.server.wait_for("push suspended")
        began = time.monotonic()
        assert api.server.terminate() == 0
        assert time.monotonic() - began < 5.0


# What may be reached


def test_only_what_the_operator_allows_is_pushed_to(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path, "memory", "--push-allow", "127.0.0.9, localhost") as api:
        api.put("t")
        refused = api.http.put("/topics/t/push/p", json={"url": receiver.url})
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
        assert "127.0.0.9, localhost" in refused.json()["detail"]
        put(api, f"http://LOCALHOST:{receiver.port}/")
        api.post("t", b"1")
        posted = receiver.next()
        assert posted.headers["host"] == f"LOCALHOST:{receiver.port}"
        posted.answer()


def test_a_push_that_is_kept_but_no_longer_allowed_is_suspended(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path) as api:
        api.put("t")
        put(api, receiver.url)
    with serving(tmp_path, "fsync", "--push-allow", "10.0.0.0/8") as api:
        api.post("t", b"1")
        suspended = api.server.wait_for("push suspended")
        assert "127.0.0.1 is not allowed" in str(suspended["reason"])
        assert api.standing("t") == (1, 0, 0)
        assert receiver.accepted == 0


@pytest.fixture
def https() -> Iterator[ThreadingHTTPServer]:
    """A server whose certificate is for `localhost`, not for its address. Answers 200 and keeps what it is posted."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    bodies: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "localhost.crt", TLS / "localhost.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        server.bodies = bodies  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_certificate_must_be_for_the_host_of_the_url(
    tmp_path: Path, https: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "localhost.crt"))
    with serving(tmp_path, "memory") as api:
        api.put("t")
        put(api, f"https://127.0.0.1:{https.server_port}/")
        api.post("t", b"1")
        wait_for(api, state="suspended")
        assert "certificate" in show(api)["last_error"]
        put(api, f"https://localhost:{https.server_port}/")
        wait_for(api, delivered=1, state="up")
        assert https.bodies == [b"1"]  # type: ignore[attr-defined]
