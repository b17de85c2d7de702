"""What is said of deployment files that are broken, and what is made of those that aren't."""

import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from tests.support.deployments import QUICK_START, quick_start
from wakeq_control.deploy.config import read_config
from wakeq_control.deploy.errors import InvalidDeployment
from wakeq_control.deploy.sources import Code, Sources, split_branch

SERVICE = "services.echo_workflow"
Change = Callable[[dict[str, Any]], object]


def refusal(content: bytes) -> str:
    with pytest.raises(InvalidDeployment) as raised:
        read_config(content, "a.yml")
    return f"{raised.value.detail} | {raised.value.hint}"


def changed(change: Change) -> bytes:
    said = yaml.safe_load(QUICK_START)
    change(said)
    return yaml.safe_dump(said).encode()


def service(change: Change) -> Change:
    return lambda said: change(said["services"]["echo_workflow"])


def without(*path: str) -> Change:
    def remove(said: Any) -> None:
        for key in path[:-1]:
            said = said[key]
        del said[path[-1]]

    return remove


def having(**fields: Any) -> Change:
    return lambda said: said.update({name.replace("_", "-"): deepcopy(value) for name, value in fields.items()})


def test_the_quick_start_says_what_it_says() -> None:
    config = read_config(QUICK_START.encode(), "quick_start.yml")
    assert (config.name, config.default_service, config.control_plane.port) == ("QuickStart", "echo_workflow", 8000)
    assert config.control_plane.host == "127.0.0.1"
    assert config.services["echo_workflow"].path == "src/workflow:echo_workflow"
    assert config.file == "quick_start.yml"
    assert config.notes == (
        "quick_start.yml: ui is not started: wakeq has no web interfaces to serve; start it by itself",
    )


def test_all_that_llama_deploy_can_say_is_read() -> None:
    said = having(
        control_plane={
            "services_store_key": "services",
            "tasks_store_key": "tasks",
            "session_store_key": "sessions",
            "step_interval": 0.1,
            "host": "localhost",
            "port": 9000,
            "internal_host": "127.0.0.1",
            "internal_port": 9001,
            "running": True,
            "cors_origins": None,
            "topic_namespace": "mine",
            "state_store_uri": None,
            "use_tls": False,
        },
        message_queue={
            "type": "simple",
            "host": "127.0.0.1",
            "port": 8001,
            "client_kwargs": {"timeout": 10},
            "raise_exceptions": False,
            "use_ssl": False,
        },
        ui=None,
    )
    more = service(
        having(
            host="localhost",
            port=8002,
            env={"A": "1"},
            env_files=[".env"],
            python_dependencies=["llama-index-core"],
            ts_dependencies=None,
        )
    )
    config = read_config(changed(lambda file: (said(file), more(file))), "a.yml")
    assert config.notes == ()
    assert config.control_plane.topic_namespace == "mine"
    assert config.services["echo_workflow"].python_dependencies == ["llama-index-core"]


