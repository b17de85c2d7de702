"""What requests ask for, checked: query strings and JSON bodies. Everything wrong is refused by its name."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from wakeq_server.core.model import DEFAULT_GROUP, Consumer, Outcome, PushConfig, Schema, Settle, TopicConfig
from wakeq_server.errors import BadRequest, BadValue
from wakeq_server.http import validation
from wakeq_server.http.wire import Scope, client_address
from wakeq_server.settings import (
    CLAIM_MAX,
    CONSUMER_MAX,
    DEDUP_WINDOW_MAX_S,
    DEDUP_WINDOW_MIN_S,
    DELAY_MAX_S,
    DELIVERIES_MAX,
    GRACE_MAX_S,
    GRACE_S,
    LEASE_MAX_S,
    LEASE_MIN_S,
    LIST_MAX,
    PEEK,
    PEEK_MAX,
    PREFETCH,
    PUSH_IN_FLIGHT_MAX,
    PUSH_TIMEOUT_MAX_S,
    PUSH_TIMEOUT_MIN_S,
    PUSH_URL_MAX,
    QUEUE_MESSAGE_MAX_BYTES,
    REASON_MAX,
    ROOM_MAX,
    TOPIC_NAME_MAX,
    TTL_MAX_S,
    TTL_MIN_S,
    WAIT_MAX_S,
)


def _between(low: float, high: float) -> AfterValidator:
    """Refuses what is out of range, NaN too, by the whole range: pydantic would name the end that was passed."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"must be from {low:,.16g} to {high:,.16g}")
        return value

    return AfterValidator(check)


def _name(value: str) -> str:
    if not _is_name(value):
        raise ValueError(_NAME_RULE)
    return value


def _url(value: str) -> str:
    if not 1 <= len(value) <= PUSH_URL_MAX:
        raise ValueError(f"must have 1 to {PUSH_URL_MAX:,} characters")
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("must be ASCII without spaces: hosts as IDNA has them (xn--…), the rest percent-encoded")
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if not known:
        raise ValueError("must begin with http:// or https:// and name a host, and a port from 1 to 65535 if any")
    if "#" in value:
        raise ValueError("must have no fragment")
    return value


def _names(value: str) -> frozenset[str]:
    return frozenset(map(_name, value.split(",")))


def _schema(value: Any) -> Schema:
    if isinstance(value, dict):
        validation.compiled(value)
    elif value not in ("queue_message", "json", "any"):
        raise ValueError("must be 'queue_message', 'json', 'any' or a JSON Schema, which is an object")
    schema: Schema = value
    return schema


_NAME_RULE = f"a name has 1 to {TOPIC_NAME_MAX} characters, none of them / or a control character"

LeaseSeconds = Annotated[float, _between(LEASE_MIN_S, LEASE_MAX_S)]
WaitSeconds = Annotated[float, _between(0, WAIT_MAX_S)]
DelaySeconds = Annotated[float, _between(0, DELAY_MAX_S)]
TtlSeconds = Annotated[float, _between(TTL_MIN_S, TTL_MAX_S)]
ClaimMessages = Annotated[int, _between(1, CLAIM_MAX)]
GroupName = Annotated[str, Field(min_length=1, max_length=TOPIC_NAME_MAX)]


class Body(BaseModel):
    """Base of them all: names that mean nothing, and values of another type, are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ReceiveQuery(Body):
    """The query of a plain GET. What llama_deploy ignored there is ignored: only these names mean something."""

    model_config = ConfigDict(extra="ignore", strict=False)

    wait: WaitSeconds | None = None
    group: GroupName = DEFAULT_GROUP


class StreamQuery(Body):
    """The query of a stream."""

    model_config = ConfigDict(extra="ignore", strict=False)

    lease: LeaseSeconds | None = None
    prefetch: ClaimMessages = PREFETCH
    group: GroupName = DEFAULT_GROUP
    grace: Annotated[float, _between(0, GRACE_MAX_S)] = GRACE_S


class ListQuery(Body):
    """The query of a listing."""

    model_config = ConfigDict(extra="ignore", strict=False)

    after: str = ""
    limit: Annotated[int, _between(1, LIST_MAX)] = 100


class GroupQuery(Body):
    """The query of what is done with one group."""

    model_config = ConfigDict(extra="ignore", strict=False)

    group: GroupName = DEFAULT_GROUP


class ConsumersQuery(Body):
    """`GET /topics/{topic}/consumers`; without a group, those of all."""

    model_config = ConfigDict(extra="ignore", strict=False)

    group: GroupName | None = None


class EventsQuery(Body):
    """`GET /events`; without topics, all of them."""

    model_config = ConfigDict(extra="ignore", strict=False)

    topics: Annotated[frozenset[str] | None, BeforeValidator(_names)] = None


class PeekQuery(GroupQuery):
    """`GET /topics/{topic}/messages`."""

    state: Literal["ready", "delayed", "leased", "dead"] = "ready"
    after: Annotated[int, _between(0, ROOM_MAX)] = 0
    limit: Annotated[int, _between(1, PEEK_MAX)] = PEEK


class RedriveBody(Body):
    """`POST /topics/{topic}/redrive`."""

    max: Annotated[int, _between(1, ROOM_MAX)] | None = None


class PushBody(Body):
    """`PUT /topics/{topic}/push/{name}`: a whole push; what isn't named has its default."""

    url: Annotated[str, AfterValidator(_url)]
    group: GroupName = DEFAULT_GROUP
    max_in_flight: Annotated[int, _between(1, PUSH_IN_FLIGHT_MAX)] = 1
    timeout_s: Annotated[float, _between(PUSH_TIMEOUT_MIN_S, PUSH_TIMEOUT_MAX_S)] = 30.0

    def config(self) -> PushConfig:
        """As the core knows it."""
        return PushConfig(self.url, self.group, self.max_in_flight, self.timeout_s)


