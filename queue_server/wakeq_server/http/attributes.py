"""What a publish says about its message, the body apart: in headers of one message, or in an envelope."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field

from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.errors import BadValue
from wakeq_server.http import params
from wakeq_server.settings import HEADERS_MAX_BYTES, KEY_MAX


def _key(value: str) -> str:
    if not 1 <= len(value) <= KEY_MAX:
        raise ValueError(f"must have 1 to {KEY_MAX} characters")
    return value


def _sized(headers: Mapping[str, str]) -> Mapping[str, str]:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
    if size > HEADERS_MAX_BYTES:
        raise ValueError(f"names and values have {size} bytes; at most {HEADERS_MAX_BYTES} are taken")
    return headers


Key = Annotated[str, AfterValidator(_key)]
MessageHeaders = Annotated[dict[str, str], AfterValidator(_sized)]


class PublishHeaders(params.Body):
    """What the headers of a publish say about its message."""

    model_config = ConfigDict(extra="forbid", strict=False)

    id: Annotated[Key | None, Field(alias="Idempotency-Key")] = None
    key: Annotated[Key | None, Field(alias="Wakeq-Ordering-Key")] = None
    delay_s: Annotated[params.DelaySeconds, Field(alias="Wakeq-Delay")] = 0.0
    ttl_s: Annotated[params.TtlSeconds | None, Field(alias="Wakeq-TTL")] = None
    headers: Annotated[MessageHeaders | None, Field(alias="Wakeq-H-*")] = None

    def attributes(self) -> "Attributes":
        """Without what they were called."""
        return Attributes(self.id, self.key, self.delay_s, self.ttl_s, self.headers)


class Attributes(NamedTuple):
    """What a publish says about a message, its body apart."""

    id: str | None = None
    key: str | None = None
    delay_s: float = 0.0
    ttl_s: float | None = None
    headers: Mapping[str, str] | None = None

    def given_to(self, message: NewMessage, key: str | None = None) -> NewMessage:
        """The message, with them, and with that idempotency key in place of theirs where it is given."""
        if self is NO_ATTRIBUTES:
            return message
        own = self.id if key is None else key
        return NewMessage(message.body, message.content_type, self.headers, own, self.key, self.delay_s, self.ttl_s)

    def check(self, config: TopicConfig, *, delay: str, ttl: str) -> None:
        """Raises BadValue where they contradict each other or the topic; ``delay`` and ``ttl`` are their names here."""
        if not self.delay_s:
            return
        if self.key is not None:
            raise BadValue(delay, "a message with an ordering key can't be delayed: it would hold up those behind it")
        if self.ttl_s is not None and self.ttl_s <= self.delay_s:
            raise BadValue(ttl, f"must be more than the delay, {self.delay_s:,.10g}")
        if self.ttl_s is None and config.ttl_s is not None and config.ttl_s <= self.delay_s:
            raise BadValue(delay, f"must be less than this topic's ttl_s, {config.ttl_s:,.10g}")


NO_ATTRIBUTES = Attributes()

_KEPT = b"wakeq-h-"
_BESIDE = frozenset({b"idempotency-key", b"traceparent"})
_CALLED = {
    b"idempotency-key": "Idempotency-Key",
    b"wakeq-ordering-key": "Wakeq-Ordering-Key",
    b"wakeq-delay": "Wakeq-Delay",
    b"wakeq-ttl": "Wakeq-TTL",
}


def of_headers(headers: Mapping[bytes, bytes]) -> Attributes:
    """What the headers of a publish say about its message. Raises BadValue naming the header."""
    ours = [name for name in headers if name[:6] == b"wakeq-" or name in _BESIDE]
    return _attributes({name: headers[name] for name in ours}) if ours else NO_ATTRIBUTES


def _attributes(ours: Mapping[bytes, bytes]) -> Attributes:
    said: dict[str, Any] = {
        _CALLED[name]: params.text(_CALLED[name], value) for name, value in ours.items() if name in _CALLED
    }
    kept = {
        name.removeprefix(_KEPT).decode("latin-1"): params.text(name.decode("latin-1"), value)
        for name, value in ours.items()
        if name == b"traceparent" or (name.startswith(_KEPT) and name != _KEPT)
    }
    if kept:
        said["Wakeq-H-*"] = kept
    return params.checked(PublishHeaders, said).attributes()


def batch_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The idempotency key of a batch, which takes nothing else from its headers. Raises BadValue."""
    for name in headers:
        if name in _CALLED and name != b"idempotency-key":
            raise BadValue(_CALLED[name], "for one message alone; in a batch each envelope has its own")
        if name.startswith(_KEPT):
            raise BadValue(name.decode("latin-1"), "for one message alone; in a batch each envelope has its own")
    return of_headers(headers).id
