"""What is the same for all deployments of a process."""

from pathlib import Path
from typing import Literal

from wakeq_control.deploy.process import Process


class Options:
    """What an operator may set, and what is there before any deployment."""

    def __init__(self, data: Path, durability: Literal["fsync", "memory"], grace_s: float, lease_s: float) -> None:
        self.data = data
        """Directory of what they keep, each in a directory of its name."""
        self.durability = durability
        self.grace_s = grace_s
        """Seconds that running tasks have when their service is to end."""
        self.lease_s = lease_s
        """Seconds for which a task is leased."""
        self.ahead: dict[str, Process] = {}
        """Servers that load already, by their names, for whoever starts one first."""
