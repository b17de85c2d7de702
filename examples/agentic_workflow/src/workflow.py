"""A workflow of an agent's shape: it plans, uses a tool, says what it does, and asks a person where it must.

It needs no model: the plan is made by rules.
"""

from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent


class Question(StartEvent):
    """What a task takes: the control plane checks it before anything is queued."""

    user_msg: str


class Thought(Event):
    """What clients see of the work."""

    text: str


class ToolCall(Event):
    """The tool is to be used."""

    words: str


class AgenticWorkflow(Workflow):
    """Counts the words of what it is told; told nothing, it asks."""

    @step
    async def plan(self, context: Context, question: Question) -> ToolCall | InputRequiredEvent:
        """Decide what is to be done."""
        if not question.user_msg.strip():
            return InputRequiredEvent(prefix="What is your question?")
        context.write_event_to_stream(Thought(text="counting words"))
        return ToolCall(words=question.user_msg)

    @step
    async def hear(self, context: Context, answer: HumanResponseEvent) -> ToolCall:
        """Go on with what a person has said."""
        context.write_event_to_stream(Thought(text="thank you; counting words"))
        return ToolCall(words=answer.response)

    @step
    async def count(self, call: ToolCall) -> StopEvent:
        """The tool."""
        return StopEvent(result=f"{call.words!r} has {len(call.words.split())} words")


agentic_workflow = AgenticWorkflow(timeout=None)