class ClaimBody(Body):
    """`POST /messages/{topic}/claim`."""

    max: ClaimMessages = 1
    wait_s: WaitSeconds = 0.0
    lease_s: LeaseSeconds | None = None
    group: GroupName = DEFAULT_GROUP


class NackLine(Body):
    """One lease to nack."""

    lease_id: str
    delay_s: DelaySeconds | None = None
    reason: str | None = None


class ExtendLine(Body):
    """One lease to extend."""

    lease_id: str
    lease_s: LeaseSeconds | None = None


class DeadLine(Body):
    """One lease whose message nobody will ever manage."""

    lease_id: str
    reason: str | None = None


class SettleBody(Body):
    """`POST /messages/{topic}/settle`."""

    # A default that is a list would be copied deeply for each body that has it not.
    ack: list[str] = Field(default_factory=list)
    nack: list[NackLine] = Field(default_factory=list)
    extend: list[ExtendLine] = Field(default_factory=list)
    dead: list[DeadLine] = Field(default_factory=list)
    release: list[str] = Field(default_factory=list)

    def lines(self) -> list[Settle]:
        """In the order in which they are applied and answered."""
        acks = [Settle("ack", lease_id) for lease_id in self.ack]
        nacks = [_with_reason("nack", line, line.delay_s) for line in self.nack]
        extends = [Settle("extend", line.lease_id, lease_s=line.lease_s) for line in self.extend]
        deaths = [_with_reason("dead", line) for line in self.dead]
        return acks + nacks + extends + deaths + [Settle("release", lease_id) for lease_id in self.release]


def _with_reason(outcome: Outcome, line: NackLine | DeadLine, delay_s: float | None = None) -> Settle:
    reason = line.reason[:REASON_MAX] if line.reason is not None else None
    return Settle(outcome, line.lease_id, delay_s=delay_s, reason=reason)


class Backoff(Body):
    """`retry_backoff_s` of a topic."""

    min: DelaySeconds = 1.0
    max: DelaySeconds = 60.0

    @model_validator(mode="after")
    def _ordered(self) -> "Backoff":
        if self.min > self.max:
            raise ValueError("min must not be greater than max")
        return self


class TopicBody(Body):
    """`PUT /topics/{topic}`: a whole TopicConfig; what isn't named has its default."""

    kind: Literal["queue"] = "queue"
    schema_: Annotated[Any, AfterValidator(_schema), Field(alias="schema")] = "json"
    lease_s: LeaseSeconds = 30.0
    max_deliveries: Annotated[int, _between(0, DELIVERIES_MAX)] = 5
    retry_backoff_s: Backoff = Backoff()
    dead_ttl_s: TtlSeconds = 14 * 86_400.0
    dead_letter_topic: Annotated[str, AfterValidator(_name)] | None = None
    ttl_s: TtlSeconds | None = None
    max_messages: Annotated[int, _between(1, ROOM_MAX)] | None = None
    max_bytes: Annotated[int, _between(1, ROOM_MAX)] | None = None
    max_message_bytes: Annotated[int, _between(1, QUEUE_MESSAGE_MAX_BYTES)] | None = None
    dedup_window_s: Annotated[float, _between(DEDUP_WINDOW_MIN_S, DEDUP_WINDOW_MAX_S)] = 120.0

    def config(self, topic: str) -> TopicConfig:
        """As the core knows it, for the topic of that name. Raises BadValue."""
        if self.dead_letter_topic == topic:
            raise BadValue("dead_letter_topic", "must be another topic")
        values = {name: getattr(self, name) for name in _SAME_NAMES}
        return TopicConfig(
            schema=self.schema_,
            retry_min_s=self.retry_backoff_s.min,
            retry_max_s=self.retry_backoff_s.max,
            **values,
        )


