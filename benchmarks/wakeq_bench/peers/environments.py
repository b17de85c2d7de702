"""Environments of other systems, built once each and kept in the user's cache.

Each has a virtual environment of its own, since peers pin packages that wakeq needs newer. Constraints files of this
package hold what is installed, so that two builds compare. A stamp is written when everything else is done: a
directory without the right stamp is an interrupted or outdated build, and is built anew under a file lock.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from wakeq_bench.peers import PeerUnavailable

Progress = Callable[[str], None]

INSTALL_MAX_S = 900.0
"""A build that takes longer is given up: the index does not answer."""
CONSTRAINTS = Path(__file__).parent / "constraints"

_SCRIPTS = Path(__file__).parent / "scripts"
_STAMP = ".complete"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What is installed, and what it is called in sentences."""

    name: str
    directory: str
    requirements: tuple[str, ...]
    constraints: Path
    modules: str
    """What is imported once, as in `import MODULES`."""
    more_constraints: tuple[Path, ...] = ()
    base: "Recipe | None" = None
    """An environment that has most of it already. Its files are shared with this one, which costs next to nothing."""

    def pins(self) -> list[str]:
        """What is held, as `name==version`."""
        return [pin for path in self.constraint_files() for pin in path.read_text(encoding="utf-8").split()]

    def constraint_files(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.constraints, *self.more_constraints)


def script(name: str) -> Path:
    """A script that the python of an environment runs."""
    return _SCRIPTS / f"{name}.py"


def environment(recipe: Recipe, progress: Progress = _logger.info) -> Path:
    """The python of an environment that is built if need be.

    `progress` is called with a line before each step that takes long. Raises PeerUnavailable.
    """
    home = _peers_directory() / recipe.directory
    if not _is_complete(home, recipe):
        try:
            _build_once(home, recipe, progress)
        except OSError as error:
            raise PeerUnavailable(f"{recipe.name} could not be installed: {error}.") from error
    return _python(home)


def _build_once(home: Path, recipe: Recipe, progress: Progress) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.with_name(f"{home.name}.lock"), progress):
        # Whoever held the lock before may have built it.
        if not _is_complete(home, recipe):
            _build(home, recipe, progress)


def _build(home: Path, recipe: Recipe, progress: Progress) -> None:
    progress(f"creating an environment for {recipe.name} in {home}")
    shutil.rmtree(home, ignore_errors=True)
    python = str(_python(home))
    if recipe.base is None:
        _run([sys.executable, "-I", "-m", "venv", str(home)], recipe)
        progress(f"installing {recipe.name} (about half a minute)")
    else:
        base = _packages(environment(recipe.base, progress).parents[1])
        _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(home)], recipe)
        # pip replaces a file by another, and never writes into one that somebody else may have.
        shutil.copytree(base, _packages(home), copy_function=os.link, dirs_exist_ok=True)
        progress(f"installing {recipe.name} (a few seconds)")
    pip = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-compile"]
    held = [option for path in recipe.constraint_files() for option in ("--constraint", str(path))]
    _run([*pip, *held, *recipe.requirements], recipe)
    # Compiles the modules in use, and no others; the first measurement must not pay for it.
    _run([python, "-I", "-W", "ignore", "-c", f"import {recipe.modules}"], recipe)
    (home / _STAMP).write_text(_fingerprint(recipe))
    progress(f"{recipe.name} is installed")


def _run(command: list[str], recipe: Recipe) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_MAX_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerUnavailable(f"{recipe.name} was not installed within {INSTALL_MAX_S:.0f} s.") from error
    if done.returncode != 0:
        raise PeerUnavailable(f"{recipe.name} could not be installed: {_reason(done.stderr or done.stdout)}.")


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    chosen = (errors or lines or ["the installer gave no reason"])[-1]
    return chosen.removeprefix("ERROR:").strip().rstrip(".")


def _is_complete(home: Path, recipe: Recipe) -> bool:
    try:
        stamp = (home / _STAMP).read_text()
    except OSError:
        return False
    return stamp == _fingerprint(recipe) and _python(home).exists()


def _fingerprint(recipe: Recipe) -> str:
    # With the interpreter in it: a peer under another Python would not be a fair one.
    content = "".join([f"{sys.version}\n", *(path.read_text() for path in recipe.constraint_files())])
    return hashlib.sha256(content.encode()).hexdigest()


def _python(home: Path) -> Path:
    return home / "bin" / "python"


def _packages(home: Path) -> Path:
    return home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _peers_directory() -> Path:
    chosen = os.environ.get("WAKEQ_PEERS_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("wakeq")) / "peers"


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process, which is installing the same")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
