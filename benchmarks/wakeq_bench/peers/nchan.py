"""nginx with nchan, which publishes to HTTP streams from memory, and aiohttp."""

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
    name="aiohttp",
    directory="nchan-aiohttp",
    requirements=("aiohttp",),
    constraints=CONSTRAINTS / "nchan.txt",
    modules="aiohttp",
)
_MODULES = ("/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/local/lib/nginx/modules")
_CONFIG = """\
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {data}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {data}/body;
  proxy_temp_path {data}/proxy;
  fastcgi_temp_path {data}/fastcgi;
  uwsgi_temp_path {data}/uwsgi;
  scgi_temp_path {data}/scgi;
  client_max_body_size 2m;
  client_body_buffer_size 2m;
  nchan_max_reserved_memory 512m;
  server {{
    listen {host}:{port};
    location ~ /publish/(.+)$ {{
      nchan_publisher;
      nchan_channel_id $1;
      nchan_message_buffer_length 10000;
      nchan_message_timeout 1m;
    }}
    location ~ /subscribe/(.+)$ {{
      nchan_subscriber eventsource;
      nchan_channel_id $1;
      nchan_subscriber_first_message oldest;
    }}
  }}
}}
"""
_logger = logging.getLogger(__name__)


def prepare(progress: Progress = _logger.info) -> Path:
    """The python of an environment with aiohttp, where there is a server too. Raises PeerUnavailable."""
    _program()
    _module()
    return environments.environment(_CLIENT, progress)


def versions() -> list[str]:
    """Of nginx, of nchan where a package tells, and of aiohttp. Raises PeerUnavailable."""
    nginx = subprocess.run([_program(), "-v"], capture_output=True, text=True, check=True)
    nchan = subprocess.run(["dpkg-query", "-W", "libnginx-mod-nchan"], capture_output=True, text=True, check=False)
    return [nginx.stderr.strip(), nchan.stdout.strip().replace("\t", " ") or str(_module()), *_CLIENT.pins()]


def _program() -> str:
    found = shutil.which("nginx", path="/usr/sbin") or shutil.which("nginx")
    if found is None:
        raise PeerUnavailable("nginx is not installed: try `apt-get install nginx libnginx-mod-nchan`.")
    return found


def _module() -> Path:
    found = [path for folder in _MODULES if (path := Path(folder) / "ngx_nchan_module.so").exists()]
    if not found:
        raise PeerUnavailable("nginx has no nchan module: try `apt-get install libnginx-mod-nchan`.")
    return found[0]


@contextmanager
def server(data: Path) -> Iterator[Server]:
    """A server with one worker process. Raises PeerUnavailable, ProcessFailed."""
    (port,) = free_ports(1)
    config = data / "nginx.conf"
    config.write_text(_CONFIG.format(module=_module(), data=data, host=HOST, port=port), encoding="utf-8")
    with Child("nginx", [_program(), "-p", str(data), "-e", "stderr", "-c", str(config)]) as child:
        child.wait_for(lambda line: True if "start worker process " in line else None)
        yield Server(f"http://{HOST}:{port}", child)


CONTESTANTS = (
    Contestant(
        key="nchan",
        title="nginx with nchan, event streams",
        keeps="memory",
        prepare=prepare,
        server=server,
        client="nchan",
        versions=versions,
        settings={"worker_processes": "1", "nchan_message_buffer_length": "10000"},
        batches=False,
        restarts=False,
        http=True,
        remarks=(
            "It has no acks, and no consumers that share a topic: each subscriber is sent everything.",
            "It has no client of its own; httpx takes ten times as long where a hundred calls are made at a time.",
        ),
    ),
)
