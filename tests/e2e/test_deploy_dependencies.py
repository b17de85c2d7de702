"""A service with dependencies of its own runs in an environment of its own, which is made once."""

import zipfile
from pathlib import Path

import pytest

from tests.support.deployments import deployed

pytestmark = pytest.mark.slow

FILE = """\
name: Dependent
control-plane: {port: 0}
message-queue: {type: simple, port: 0}
services:
  dependent:
    name: Has a dependency
    source: {type: local, name: .}
    path: flows:run
    env: {GREETING: hello}
    python-dependencies: [./shop_prices-1.0-py3-none-any.whl]
"""
FLOWS = """\
import os
import sys

import shop_prices


async def run() -> str:
    return f"{os.environ['GREETING']} {shop_prices.PRICE} {sys.prefix}"
"""


def wheel(folder: Path) -> None:
    """What needs no index to be installed."""
    about = "shop_prices-1.0.dist-info"
    files = {
        "shop_prices.py": "PRICE = 5\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: shop_prices\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(folder / "shop_prices-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_it_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wheel(tmp_path)
    (tmp_path / "flows.py").write_text(FLOWS)
    file = tmp_path / "deployment.yml"
    file.write_text(FILE)
    home = tmp_path / "cache" / "wakeq" / "environments"
    for starts in (1, 2):
        with deployed(file, tmp_path / "data", "--no-reload") as deployment:
            greeting, price, prefix = deployment.run("dependent").split()
            assert (greeting, price, Path(prefix).parent) == ("hello", "5", home)
            assert len(deployment.events("installing dependencies")) == (1 if starts == 1 else 0)
            assert deployment.terminate() == 0
