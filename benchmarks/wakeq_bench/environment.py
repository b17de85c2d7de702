"""The machine and the versions that figures are only comparable with."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("wakeq", "anyio", "httptools", "httpx", "orjson", "uvicorn", "uvloop")
# By itself; memory by a little, from one start of the machine to the next.
_CHANGING = {"load_average", "memory_bytes"}
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def environment() -> dict[str, Any]:
    """What is the case now."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "governor": _read(_GOVERNOR),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_average": list(os.getloadavg()),
    }


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether nothing differs but what changes by itself."""
    return all(one.get(name) == other.get(name) for name in {*one, *other} - _CHANGING)


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
