"""Puts wakeq where llama_deploy has its SimpleMessageQueue.

llama_deploy chooses its queue by the class of a config, in a chain of its own that names `SimpleMessageQueue` and
`SimpleMessageQueueServer`. Both names are replaced wherever llama_deploy has them; the config stays, and with it every
`deployment.yml`, environment variable and argument that says where the queue is. Modules of llama_deploy that are
imported later take the names from those that have been changed.
"""

import re
import sys
from importlib import import_module, metadata
from types import ModuleType

OLDEST, NEWEST = (0, 4), (0, 8)
"""The first and the last release line whose queue can be replaced."""

_NAME = "llama_deploy"


class UnsupportedVersion(RuntimeError):
    """The llama_deploy that is installed has no queue that wakeq could stand for."""


def install() -> None:
    """Have `deploy_core`, `deploy_workflow` and the API server of this process use wakeq, and start no queue.

    To be called before they are; calling it again changes nothing. Raises UnsupportedVersion, and ModuleNotFoundError
    where llama_deploy is not installed.
    """
    import_module(_NAME)
    _check(metadata.version(_NAME))
    simple = import_module("llama_deploy.message_queues.simple")
    ours = import_module("wakeq.integrations.llama_deploy._queue")
    _replace("SimpleMessageQueueServer", simple, ours.ExternalQueue)
    # Last: _queue's own module is the only one that still needs the original's config, not its client.
    _replace("SimpleMessageQueue", simple, ours.WakeqMessageQueue)


def _check(version: str) -> None:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not OLDEST <= (int(found[1]), int(found[2])) <= NEWEST:
        oldest, newest = (".".join(map(str, line)) for line in (OLDEST, NEWEST))
        raise UnsupportedVersion(
            f"wakeq can stand for the message queue of llama_deploy {oldest} to {newest}, but {version} is installed."
        )


def _replace(name: str, simple: ModuleType, replacement: type) -> None:
    original = getattr(simple, name)
    for module_name, module in list(sys.modules.items()):
        inside = module_name == _NAME or module_name.startswith(f"{_NAME}.")
        if inside and vars(module).get(name) is original:
            setattr(module, name, replacement)
