"""Environments of services that have dependencies of their own, built once for each list of them, and kept.

Such an environment sees everything that wakeq's own has, behind what was installed for the service: so wakeq and what
is shared need no second copy, and a service may have another version of a library.
"""

import fcntl
import hashlib
import os
import shutil
import site
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import anyio
import anyio.to_thread
import platformdirs
import structlog

from wakeq_control.deploy.errors import DeploymentFailed

INSTALL_MAX_S = 1_800.0
"""An installation that takes longer is given up."""
_STAMP = ".complete"
_log: Any = structlog.get_logger("wakeq.deploy")


async def environment(field: str, dependencies: Sequence[str], base_path: Path) -> Path:
    """The Python of an environment with these dependencies; relative ones start at ``base_path``.

    ``field`` is where they stand, and in which file. Raises DeploymentFailed.
    """
    home = Path(platformdirs.user_cache_dir("wakeq", appauthor=False)) / "environments" / _key(dependencies, base_path)
    python = home / "bin" / "python"
    if not (home / _STAMP).exists():
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            async with _locked(home.with_name(f"{home.name}.lock")):
                # Whoever held the lock before may have built it.
                if not (home / _STAMP).exists():
                    await _build(field, home, python, dependencies, base_path)
        except OSError as error:
            raise DeploymentFailed(f"{field}: no environment can be made for them: {error}") from error
    return python


def _key(dependencies: Sequence[str], base_path: Path) -> str:
    # With the interpreter in it, and where it finds wakeq: another installation has other packages to share. A path is
    # another package elsewhere.
    here = str(base_path) if any(os.sep in each or each.startswith(".") for each in dependencies) else ""
    content = "\n".join([sys.version, sys.prefix, here, *sorted(dependencies)])
    return hashlib.sha256(content.encode()).hexdigest()[:24]


async def _build(field: str, home: Path, python: Path, dependencies: Sequence[str], base_path: Path) -> None:
    _log.info("installing dependencies", field=field, dependencies=list(dependencies), into=str(home))
    shutil.rmtree(home, ignore_errors=True)
    await _run(field, [sys.executable, "-I", "-m", "venv", str(home)], base_path)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = home / "lib" / version / "site-packages"
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    # `addsitedir`, and not just their names: an editable installation has its own .pth there.
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders if folder in sys.path]
    (library / "wakeq-shared.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    await _run(field, [*pip, *dependencies], base_path)
    (home / _STAMP).touch()


async def _run(field: str, command: list[str], base_path: Path) -> None:
    hint = "are the names and versions right, and is the package index within reach?"
    try:
        with anyio.fail_after(INSTALL_MAX_S):
            done = await anyio.run_process(command, check=False, cwd=base_path, stdin=None, stdout=PIPE, stderr=STDOUT)
    except TimeoutError:
        reason = f"it takes longer than {INSTALL_MAX_S:.0f} s"
        raise DeploymentFailed(f"{field}: can't be installed: {reason}", hint) from None
    if done.returncode != 0:
        reason = _reason(done.stdout.decode(errors="replace"))
        raise DeploymentFailed(f"{field}: can't be installed: {reason}", hint)


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["the installer gave no reason"])[-1].rstrip(".")


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    with path.open("a") as lock:
        # Another process may build the same for minutes.
        await anyio.to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX, abandon_on_cancel=True)
        yield
