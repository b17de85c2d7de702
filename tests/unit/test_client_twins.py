"""Clients with and without an event loop have the same methods, with the same parameters."""

import inspect
import re
from typing import Any

import pytest

import wakeq

TWINS = [
    (wakeq.AsyncClient, wakeq.Client),
    (wakeq.AsyncControlPlane, wakeq.ControlPlane),
    (wakeq.Consumer, wakeq.SyncConsumer),
    (wakeq.TaskEvents, wakeq.SyncTaskEvents),
    (wakeq.Delivery, wakeq.SyncDelivery),
]
# What differs is how one waits, and so these alone.
RENAMED = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
RENAMED |= {"__anext__": "__next__"}


def methods(kind: type[Any]) -> dict[str, Any]:
    """The public ones, by name, and what a `with` or a `for` calls."""
    return {
        name: member
        for name, member in inspect.getmembers(kind)
        if (inspect.isfunction(member) or isinstance(member, property))
        and (not name.startswith("_") or name in {*RENAMED, *RENAMED.values()})
    }


def parameters(member: Any) -> list[tuple[Any, ...]]:
    if isinstance(member, property):
        return []
    return [(p.name, p.kind, p.default, p.annotation) for p in inspect.signature(member).parameters.values()]


def without_async(annotation: object) -> str:
    """`AsyncIterator[wakeq._model.TopicInfo]` as `Iterator[TopicInfo]`."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"[\w.]+\.(?=\w)", "", text).replace("Async", "").replace("Sync", "").replace("'", "")


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS, ids=lambda kind: kind.__name__)
def test_twins_have_the_same_methods(asynchronous: type[Any], synchronous: type[Any]) -> None:
    expected = {RENAMED.get(name, name) for name in methods(asynchronous)}
    assert set(methods(synchronous)) == expected


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS, ids=lambda kind: kind.__name__)
def test_their_parameters_and_results_are_the_same(asynchronous: type[Any], synchronous: type[Any]) -> None:
    for name, member in methods(asynchronous).items():
        twin = methods(synchronous)[RENAMED.get(name, name)]
        assert parameters(member) == parameters(twin), name
        if isinstance(member, property):
            continue
        returns = [without_async(inspect.signature(one).return_annotation) for one in (member, twin)]
        assert returns[0] == returns[1], name


@pytest.mark.parametrize(("asynchronous", "synchronous"), TWINS[:2], ids=lambda kind: kind.__name__)
def test_both_are_made_with_the_same_parameters(asynchronous: type[Any], synchronous: type[Any]) -> None:
    assert parameters(asynchronous.__init__) == parameters(synchronous.__init__)
