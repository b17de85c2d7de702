"""What a service's process says of code that can't be run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wakeq_control.deploy.child import Broken, load

RUNS = "async def run(user_msg: str) -> str:\n    return user_msg\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The deployment's; what a load changes in this process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "src").mkdir()
    yield tmp_path
    for name, module in [*sys.modules.items()]:
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def loaded(folder: Path, code: str, attribute: str = "run", module: str = "flows") -> Any:
    source = folder / "src"
    file = source / f"{module}.py"
    file.write_text(code)
    job = {"folder": str(folder), "imports": str(source), "source": str(source), "file": str(file)}
    return load({**job, "module": module, "attribute": attribute})


def problem(folder: Path, code: str, **more: str) -> tuple[str, str]:
    with pytest.raises(Broken) as raised:
        loaded(folder, code, **more)
    return str(raised.value), raised.value.hint


def test_what_can_be_run_is(folder: Path) -> None:
    (folder / "src" / "beside.py").write_text(RUNS)
    found = loaded(folder, "from beside import run\nimport os\nassert os.path.isdir('src')\n")
    assert list(found.schema["properties"]) == ["user_msg"]


@pytest.mark.parametrize(
    ("code", "said", "hint"),
    [
        (
            "import no_such_module",
            "ModuleNotFoundError: No module named 'no_such_module'",
            "add the package that has 'no_such_module' to python-dependencies, or install it",
        ),
        ("from os import nope", "ImportError: cannot import name 'nope' from 'os'", "look at src/flows.py, line 1"),
        ("a = 1\nb = a / 0", "ZeroDivisionError: division by zero", "look at src/flows.py, line 2"),
        ("a = 1\ndef run(:\n", "SyntaxError: invalid syntax", "look at src/flows.py, line 2"),
        ("raise KeyError", "KeyError", "look at src/flows.py, line 1"),
        ("import sys\n\nsys.exit(0)", "SystemExit: 0", "look at src/flows.py, line 3"),
        ("from beside import x", "ValueError: beside", "look at src/beside.py, line 2"),
        ("from wrong import x", "SyntaxError: '(' was never closed", "look at src/wrong.py, line 1"),
    ],
)
def test_an_error_of_the_import_is_told_with_its_line(code: str, said: str, hint: str, folder: Path) -> None:
    (folder / "src" / "beside.py").write_text("\nraise ValueError('beside')")
    (folder / "src" / "wrong.py").write_text("x = (")
    told, advice = problem(folder, code)
    assert told.startswith(f"src/flows.py can't be imported: {said}")
    assert advice == hint


def test_an_object_that_is_not_there_is_named_with_what_there_is(folder: Path) -> None:
    said = problem(folder, "one = two = 1", attribute="run")
    assert said == ("src/flows.py has no 'run'", "name one of what it has: one, two")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("run = ''", "it is a str, and neither an async function nor an instance of a workflow"),
        ("def run(): ...", "it is a function, and neither an async function nor an instance of a workflow"),
        ("class run: ...", "it is a class, and neither an async function nor an instance of a workflow"),
        ("async def run(*args): ...", "its parameter 'args' takes no keyword, and tasks have nothing else"),
    ],
)
def test_an_object_that_cannot_be_run_is_told_why(code: str, said: str, folder: Path) -> None:
    assert problem(folder, code)[0] == f"'run' in src/flows.py can't be run: {said}"


def test_a_module_that_is_another_one_already_is_told(folder: Path) -> None:
    said, hint = problem(folder, RUNS, module="json")
    assert said.startswith("src/json.py can't be imported: a module of that name is in ")
    assert hint == "give it another name"
