"""llama_deploy's deployment file, of 0.4 to 0.8: what it says, and what is wrong with it.

What needs no other file to be judged is judged here; `wakeq_control.deploy.sources` looks at the rest.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
)

from wakeq_control.deploy.errors import InvalidDeployment
from wakeq_control.messages import CONTROL_PLANE, SERVICE_MAX, check_name

NAME_MAX = 100
"""Characters of a deployment's name, which is a directory's too."""
_HINT = "docs/deployments.md lists the fields"


def _refuse(reason: str) -> Any:
    """What a field that is set is refused with."""

    def refuse(value: object) -> object:
        if value:
            raise ValueError(reason)
        return value

    return AfterValidator(refuse)


def _deployment_name(value: str) -> str:
    if value.startswith(".") or "\\" in value:
        raise ValueError("must not begin with a dot, nor have a backslash: it is a directory's name too")
    return check_name(value, NAME_MAX)


def _service_name(value: str) -> str:
    if value == CONTROL_PLANE:
        raise ValueError("is the control plane's own name; choose another")
    return check_name(value, SERVICE_MAX)


def _object_path(value: str) -> str:
    module, _, name = value.partition(":")
    if not module or not name or ":" in name:
        raise ValueError("must name a module and an object in it, as in src/workflow:my_workflow")
    if module.endswith(".py"):
        raise ValueError(f"must name the module as an import does, without .py: {module[:-3]}:{name}")
    return value


def _simple(value: object) -> object:
    if value != "simple":
        raise ValueError(f"{value!r} is another queue, and wakeq is the queue here; write simple")
    return value


def _runnable_source(value: object) -> object:
    if value == "docker":
        raise ValueError("docker is not supported, as it never was; write local or git")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
_NO_TLS = _refuse("wakeq speaks no TLS itself; leave it out, and put a proxy with a certificate in front")


class _Part(BaseModel):
    # What llama_deploy didn't know it ignored, and so do we, but not without a word: see `notes`.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ControlPlaneConfig(_Part):
    """Where the control plane is."""

    host: str = Field("127.0.0.1", min_length=1)
    """Where clients reach it, and what it listens on unless ``internal_host`` says otherwise."""
    port: Port | None = None
    """None: 8000, or another if that is taken; 0: any."""
    internal_host: str | None = None
    internal_port: Port | None = None
    topic_namespace: str = Field("llama_deploy", min_length=1, max_length=100, pattern=r"^[^/\x00-\x1f\x7f]+$")
    use_tls: Annotated[bool, _NO_TLS] = False


class MessageQueueConfig(_Part):
    """Where the queue is."""

    type: Annotated[Literal["simple"], BeforeValidator(_simple)]
    host: str = Field("127.0.0.1", min_length=1)
    port: Port | None = None
    """None: 8001, or another if that is taken; 0: any."""
    use_ssl: Annotated[bool, _NO_TLS] = False


class SourceConfig(_Part):
    """Where a service's code comes from."""

    type: Annotated[Literal["local", "git"], BeforeValidator(_runnable_source)]
    name: str = Field(min_length=1)
    """A folder, relative to the deployment file, or a repository's URL, with ``@BRANCH`` where it isn't the first."""


class ServiceConfig(_Part):
    """One service."""

    name: str
    """What people are told that it is."""
    source: SourceConfig
    path: Annotated[str, AfterValidator(_object_path)]
    """``DIRECTORY/MODULE:OBJECT``, relative to the deployment file (0.5 and later) or to the source (0.4)."""
    env: dict[str, str] | None = None
    env_files: list[str] | None = Field(None, alias="env-files")
    """Relative like ``path``; they win over ``env``."""
    python_dependencies: list[str] | None = Field(None, alias="python-dependencies")
    """What pip installs, into an environment of the service's own."""


class DeploymentConfig(_Part):
    """A deployment file."""

    name: Annotated[str, AfterValidator(_deployment_name)]
    control_plane: ControlPlaneConfig = Field(alias="control-plane")
    message_queue: MessageQueueConfig | None = Field(None, alias="message-queue")
    default_service: str | None = Field(None, alias="default-service")
    services: dict[Annotated[str, AfterValidator(_service_name)], ServiceConfig]
    _file: str = PrivateAttr("")
    _notes: tuple[str, ...] = PrivateAttr(())

    @property
    def file(self) -> str:
        """What the file is called in sentences."""
        return self._file

    @property
    def notes(self) -> tuple[str, ...]:
        """What it says to no effect, a sentence each."""
        return self._notes

    def at_port(self, port: int) -> "DeploymentConfig":
        """The same, with the control plane at another port."""
        place = self.control_plane.model_copy(update={"port": port, "internal_port": None})
        return self.model_copy(update={"control_plane": place})

    def broken(self, field: str, problem: str, hint: str = _HINT) -> InvalidDeployment:
        """An error of this file."""
        return InvalidDeployment(f"{self._file}: {field}: {problem}", hint)


