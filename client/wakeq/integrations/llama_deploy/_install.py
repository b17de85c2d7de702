"""Puts wakeq where llama_deploy has its SimpleMessageQueue.

llama_deploy chooses its queue by the class of a config, in a chain of its own that names `SimpleMessageQueue` and
`SimpleMessageQueueServer`. Both names are replaced wherever llama_deploy has them, and so is its `ControlPlaneServer`;
the config stays, and with it every `deployment.yml`, environment variable and argument that says where the queue is.
Modules of llama_deploy that are imported later take the names from those that have been changed.
"""

import re
import sys
from importlib import import_module, metadata

OLDEST, NEWEST = (0, 4), (0, 8)
"""The first and the last release line whose queue can be replaced."""

_NAME = "llama_deploy"


class UnsupportedVersion(RuntimeError):
    """The llama_deploy that is installed has no queue that wakeq could stand for."""


def install() -> None:
    """Have `deploy_core`, `deploy_workflow` and the API server of this process use wakeq, and start no queue.

    To be called before they are; calling it again changes nothing. Raises UnsupportedVersion, and
    importlib.metadata.PackageNotFoundError where llama_deploy is not installed.
    """
    _check(metadata.version(_NAME))
    import_module(_NAME)
    queue = import_module("wakeq.integrations.llama_deploy._queue")
    control_plane = import_module("wakeq.integrations.llama_deploy._control_plane")
    _replace("SimpleMessageQueue", queue.WakeqMessageQueue)
    _replace("SimpleMessageQueueServer", queue.ExternalQueue)
    _replace("ControlPlaneServer", control_plane.WokenControlPlane)


def _check(version: str) -> None:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not OLDEST <= (int(found[1]), int(found[2])) <= NEWEST:
        oldest, newest = (".".join(map(str, line)) for line in (OLDEST, NEWEST))
        raise UnsupportedVersion(
            f"wakeq can stand for the message queue of llama_deploy {oldest} to {newest}, but {version} is installed."
        )


def _replace(name: str, replacement: type) -> None:
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == _NAME and name in vars(module):
            setattr(module, name, replacement)
