"""Every default and limit of the control plane that an operator may set, once, with its unit.

A value comes from the command line, else the environment (`WAKEQ_CONTROL_PORT`), else from here. The descriptions are
what `wakeq control-plane --help` prints.
"""

import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import ByteSize, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wakeq._serving.settings import Listed, Token, only_file
from wakeq_control.limits import DEFAULTS, Limits

_BYTES_MAX = 1024**3
_KEEP_MIN_S = 60
_KEEP_MAX_S = 10 * 365 * 86_400


class Settings(BaseSettings):
    """What an operator may set."""

    model_config = SettingsConfigDict(env_prefix="WAKEQ_CONTROL_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, any host name is answered.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    queue: str = Field(
        default_factory=lambda: os.environ.get("WAKEQ_URL") or "http://127.0.0.1:8001",
        description="The queue server, by the URL at which services reach it too.",
    )
    queue_token: Token = Field(
        default_factory=lambda: SecretStr(os.environ["WAKEQ_TOKEN"]) if os.environ.get("WAKEQ_TOKEN") else None,
        validate_default=True,
        description="What the queue server asks for, if it does. Services of llama_deploy can't show one.",
    )
    token: Token = Field(
        None,
        description="What requests must show as Authorization: Bearer TOKEN. On a command line others can read it: "
        "better in the environment, or in a file.",
    )
    token_file: Path | None = Field(None, description="File that holds the token, and nothing else.")
    data: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("wakeq", appauthor=False)) / "control-plane",
        description="Directory of the database. One control plane at a time.",
    )
    durability: Literal["fsync", "memory"] = Field(
        "fsync", description="Whether what is answered is on disk first (fsync), or nothing is kept (memory)."
    )
    namespace: str = Field(
        "llama_deploy",
        min_length=1,
        max_length=100,
        pattern=r"^[^/\x00-\x1f\x7f]+$",
        description="What the names of all topics begin with.",
    )
    wait_for_service: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Seconds that a new task waits for its service to be registered; 0 refuses it at once.",
    )
    keep_tasks: int = Field(10_000, ge=100, le=10_000_000, description="Tasks that are kept after they have ended.")
    keep_for: float = Field(
        7 * 86_400.0, ge=_KEEP_MIN_S, le=_KEEP_MAX_S, description="Seconds that they are kept for at most."
    )
    keep_sessions_for: float = Field(
        30 * 86_400.0,
        description="Seconds that a session is kept in which nothing happens and no task has to end; 0: until it is "
        "deleted.",
    )
    max_sessions: int = Field(DEFAULTS.sessions, ge=1, le=10_000_000, description="Sessions that there may be.")
    max_tasks: int = Field(DEFAULTS.tasks, ge=1, le=10_000_000, description="Tasks that have not ended.")
    max_events: int = Field(
        DEFAULTS.events,
        ge=1,
        le=10_000_000,
        description="Events that a task may show, and as many that it may be sent.",
    )
    max_events_bytes: ByteSize = Field(
        ByteSize(DEFAULTS.events_bytes),
        ge=1_000,
        le=_BYTES_MAX,
        description="Bytes that these may have together, as a number or with a unit: 500KB, 64MiB.",
    )
    max_state_bytes: ByteSize = Field(
        ByteSize(DEFAULTS.state_bytes), ge=1_000, le=_BYTES_MAX, description="Bytes that a session's state may have."
    )
    max_body_bytes: ByteSize = Field(
        ByteSize(DEFAULTS.body_bytes), ge=1_000, le=_BYTES_MAX, description="Bytes that a request's body may have."
    )
    allowed_hosts: Listed = Field(
        (), description="Further host names, comma-separated, that requests may name while bound to loopback."
    )
    log_format: Literal["text", "json"] = Field("text", description="One line an event, for people or for programs.")

    @field_validator("keep_sessions_for")
    @classmethod
    def _long_enough(cls, value: float) -> float:
        # A session must be there for longer than its first task takes to come.
        if value != 0 and not _KEEP_MIN_S <= value <= _KEEP_MAX_S:
            raise ValueError(f"must be 0, or from {_KEEP_MIN_S} to {_KEEP_MAX_S}")
        return value

    @field_validator("token_file")
    @classmethod
    def _only_one(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return only_file(value, info, "WAKEQ_CONTROL_TOKEN")

    @field_validator("queue")
    @classmethod
    def _server(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        # llama_deploy's services are told a host and a port, and nothing else.
        if not usable or parts.path.strip("/") or parts.query or parts.username:
            raise ValueError(f"{value!r} is no address of a server; write http://HOST:PORT")
        return value.rstrip("/")

    @property
    def limits(self) -> Limits:
        """What there may be of everything."""
        return Limits(
            sessions=self.max_sessions,
            tasks=self.max_tasks,
            events=self.max_events,
            events_bytes=self.max_events_bytes,
            state_bytes=self.max_state_bytes,
            body_bytes=self.max_body_bytes,
        )
