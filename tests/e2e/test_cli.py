"""The `wakeq` command: what it tells, where its settings come from, and how it refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

import wakeq
from tests.support.server import STOP_S, start_server
from wakeq.cli import app
from wakeq_server.settings import Settings


class Option(NamedTuple):
    """One setting, as each of its sources has it."""

    arguments: list[str]
    text: str
    toml: Any
    value: Any


OPTIONS = {
    "host": Option(["--host", "127.0.0.2"], "127.0.0.2", "127.0.0.2", "127.0.0.2"),
    "port": Option(["--port", "1234"], "1234", 1234, 1234),
    "data": Option(["--data", "/nowhere/x"], "/nowhere/x", "/nowhere/x", Path("/nowhere/x")),
    "durability": Option(["--durability", "os"], "os", "os", "os"),
    "auto_create_topics": Option(["--auto-create-topics"], "true", True, True),
    "legacy_wait": Option(["--legacy-wait", "12.5"], "12.5", 12.5, 12.5),
    "legacy_heartbeat": Option(["--legacy-heartbeat", "0"], "0", 0, 0.0),
    "drain": Option(["--drain", "600"], "600", 600, 600.0),
    "memory_budget": Option(["--memory-budget", "2MB"], "2000000", "2MB", 2_000_000),
    "max_topics": Option(["--max-topics", "7"], "7", 7, 7),
    "max_parked": Option(["--max-parked", "0"], "0", 0, 0),
    "head_timeout": Option(["--head-timeout", "1.5"], "1.5", 1.5, 1.5),
    "body_timeout": Option(["--body-timeout", "600"], "600", 600, 600.0),
    "token": Option(["--token", "s3cret"], "s3cret", "s3cret", SecretStr("s3cret")),
    "token_file": Option(["--token-file", "/nowhere/t"], "/nowhere/t", "/nowhere/t", Path("/nowhere/t")),
    "allowed_hosts": Option(["--allowed-hosts", "a, b"], "a,b", ["a", "b"], ("a", "b")),
    "cors_origin": Option(["--cors-origin", "http://x"], "http://x,", "http://x", ("http://x",)),
    "push_allow": Option(["--push-allow", "10.0.0.0/8, a"], "10.0.0.0/8,a", ["10.0.0.0/8", "a"], ("10.0.0.0/8", "a")),
    "log_format": Option(["--log-format", "json"], "json", "json", "json"),
    "access_log": Option(["--access-log"], "1", True, True),
}


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    return f"WAKEQ_{name.upper()}"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`wakeq serve` in this process, up to the point where the server would run: its settings, or what it said."""
    for name in (*OPTIONS, "config"):
        monkeypatch.delenv(variable(name), raising=False)

    def call(*arguments: str, **env: str) -> Any:
        ran: list[Settings] = []

        async def keep(settings: Settings, version: str) -> None:
            assert version == wakeq.__version__
            ran.append(settings)

        monkeypatch.setattr("wakeq_server.cli.run_server", keep)
        monkeypatch.setattr("wakeq_server.cli.logs.configure", lambda _: None)
        result = CliRunner().invoke(app, ["serve", *arguments], env=env)
        if ran:
            assert (result.exit_code, result.output) == (0, "")
            return ran[0]
        return result

    return call


def toml(path: Path, **values: Any) -> str:
    """A configuration file; its name."""
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    return str(path)


def test_the_table_above_has_every_setting() -> None:
    assert set(OPTIONS) == set(Settings.model_fields)
    defaults = Settings.load(None, {})
    assert all(getattr(defaults, name) != option.value for name, option in OPTIONS.items())


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_a_setting(serve: Callable[..., Any], tmp_path: Path, name: str) -> None:
    option = OPTIONS[name]
    for settings in (
        serve(*option.arguments),
        serve(**{variable(name): option.text}),
        serve("--config", toml(tmp_path / "a.toml", **{name: option.toml})),
        serve(WAKEQ_CONFIG=toml(tmp_path / "b.toml", **{name: option.toml})),
    ):
        assert getattr(settings, name) == option.value
        others = {other: getattr(settings, other) for other in OPTIONS if other != name}
        assert others == {other: getattr(Settings.load(None, {}), other) for other in others}


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    config = toml(tmp_path / "wakeq.toml", port=1, drain=1, legacy_wait=1, access_log=True)
    settings = serve(
        "--config", config, "--port", "3", "--no-access-log", WAKEQ_PORT="2", WAKEQ_DRAIN="2", WAKEQ_ACCESS_LOG="1"
    )
    assert (settings.port, settings.drain, settings.legacy_wait) == (3, 2.0, 1.0)
    assert settings.access_log is False
    assert settings.durability == "fsync"


