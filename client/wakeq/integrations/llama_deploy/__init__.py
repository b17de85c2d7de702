"""llama_deploy 0.4 to 0.8 on a wakeq server, with leases and streams in place of its queue's polling.

One line in each process, before it deploys, puts wakeq where llama_deploy has its SimpleMessageQueue:

    import wakeq.integrations.llama_deploy.auto

What can't be given a line, such as the API server, is started with it instead:

    python -m wakeq.integrations.llama_deploy llamactl serve deployment.yml

llama_deploy is imported by `install` and with the two classes, not by this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wakeq.integrations.llama_deploy._install import UnsupportedVersion, install

if TYPE_CHECKING:
    from wakeq.integrations.llama_deploy._queue import WakeqMessageQueue, WakeqMessageQueueConfig

__all__ = ["UnsupportedVersion", "WakeqMessageQueue", "WakeqMessageQueueConfig", "install"]


def __getattr__(name: str) -> Any:
    if name in ("WakeqMessageQueue", "WakeqMessageQueueConfig"):
        return getattr(import_module("wakeq.integrations.llama_deploy._queue"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
