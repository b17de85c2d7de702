"""Environments of the real, unmodified llama_deploy, built once for each version and kept in the user's cache.

Each version has a virtual environment of its own, since llama_deploy pins packages that wakeq needs newer. Constraints
files of this package hold what is installed, so that two builds compare. A stamp is written when everything else is
done: a directory without the right stamp is an interrupted or outdated build, and is built anew under a file lock.
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
from pathlib import Path

import platformdirs

from wakeq_bench.peers import PeerUnavailable

Progress = Callable[[str], None]

INSTALL_MAX_S = 900.0
"""A build that takes longer is given up: the index does not answer."""

_HERE = Path(__file__).parent
_STAMP = ".complete"
_logger = logging.getLogger(__name__)


def versions() -> list[str]:
    """The versions that can be built: those with a constraints file, oldest first."""
    prefix = "llama-deploy-"
    found = [path.stem.removeprefix(prefix) for path in (_HERE / "constraints").glob(f"{prefix}*.txt")]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")])


def script(name: str) -> Path:
    """The script that the python of an environment runs: `queue`, `consumers`, `publisher`, `system` or `client`."""
    return _HERE / "scripts" / f"llama_deploy_{name}.py"


def environment(version: str, progress: Progress = _logger.info) -> Path:
    """The python of an environment with llama_deploy `version`, which is built if need be.

    `progress` is called with a line before each step that takes long. Raises PeerUnavailable.
    """
    if version not in versions():
        raise PeerUnavailable(f"llama_deploy {version} is not among the versions known here: {', '.join(versions())}.")
    home = _peers_directory() / f"llama_deploy-{version}"
    if not _is_complete(home, version):
        try:
            _build_once(home, version, progress)
        except OSError as error:
            raise PeerUnavailable(f"llama_deploy {version} could not be installed: {error}.") from error
    return _python(home)


def _build_once(home: Path, version: str, progress: Progress) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.with_name(f"{home.name}.lock"), progress):
        # Whoever held the lock before may have built it.
        if not _is_complete(home, version):
            _build(home, version, progress)


def _build(home: Path, version: str, progress: Progress) -> None:
    progress(f"creating an environment for llama_deploy {version} in {home}")
    shutil.rmtree(home, ignore_errors=True)
    _run([sys.executable, "-I", "-m", "venv", str(home)], version)
    python = str(_python(home))
    progress(f"installing llama_deploy {version} (about half a minute)")
    pip = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-compile"]
    _run([*pip, "--constraint", str(_constraints(version)), f"llama-deploy=={version}"], version)
    # Compiles the modules in use, and no others; the first measurement must not pay for it.
    _run([python, "-I", "-W", "ignore", "-c", "import llama_deploy"], version)
    (home / _STAMP).write_text(_fingerprint(version))
    progress(f"llama_deploy {version} is installed")


def _run(command: list[str], version: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_MAX_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerUnavailable(f"llama_deploy {version} was not installed within {INSTALL_MAX_S:.0f} s.") from error
    if done.returncode != 0:
        raise PeerUnavailable(f"llama_deploy {version} could not be installed: {_reason(done.stderr or done.stdout)}.")


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    chosen = (errors or lines or ["the installer gave no reason"])[-1]
    return chosen.removeprefix("ERROR:").strip().rstrip(".")


def _is_complete(home: Path, version: str) -> bool:
    try:
        stamp = (home / _STAMP).read_text()
    except OSError:
        return False
    return stamp == _fingerprint(version) and _python(home).exists()


def _fingerprint(version: str) -> str:
    # With the interpreter in it: a peer under another Python would not be a fair one.
    content = f"{sys.version}\n{_constraints(version).read_text()}"
    return hashlib.sha256(content.encode()).hexdigest()


def _constraints(version: str) -> Path:
    return _HERE / "constraints" / f"llama-deploy-{version}.txt"


def _python(home: Path) -> Path:
    return home / "bin" / "python"


def _peers_directory() -> Path:
    chosen = os.environ.get("WAKEQ_PEERS_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("wakeq")) / "peers"


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process, which is installing the same version")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
