"""Servers that ask for a token: of every call but two, of every client, and without ever writing it anywhere."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import wakeq
from tests.support.raw import JSON, Answer, Client, call
from tests.support.server import STOP_S, ServerProcess, start_server
from wakeq_server.http.service import openapi_document

TOKEN = "s3cret-Token~+/="
RIGHT = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://app.example"
OPEN = {("GET", "/healthz"), ("GET", "/readyz")}
LEGACY = {("GET", "/"), ("POST", "/topics/{topic}"), ("GET", "/messages/{topic}"), ("POST", "/messages/{topic}")}
CALLS = [
    (method.upper(), path)
    for path, item in openapi_document()["paths"].items()  # type: ignore[attr-defined]
    for method in item
    if method in ("get", "post", "put", "delete")
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("token")
    (folder / "token").write_text(TOKEN + "\n")
    arguments = ("--token-file", str(folder / "token"), "--access-log", "--cors-origin", PAGE, "--legacy-wait", "0")
    with start_server(folder / "data", *arguments) as running:
        yield running
        assert running.terminate() == 0
        assert not [line for line in running.log if TOKEN in str(line) or "authorization" in str(line).lower()]


def ask(server: ServerProcess, method: str, path: str, headers: Mapping[str, str | None]) -> Answer:
    body = None if method in ("GET", "DELETE") else b"{}"
    return call(server, method, path.format(topic="t", group="g", name="n"), body, headers)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_asks_for_it(server: ServerProcess, method: str, path: str) -> None:
    answer = ask(server, method, path, {})
    if (method, path) in OPEN:
        assert answer.status == 200
        return
    assert (answer.status, answer.json()["code"]) == (401, "UNAUTHENTICATED")
    assert answer.head.get("www-authenticate") == "Bearer"
    kind = "application/json" if (method, path) in LEGACY else "application/problem+json"
    assert answer.head.get("content-type") == kind
    assert isinstance(answer.json()["detail"], str)
    assert ask(server, "GET", "/topics/t", RIGHT).status == 404, "something was made"


@pytest.mark.parametrize("target", ["/nowhere", "/messages/t/", "/messages/", "/healthz/", "/readyz?x=1/../v1"])
def test_what_is_no_call_asks_for_it_too(server: ServerProcess, target: str) -> None:
    assert call(server, "GET", target).status == (200 if target.startswith("/readyz?") else 401)
    assert call(server, "POST", "/healthz", b"{}").status == 401


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        "Bearer \xff",
        f"Bearer {TOKEN.lower()}",
        f"Bearer{TOKEN}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
    ],
)
def test_another_is_refused(server: ServerProcess, shown: str) -> None:
    with Client(server) as client:
        head = f"GET /v1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {shown}\r\n\r\n"
        client.socket.sendall(head.encode("latin-1"))
        assert client.answer().status == 401
        assert client.call("GET", "/v1", headers=RIGHT).status == 200


@pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}"])
def test_the_right_one_is_let_in(server: ServerProcess, shown: str) -> None:
    with Client(server) as client:
        about = client.call("GET", "/v1", headers={"Authorization": shown})
        assert (about.status, about.json()["token"]) == (200, True)
        assert client.call("POST", "/messages/legacy", b"{}", {**JSON, "Authorization": shown}).body == b"null"
        assert client.call("GET", "/messages/legacy", headers={"Authorization": shown}).json()["type"] == "default"


def test_an_allowed_page_may_ask_whether_it_may_ask(server: ServerProcess) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    allowed = call(server, "OPTIONS", "/messages/t", headers=asks)
    assert (allowed.status, allowed.head.get("access-control-allow-headers")) == (204, "authorization")
    refused = call(server, "GET", "/v1", headers={"Origin": PAGE})
    assert (refused.status, refused.head.get("access-control-allow-origin")) == (401, PAGE)
    assert call(server, "GET", "/v1", headers={"Origin": PAGE, **RIGHT}).status == 200


def test_a_refused_body_is_not_waited_for(server: ServerProcess) -> None:
    with Client(server) as client:
        client.ask("POST", "/messages/t", b"{", {**JSON, "Content-Length": "60000000"})
        assert client.answer().status == 401


# The client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("from_environment", [False, True])
async def test_the_client_shows_it(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, from_environment: bool
) -> None:
    monkeypatch.setenv("WAKEQ_TOKEN", TOKEN if from_environment else "another")
    async with wakeq.AsyncClient(server.url, token=None if from_environment else TOKEN) as queue:
        await queue.create_topic("client")
        await queue.publish("client", 1)
        async with queue.consume("client") as deliveries:
            delivery = await anext(deliveries)
            assert delivery.body == 1
            await delivery.ack()


@pytest.mark.anyio
async def test_a_client_without_it_is_told(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAKEQ_TOKEN", raising=False)
    async with wakeq.AsyncClient(server.url) as queue:
        with pytest.raises(wakeq.Unauthenticated) as refusal:
            await queue.publish("client", 1)
        assert refusal.value.status == 401
        with pytest.raises(wakeq.Unauthenticated):
            async with queue.consume("client") as deliveries:
                await anext(deliveries)


# Where it comes from, and what the log says


def serve(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wakeq", "serve", "--port", "0", "--durability", "memory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=STOP_S, env=os.environ | env)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"", "1 to 4096 characters"), (b"two\nlines", "printable ASCII"), (b"\xff", "utf-8")],
)
def test_a_file_without_one_is_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    result = serve("--token-file", str(path))
    assert result.returncode == 1
    message, hint = result.stderr.splitlines()
    assert message.startswith(f"wakeq: the token can't be read from {path}: ")
    assert says in message
    assert "--token-file" in hint


@pytest.mark.parametrize("with_token", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_log_says_who_can_use_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_token: bool, host: str
) -> None:
    if with_token:
        monkeypatch.setenv("WAKEQ_TOKEN", TOKEN)
    with start_server(tmp_path, "--host", host) as server:
        assert call(server, "GET", "/v1", headers={"Host": "localhost"}).status == (401 if with_token else 200)
        assert server.terminate() == 0
    beyond = server.events("listening beyond this machine")
    assert [line["level"] for line in beyond] == ([] if host == "127.0.0.1" else ["info" if with_token else "warning"])
    assert TOKEN not in str(server.log)
    if beyond and not with_token:
        assert "asks for no token" in str(beyond[0]["meaning"])
        assert "--token-file" in str(beyond[0]["remedy"])
