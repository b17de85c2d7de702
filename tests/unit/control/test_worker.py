"""What a worker runs, without a queue or a control plane: schemas, outcomes, inputs, contexts."""

import asyncio
import base64
import json
import pickle
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from pydantic import BaseModel
from workflows import Workflow as LlamaWorkflow
from workflows import step
from workflows.events import StartEvent, StopEvent

from tests.e2e import worker_flows
from wakeq_control.arguments import check
from wakeq_control.service import TaskContext
from wakeq_control.service.context import plain
from wakeq_control.service.functions import Function
from wakeq_control.service.runnable import Outcome
from wakeq_control.service.workflows import Workflow, is_workflow

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Person(BaseModel):
    name: str


class Opaque:
    """JSON has no schema for it."""


async def everything(
    user_msg: str,
    who: Person,
    limit: int | None = None,
    other: Opaque | None = None,
    *,
    task: TaskContext,
    bare: Any = 3,
) -> str:
    return f"{user_msg}, {who!r}, {limit}, {other}, {bare}, {task.task_id}"


def make_task(attempt: int = 1) -> tuple[TaskContext, list[tuple[int, dict[str, Any]]]]:
    shown: list[tuple[int, dict[str, Any]]] = []
    return TaskContext("T", "S", attempt, lambda index, data: shown.append((index, data))), shown


def test_a_signature_is_a_schema() -> None:
    schema = Function(everything).schema
    assert schema is not None
    assert schema["required"] == ["user_msg", "who"]
    assert list(schema["properties"]) == ["user_msg", "who", "limit", "other", "bare"]
    assert schema["additionalProperties"] is False
    check(schema, {"user_msg": "x", "who": {"name": "Ann"}, "limit": None, "other": [], "bare": "y"})


async def test_arguments_come_as_their_types() -> None:
    outcome = await Function(everything).run({"user_msg": "x", "who": {"name": "Ann"}}, make_task()[0], None)
    # What isn't given has its default.
    assert outcome == Outcome("x, Person(name='Ann'), None, None, 3, T")


async def test_an_argument_of_another_type_is_refused_before_the_function_runs() -> None:
    outcome = await Function(everything).run({"user_msg": "x", "who": {"name": 1}}, make_task()[0], None)
    assert outcome.error == "INVALID_ARGUMENTS: who.name: Input should be a valid string"


async def positional(user_msg: str, /) -> None: ...


async def several(*names: str) -> None: ...


@pytest.mark.parametrize("function", [positional, several])
def test_what_takes_no_names_can_not_be_served(function: Any) -> None:
    with pytest.raises(ValueError, match="takes no keyword"):
        Function(function)


def test_workflows_are_known_by_where_they_come_from() -> None:
    assert is_workflow(worker_flows.flow)
    assert not is_workflow(worker_flows.Flow)
    assert not is_workflow(everything)


def test_a_typed_start_event_is_a_schema() -> None:
    schema = Workflow(worker_flows.flow).schema
    assert schema is not None
    assert schema["required"] == ["user_msg"]
    assert list(schema["properties"]) == ["user_msg", "events", "ask"]
    assert schema["additionalProperties"] is False
    assert Workflow(worker_flows.chatty).schema is None


async def test_a_context_is_kept_as_json_and_taken_up() -> None:
    service = Workflow(worker_flows.flow)
    first = await service.run({"user_msg": "x"}, make_task()[0], None)
    kept = json.loads(json.dumps(first.context))
    second = await service.run({"user_msg": "x"}, make_task()[0], kept)
    assert (first.result, second.result) == ("echo: x, run 1", "echo: x, run 2")


class Trap:
    sprung = False

    def __reduce__(self) -> Any:
        return (setattr, (Trap, "sprung", True))


async def test_a_pickle_in_a_context_is_never_read() -> None:
    service = Workflow(worker_flows.flow)
    kept = (await service.run({"user_msg": "x"}, make_task()[0], None)).context
    assert kept is not None
    trap = base64.b64encode(pickle.dumps(Trap())).decode()
    kept = json.loads(json.dumps(kept).replace('"1"', json.dumps(trap)))
    assert trap in json.dumps(kept)
    outcome = await service.run({"user_msg": "x"}, make_task()[0], kept)
    assert outcome.error is not None
    assert not Trap.sprung


class Unkeepable(LlamaWorkflow):
    @step
    async def begin(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=Opaque())


async def test_a_result_that_is_no_json_is_text() -> None:
    task, shown = make_task()
    outcome = await Workflow(Unkeepable(timeout=None)).run({}, task, None)
    assert outcome.error is None
    assert outcome.result.startswith("<")
    # The last event goes with the end.
    assert isinstance(outcome.last, StopEvent)
    assert shown == []


@pytest.mark.parametrize(
    "text", ["no JSON", '{"__is_pydantic": true, "value": {}, "qualified_name": "os.system"}', "[]"]
)
# What it is called since llama-index-workflows is a package of its own, and was by clients of before.
@pytest.mark.parametrize("module", ["workflows.events", "llama_index.core.workflow.events"])
async def test_an_input_of_an_unknown_class_is_not_imported_and_ends_nothing(text: str, module: str) -> None:
    task, shown = make_task()
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.append(await Workflow(worker_flows.flow).run({"user_msg": "x", "ask": True}, task, None))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while not shown:
            await wait_all_tasks_blocked()
        task.give(text, 0)
        await wait_all_tasks_blocked()
        event = {"_data": {"response": "Ann"}}
        name = f"{module}.HumanResponseEvent"
        task.give(json.dumps({"__is_pydantic": True, "value": event, "qualified_name": name}), 0)
    assert [outcome.result for outcome in outcomes] == ["answer: Ann"]


async def test_inputs_wait_for_as_many_questions() -> None:
    task, _ = make_task(2)
    task.give('"early"', 0)
    task.give('"Ann"', 1)
    assert await task.receive() == "early"
    received: list[Any] = []

    async def receive() -> None:
        received.append(await task.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await wait_all_tasks_blocked()
        assert received == []
        task.emit({"prefix": "who?"})
    assert received == ["Ann"]


def test_an_event_is_a_mapping() -> None:
    task, shown = make_task()
    task.emit(Person(name="Ann"))
    with pytest.raises(TypeError, match="must be a mapping or a pydantic model, not int"):
        task.emit(3)
    assert shown == [(0, {"name": "Ann"})]


def test_inputs_come_without_what_llama_index_says_around_them() -> None:
    event = {"__is_pydantic": True, "value": {"n": 1, "_data": {"response": "Ann"}}, "qualified_name": "a.B"}
    assert plain(json.dumps(event)) == {"n": 1, "response": "Ann"}
    assert plain("no JSON") == "no JSON"


async def test_a_cancelled_workflow_ends() -> None:
    ended = []

    class Endless(LlamaWorkflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)
            return StopEvent()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Workflow(Endless(timeout=None)).run, {}, make_task()[0], None)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert ended == [True]
