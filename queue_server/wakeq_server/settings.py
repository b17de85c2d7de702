"""Every default and limit of the queue server, once, with its unit in its name.

A value comes from the command line, else the environment (`WAKEQ_PORT`), else a TOML file (`--config`), else from
here. The descriptions are what `wakeq serve --help` prints.
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import ByteSize, Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from wakeq._serving.settings import Listed, Token, only_file

Durability = Literal["fsync", "os", "memory"]

# A name whose last label is a number is an address that was mistyped (WHATWG URL, "ends in a number").
_HOST_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*(?=[0-9-]*[a-z_])[a-z0-9_-]{1,63}\.?", re.IGNORECASE)


class Settings(BaseSettings):
    """What an operator may set."""

    model_config = SettingsConfigDict(env_prefix="WAKEQ_", extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback, any host name is answered.")
    port: int = Field(8001, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    data: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("wakeq", appauthor=False)),
        description="Directory of the database. One server at a time.",
    )
    durability: Durability = Field(
        "fsync",
        description="When a publish is answered: after it is on disk (fsync), after it is written (os), "
        "or at once, keeping nothing (memory).",
    )
    auto_create_topics: bool = Field(
        False, description="Make a topic when it is first named. Implied by --durability memory."
    )
    legacy_wait: float = Field(
        55.0,
        ge=0,
        le=600,
        description="Seconds a GET /messages/TOPIC without ?wait= is parked on a llama_deploy topic.",
    )
    legacy_heartbeat: float = Field(
        3.0,
        ge=0,
        le=60,
        description="Seconds between the spaces that keep such a GET alive; clients of llama_deploy give up after 5 s "
        "of silence. 0: none, and an answer within 4 s.",
    )
    drain: float = Field(
        5.0, ge=0, le=600, description="Seconds after SIGTERM during which leased messages can still be settled."
    )
    memory_budget: ByteSize = Field(
        ByteSize(128_000_000),
        ge=1_000_000,
        le=1_000_000_000_000,
        description="Bytes that messages may take in memory, as a number or with a unit: 128MB, 1GiB. What doesn't fit "
        "is read from the database when it is delivered, a quarter as much ahead. With --durability memory there is "
        "no database, and so no bound.",
    )
    max_topics: int = Field(1_000_000, ge=1, le=100_000_000, description="Topics that can be made.")
    max_parked: int = Field(
        100_000,
        ge=0,
        le=10_000_000,
        description="Requests parked at a time before claims, streams and GETs with ?wait= are refused; "
        "GETs on llama_deploy topics never are.",
    )
    head_timeout: float = Field(
        10.0, ge=0.1, le=600, description="Seconds from the first byte of a request's head to its last."
    )
    body_timeout: float = Field(
        30.0,
        ge=0.1,
        le=600,
        description="Seconds that a request's body may make no progress; in as many, 1 KiB a second must come.",
    )
    token: Token = Field(
        None,
        description="What requests must show as Authorization: Bearer TOKEN. On a command line others can read it: "
        "better in the environment, or in a file.",
    )
    token_file: Path | None = Field(None, description="File that holds the token, and nothing else.")
    allowed_hosts: Listed = Field(
        (), description="Further host names, comma-separated, that requests may name while bound to loopback."
    )
    cors_origin: Listed = Field((), description="Web origins, comma-separated, whose pages may use this server.")
    push_allow: Listed = Field(
        ("127.0.0.0/8", "::1"),
        description="Comma-separated networks (CIDR), addresses and host names that messages may be pushed to; a name "
        "may resolve to any address.",
    )
    log_format: Literal["text", "json"] = Field("text", description="One line an event, for people or for programs.")
    access_log: bool = Field(False, description="Log requests too, but never empty polls.")

    @field_validator("push_allow")
    @classmethod
    def _targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            try:
                ipaddress.ip_network(part)
            except ValueError as error:
                if not _HOST_NAME.fullmatch(part):
                    raise ValueError(f"{part!r} is no network, address or host name: {error}") from None
        return value

    @field_validator("token_file")
    @classmethod
    def _only_one(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return only_file(value, info, "WAKEQ_TOKEN")

    @classmethod
    def load(cls, config: Path | None, given: Mapping[str, object]) -> "Settings":
        """Settings from the command line (``given``), the environment, and a TOML file.

        Raises pydantic's ValidationError, and OSError or ValueError where the file can't be read.
        """
        if config is None:
            return cls(**given)  # type: ignore[arg-type]
        with config.open("rb") as file:
            tomllib.load(file)
        configured = type("Settings", (cls,), {"model_config": SettingsConfigDict(toml_file=config)})
        return configured(**given)  # type: ignore[no-any-return]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, environment, file; pydantic's other sources are not used."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


LEASE_MIN_S = 1.0
LEASE_MAX_S = 43_200.0
WAIT_MAX_S = 60.0
"""Longest a request may ask to be parked."""
CLAIM_MAX = 1_000
"""Most messages in one claim, and in the prefetch of a stream."""
PREFETCH = 32
GRACE_S = 5.0
"""How long a closed stream's messages stay leased."""
GRACE_MAX_S = 600.0
DELAY_MAX_S = 30 * 86_400.0
TTL_MIN_S = 1.0
TTL_MAX_S = 365 * 86_400.0
"""Bounds of how long messages, and dead letters, are kept."""
DELIVERIES_MAX = 1_000
ROOM_MAX = 2**53 - 1
"""Most messages or bytes that a topic's limit may name: the largest integer that all readers of JSON agree on."""
DEDUP_WINDOW_MIN_S = 1.0
DEDUP_WINDOW_MAX_S = 86_400.0
STREAM_HEARTBEAT_S = 15.0
STREAM_RETRY_MS = 1_000
EVENTS_PART = 128
"""Events of `/events` that are written at once."""
CONSUMER_MAX = 255
"""Characters of a consumer's id."""
BLOCKED_S = 30.0
"""A client that takes nothing of its answer for so long is cut off."""
SILENT_ANSWER_S = 4.0
"""How long a legacy GET is parked when no heartbeat can be sent: under the 5 s its clients wait."""
LOOK_S = 0.002
"""How long a written answer is watched for a hang-up before its message is acked."""
PUBLISH_HOLD_S = 4.0
"""How long a legacy publish waits for room: its client would ignore the refusal."""
EARLY_SHARE = 0.1
"""Waits end up to this share early: those of a few consumers together, those of many apart."""
TIGHT_POLLS_PER_S = 5
QUEUE_MESSAGE_MAX_BYTES = 64 * 1024 * 1024
MESSAGE_MAX_BYTES = 1024 * 1024
BATCH_MAX_BYTES = 16 * 1024 * 1024
BATCH_MAX_MESSAGES = 10_000
REQUEST_MAX_BYTES = 1024 * 1024
"""Largest body of a claim, a settle or a topic's configuration."""
TOPIC_NAME_MAX = 255
KEY_MAX = 255
"""Characters of an idempotency key, and of an ordering key."""
HEADERS_MAX_BYTES = 16 * 1024
"""Names and values of a message's headers together: they are kept in memory, and no topic counts them."""
REASON_MAX = 1_000
"""Characters kept of why a message was nacked; more are cut off, since refusing would lose the nack."""
HEAD_MAX_BYTES = 64 * 1024
"""A request's target and headers together; and what its chunks have about them beside their data."""
PIPELINED_MAX = 16
"""Requests read ahead on a connection while another is being answered; a reading may bring more."""
LINGER_S = 5.0
"""How long what comes after a refusal is read and dropped, so that the client gets to read the refusal."""
BODY_MIN_BYTES_PER_S = 1_024
"""A body that takes longer than `body_timeout` must come at least so fast, averaged over each such span."""
BODIES_MAX_BYTES = 256 * 1024 * 1024
"""Bodies in progress, over all connections; beyond it only the one that began first is read on."""
SCHEMA_ERRORS_MAX = 20
SCHEMA_ERROR_MAX = 500
"""Characters of one of these: it quotes what is wrong."""
LIST_MAX = 1_000
PEEK_MAX = 100
"""Messages in one look: they come with their bodies."""
PEEK = 20
PUSH_URL_MAX = 2_048
PUSH_IN_FLIGHT_MAX = 100
PUSH_TIMEOUT_MIN_S = 1.0
PUSH_TIMEOUT_MAX_S = 600.0
PUSH_CONNECT_S = 5.0
"""How long finding out a target's address and connecting to it may take; and, on https, the handshake after that."""
PUSH_LEASE_SPARE_S = 10.0
"""How much longer than its request may take a pushed message stays leased."""
PUSH_RETRY_MIN_S = 1.0
PUSH_RETRY_MAX_S = 60.0
"""Bounds of how long a push is suspended: doubles with each failed connection, at random below that."""
PUSH_IDLE_S = 1.0
"""How long a connection is kept for the next message: less than receivers keep idle ones, so that none is reused while
it is being closed, which would look like a receiver that died."""
PUSH_ANSWER_MAX_BYTES = 64 * 1024
"""How much of an answer's body is read, so that its connection can be used again. Nobody looks at it."""
TCP_USER_TIMEOUT_S = 10
"""How long written bytes, or probes, may stay unacknowledged before a connection counts as dead."""
TCP_PROBE_AFTER_S = 4
"""How long a connection is silent before the kernel probes it, every `TCP_PROBE_EVERY_S` until it is answered.

Three probes may get lost within `TCP_USER_TIMEOUT_S`; Linux lets that end a connection at the first unanswered probe
after it, whatever number of probes is set.
"""
TCP_PROBE_EVERY_S = 2
