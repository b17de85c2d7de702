"""Run by Python when it starts, where this folder is on its path: installs wakeq as soon as llama_deploy is imported.

Nothing is imported before, so that a program without llama_deploy pays nothing.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


class _Installing(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "llama_deploy":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_install(module: ModuleType) -> None:
            execute(module)
            import_module("wakeq.integrations.llama_deploy.auto")

        spec.loader.exec_module = execute_and_install  # type: ignore[method-assign]
        return spec


def _run_hidden_one() -> None:
    """There is one `sitecustomize`, the first on the path; this one must not keep another from running."""
    here = Path(__file__).parent
    sys.path[:] = [entry for entry in sys.path if Path(entry) != here]
    ours = sys.modules.pop(__name__)
    try:
        import_module(__name__)
    except ModuleNotFoundError:
        sys.modules[__name__] = ours


sys.meta_path.insert(0, _Installing())
if __name__ == "sitecustomize":
    _run_hidden_one()