def test_what_has_no_effect_is_told() -> None:
    def change(said: dict[str, Any]) -> None:
        having(default_servce="x", control_plane={"state_store_uri": "redis://x", "cors_origins": ["*"]})(said)
        service(having(ts_dependencies={"a": "1"}, env_file=[".env"]))(said)
        without("ui")(said)

    assert sorted(read_config(changed(change), "a.yml").notes) == [
        "a.yml: control-plane.cors_origins is ignored: the control plane answers no web page of elsewhere",
        "a.yml: control-plane.state_store_uri is ignored: the control plane keeps its state in a file of its own",
        "a.yml: default-servce is not known, and ignored; is default-service meant?",
        f"a.yml: {SERVICE}.env-file is not known, and ignored; is env-files meant?",
        f"a.yml: {SERVICE}.ts-dependencies is ignored: only Python services are run",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("name"), "name: is missing | give it a name"),
        (without("control-plane"), "control-plane: is missing | write control-plane: {} for what is usual"),
        (without("services"), "services: is missing | list the services; each has a name, a source and a path"),
        (service(without("name")), f"{SERVICE}.name: is missing | give it a name"),
        (
            service(without("source")),
            f"{SERVICE}.source: is missing | write source: {{type: local, name: FOLDER}}",
        ),
        (
            service(without("source", "type")),
            f"{SERVICE}.source.type: is missing | write local or git for a source, simple for a queue",
        ),
        (service(without("source", "name")), f"{SERVICE}.source.name: is missing | give it a name"),
        (
            service(without("path")),
            f"{SERVICE}.path: is missing | write where its object is, as in path: src/workflow:my_workflow",
        ),
        (having(message_queue={}), "message-queue.type: is missing | write local or git"),
        (
            lambda said: said.update(control_plane=said.pop("control-plane")),
            "control-plane: is missing | write it control-plane, not control_plane",
        ),
    ],
)
def test_a_field_that_is_missing_is_named(change: Change, said: str) -> None:
    assert refusal(changed(change)).startswith(f"a.yml: {said}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (having(name=5), "name: must be text; write it in quotes, not 5"),
        (having(name="a/b"), "name: must have 1 to 100 characters"),
        (having(name=".."), "name: must not begin with a dot"),
        (having(control_plane=None), "control-plane: must have fields below it, not nothing"),
        (having(control_plane={"port": "x"}), "control-plane.port: must be a whole number, not 'x'"),
        (having(control_plane={"port": 70_000}), "control-plane.port: must be from 0 to 65535, not 70000"),
        (having(control_plane={"host": ""}), "control-plane.host: must not be empty"),
        (having(control_plane={"use_tls": True}), "control-plane.use_tls: wakeq speaks no TLS itself"),
        (having(control_plane={"topic_namespace": "a/b"}), "control-plane.topic_namespace: must have no /"),
        (having(message_queue={"type": "redis"}), "message-queue.type: 'redis' is another queue"),
        (having(message_queue={"type": "simple", "use_ssl": True}), "message-queue.use_ssl: wakeq speaks no TLS"),
        (having(default_service="nope"), "default-service: there is no service 'nope' in it; there are: echo_workflow"),
        (having(services=["x"]), "services: must have fields, or names and values, below it, not a list"),
        (having(services={"x": 5}), "services.x: must have fields below it, not 5"),
        (having(services={5: {}}), "services.5: must be text; write it in quotes, not 5"),
        (having(services={"control_plane": {}}), "services.control_plane: is the control plane's own name"),
        (having(services={"a/b": {}}), "services.a/b: must have 1 to 150 characters"),
        (service(having(source="src")), f"{SERVICE}.source: must have fields below it, not 'src'"),
        (service(having(source={"type": "svn", "name": "x"})), f"{SERVICE}.source.type: must be 'local' or 'git'"),
        (service(having(source={"type": "docker", "name": "x"})), f"{SERVICE}.source.type: docker is not supported"),
        (service(having(source={"type": "local", "name": ""})), f"{SERVICE}.source.name: must not be empty"),
        (service(having(path="workflow")), f"{SERVICE}.path: must name a module and an object in it"),
        (
            service(having(path="src/workflow.py:x")),
            f"{SERVICE}.path: must name the module as an import does, without .py: src/workflow:x",
        ),
        (service(having(env={"PORT": 80})), f"{SERVICE}.env.PORT: must be text; write it in quotes, not 80"),
        (service(having(env_files=".env")), f"{SERVICE}.env-files: must be a list, a line with a dash for each"),
        (service(having(env_files=[5])), f"{SERVICE}.env-files[0]: must be text"),
        (service(having(python_dependencies={"a": "1"})), f"{SERVICE}.python-dependencies: must be a list"),
    ],
)
def test_a_field_that_is_wrong_is_named(change: Change, said: str) -> None:
    assert refusal(changed(change)).startswith(f"a.yml: {said}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.yml: it must have fields, beginning with name"),
        (b"- x", "a.yml: it must have fields, beginning with name"),
        (b"name: x\na: b: c", "a.yml, line 2: it is no YAML: mapping values are not allowed here"),
        (b"\xff\xfe\x00", "a.yml: it is no YAML: "),
        (b"{" * 3_000, "a.yml: it is no YAML: "),
    ],
)
def test_what_is_no_yaml_is_told_by_its_line(content: bytes, said: str) -> None:
    assert refusal(content).startswith(said)


# Sources


def found(folder: Path, change: Change) -> Code:
    quick_start(folder)
    config = read_config(changed(change), "a.yml")
    return anyio.run(Sources(config, folder, folder / "clones").find, *next(iter(config.services.items())))


def not_found(folder: Path, change: Change) -> str:
    with pytest.raises(InvalidDeployment) as raised:
        found(folder, change)
    return raised.value.detail


