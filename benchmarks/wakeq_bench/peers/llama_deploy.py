"""The real, unmodified llama_deploy, each version in an environment of its own."""

import logging
from dataclasses import replace
from pathlib import Path

import wakeq
from wakeq_bench.peers import PeerUnavailable, environments
from wakeq_bench.peers.environments import CONSTRAINTS, Progress, Recipe

_PREFIX = "llama-deploy-"
_logger = logging.getLogger(__name__)


def versions() -> list[str]:
    """The versions that can be built: those with a constraints file, oldest first."""
    found = [path.stem.removeprefix(_PREFIX) for path in CONSTRAINTS.glob(f"{_PREFIX}*.txt")]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def script(name: str) -> Path:
    """The script that an environment's python runs: `queue`, `consumers`, `publisher`, `system`, `calls`, `client`."""
    return environments.script(f"llama_deploy_{name}")


def environment(version: str, progress: Progress = _logger.info, *, for_wakeq: bool = False) -> Path:
    """The python of an environment with llama_deploy `version`, which is built if need be.

    With `for_wakeq` it also has what `import wakeq` needs, but not wakeq itself: `wakeq_on_path` adds that.
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
    return environments.environment(_for_wakeq(recipe) if for_wakeq else recipe, progress)


def wakeq_on_path(directory: Path) -> dict[str, str]:
    """The environment variable by which a python finds this wakeq; `directory` is an empty one, for a link.

    The folder that has wakeq may have all that is installed beside it, which must not stand before the peer's own.
    """
    (directory / "wakeq").symlink_to(Path(wakeq.__file__).parent, target_is_directory=True)
    return {"PYTHONPATH": str(directory)}


def _for_wakeq(recipe: Recipe) -> Recipe:
    needs = CONSTRAINTS / "wakeq-client.txt"
    return replace(
        recipe,
        name=f"{recipe.name} with what wakeq needs",
        directory=f"{recipe.directory}-wakeq",
        requirements=(*recipe.requirements, *needs.read_text(encoding="utf-8").split()),
        more_constraints=(needs,),
        base=recipe,
        modules=f"{recipe.modules}, anyio, httptools, httpx, orjson",
    )
