"""Every default and limit of the control plane that an operator may set, once, with its unit.

A value comes from the command line, else the environment (`WAKEQ_CONTROL_PORT`), else from here. The descriptions are
what `wakeq control-plane --help` prints.
"""

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """What an operator may set."""

    model_config = SettingsConfigDict(env_prefix="WAKEQ_CONTROL_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, any host name is answered.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    queue: str = Field(
        default_factory=lambda: os.environ.get("WAKEQ_URL") or "http://127.0.0.1:8001",
        description="The queue server, by the URL at which services reach it too.",
    )
    token: SecretStr | None = Field(
        default_factory=lambda: SecretStr(os.environ["WAKEQ_TOKEN"]) if os.environ.get("WAKEQ_TOKEN") else None,
        description="What the queue server asks for, if it does. Services of llama_deploy can't show one.",
    )
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
        7 * 86_400.0, ge=60, le=10 * 365 * 86_400.0, description="Seconds that they are kept for at most."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Further host names, comma-separated, that requests may name while bound to loopback."
    )
    log_format: Literal["text", "json"] = Field("text", description="One line an event, for people or for programs.")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

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
