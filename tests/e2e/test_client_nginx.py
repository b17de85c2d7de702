"""The client through nginx, which has its default settings: HTTP/1.0 to the server, and buffering."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

import wakeq
from tests.support.server import ServerProcess, start_server

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PATIENCE_S = 30.0

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian's package is enough)"),
]

CONFIGURATION = """
daemon off;
pid nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path bodies;
    proxy_temp_path answers;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen unix:{socket};
        location / {{ proxy_pass http://127.0.0.1:{port}; }}
    }}
}}
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@contextmanager
def nginx(folder: Path, port: int) -> Iterator[Path]:
    """The socket that it listens on."""
    assert NGINX is not None
    socket = folder / "socket"
    (folder / "nginx.conf").write_text(CONFIGURATION.format(socket=socket, port=port))
    with subprocess.Popen(
        [NGINX, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            # It listens before it says so.
            log = []
            for line in process.stderr:
                log.append(line)
                if "start worker process " in line:
                    break
            else:
                raise AssertionError("".join(log))
            yield socket
        finally:
            process.terminate()
            process.stderr.read()
            process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("data"), durability="os") as server:
        yield server


@pytest.fixture(scope="module")
def socket(server: ServerProcess) -> Iterator[Path]:
    # The path of a socket must be short, and nginx's workers may be another user's.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with nginx(Path(folder), server.port) as socket:
            yield socket


async def test_what_is_published_is_consumed_as_it_comes(socket: Path, request: pytest.FixtureRequest) -> None:
    topic: str = request.node.name
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with wakeq.AsyncClient("http://127.0.0.1", transport=transport) as client:
        await client.create_topic(topic, schema="json")
        async with client.consume(topic) as deliveries:
            for number in range(3):
                await client.publish(topic, number)
                with anyio.fail_after(PATIENCE_S):
                    async with await anext(deliveries) as delivery:
                        assert (delivery.body, delivery.attempt) == (number, 1)
            await client.publish_many(topic, range(100))
            with anyio.fail_after(PATIENCE_S):
                for number in range(100):
                    async with await anext(deliveries) as delivery:
                        assert delivery.body == number
            # A stream, and not the long polls that a buffering proxy would leave.
            assert deliveries.streams
        assert (await client.topic(topic)).messages == 0
        with anyio.fail_after(PATIENCE_S):
            assert await client.claim(topic, wait_s=0.2) == []
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(client.publish, topic, "x" * 30_000 if number == 50 else number)
        assert (await client.topic(topic)).messages == 100