def test_an_absolute_path_may_be_below_the_file(tmp_path: Path) -> None:
    source = {"type": "local", "name": str(tmp_path / "src")}
    code = found(tmp_path, service(having(source=source, path=str(tmp_path / "src" / "workflow:echo_workflow"))))
    assert code.file == tmp_path / "src" / "workflow.py"


@pytest.mark.parametrize("path", ["src/workflow:echo_workflow", "workflow:echo_workflow"])
def test_a_path_starts_at_the_file_or_at_the_source(path: str, tmp_path: Path) -> None:
    code = found(tmp_path, service(having(path=path)))
    assert (code.folder, code.imports, code.module) == (tmp_path, tmp_path / "src", "workflow")
    assert code.file == tmp_path / "src" / "workflow.py"


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("flows:x", "__init__.py"),
        ("app/flows:x", "__init__.py"),
        ("flows.deep:x", "deep.py"),
        ("app/flows.deep:x", "deep.py"),
    ],
)
def test_a_package_is_a_module_too(path: str, file: str, tmp_path: Path) -> None:
    (tmp_path / "app" / "flows").mkdir(parents=True)
    (tmp_path / "app" / "flows" / file).touch()
    code = found(tmp_path, service(having(source={"type": "local", "name": "./app"}, path=path)))
    assert (code.imports, code.file) == (tmp_path / "app", tmp_path / "app" / "flows" / file)


def test_files_of_variables_win_and_empty_ones_do_not_count(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nEMPTY=\n# a comment\nQUOTED='a b'\n")
    code = found(tmp_path, service(having(env={"A": "said", "B": "said", "EMPTY": "said"}, env_files=[".env"])))
    assert code.env == {"A": "file", "B": "said", "EMPTY": "said", "QUOTED": "a b"}
    assert code.env_files == (tmp_path / ".env",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (having(source={"type": "local", "name": "nope"}), "source.name: there is no folder 'nope'"),
        (having(source={"type": "local", "name": "../x"}), "source.name: '../x' is outside the deployment"),
        (having(source={"type": "local", "name": "/tmp"}), "source.name: '/tmp' is outside the deployment"),
        (having(path="../x:y"), "path: '../x' is outside the deployment"),
        (having(path="/x:y"), "path: '/x' is outside the deployment"),
        (
            having(path="src/nope:x"),
            "path: there is no module 'src/nope' in the source: neither src/nope.py nor src/nope/__init__.py"
            " nor src/src/nope.py nor src/src/nope/__init__.py is there",
        ),
        (having(env_files=["nope"]), "env-files[0]: there is no file 'nope'"),
        (having(env_files=["../.env"]), "env-files[0]: '../.env' is outside the deployment"),
    ],
)
def test_what_is_not_there_is_named(change: Change, said: str, tmp_path: Path) -> None:
    assert not_found(tmp_path, service(change)) == f"a.yml: {SERVICE}.{said}"


def test_a_repository_is_cloned_with_its_branch(tmp_path: Path) -> None:
    quick_start(tmp_path / "repository")
    git = ["git", "-C", str(tmp_path / "repository"), "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q", "-b", "other"], ["add", "."], ["commit", "-qm", "x"], ["checkout", "-qb", "main"]):
        subprocess.run([*git, *command], check=True)
    url = (tmp_path / "repository").as_uri()
    code = found(tmp_path / "a", service(having(source={"type": "git", "name": f"{url}@other"})))
    assert code.file.is_file()
    assert code.folder.parent == tmp_path / "a" / "clones"
    refused = not_found(tmp_path / "b", service(having(source={"type": "git", "name": f"{url}@nope"})))
    reason = "Remote branch nope not found in upstream origin"
    assert refused == f"a.yml: {SERVICE}.source.name: '{url}@nope' can't be cloned: {reason}"


@pytest.mark.parametrize(
    ("name", "url", "branch"),
    [
        ("https://a.example/b.git", "https://a.example/b.git", None),
        ("https://a.example/b.git@c/d", "https://a.example/b.git", "c/d"),
        ("https://me:secret@a.example/b.git", "https://me:secret@a.example/b.git", None),
        ("https://me@a.example/b@c", "https://me@a.example/b", "c"),
        ("git@a.example:b/c.git", "git@a.example:b/c.git", None),
        ("git@a.example:b/c.git@d", "git@a.example:b/c.git", "d"),
        ("../b@c", "../b", "c"),
    ],
)
def test_a_branch_stands_behind_the_repository(name: str, url: str, branch: str | None) -> None:
    assert split_branch(name) == (url, branch)