def refused(result: Result) -> str:
    """What a wrong call says: in plain words, with a hint, and with exit code 2."""
    assert isinstance(result, Result), result
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    said = result.stderr
    assert "Traceback" not in said
    assert re.search(r"^hint: .|^Try '.*--help'", said, re.MULTILINE)
    return said


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("10.0.0.1/8", "10.0.0.1/8"),
        ("::1,127.0.0.256", "127.0.0.256"),
        ("a,b/c", "b/c"),
        ("*", "*"),
        ("http://a", "http://a"),
    ],
)
def test_a_target_that_is_none_is_refused_by_its_name(serve: Callable[..., Any], value: str, named: str) -> None:
    message, hint = refused(serve("--push-allow", value)).splitlines()
    assert message.startswith(f"wakeq: push-allow: '{named}' is no network, address or host name: ")
    assert hint == "hint: see wakeq serve --help"


@pytest.mark.parametrize("value", ["a", "A-1.b_c.example.", "xn--bcher-kva.example", "10.0.0.0/8,::1, a"])
def test_networks_addresses_and_names_are_targets(serve: Callable[..., Any], value: str) -> None:
    assert serve("--push-allow", value).push_allow == tuple(part.strip() for part in value.split(","))


RANGES = [
    ("port", ["-1", "65536"], "from 0 to 65535"),
    ("legacy_wait", ["-0.1", "600.5", "nan", "inf"], "from 0 to 600"),
    ("legacy_heartbeat", ["-1", "61", "nan"], "from 0 to 60"),
    ("drain", ["-1", "601", "nan"], "from 0 to 600"),
    ("memory_budget", ["999999", "1000000000001"], "from 1000000 to 1000000000000"),
    ("max_topics", ["0", "100000001"], "from 1 to 100000000"),
    ("max_parked", ["-1", "10000001"], "from 0 to 10000000"),
    ("head_timeout", ["0", "601", "nan"], "from 0.1 to 600"),
    ("body_timeout", ["0.01", "inf", "nan"], "from 0.1 to 600"),
]


@pytest.mark.parametrize(("name", "values", "allowed"), RANGES)
def test_a_value_out_of_range_is_refused_with_the_range(
    serve: Callable[..., Any], tmp_path: Path, name: str, values: list[str], allowed: str
) -> None:
    for value in values:
        number = value if value in ("nan", "inf") else json.loads(value)
        (tmp_path / "a.toml").write_text(f"{name} = {number}\n")
        for result in (
            serve(f"{flag(name)}={value}"),
            serve(**{variable(name): value}),
            serve("--config", str(tmp_path / "a.toml")),
        ):
            message, hint = refused(result).splitlines()
            assert message == f"wakeq: {flag(name)[2:]}: must be {allowed}"
            assert hint == "hint: see wakeq serve --help"


WRONG = [
    ("port", "http", "integer"),
    ("port", "80.5", "integer"),
    ("drain", "soon", "number"),
    ("durability", "disk", "'fsync', 'os', 'memory'"),
    ("log_format", "xml", "'text', 'json'"),
    ("access_log", "maybe", "boolean"),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_a_value_of_the_wrong_kind_is_refused_by_its_option(
    serve: Callable[..., Any], tmp_path: Path, name: str, value: str, says: str
) -> None:
    results = [serve(**{variable(name): value})]
    if name != "access_log":
        results.append(serve(flag(name), value))
    for result in results:
        said = refused(result)
        assert flag(name) in said
        assert says in said
    said = refused(serve("--config", toml(tmp_path / "a.toml", **{name: value})))
    assert said.startswith(f"wakeq: {flag(name)[2:]}: ")


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [("128MB", 128_000_000), ("128mb", 128_000_000), ("1GiB", 1 << 30), ("1.5 MB", 1_500_000), ("5000000", 5_000_000)],
)
def test_a_budget_may_have_a_unit(serve: Callable[..., Any], given: str, bytes_: int) -> None:
    assert serve("--memory-budget", given).memory_budget == serve(WAKEQ_MEMORY_BUDGET=given).memory_budget == bytes_


@pytest.mark.parametrize("given", ["lots", "5 apples", "", "MB"])
def test_a_budget_that_is_none_is_refused(serve: Callable[..., Any], given: str) -> None:
    message, _ = refused(serve("--memory-budget", given)).splitlines()
    assert message == "wakeq: memory-budget: must be a number of bytes, or one with a unit: 128MB, 1GiB"


