"""llama_deploy's message queue on a wakeq server.

Consumers are woken over a leased stream, one message at a time, and ack what they have processed. What a consumer can't
process is given back, comes again, and is a dead letter after the topic's last attempt.
"""

# llama_deploy is not among the dependencies; who imports this has it.
# mypy: disable-error-code="import-not-found", allow-subclassing-any

import asyncio
import logging
import random
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import httpx
from llama_deploy.message_consumers.base import BaseMessageQueueConsumer, StartConsumingCallable
from llama_deploy.message_consumers.remote import RemoteMessageConsumer
from llama_deploy.message_queues.base import AbstractMessageQueue
from llama_deploy.message_queues.simple import SimpleMessageQueueConfig
from llama_deploy.messages import QueueMessage
from pydantic import Field

from wakeq._async_client import AsyncClient
from wakeq._backoff import Backoff
from wakeq._delivery import Delivery
from wakeq._errors import ServerUnavailable, TopicNotFound, WakeqError
from wakeq.integrations.llama_deploy._options import client_options

PROCESS_MAX_S = 60.0
"""How long a service or the control plane may take to take in a message; llama_deploy's own limit is 5 s."""

CONSUMER_MAX = 255
"""Characters of a consumer's name (protocol, section 2)."""

# A child of llama_deploy's logger, which has its handler and its level.
_logger = logging.getLogger("llama_deploy.message_queues.wakeq")


class WakeqMessageQueueConfig(SimpleMessageQueueConfig):
    """Where the server is, said as for llama_deploy's own queue (`SIMPLE_MESSAGE_QUEUE_HOST`, …), and its token."""

    token: str | None = Field(default=None, exclude=True, repr=False)
    """None: the environment's ``WAKEQ_TOKEN``. It stays in this process: services have one of their own."""


class WakeqMessageQueue(AbstractMessageQueue):
    """Stands where llama_deploy has a SimpleMessageQueue, and is made of the same config."""

    def __init__(self, config: SimpleMessageQueueConfig | None = None) -> None:
        """Connects when it is used. Raises ValueError where the config's ``client_kwargs`` can't be obeyed."""
        self._config = config or WakeqMessageQueueConfig()
        self._url = self._config.base_url
        self._options = client_options(self._url, self._config.client_kwargs, getattr(self._config, "token", None))
        self._consumers: dict[str, dict[str, anyio.CancelScope]] = {}
        # The API server makes a queue on one event loop and uses it on another.
        self._publishers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = WeakKeyDictionary()

    async def _publish(self, message: QueueMessage, topic: str) -> None:
        """Returns when the server has it. Raises WakeqError, of which TopicNotFound says that nobody has registered."""
        await self._publisher().publish(topic, message)

    async def register_consumer(self, consumer: BaseMessageQueueConsumer, topic: str) -> StartConsumingCallable:
        """Make the topic if need be, waiting for a server that can't be reached; the callable consumes it.

        Raises ValueError for a consumer that is registered, and WakeqError where the server refuses.
        """
        await self._wait_for_topic(topic)
        registered = self._consumers.setdefault(topic, {})
        if consumer.id_ in registered:
            raise ValueError(f"Consumer {consumer.id_} already registered for topic {topic}")
        scope = registered[consumer.id_] = anyio.CancelScope()
        told = _told_of_failures(consumer)
        _logger.info(
            "Consumer '%s' for type '%s' on topic '%s' has been registered.", consumer.id_, consumer.message_type, topic
        )

        async def start_consuming() -> None:
            # llama_deploy gathers its consumers after it has cancelled them, and takes it that each returns.
            with suppress(asyncio.CancelledError), scope:
                await self._consume(told, topic)
            _logger.info("Consumer %s for topic %s has ended", consumer.id_, topic)

        return start_consuming

    async def deregister_consumer(self, consumer: BaseMessageQueueConsumer) -> None:
        """Forget a consumer, and end its consuming."""
        for registered in self._consumers.values():
            scope = registered.pop(consumer.id_, None)
            if scope is not None:
                scope.cancel()

    async def cleanup(self, *_args: Any, **_kwargs: Any) -> None:
        """Close the connections for publishing; those of a consumer close when it ends."""
        publisher = self._publishers.pop(asyncio.get_running_loop(), None)
        if publisher is not None:
            await publisher.aclose()

    def as_config(self) -> SimpleMessageQueueConfig:
        """What the control plane tells its services: llama_deploy's own config, which those without wakeq know too."""
        told = {name: getattr(self._config, name) for name in SimpleMessageQueueConfig.model_fields}
        return SimpleMessageQueueConfig(**told)

    def _publisher(self) -> AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._publishers:
            self._publishers[loop] = self._client()
        return self._publishers[loop]

    def _client(self, consumer: str | None = None) -> AsyncClient:
        return AsyncClient(self._url, consumer=consumer, **self._options())

    async def _wait_for_topic(self, topic: str) -> None:
        backoff = Backoff(random.random)
        while True:
            try:
                await self._make_topic(topic)
            except ServerUnavailable as error:
                _logger.warning("Waiting for the queue server: %s (`wakeq serve` starts one)", error)
                await asyncio.sleep(backoff.next_delay_s(error.retry_after_s or 0.0))
            except WakeqError as error:
                # The API server doesn't look at what ends a deployment.
                _logger.error("Topic '%s' can't be made: %s", topic, error)
                raise
            else:
                return

    async def _make_topic(self, topic: str) -> None:
        # Looked for first: to put it anew would undo what an operator has configured.
        try:
            await self._publisher().topic(topic)
        except TopicNotFound:
            await self._publisher().create_topic(topic, schema="queue_message")
        except WakeqError as error:
            if error.status is not None and not error.code:
                raise WakeqError(f"{self._url} is no wakeq server: {error}", status=error.status) from error
            raise

    async def _consume(self, consumer: BaseMessageQueueConsumer, topic: str) -> None:
        backoff = Backoff(random.random)
        async with self._client(_presence_name(consumer)) as client:
            while True:
                try:
                    async with client.consume(topic, prefetch=1) as deliveries:
                        async for delivery in deliveries:
                            backoff.succeeded()
                            await _process(consumer, delivery)
                except TopicNotFound:
                    _logger.warning("Topic '%s' is gone; making it anew", topic)
                    await self._wait_for_topic(topic)
                except WakeqError as error:
                    # Not raised: nobody looks at what ends a consumer, and its service would go on without it.
                    _logger.error("Consumer '%s' on topic '%s' tries again: %s", consumer.id_, topic, error)
                    await asyncio.sleep(backoff.next_delay_s(error.retry_after_s or 0.0))


