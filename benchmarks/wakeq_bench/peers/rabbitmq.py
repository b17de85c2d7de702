"""RabbitMQ with quorum queues, which sync before they confirm, and aio-pika."""

import logging
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wakeq_bench.peers import PeerUnavailable, environments
from wakeq_bench.peers.contestant import Contestant
from wakeq_bench.peers.environments import CONSTRAINTS, Progress, Recipe
from wakeq_bench.processes import HOST, Child, Server, free_ports

_CLIENT = Recipe(
    name="aio-pika",
    directory="rabbitmq",
    requirements=("aio-pika",),
    constraints=CONSTRAINTS / "rabbitmq.txt",
    modules="aio_pika",
)
# What the Debian package has on the path becomes another user first, who can't write where we do.
_DIRECTORIES = "/usr/lib/rabbitmq/bin"
_CONFIG = """\
listeners.tcp.1 = {host}:{port}
log.console = true
log.file = false
"""
_logger = logging.getLogger(__name__)


def prepare(progress: Progress = _logger.info) -> Path:
    """The python of an environment with aio-pika, where there is a server too. Raises PeerUnavailable."""
    _program()
    return environments.environment(_CLIENT, progress)


def versions() -> list[str]:
    """Of the server and of its client. Raises PeerUnavailable."""
    found = subprocess.run(["dpkg-query", "-W", "rabbitmq-server"], capture_output=True, text=True, check=False)
    return [found.stdout.strip().replace("\t", " ") or _program(), *_CLIENT.pins()]


def _program() -> str:
    found = shutil.which("rabbitmq-server", path=_DIRECTORIES) or shutil.which("rabbitmq-server")
    if found is None or shutil.which("epmd") is None:
        raise PeerUnavailable(
            "rabbitmq-server is not installed: try `apt-get install rabbitmq-server` or `brew install rabbitmq`."
        )
    return found


@contextmanager
def server(data: Path) -> Iterator[Server]:
    """A server of one node that stores in that directory. Raises PeerUnavailable, ProcessFailed."""
    port, nodes_port, names_port = free_ports(3)
    # Erlang starts a daemon that knows its nodes' ports, and leaves it behind, unless there is one.
    names = ["epmd", "-address", HOST, "-port", str(names_port)]
    environment = {
        "ERL_EPMD_PORT": str(names_port),
        "HOME": str(data),
        "RABBITMQ_ALLOW_INPUT": "1",
        "RABBITMQ_CONFIG_FILE": str(_written(data / "rabbitmq.conf", _CONFIG.format(host=HOST, port=port))),
        "RABBITMQ_DIST_PORT": str(nodes_port),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(_written(data / "plugins", "[].\n")),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(data / "config"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        # Of one name whatever the port: its files are found again after a restart.
        "RABBITMQ_NODENAME": "bench@localhost",
        "RABBITMQ_SERVER_START_ARGS": "-noinput",
    }
    with Child("epmd", names), Child("rabbitmq-server", [_program()], environment) as child:
        child.wait_for(lambda line: True if "Server startup complete" in line else None)
        yield Server(f"amqp://guest:guest@{HOST}:{port}/", child)


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


CONTESTANTS = (
    Contestant(
        key="rabbitmq",
        title="RabbitMQ, quorum queues, publisher confirms",
        keeps="fsync",
        prepare=prepare,
        server=server,
        client="rabbitmq",
        versions=versions,
        consumers_max=100,
        remarks=(
            "One node: a quorum of one, which syncs before it confirms. AMQP confirms no acks.",
            "A queue that was made less than three minutes before a crash may not be found again: it is made before, "
            "and the server stopped in order once.",
            "A quorum queue is a group of Erlang processes and files: more than 100 of them are not asked for.",
        ),
    ),
)