@pytest.mark.parametrize("token", ["", "two words", "gr\u00fcn", "x" * 4_097, "tab\t"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(serve: Callable[..., Any], token: str) -> None:
    message, _ = refused(serve(f"--token={token}")).splitlines()
    assert message == "wakeq: token: must have 1 to 4096 characters, printable ASCII without spaces"


def test_a_token_comes_from_one_place(serve: Callable[..., Any]) -> None:
    message, _ = refused(serve("--token-file", "/x", WAKEQ_TOKEN="hush-hush")).splitlines()
    assert message == "wakeq: token-file: there is a token already, given by --token or WAKEQ_TOKEN"


def test_a_token_is_not_shown(serve: Callable[..., Any]) -> None:
    assert "hush-hush" not in repr(serve("--token", "hush-hush"))


def test_an_unknown_setting_in_the_file_is_refused(serve: Callable[..., Any], tmp_path: Path) -> None:
    said = refused(serve("--config", toml(tmp_path / "a.toml", prot=1)))
    assert said.splitlines()[0] == "wakeq: prot: there is no such setting"


def test_an_unknown_option_is_refused(serve: Callable[..., Any]) -> None:
    assert "--prot" in refused(serve("--prot", "1"))
    assert "extra" in refused(serve("extra"))


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), (b"port = \nx = 1", "line 1"), (b"\xff\xfe", "")]
)
def test_a_file_that_cannot_be_read_is_refused_by_name(
    serve: Callable[..., Any], tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "wakeq.toml"
    if content is not None:
        path.write_bytes(content)
    for result in (
        serve("--config", str(path)),
        serve(WAKEQ_CONFIG=str(path)),
        serve("--config", str(path), "--port=1"),
    ):
        message, hint = refused(result).splitlines()
        assert message.startswith(f"wakeq: {path} can't be read: ")
        assert says in message
        assert "TOML" in hint
    assert "directory" in refused(serve("--config", str(tmp_path)))


# In processes of their own


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wakeq", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=STOP_S)


def test_the_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"wakeq {wakeq.__version__}\n", "")


def test_help_lists_the_commands_without_loading_them() -> None:
    code = "import sys; from wakeq.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=STOP_S)
    assert result.returncode == 0, result.stderr
    help_text, _, modules = result.stdout.rstrip().rpartition("\n")
    for name in ("bench", "demo", "serve"):
        assert re.search(rf"^\W*{name}\s+\w.*\.", help_text, re.MULTILINE)
    assert not {"wakeq_server", "wakeq_bench", "uvicorn"} & set(modules.split())
    assert run().returncode == 2


def test_an_unknown_command_is_refused() -> None:
    result = run("sevre")
    assert (result.returncode, result.stdout) == (2, "")
    assert "'sevre'" in result.stderr
    assert "Did you mean 'serve'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def help_text() -> str:
    """`wakeq serve --help`, its white space made one."""
    result = run("serve", "--help")
    assert result.returncode == 0, result.stderr
    return re.sub(r"\s+", " ", result.stdout)


@pytest.mark.parametrize("name", OPTIONS)
def test_help_names_every_option_its_default_and_its_variable(help_text: str, name: str) -> None:
    field = Settings.model_fields[name]
    default = field.get_default(call_default_factory=True)
    _, _, about = help_text.partition(f" {flag(name)} ")
    about = about[: about.index("]") + 1]
    assert str(field.description) in about
    assert f"env var: {variable(name)}" in about
    shown = ", ".join(default) if isinstance(default, tuple) else default
    assert default in ((), None) or f"default: ({shown})" in about


def test_a_server_is_what_its_environment_and_its_file_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEQ_CORS_ORIGIN", "https://app.example")
    monkeypatch.setenv("WAKEQ_ALLOWED_HOSTS", "queue.example")
    config = toml(tmp_path / "wakeq.toml", legacy_wait=0.05, access_log=True, host="127.0.0.2", port=1)
    arguments = ("--config", config, "--auto-create-topics", "--drain", "1.5")
    with start_server(tmp_path / "data", *arguments, durability="os") as server:
        assert server.host == "127.0.0.2"
        (listening,) = server.events("listening")
        assert (listening["durability"], listening["data"]) == ("os", str(tmp_path / "data"))
        with httpx.Client(base_url=server.url, verify=False) as http:
            assert http.get("/v1", headers={"host": "queue.example"}).json()["durability"] == "os"
            allowed = http.get("/v1", headers={"origin": "https://app.example"}).headers
            assert allowed["access-control-allow-origin"] == "https://app.example"
            assert http.get("/messages/made-by-this").content == b"null"
        assert server.terminate() == 0
        assert server.events("draining")[0]["seconds"] == 1.5
        requests = [line["path"] for line in server.events("request")]
        assert requests == ["/v1", "/v1"]


def test_listening_beyond_this_machine_is_said_in_the_log(tmp_path: Path) -> None:
    with start_server(tmp_path, "--host", "0.0.0.0") as server:
        assert server.wait_for("listening beyond this machine")["level"] == "warning"
        url = f"http://127.0.0.1:{server.port}/v1"
        assert httpx.get(url, headers={"host": "any.example"}).status_code == 200
        assert httpx.get(url, headers={"origin": "http://evil.example"}).status_code == 403


def test_the_log_is_text_for_people_unless_json_is_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wakeq", "serve", "--port", "0", "--durability", "memory"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(STOP_S) == 0
    assert "listening" in line
    assert "url=http://127.0.0.1:" in line
    assert "\x1b" not in line + rest
    assert not list(tmp_path.iterdir())
