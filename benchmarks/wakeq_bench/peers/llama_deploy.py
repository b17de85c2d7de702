"""The real, unmodified llama_deploy, each version in an environment of its own."""

import logging
from pathlib import Path

from wakeq_bench.peers import PeerUnavailable, environments
from wakeq_bench.peers.environments import CONSTRAINTS, Progress, Recipe

_PREFIX = "llama-deploy-"
_logger = logging.getLogger(__name__)


def versions() -> list[str]:
    """The versions that can be built: those with a constraints file, oldest first."""
    found = [path.stem.removeprefix(_PREFIX) for path in CONSTRAINTS.glob(f"{_PREFIX}*.txt")]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def script(name: str) -> Path:
    """The script that an environment's python runs: `queue`, `consumers`, `publisher`, `system`, `service`, `calls` or
    `client`."""
    return environments.script(f"llama_deploy_{name}")


def environment(version: str, progress: Progress = _logger.info) -> Path:
    """The python of an environment with llama_deploy `version`, which is built if need be.

    `progress` is called with a line before each step that takes long. Raises PeerUnavailable.
    """
    if version not in versions():
        raise PeerUnavailable(f"llama_deploy {version} is not among the versions known here: {', '.join(versions())}.")
    recipe = Recipe(
        name=f"llama_deploy {version}",
        directory=f"llama_deploy-{version}",
        requirements=(f"llama-deploy=={version}",),
        constraints=CONSTRAINTS / f"{_PREFIX}{version}.txt",
        modules="llama_deploy",
    )
    return environments.environment(recipe, progress)