# What llama_deploy knew, and what becomes of it here; None: it has no meaning here, and nobody misses it.
_UNUSED: dict[type[_Part], dict[str, str | None]] = {
    DeploymentConfig: {"ui": "is not started: wakeq has no web interfaces to serve; start it by itself"},
    ControlPlaneConfig: {
        **dict.fromkeys(("services_store_key", "tasks_store_key", "session_store_key", "step_interval", "running")),
        "cors_origins": "is ignored: the control plane answers no web page of elsewhere",
        "state_store_uri": "is ignored: the control plane keeps its state in a file of its own",
    },
    MessageQueueConfig: {**dict.fromkeys(("client_kwargs", "raise_exceptions"))},
    SourceConfig: {},
    ServiceConfig: {
        **dict.fromkeys(("host", "port")),
        "ts-dependencies": "is ignored: only Python services are run",
    },
}


def read_config(content: bytes, file: str) -> DeploymentConfig:
    """Read a deployment file; ``file`` is what sentences call it. Raises InvalidDeployment."""
    said = _read_yaml(content, file)
    try:
        config = DeploymentConfig.model_validate(said)
    except ValidationError as error:
        raise _first_problem(error, said, file) from None
    if config.default_service is not None and config.default_service not in config.services:
        names = ", ".join(config.services) or "none"
        raise InvalidDeployment(
            f"{file}: default-service: there is no service {config.default_service!r} in it; there are: {names}",
            "name one of its services, or leave it out",
        )
    config._file = file
    config._notes = tuple(f"{file}: {note}" for note in _notes(DeploymentConfig, said, ""))
    return config


def _read_yaml(content: bytes, file: str) -> dict[Any, Any]:
    try:
        said = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}, line {mark.line + 1}" if mark else file
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InvalidDeployment(f"{where}: it is no YAML: {reason}", "check its indentation and its quotes") from None
    if not isinstance(said, dict):
        raise InvalidDeployment(f"{file}: it must have fields, beginning with name", _HINT)
    return said


def _first_problem(error: ValidationError, said: Mapping[Any, Any], file: str) -> InvalidDeployment:
    """What is wrong first, with its field as the file has it."""
    first = error.errors(include_url=False)[0]
    loc = list(first["loc"])
    if loc[-1:] == ["[key]"]:
        loc = [*loc[:-2], str(loc[-2])]
    field = _path(loc)
    if first["type"] == "missing":
        return InvalidDeployment(f"{file}: {field}: is missing", _remedy(loc, _at(said, loc[:-1])))
    return InvalidDeployment(f"{file}: {field}: {_problem(first)}", _HINT)


def _problem(error: Any) -> str:
    kinds = {
        "string_type": "must be text; write it in quotes",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "dict_type": "must have fields, or names and values, below it",
        "model_type": "must have fields below it",
        "model_attributes_type": "must have fields below it",
        "list_type": "must be a list, a line with a dash for each",
        "string_too_short": "must not be empty",
        "greater_than_equal": "must be from 0 to 65535",
        "less_than_equal": "must be from 0 to 65535",
        "literal_error": f"must be {error.get('ctx', {}).get('expected')}",
        "string_pattern_mismatch": "must have no / and no control characters",
    }
    if error["type"] in kinds:
        return f"{kinds[error['type']]}, not {_shown(error['input'])}"
    said: str = error["msg"].removeprefix("Value error, ")
    return said


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "fields"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_REMEDIES = {
    "name": "give it a name",
    "control-plane": "write control-plane: {} for what is usual",
    "services": "list the services; each has a name, a source and a path",
    "source": "write source: {type: local, name: FOLDER}",
    "type": "write local or git for a source, simple for a queue",
    "path": "write where its object is, as in path: src/workflow:my_workflow",
}


def _remedy(loc: list[Any], siblings: object) -> str:
    name = str(loc[-1])
    known = list(siblings) if isinstance(siblings, dict) else []
    # Written almost right, it looks as if it were there.
    almost = [key for key in known if isinstance(key, str) and key.lower().replace("_", "-") == name]
    return f"write it {name}, not {almost[0]}" if almost else _REMEDIES[name]


def _path(loc: list[Any]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) and text else f".{part}" if text else str(part)
    return text


def _at(said: Any, loc: list[Any]) -> object:
    for part in loc:
        said = said[part]
    return said


def _notes(part: type[_Part], said: Mapping[Any, Any], where: str) -> Iterator[str]:
    fields = {field.alias or name: field for name, field in part.model_fields.items()}
    unused = _UNUSED[part]
    for key, value in said.items():
        place = f"{where}{key}"
        if key not in fields:
            yield from _unused(place, str(key), value, unused, [*fields, *unused])
        elif isinstance(value, dict):
            inner = _PARTS.get(key)
            if inner is not None:
                yield from _notes(inner, value, f"{place}.")
            elif key == "services":
                for name, service in value.items():
                    yield from _notes(ServiceConfig, service, f"{place}.{name}.")


_PARTS: dict[str, type[_Part]] = {
    "control-plane": ControlPlaneConfig,
    "message-queue": MessageQueueConfig,
    "source": SourceConfig,
}


def _unused(place: str, key: str, value: object, unused: Mapping[str, str | None], known: list[str]) -> Iterator[str]:
    if key in unused:
        note = unused[key]
        if note is not None and value:
            yield f"{place} {note}"
        return
    close = difflib.get_close_matches(key, known, 1)
    yield f"{place} is not known, and ignored" + (f"; is {close[0]} meant?" if close else "")