class ExternalQueue:
    """Stands where llama_deploy starts a SimpleMessageQueueServer: the queue server runs already, elsewhere."""

    def __init__(self, config: SimpleMessageQueueConfig | None = None) -> None:
        self._url = (config or SimpleMessageQueueConfig()).base_url

    async def launch_server(self) -> None:
        """Wait until cancelled, and then return as the original does."""
        _logger.info("Using the queue server at %s", self._url)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def _process(consumer: BaseMessageQueueConsumer, delivery: Delivery) -> None:
    try:
        async with delivery:
            await consumer.process_message(QueueMessage.model_validate(delivery.body))
    except Exception:
        # Given back, or still leased where the server couldn't be told: it comes again, until it is a dead letter.
        _logger.exception("Message %d on topic '%s', attempt %d", delivery.seq, delivery.topic, delivery.attempt)


def _presence_name(consumer: BaseMessageQueueConsumer) -> str | None:
    """A consumer's id as consumers are listed by, which may have less in it than ids; None where nothing is left."""
    return "".join(filter(str.isprintable, consumer.id_))[:CONSUMER_MAX].strip() or None


def _told_of_failures(consumer: BaseMessageQueueConsumer) -> BaseMessageQueueConsumer:
    """A consumer that posts to a service, made to raise where the service refuses a message; others as they are.

    By itself it takes any answer for success, which would ack what nobody has processed.
    """
    if not isinstance(consumer, RemoteMessageConsumer):
        return consumer
    ours = {"timeout": PROCESS_MAX_S, "event_hooks": {"response": [_raise_for_status]}}
    if consumer.url.startswith("http:"):
        # It makes a client for each message, which would load the certificates of the system each time.
        ours["verify"] = False
    return consumer.model_copy(update={"client_kwargs": ours | (consumer.client_kwargs or {})})


async def _raise_for_status(response: httpx.Response) -> None:
    response.raise_for_status()
