"""What an answer of a server, or of a proxy before it, means to a program."""

import httpx
import pytest

import wakeq

ANSWERS: list[tuple[httpx.Response, type[wakeq.WakeqError], str]] = [
    (httpx.Response(507, json={"code": "STORAGE_FULL", "detail": "d"}), wakeq.StorageFull, "d"),
    (httpx.Response(500, json={"code": "STORAGE_FAILED", "detail": "d"}), wakeq.StorageFailed, "d"),
    (httpx.Response(503, json={"code": "DRAINING", "detail": "d"}), wakeq.Draining, "d"),
    (httpx.Response(403, json={"code": "ORIGIN_REFUSED", "detail": "d"}), wakeq.OriginRefused, "d"),
    (httpx.Response(422, json={"code": "IDEMPOTENCY_CONFLICT", "detail": "d"}), wakeq.IdempotencyConflict, "d"),
    (httpx.Response(415, json={"code": "UNSUPPORTED_MEDIA_TYPE", "detail": "d"}), wakeq.UnsupportedMediaType, "d"),
    (httpx.Response(401, json={"code": "UNAUTHENTICATED", "detail": "d"}), wakeq.Unauthenticated, "d"),
    (httpx.Response(403, json={"code": "FORBIDDEN", "detail": "d"}), wakeq.Forbidden, "d"),
    (httpx.Response(408, json={"code": "REQUEST_TIMEOUT", "detail": "d"}), wakeq.RequestTimeout, "d"),
    (httpx.Response(429, json={"code": "TOO_MANY_TOPICS", "detail": "d"}), wakeq.TooManyTopics, "d"),
    (httpx.Response(503, json={"code": "TOO_MANY_PARKED", "detail": "d"}), wakeq.TooManyParked, "d"),
    (httpx.Response(418, json={"code": "FROM_THE_FUTURE", "detail": "d"}), wakeq.WakeqError, "d"),
    (httpx.Response(422, json={"code": "INVALID_MESSAGE", "detail": [{"msg": "m"}]}), wakeq.InvalidMessage, "m"),
    (
        httpx.Response(422, json={"code": "INVALID_MESSAGE", "detail": [{"loc": ["body", 0], "msg": "m"}] * 2}),
        wakeq.InvalidMessage,
        "body.0: m; body.0: m",
    ),
    (httpx.Response(200, html="hello"), wakeq.WakeqError, "did not answer as a wakeq server does"),
    (httpx.Response(200, json=None), wakeq.WakeqError, "http://queue.example/messages/t"),
    (httpx.Response(404, json={"detail": "Not Found"}), wakeq.WakeqError, "404"),
    (httpx.Response(500, json=[1]), wakeq.WakeqError, "500"),
    (httpx.Response(500, content=b"\xff<"), wakeq.WakeqError, "500"),
    (httpx.Response(502, html="<h1>Bad Gateway</h1>"), wakeq.ServerUnavailable, "502"),
    (httpx.Response(504, content=b""), wakeq.ServerUnavailable, "504"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("answer", "error", "says"), ANSWERS, ids=lambda value: str(value)[:30])
async def test_what_any_answer_means(answer: httpx.Response, error: type[wakeq.WakeqError], says: str) -> None:
    transport = httpx.MockTransport(lambda _: answer)
    async with wakeq.AsyncClient("http://queue.example", retry_s=0, transport=transport) as client:
        with pytest.raises(error) as raised:
            await client.publish("t", 1)
    assert type(raised.value) is error
    assert raised.value.status == answer.status_code
    assert says in raised.value.detail


@pytest.mark.parametrize("token", ["s3cret\n", "s3 cret", "s3crét"], ids=ascii)
def test_a_token_that_cannot_be_shown_is_refused_and_not_told(token: str) -> None:
    with pytest.raises(ValueError, match=r"^token: ") as refused:
        wakeq.AsyncClient(token=token)
    assert "s3" not in str(refused.value)
