"""Who may import whom (docs/architecture.md). The imports are read, not run."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("client", "queue_server", "control_plane", "benchmarks")
OURS = ("wakeq", "wakeq_server", "wakeq_control", "wakeq_bench")

CONTROL_RULES = {
    f"wakeq_control.{name}"
    for name in (
        "codec",
        "lifecycle",
        "limits",
        "model",
        "plane",
        "registry",
        "replicas",
        "runs",
        "sessions",
        "streams",
        "tasks",
    )
}

# By layer: what of our own it may import, and which libraries. A longer name wins over a shorter one.
LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "wakeq_server.core": ({"wakeq_server.core", "wakeq_server.errors"}, set()),
    "wakeq_server.errors": (set(), set()),
    "wakeq_server.settings": ({"wakeq._serving.settings"}, {"platformdirs", "pydantic", "pydantic_settings"}),
    "wakeq_server.engine": (
        {
            "wakeq._serving.offload",
            "wakeq_server.core",
            "wakeq_server.engine",
            "wakeq_server.store.base",
            "wakeq_server.errors",
        },
        {"anyio"},
    ),
    "wakeq_server.store": (
        {"wakeq._serving.directories", "wakeq_server.core.model", "wakeq_server.store", "wakeq_server.errors"},
        {"orjson"},
    ),
    "wakeq_server.http": (
        {
            "wakeq_server.core.model",
            "wakeq_server.engine.base",
            "wakeq_server.engine.stats",
            "wakeq._serving.moments",
            "wakeq._serving.origins",
            "wakeq_server.errors",
            "wakeq_server.http",
            "wakeq_server.settings",
        },
        {
            "anyio",
            "jsonschema",
            "orjson",
            "prometheus_client",
            "pydantic",
            "referencing",
            "structlog",
            "yaml",
        },
    ),
    "wakeq_server.push": (
        {
            "wakeq_server.core.model",
            "wakeq_server.engine.base",
            "wakeq_server.errors",
            "wakeq_server.push",
            "wakeq_server.settings",
        },
        {"anyio", "httpcore", "structlog"},
    ),
    "wakeq_server": (
        {"wakeq_server", "wakeq"},
        {"anyio", "httptools", "pydantic", "structlog", "typer", "uvicorn", "uvloop"},
    ),
    "wakeq": ({"wakeq"}, {"anyio", "orjson"}),
    "wakeq._answers": (set(), {"httptools"}),
    "wakeq._wire": (set(), set()),
    "wakeq._line": (set(), set()),
    "wakeq._asyncio_line": ({"wakeq._line"}, {"anyio"}),
    "wakeq._anyio_line": ({"wakeq._line"}, {"anyio"}),
    "wakeq._loops": (set(), {"anyio"}),
    "wakeq._http": (
        {
            "wakeq._answers",
            "wakeq._anyio_line",
            "wakeq._asyncio_line",
            "wakeq._line",
            "wakeq._loops",
            "wakeq._wire",
        },
        {"anyio", "httpx"},
    ),
    "wakeq._over_httpx": ({"wakeq._wire"}, {"httpx"}),
    "wakeq._connection": ({"wakeq"}, {"httpx"}),
    "wakeq._serving": ({"wakeq._serving"}, {"structlog", "uvicorn"}),
    "wakeq._serving.commands": (set(), {"pydantic", "typer"}),
    "wakeq._serving.settings": ({"wakeq._serving.tokens"}, {"pydantic", "pydantic_settings"}),
    "wakeq._serving.stopping": (set(), {"anyio"}),
    "wakeq._serving.offload": (set(), {"anyio"}),
    "wakeq.otel": ({"wakeq"}, {"opentelemetry"}),
    "wakeq.testing": ({"wakeq"}, {"anyio", "httpx", "pytest"}),
    "wakeq.cli": ({"wakeq"}, {"anyio", "orjson", "rich", "typer"}),
    **dict.fromkeys(
        CONTROL_RULES, (CONTROL_RULES | {"wakeq_control.arguments", "wakeq_control.errors"}, {"pydantic_core"})
    ),
    "wakeq_control.arguments": ({"wakeq_control.codec", "wakeq_control.errors", "wakeq_control.schemas"}, set()),
    "wakeq_control.schemas": (set(), {"jsonschema", "referencing"}),
    "wakeq_control.errors": (set(), set()),
    "wakeq_control.messages": (CONTROL_RULES | {"wakeq_control.errors"}, {"pydantic"}),
    "wakeq_control.settings": (
        {"wakeq._serving.settings", "wakeq_control.limits"},
        {"platformdirs", "pydantic", "pydantic_settings"},
    ),
    "wakeq_control.state": (
        CONTROL_RULES | {"wakeq._serving.directories", "wakeq_control.errors", "wakeq_control.state"},
        set(),
    ),
    "wakeq_control.engine": (
        CONTROL_RULES
        | {
            "wakeq._serving.offload",
            "wakeq_control.engine",
            "wakeq_control.errors",
            "wakeq_control.messages",
            "wakeq_control.state.base",
        },
        {"anyio"},
    ),
    "wakeq_control.link": (
        CONTROL_RULES
        | {
            "wakeq",
            "wakeq_control.engine.engine",
            "wakeq_control.errors",
            "wakeq_control.link",
            "wakeq_control.messages",
        },
        {"anyio", "httpx", "orjson", "structlog"},
    ),
    "wakeq_control.http": (
        CONTROL_RULES
        | {
            "wakeq._serving.hosts",
            "wakeq._serving.moments",
            "wakeq._serving.origins",
            "wakeq._serving.tokens",
            "wakeq_control.engine.engine",
            "wakeq_control.engine.links",
            "wakeq_control.errors",
            "wakeq_control.http",
            "wakeq_control.messages",
            "wakeq_control.schemas",
        },
        {"anyio", "pydantic"},
    ),
    "wakeq_control.apiserver": (
        {
            "wakeq",
            "wakeq_control.apiserver",
            "wakeq_control.codec",
            "wakeq_control.deploy.base",
            "wakeq_control.deploy.config",
            "wakeq_control.deploy.errors",
            "wakeq_control.errors",
            "wakeq_control.http",
            "wakeq_control.messages",
            "wakeq_control.model",
        },
        {"anyio", "platformdirs", "pydantic", "pydantic_settings", "structlog", "typer", "uvicorn", "uvloop"},
    ),
    "wakeq_control.service": (
        {
            "wakeq",
            "wakeq_control.arguments",
            "wakeq_control.codec",
            "wakeq_control.errors",
            "wakeq_control.link",
            "wakeq_control.messages",
            "wakeq_control.model",
            "wakeq_control.service",
            "wakeq_control.tasks",
        },
        {"anyio", "httpx", "orjson", "pydantic", "pydantic_core", "structlog", "typer", "uvloop"},
    ),
    # It puts the API server in front of its deployments.
    "wakeq_control.deploy.running": ({"wakeq", "wakeq_control"}, {"anyio", "pydantic", "structlog"}),
    "wakeq_control.deploy": (
        {
            "wakeq",
            "wakeq_control.deploy",
            "wakeq_control.errors",
            "wakeq_control.link.trying",
            "wakeq_control.messages",
            "wakeq_control.service",
        },
        {"anyio", "dotenv", "httpx", "platformdirs", "pydantic", "structlog", "typer", "uvloop", "watchdog", "yaml"},
    ),
    "wakeq_control": (
        {"wakeq", "wakeq_control"},
        {"anyio", "pydantic", "structlog", "typer", "uvicorn", "uvloop"},
    ),
    # Both servers as one process: the only module that knows them both.
    "wakeq_control.up": ({"wakeq", "wakeq_control", "wakeq_server"}, {"anyio", "structlog", "typer", "uvloop"}),
    "wakeq._handlers": ({"wakeq"}, {"anyio", "pydantic"}),
    "wakeq.integrations": ({"wakeq"}, {"anyio", "httpx"}),
    # Whoever imports it has llama_deploy, and with it fastapi and pydantic.
    "wakeq.integrations.llama_deploy": ({"wakeq"}, {"anyio", "fastapi", "httpx", "llama_deploy", "pydantic"}),
    "wakeq_bench.flows": (set(), {"workflows"}),
    # What the extra `bench` brings: whoever only measures has neither.
    "wakeq_bench.pages": ({"wakeq_bench"}, {"jinja2", "matplotlib"}),
    "wakeq_bench": (
        {"wakeq", "wakeq_bench"},
        {"anyio", "httpx", "orjson", "platformdirs", "psutil", "pydantic", "rich", "typer", "uvicorn"},
    ),
}
CLOCKS = {"time", "random", "datetime", "asyncio", "threading"}


def modules() -> Iterator[tuple[str, Path]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            # Scripts of another environment's Python are data here.
            if "scripts" not in parts:
                yield ".".join(part for part in parts if part != "__init__"), path


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def layer_of(module: str) -> str:
    return max((layer for layer in LAYERS if within(module, {layer})), key=len)


def offences(module: str, path: Path) -> Iterator[str]:
    own, libraries = LAYERS[layer_of(module)]
    names = set(imported(path))
    # `from package import module` names both; the longer name says what is meant.
    names = {name for name in names if not any(other.startswith(name + ".") for other in names)}
    for name in sorted(names):
        top = name.partition(".")[0]
        if top in OURS:
            if not within(name, own):
                yield name
        elif top not in sys.stdlib_module_names and top not in libraries:
            yield name


ALL = list(modules())


@pytest.mark.parametrize(("module", "path"), ALL, ids=[name for name, _ in ALL])
def test_imports_only_what_its_layer_may(module: str, path: Path) -> None:
    assert list(offences(module, path)) == []


@pytest.mark.parametrize(
    ("module", "path"),
    [pair for pair in ALL if within(pair[0], {"wakeq_server.core"} | CONTROL_RULES)],
    ids=lambda value: str(value)[-30:],
)
def test_core_has_no_clock_and_does_not_wait(module: str, path: Path) -> None:
    assert not CLOCKS & {name.partition(".")[0] for name in imported(path)}
    assert not [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Await | ast.AsyncFunctionDef)
    ]


def test_only_the_composition_root_makes_stores_and_engines() -> None:
    makers = {"wakeq_server.engine.embedded", "wakeq_server.store.sqlite", "wakeq_server.store.memory"}
    users = {
        module
        for module, path in ALL
        if layer_of(module) == "wakeq_server" and any(within(name, makers) for name in imported(path))
    }
    assert users == {"wakeq_server.app"}


def test_it_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import anyio\nfrom wakeq_server.engine import embedded\n")
    assert list(offences("wakeq_server.core.bad", bad)) == ["anyio", "wakeq_server.engine.embedded"]
