"""Where a service's code is: found in the deployment's folder, or cloned; nothing of it is run yet."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import NamedTuple

import anyio
from dotenv import dotenv_values

from wakeq_control.deploy.config import DeploymentConfig, ServiceConfig

CLONE_MAX_S = 600.0
"""A clone that takes longer is given up."""
# The scheme and the host, where an @ means something else, and the rest.
_URL = re.compile(r"(?P<host>\w+://[^/]*|[^/:@]+@[^/:@]+:|)(?P<rest>.*)", re.DOTALL)


class Code(NamedTuple):
    """A service's code, on this machine."""

    folder: Path
    """Its working directory: the deployment file's, or the clone."""
    imports: Path
    """What its module is imported from."""
    module: str
    attribute: str
    file: Path
    """The module's."""
    source: Path
    """What is watched for changes."""
    env: dict[str, str]
    env_files: tuple[Path, ...]


class Sources:
    """The sources of one deployment, at one time. Repositories are cloned once each, into ``clones``."""

    def __init__(self, config: DeploymentConfig, base_path: Path, clones: Path) -> None:
        self._config = config
        # A service's process has another working directory.
        self._base = Path(os.path.abspath(base_path))
        self._clones = clones
        self._cloned: dict[str, Path] = {}

    async def find(self, name: str, service: ServiceConfig) -> Code:
        """A service's code. Raises InvalidDeployment."""
        field = f"services.{name}"
        source = service.source
        if source.type == "git":
            folder = await self._clone(f"{field}.source.name", source.name)
            roots = [folder]
        else:
            folder = self._base
            roots = [folder, self._local(f"{field}.source.name", source.name)]
        place, _, attribute = service.path.partition(":")
        imports, module, file = self._module(f"{field}.path", place, roots)
        files = [
            self._env_file(f"{field}.env-files[{number}]", each, roots)
            for number, each in enumerate(service.env_files or ())
        ]
        env = {key: value for key, value in (service.env or {}).items() if value}
        for path in files:
            env.update((key, value) for key, value in dotenv_values(path).items() if value)
        return Code(folder, imports, module, attribute, file, roots[-1], env, tuple(files))

    def _local(self, field: str, name: str) -> Path:
        folder = self._inside(field, name, self._base, self._base)
        if not folder.is_dir():
            hint = f"it is looked for in {self._base}; write the folder that has the service's code"
            raise self._config.broken(field, f"there is no folder {name!r}", hint)
        return folder

    def _inside(self, field: str, name: str, root: Path, folder: Path) -> Path:
        """The path of that name below ``root``, which may lead anywhere in the folder of all."""
        path = Path(os.path.normpath(root / name))
        if not path.is_relative_to(folder):
            hint = "write a path below the deployment file's folder, and move there what is elsewhere"
            raise self._config.broken(field, f"{name!r} is outside the deployment", hint)
        return path

    def _module(self, field: str, place: str, roots: list[Path]) -> tuple[Path, str, Path]:
        candidates: list[Path] = []
        for root in roots:
            folder = self._inside(field, place, root, roots[0]).parent
            module = Path(place).name
            for file in _files(folder, module):
                candidates.append(file)
                # A path from the deployment file on has to lead into the source.
                if file.is_file() and roots[-1] in file.parents:
                    return folder, module, file
        looked = " nor ".join(
            dict.fromkeys(str(one.relative_to(roots[0])) for one in candidates if roots[-1] in one.parents)
        )
        hint = "write where its module is from the deployment file on, or from the source on"
        raise self._config.broken(field, f"there is no module {place!r} in the source: neither {looked} is there", hint)

    def _env_file(self, field: str, name: str, roots: list[Path]) -> Path:
        for root in roots:
            file = self._inside(field, name, root, roots[0])
            if file.is_file():
                return file
        raise self._config.broken(field, f"there is no file {name!r}", "make it, or take it off the list")

    async def _clone(self, field: str, name: str) -> Path:
        if name not in self._cloned:
            url, branch = split_branch(name)
            self._clones.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self._clones))
            chosen = ("--branch", branch) if branch else ()
            command = ["git", "clone", "--quiet", "--depth=1", *chosen, "--", url, str(folder)]
            reason = await self._run(command)
            if reason is not None:
                hint = "is the repository's URL right, with @BRANCH behind it, and can git reach it without asking?"
                raise self._config.broken(field, f"{name!r} can't be cloned: {reason}", hint)
            self._cloned[name] = folder
        return self._cloned[name]

    async def _run(self, command: list[str]) -> str | None:
        """Run it; returns why it failed."""
        # Nobody is there to type a password.
        env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            with anyio.fail_after(CLONE_MAX_S):
                done = await anyio.run_process(
                    command, check=False, cwd=self._base, env=env, stdin=None, stdout=PIPE, stderr=STDOUT
                )
        except TimeoutError:
            return f"it takes longer than {CLONE_MAX_S:.0f} s"
        except OSError as error:
            return f"git can't be run: {error.strerror}"
        if done.returncode == 0:
            return None
        lines = done.stdout.decode(errors="replace").strip().splitlines() or ["git gave no reason"]
        return lines[-1].removeprefix("fatal: ").rstrip(".")


def split_branch(name: str) -> tuple[str, str | None]:
    """A repository's URL, and what stands behind its ``@``."""
    found = _URL.fullmatch(name)
    assert found is not None
    rest, _, branch = found["rest"].partition("@")
    return found["host"] + rest, branch or None


def _files(folder: Path, module: str) -> Iterator[Path]:
    """Where a module may be, whose name may have dots."""
    place = folder.joinpath(*module.split("."))
    yield place.with_name(f"{place.name}.py")
    yield place / "__init__.py"
