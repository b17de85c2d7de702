"""What requests ask for, checked: query strings and JSON bodies. Everything wrong is refused by its name."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wakeq_server.core.model import DEFAULT_GROUP, Settle, TopicConfig
from wakeq_server.errors import BadRequest, BadValue
from wakeq_server.settings import (
    CLAIM_MAX,
    DELAY_MAX_S,
    GRACE_MAX_S,
    GRACE_S,
    LEASE_MAX_S,
    LEASE_MIN_S,
    LIST_MAX,
    PREFETCH,
    QUEUE_MESSAGE_MAX_BYTES,
    TOPIC_NAME_MAX,
    WAIT_MAX_S,
)


def _between(low: float, high: float) -> AfterValidator:
    """Refuses what is out of range, NaN too, by the whole range: pydantic would name the end that was passed."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"must be from {low:,.10g} to {high:,.10g}")
        return value

    return AfterValidator(check)


LeaseSeconds = Annotated[float, _between(LEASE_MIN_S, LEASE_MAX_S)]
WaitSeconds = Annotated[float, _between(0, WAIT_MAX_S)]
DelaySeconds = Annotated[float, _between(0, DELAY_MAX_S)]
ClaimMessages = Annotated[int, _between(1, CLAIM_MAX)]
GroupName = Annotated[str, Field(min_length=1, max_length=TOPIC_NAME_MAX)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ReceiveQuery(_Body):
    """The query of a plain GET. What llama_deploy ignored there is ignored: only these names mean something."""

    model_config = ConfigDict(extra="ignore", strict=False)

    wait: WaitSeconds | None = None
    group: GroupName = DEFAULT_GROUP


class StreamQuery(_Body):
    """The query of a stream."""

    model_config = ConfigDict(extra="ignore", strict=False)

    lease: LeaseSeconds | None = None
    prefetch: ClaimMessages = PREFETCH
    group: GroupName = DEFAULT_GROUP
    grace: Annotated[float, _between(0, GRACE_MAX_S)] = GRACE_S


class ListQuery(_Body):
    """The query of a listing."""

    model_config = ConfigDict(extra="ignore", strict=False)

    after: str = ""
    limit: Annotated[int, _between(1, LIST_MAX)] = 100


class ClaimBody(_Body):
    """`POST /messages/{topic}/claim`."""

    max: ClaimMessages = 1
    wait_s: WaitSeconds = 0.0
    lease_s: LeaseSeconds | None = None
    group: GroupName = DEFAULT_GROUP


class NackLine(_Body):
    """One lease to nack."""

    lease_id: str
    delay_s: DelaySeconds | None = None
    reason: str | None = None


class ExtendLine(_Body):
    """One lease to extend."""

    lease_id: str
    lease_s: LeaseSeconds | None = None


class SettleBody(_Body):
    """`POST /messages/{topic}/settle`."""

    ack: list[str] = []
    nack: list[NackLine] = []
    extend: list[ExtendLine] = []

    def lines(self) -> list[Settle]:
        """In the order in which they are applied and answered."""
        acks = [Settle("ack", lease_id) for lease_id in self.ack]
        nacks = [Settle("nack", line.lease_id, delay_s=line.delay_s) for line in self.nack]
        extends = [Settle("extend", line.lease_id, lease_s=line.lease_s) for line in self.extend]
        return acks + nacks + extends


class Backoff(_Body):
    """`retry_backoff_s` of a topic."""

    min: DelaySeconds = 1.0
    max: DelaySeconds = 60.0

    @model_validator(mode="after")
    def _ordered(self) -> "Backoff":
        if self.min > self.max:
            raise ValueError("min must not be greater than max")
        return self


class TopicBody(_Body):
    """`PUT /topics/{topic}`: a whole TopicConfig; what isn't named has its default."""

    kind: Literal["queue"] = "queue"
    schema_: Annotated[Literal["queue_message", "json", "any"], Field(alias="schema")] = "json"
    lease_s: LeaseSeconds = 30.0
    retry_backoff_s: Backoff = Backoff()
    max_messages: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    max_message_bytes: Annotated[int, _between(1, QUEUE_MESSAGE_MAX_BYTES)] | None = None

    def config(self) -> TopicConfig:
        """As the core knows it."""
        return TopicConfig(
            schema=self.schema_,
            lease_s=self.lease_s,
            retry_min_s=self.retry_backoff_s.min,
            retry_max_s=self.retry_backoff_s.max,
            max_messages=self.max_messages,
            max_bytes=self.max_bytes,
            max_message_bytes=self.max_message_bytes,
        )


_Model = TypeVar("_Model", bound=_Body)

DEFAULT_RECEIVE = ReceiveQuery()


@lru_cache(maxsize=1024)
def receive_query(query: bytes) -> ReceiveQuery:
    """Consumers ask the same again and again, so what they ask is remembered. Raises BadValue."""
    return parse_query(ReceiveQuery, query)


def parse_query(model: type[_Model], query: bytes) -> _Model:
    """A query string. Raises BadValue naming the parameter."""
    pairs = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    return _checked(model, {name: value for name, value in pairs.items() if name in model.model_fields})


def parse_body(model: type[_Model], body: bytes) -> _Model:
    """A JSON body; an empty one is `{}`. Raises BadValue naming the field, or BadRequest."""
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise _refused(error) from None


def prefer_wait(value: bytes) -> float | None:
    """`wait=S` of a Prefer header (RFC 7240), clamped: a preference is never refused."""
    for preference in value.split(b","):
        name, _, seconds = preference.partition(b";")[0].strip().partition(b"=")
        if name.strip().lower() == b"wait":
            try:
                wanted = float(seconds.strip().strip(b'"'))
            except ValueError:
                return None
            return min(max(0.0, wanted), WAIT_MAX_S) if math.isfinite(wanted) else None
    return None


def topic_name(name: str) -> str:
    """A name that a topic may have. Raises BadValue."""
    if not 1 <= len(name) <= TOPIC_NAME_MAX or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise BadValue("topic", f"a name has 1 to {TOPIC_NAME_MAX} characters, none of them / or a control character")
    return name


def _checked(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not JSON: {first['msg']}")
    field = ".".join(str(part) for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        return BadValue(field, "unknown; see /openapi.json for what this call takes")
    problem = first["msg"].removeprefix("Value error, ")
    return BadValue(field, problem[0].lower() + problem[1:])
