"""`wakeq consume`."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

import anyio
import typer

import wakeq
from wakeq._connection import DEFAULT_URL
from wakeq.cli import _pipes, _values
from wakeq.cli._deliveries import body_of, whole
from wakeq.cli._exec import Commands
from wakeq.cli._stop import stoppable
from wakeq.cli._taking import Intake
from wakeq.cli._talk import DEFAULT_GROUP, Group, Topic, Url, counted, fail, talk, warn

_BATCH = 100
_GIVE_BACK_S = 5.0
_GRACE_S = 10.0
_RETRY_S = 30.0


def consume(
    topic: Topic,
    group: Group = DEFAULT_GROUP,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on for ever: wait for what comes.")] = False,
    wait_s: Annotated[
        Any, typer.Option("--wait", parser=_values.seconds, metavar="DURATION", help="End when none came for so long.")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--max", metavar="N", min=1, help="End after so many messages.", show_default=False)
    ] = None,
    output: Annotated[
        Literal["body", "json"] | None,
        typer.Option(help="A line is a body, or a whole delivery in JSON.  [default: body]"),
    ] = None,
    ack: Annotated[
        bool | None,
        typer.Option(
            "--ack/--no-ack",
            help="Ack what was printed, or leave it to come back when its lease ends.  [default: ack]",
            show_default=False,
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="Run this by the shell for each message, with the body on stdin; ack if it exits with 0, else nack.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1_000, help="With --exec: so many at a time.  [default: 1]")
    ] = None,
    grace_s: Annotated[
        Any,
        typer.Option(
            "--grace",
            parser=_values.seconds,
            metavar="DURATION",
            help="With --exec: how long commands may go on after SIGTERM or SIGINT.  [default: 10s]",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Take the messages that a topic has ready, print each body as a line, and end; with --follow, wait for more.

    A message is acked when it has been printed, or its command has succeeded: it may come twice, but is never lost.

    A command finds the rest of its message in WAKEQ_SEQ, WAKEQ_ATTEMPT, WAKEQ_ID, WAKEQ_KEY, WAKEQ_HEADER_<NAME>, ….
    """
    if follow and wait_s is not None:
        fail("--follow never ends, and --wait says when to end", "give one of them", code=2)
    if command is None:
        _refuse({"--concurrency": concurrency, "--grace": grace_s}, "is about commands", "--exec says which")
    else:
        _refuse({"--output": output, "--no-ack": ack is False or None}, "is about printing", "leave it out, or --exec")

    async def work(client: wakeq.AsyncClient) -> None:
        intake = Intake(client, topic, group=group, most=most, wait_s=None if follow else wait_s or 0.0)
        async with stoppable() as stop:
            if command is None:
                with stop.taking():
                    await _print(intake, output or "body", ack=ack is not False)
                return
            commands = Commands(
                command,
                concurrency=concurrency or 1,
                lease_s=(await client.topic(topic)).config.lease_s,
                grace_s=_GRACE_S if grace_s is None else grace_s,
                env={"WAKEQ_URL": url, "WAKEQ_GROUP": group},
            )
            await commands.run(intake, stop)
            if commands.given_back and stop.received is None:
                raise typer.Exit(1)

    # An ack is worth more than one try; a claim has one, so that a server that isn't there is told at once.
    talk(url, work, topic, retry_s=_RETRY_S)


def _refuse(options: dict[str, Any], about: str, hint: str) -> None:
    for option, value in options.items():
        if value is not None:
            fail(f"{option} {about}", hint, code=2)


async def _print(intake: Intake, output: str, *, ack: bool) -> None:
    late = 0
    while deliveries := await intake.take(_BATCH):
        lines = [_line(delivery, output) for delivery in deliveries]
        parts: list[int] = []
        try:
            await _pipes.write(b"".join(lines), parts.append)
        except BaseException:
            # Whoever reads has gone, or a signal came. What nobody has seen for sure is another consumer's.
            with anyio.move_on_after(_GIVE_BACK_S, shield=True):
                await _give_back(intake, deliveries, lines, sum(parts))
            raise
        if ack:
            late += await _ack(intake, deliveries)
    if late:
        raise typer.Exit(1)


async def _give_back(intake: Intake, deliveries: Sequence[wakeq.Delivery], lines: list[bytes], written: int) -> None:
    """What somebody may have seen the beginning of was an attempt; the rest wasn't."""
    starts = accumulate(map(len, lines[:-1]), initial=0)
    begun = sum(start < written for start in starts)
    nacks = [wakeq.Nack(delivery.lease_id, 0.0) for delivery in deliveries[:begun]]
    releases = [delivery.lease_id for delivery in deliveries[begun:]]
    await intake.client.settle(intake.topic, nack=nacks, release=releases)


async def _ack(intake: Intake, deliveries: Sequence[wakeq.Delivery]) -> int:
    """How many could not be acked."""
    # A signal is no reason to leave unsaid what is done.
    with anyio.CancelScope(shield=True):
        try:
            results = await intake.client.settle(intake.topic, ack=[delivery.lease_id for delivery in deliveries])
        except wakeq.ServerUnavailable as error:
            warn(f"{counted(len(deliveries), 'message')} could not be acked and will come again", error.detail)
            return len(deliveries)
    late = sum(result.status != "ok" for result in results)
    if late:
        warn(f"{counted(late, 'message')} came too late to be acked and will come again", "raise --lease of the topic")
    return late


def _line(delivery: wakeq.Delivery, output: str) -> bytes:
    return (body_of(delivery) if output == "body" else whole(delivery)) + b"\n"