_SAME_NAMES = TopicBody.model_fields.keys() - {"kind", "schema_", "retry_backoff_s"}


_Model = TypeVar("_Model", bound=Body)

DEFAULT_RECEIVE = ReceiveQuery()
_REMEMBERED_MAX = 1_024


def receive_query(query: bytes) -> ReceiveQuery:
    """Consumers ask the same again and again, so what they ask is remembered. Raises BadValue."""
    return parse_query(ReceiveQuery, query) if len(query) > _REMEMBERED_MAX else _receive_query(query)


@lru_cache(maxsize=1024)
def _receive_query(query: bytes) -> ReceiveQuery:
    return parse_query(ReceiveQuery, query)


def parse_query(model: type[_Model], query: bytes) -> _Model:
    """A query string. Raises BadValue naming the parameter."""
    try:
        pairs = dict(parse_qsl(query.decode(), keep_blank_values=True, errors="strict"))
    except UnicodeDecodeError:
        raise BadValue("query", "must be UTF-8, percent-encoded") from None
    return checked(model, {name: value for name, value in pairs.items() if name in model.model_fields})


def check_path(scope: Scope) -> None:
    """Refuse a path whose bytes are no text: what is decoded in place of them is another name. Raises BadValue."""
    if "\ufffd" in scope["path"]:
        try:
            unquote_to_bytes(scope["raw_path"]).decode()
        except UnicodeDecodeError:
            raise BadValue("path", "must be UTF-8, percent-encoded") from None


def parse_body(model: type[_Model], body: bytes) -> _Model:
    """A JSON body; an empty one is `{}`. Raises BadValue naming the field, or BadRequest."""
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise refused(error) from None


def prefer_wait(value: bytes) -> float | None:
    """`wait=S` of a Prefer header (RFC 7240), clamped: a preference is never refused."""
    try:
        wanted = float(_preference(value, b"wait") or b"nan")
    except ValueError:
        return None
    return min(max(0.0, wanted), WAIT_MAX_S) if math.isfinite(wanted) else None


def prefers_lenient(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client wants each line of its batch by itself: `Prefer: handling=lenient` (RFC 7240)."""
    return (_preference(headers.get(b"prefer", b""), b"handling") or b"").lower() == b"lenient"


def _preference(value: bytes, wanted: bytes) -> bytes | None:
    for preference in value.split(b","):
        name, _, said = preference.partition(b";")[0].strip().partition(b"=")
        if name.strip().lower() == wanted:
            return said.strip().strip(b'"')
    return None


def text(name: str, value: bytes) -> str:
    """The value of the header of that name. Raises BadValue."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadValue(name, "must be UTF-8") from None


def consumer(scope: Scope, headers: Mapping[bytes, bytes]) -> Consumer:
    """Who asks for messages: by the id it gives itself, else by its address. Raises BadValue."""
    address = client_address(scope)
    given = headers.get(b"wakeq-consumer")
    return Consumer(address if given is None else _consumer_id(given), address)


@lru_cache(maxsize=1024)
def _consumer_id(value: bytes) -> str:
    consumer_id = text("Wakeq-Consumer", value)
    if not (1 <= len(consumer_id) <= CONSUMER_MAX and consumer_id.isprintable()):
        raise BadValue("Wakeq-Consumer", f"must have 1 to {CONSUMER_MAX} characters, all of them printable")
    return consumer_id


def topic_name(name: str) -> str:
    """A name that a topic may have. Raises BadValue."""
    if not _is_name(name):
        raise BadValue("topic", _NAME_RULE)
    return name


def group_name(name: str) -> str:
    """A name that a group may have. Raises BadValue."""
    if not _is_name(name):
        raise BadValue("group", _NAME_RULE)
    return name


def push_name(name: str) -> str:
    """A name that a push may have. Raises BadValue."""
    if not _is_name(name):
        raise BadValue("name", _NAME_RULE)
    return name


def _is_name(name: str) -> bool:
    return 1 <= len(name) <= TOPIC_NAME_MAX and not any(c == "/" or ord(c) < 32 or ord(c) == 127 for c in name)


def checked(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Values by name. Raises BadValue naming the one that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise refused(error) from None


def refused(error: ValidationError) -> BadRequest:
    """The first thing that is wrong, by its name."""
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return BadRequest(f"the body is not JSON: {first['msg']}")
    field = ".".join(str(part) for part in first["loc"]) or "body"
    if first["type"] == "extra_forbidden":
        return BadValue(field, "unknown; see /openapi.json for what this call takes")
    problem = first["msg"].removeprefix("Value error, ")
    return BadValue(field, problem[0].lower() + problem[1:])
