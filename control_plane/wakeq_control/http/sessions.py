"""Sessions and their states."""

import math
import re
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wakeq_control.engine.engine import Engine
from wakeq_control.errors import BadRequest, InvalidBody
from wakeq_control.http.tasks import instant
from wakeq_control.http.wire import Headers, Request, Response, answer
from wakeq_control.messages import in_body
from wakeq_control.sessions import Place, Summary, Versions

_STATE: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
PAGE = 100
"""How many sessions a page has that doesn't say."""
PAGE_MAX = 1_000
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")


class Sessions:
    """The calls about sessions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # As llama_deploy has them

    async def create(self, request: Request) -> Response:
        """A new session's id."""
        return answer(await self._engine.create_session())

    async def get(self, request: Request, session_id: str) -> Response:
        """A session with its state."""
        return answer(await self._engine.session(session_id))

    async def list(self, request: Request) -> Response:
        """All sessions by id, with their states."""
        return answer({session["session_id"]: session for session in await self._engine.sessions()})

    async def delete(self, request: Request, session_id: str) -> Response:
        """Forget a session."""
        await self._engine.delete_session(session_id)
        return answer(None)

    async def tasks(self, request: Request, session_id: str) -> Response:
        """The definitions of its tasks."""
        return answer([task.definition for task in await self._engine.session_tasks(session_id)])

    async def current_task(self, request: Request, session_id: str) -> Response:
        """That of the newest task."""
        tasks = await self._engine.session_tasks(session_id)
        return answer(tasks[-1].definition if tasks else None)

    async def state(self, request: Request, session_id: str) -> Response:
        """Its state, with what its tasks show in it; the tag is that of the rest."""
        state = await self._engine.session_state(session_id)
        return answer(state.values, _tag(state.version))

    async def update(self, request: Request, session_id: str) -> Response:
        """Merge values into its state."""
        values, versions = await _values(request), if_match(request)
        version = await self._engine.update_state(session_id, values, versions)
        return answer(None, _tag(version))

    # As wakeq's own calls

    async def page(self, request: Request) -> Response:
        """Summaries of some sessions, the oldest first, and behind which place the next ones are."""
        limit = request.number("limit", PAGE, 1, PAGE_MAX)
        found = await self._engine.summaries(_place(request.parameter("after") or ""), limit + 1)
        following = None if len(found) <= limit else "{!r}_{}".format(*found[limit - 1].place)
        return answer({"sessions": [_shown(session) for session in found[:limit]], "next": following})

    async def summary(self, request: Request, session_id: str) -> Response:
        """How a session stands, without its state."""
        return answer(_shown(await self._engine.summary(session_id)))

    async def own_state(self, request: Request, session_id: str) -> Response:
        """What clients and services have put into its state, and its version."""
        state = await self._engine.own_state(session_id)
        return answer({"version": state.version, "state": state.values}, _tag(state.version))

    async def merge(self, request: Request, session_id: str) -> Response:
        """Merge values into its state; the version that it has then."""
        values, versions = await _values(request), if_match(request)
        return _written(await self._engine.update_state(session_id, values, versions))

    async def replace(self, request: Request, session_id: str) -> Response:
        """Put values in the place of its state; the version that it has then."""
        values, versions = await _values(request), if_match(request)
        return _written(await self._engine.replace_state(session_id, values, versions))


def if_match(request: Request) -> Versions:
    """The versions that a state may have to be written (RFC 9110, 13.1.1). Raises BadRequest."""
    header = request.headers.get(b"if-match")
    if header is None:
        return None
    text = header.decode("latin-1").strip()
    if text == "*":
        return None
    if not _TAGS.fullmatch(text):
        raise BadRequest('If-Match: must be the ETag of a state, such as "3", or *')
    # A weak tag is equal to none; and what is no version of ours no state has.
    return frozenset(int(tag[1:-1]) for tag in re.findall(_TAG, text) if re.fullmatch(r'"(?:0|[1-9][0-9]{0,17})"', tag))


async def _values(request: Request) -> dict[str, Any]:
    try:
        return _STATE.validate_python(await request.json())
    except ValidationError as error:
        raise InvalidBody(in_body(error)) from None


def _tag(version: int) -> Headers:
    return [(b"etag", b'"%d"' % version)]


def _written(version: int) -> Response:
    return answer({"version": version}, _tag(version))


def _place(after: str) -> Place | None:
    """What a page's `next` says. Raises BadRequest."""
    if not after:
        return None
    text, _, session_id = after.partition("_")
    try:
        created_at = float(text)
    except ValueError:
        created_at = math.nan
    if math.isnan(created_at):
        raise BadRequest("after: must be what a page says as next")
    return Place(created_at, session_id)


def _shown(session: Summary) -> dict[str, object]:
    return {
        "session_id": session.place.session_id,
        "created_at": instant(session.place.created_at),
        "used_at": instant(session.used_at),
        "tasks": session.tasks,
        "unfinished_tasks": session.unfinished_tasks,
        "version": session.version,
        "state_bytes": session.state_bytes,
    }
