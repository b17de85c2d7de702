"""A part of a deployment, seen from within its process: it loads, waits for the word to go, and ends with its parent.

    python -m wakeq_control.deploy.child queue | control-plane | service NAME

Standard input and output belong to the supervisor, a line of JSON each: it says what to load, is told when that is done
(or why it can't be), says when to go, and is told when a service takes tasks. What is printed goes where the log goes.
When the supervisor is gone, however it ended, its end of the pipe is closed, and the process ends with all that it has
started.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from wakeq._loading import loading

_COMMANDS = {"queue": "wakeq_server.cli", "control-plane": "wakeq_control.cli"}


class Broken(Exception):
    """The service can't be loaded; one sentence and what to do."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


class _Supervisor:
    """Who started this process."""

    def __init__(self) -> None:
        self._said: BinaryIO = os.fdopen(os.dup(0), "rb")
        self._told: BinaryIO = os.fdopen(os.dup(1), "wb")
        # Whatever is read or printed from now on is none of the supervisor's.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._words: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # A thread, since the service's code may keep its own busy, from its import on.
        threading.Thread(target=self._listen, name="supervisor", daemon=True).start()

    def _listen(self) -> None:
        for line in self._said:
            self._words.put(json.loads(line))
        _end_all()

    def hear(self) -> dict[str, Any]:
        """The next word."""
        return self._words.get()

    def tell(self, word: dict[str, Any]) -> None:
        """Tell it."""
        self._told.write(json.dumps(word).encode() + b"\n")
        self._told.flush()


def _end_all() -> NoReturn:
    # The group is this process's own, and has whatever its code has started.
    os.killpg(os.getpgid(0), signal.SIGKILL)
    raise AssertionError


def main() -> None:
    """Run a part."""
    supervisor = _Supervisor()
    # Names of folders that are relative mean something else after the change of the working directory.
    sys.path[:] = [os.path.abspath(each) for each in sys.path]
    kind = sys.argv[1]
    if kind == "service":
        _serve(supervisor)
    else:
        _command(supervisor, kind)


def _command(supervisor: _Supervisor, kind: str) -> None:
    """A command of ours, whose code is loaded before it is needed."""
    with loading():
        cli = importlib.import_module("wakeq.cli")
        importlib.import_module(_COMMANDS[kind])
    supervisor.tell({"loaded": True})
    sys.argv = ["wakeq", *supervisor.hear()["arguments"]]
    cli.main()


def _serve(supervisor: _Supervisor) -> None:
    # Loaded here, since a service that can't be loaded is told of in any case.
    with loading():
        from wakeq._connection import control_token  # noqa: PLC0415
        from wakeq_control.service.cli import run  # noqa: PLC0415
        from wakeq_control.service.worker import Options  # noqa: PLC0415

    job = supervisor.hear()
    try:
        runnable = load(job)
    except Broken as error:
        supervisor.tell({"problem": str(error), "hint": error.hint})
        return
    supervisor.tell({"loaded": True})
    go = supervisor.hear()
    options = Options(
        service=job["service"],
        description=job["description"],
        control_plane=go["control_plane"],
        queue=None,
        queue_token=os.environ.get("WAKEQ_TOKEN"),
        control_token=control_token(),
        max_concurrent_tasks=job["max_concurrent_tasks"],
        lease_s=job["lease_s"],
        grace_s=job["grace_s"],
    )
    run(runnable, options, log_format="json", working=lambda: supervisor.tell({"ready": True}))


def load(job: dict[str, Any]) -> Any:
    """What tasks are run by. Raises Broken."""
    from wakeq_control.service.cli import runnable_of  # noqa: PLC0415

    file, attribute = Path(job["file"]), job["attribute"]
    os.chdir(job["folder"])
    sys.path.insert(0, job["imports"])
    shown = os.path.relpath(file)
    try:
        module = importlib.import_module(job["module"])
    except BaseException as error:
        raise _import_problem(error, shown, Path(job["source"])) from None
    if not _is_file_of(module, file):
        where = getattr(module, "__file__", None) or "Python itself"
        problem = f"{shown} can't be imported: a module of that name is in {where}"
        raise Broken(problem, "give it another name")
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            names = ", ".join(sorted(each for each in vars(module) if not each.startswith("_"))) or "nothing"
            raise Broken(f"{shown} has no {attribute!r}", f"name one of what it has: {names}")
        found = getattr(found, name)
    try:
        return runnable_of(found)
    except ValueError as error:
        hint = "name an async function, or an instance of a workflow"
        raise Broken(f"{attribute!r} in {shown} can't be run: {error}", hint) from None


def _is_file_of(module: Any, file: Path) -> bool:
    found = getattr(module, "__file__", None)
    return found is not None and os.path.samefile(found, file)


def _import_problem(error: BaseException, shown: str, source: Path) -> Broken:
    """An error of the service's own code, with the last of its lines that were run."""
    place = shown
    for frame in traceback.extract_tb(error.__traceback__):
        if source in Path(frame.filename).parents:
            place = f"{os.path.relpath(frame.filename)}, line {frame.lineno}"
    if isinstance(error, SyntaxError) and error.filename is not None and source in Path(error.filename).parents:
        place = f"{os.path.relpath(error.filename)}, line {error.lineno}"
    text = getattr(error, "msg", None) if isinstance(error, SyntaxError) else str(error)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    hint = f"look at {place}"
    if isinstance(error, ModuleNotFoundError):
        hint = f"add the package that has {error.name!r} to python-dependencies, or install it"
    return Broken(f"{shown} can't be imported: {said}", hint)


if __name__ == "__main__":
    main()
