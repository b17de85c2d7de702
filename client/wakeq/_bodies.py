"""What a program publishes, as bytes."""

from typing import Any

import orjson


def encoded(body: Any, name: str = "body") -> bytes:
    """A body as JSON. Raises TypeError, which says ``name``, where it has no such form."""
    try:
        return orjson.dumps(body, _model)
    except TypeError as error:
        # What `_model` says is behind orjson's own error, which says less.
        raise TypeError(f"{name}: {error.__cause__ or error}") from None


def as_event(event: Any) -> Any:
    """An event for a task; a pydantic model as the workflows of llama-index write theirs, by the name of its class."""
    kind = type(event)
    if not hasattr(kind, "model_dump_json"):
        return event
    return {"__is_pydantic": True, "value": event, "qualified_name": f"{kind.__module__}.{kind.__name__}"}


def _model(value: Any) -> Any:
    """A pydantic model as JSON; its own method does that, so that pydantic needn't be imported here."""
    dump = getattr(type(value), "model_dump_json", None)
    if dump is None:
        raise TypeError(
            f"{type(value).__name__} has no JSON form; publish what JSON has, dataclasses or pydantic models"
        )
    return orjson.Fragment(dump(value))
