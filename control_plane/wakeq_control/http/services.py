"""Services, and what services ask: who the queue is, who is registered, what they have to say."""

from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wakeq._serving.hosts import ANYWHERE, host_name
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import InvalidBody
from wakeq_control.http.wire import Request, Response, answer
from wakeq_control.messages import CONTROL_PLANE, SERVICE_MAX, check_name, check_replica, in_body, read_message
from wakeq_control.model import NO_RETRY, Delivery, Retry, Service
from wakeq_control.registry import to_definition
from wakeq_control.schemas import check_schema
from wakeq_control.tasks import MAX_ATTEMPTS

CONCURRENT_MAX = 1_000
"""Most tasks that a worker may say it takes at a time."""
BACKOFF_MAX_S = 86_400.0
"""Longest that a failed task may wait for its next attempt."""
TOPIC_MAX = 255
"""Characters of a topic's name."""
QUEUE_READ_S = 60
"""How long services let the queue be silent: it parks their requests for 55 s."""


class About(NamedTuple):
    """What the control plane says of itself and of its queue."""

    host: str
    port: int
    queue: str
    namespace: str
    version: str


def _service_name(value: str) -> str:
    if value == CONTROL_PLANE:
        raise ValueError("this is the control plane's own")
    return check_name(value, SERVICE_MAX)


class _ServiceDefinition(BaseModel):
    # Names of services are parts of names of topics.
    service_name: Annotated[str, AfterValidator(_service_name)]
    description: str
    prompt: list[Any] = Field(default_factory=list)
    host: str | None = None
    port: Annotated[int, Field(ge=0, le=65535)] | None = None


class _Retry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] = NO_RETRY.max_attempts
    backoff_s: Annotated[float, Field(ge=0, le=BACKOFF_MAX_S)] = NO_RETRY.backoff_s
    max_backoff_s: Annotated[float, Field(ge=0, le=BACKOFF_MAX_S)] = NO_RETRY.max_backoff_s

    @model_validator(mode="after")
    def _in_order(self) -> "_Retry":
        if self.max_backoff_s < self.backoff_s:
            raise ValueError(f"max_backoff_s must be at least backoff_s, which is {self.backoff_s:g}")
        return self


class _Worker(BaseModel):
    model_config = ConfigDict(extra="forbid")

    description: str = ""
    arguments: Annotated[dict[str, Any], AfterValidator(check_schema)] | None = Field(None, alias="schema")
    retry: _Retry = _Retry()
    max_concurrent_tasks: Annotated[int, Field(ge=1, le=CONCURRENT_MAX)] | None = None
    delivery: Delivery = "one"
    replica: Annotated[str, AfterValidator(check_replica)] | None = Field(None, validate_default=True)

    @field_validator("replica")
    @classmethod
    def _with_delivery(cls, value: str | None, info: ValidationInfo) -> str | None:
        # One that is wrong is told of by itself.
        delivery = info.data.get("delivery")
        if delivery == "all" and value is None:
            raise ValueError("must be named: with delivery all, each replica is given each task")
        if delivery == "one" and value is not None:
            raise ValueError("must be missing: only with delivery all a worker is a replica")
        return value

    def service(self, name: str) -> Service:
        retry = Retry(**self.retry.model_dump())
        return Service(
            name,
            self.description,
            [],
            None,
            None,
            self.arguments,
            is_worker=True,
            retry=retry,
            max_concurrent_tasks=self.max_concurrent_tasks,
            delivery=self.delivery,
        )


_WORKER_NAME = TypeAdapter(Annotated[str, AfterValidator(_service_name)])


class _Name(BaseModel):
    service_name: str


class Services:
    """The calls about services."""

    def __init__(self, engine: Engine, about: About) -> None:
        self._engine = engine
        self._about = about

    async def home(self, request: Request) -> Response:
        """llama_deploy's card."""
        return answer(
            {
                "running": "True",
                "step_interval": "0.1",
                "services_store_key": "services",
                "tasks_store_key": "tasks",
                "session_store_key": "sessions",
            }
        )

    async def queue_config(self, request: Request) -> Response:
        """Where the queue is. `client_kwargs` go into every client that a service makes.

        With the longer limit their requests can be parked; and to load certificates for plain HTTP would take them 20
        ms a message.
        """
        parts = urlsplit(self._about.queue)
        host = parts.hostname
        if host in ANYWHERE:
            # Whoever reaches us by a name reaches by it what listens beside us.
            host = host_name(request.headers.get(b"host", b"").decode("latin-1")) or host
        tls = parts.scheme == "https"
        kwargs: dict[str, object] = {"timeout": QUEUE_READ_S}
        if not tls:
            kwargs["verify"] = False
        config = {
            "host": host,
            "port": parts.port or (443 if tls else 80),
            "client_kwargs": kwargs,
            "raise_exceptions": False,
            "use_ssl": tls,
        }
        return answer({"SimpleMessageQueueConfig": config})

    async def register(self, request: Request) -> Response:
        """Register a service; the answer is llama_deploy's configuration of a control plane."""
        try:
            said = _ServiceDefinition.model_validate(await request.json())
        except ValidationError as error:
            raise InvalidBody(in_body(error)) from None
        await self._engine.register(Service(said.service_name, said.description, said.prompt, said.host, said.port))
        return answer(
            {
                "services_store_key": "services",
                "tasks_store_key": "tasks",
                "session_store_key": "sessions",
                "step_interval": 0.1,
                "host": self._about.host,
                "port": self._about.port,
                "internal_host": None,
                "internal_port": None,
                "running": True,
                "cors_origins": None,
                "topic_namespace": self._about.namespace,
                "state_store_uri": None,
            }
        )

    async def deregister(self, request: Request) -> Response:
        """Forget a service, named in the query, or up to 0.5 in a body."""
        name = request.parameter("service_name")
        if name is None:
            body = await request.body()
            if not body:
                missing: dict[str, object] = {
                    "type": "missing",
                    "loc": ["query", "service_name"],
                    "msg": "Field required",
                    "input": None,
                }
                raise InvalidBody([missing])
            try:
                name = _Name.model_validate_json(body).service_name
            except ValidationError as error:
                raise InvalidBody(in_body(error)) from None
        await self._engine.deregister(name)
        return answer(None)

    async def get(self, request: Request, name: str) -> Response:
        """A service's definition."""
        return answer(to_definition(self._engine.registry.get(name)))

    async def list(self, request: Request) -> Response:
        """All definitions, by name."""
        return answer({service.name: to_definition(service) for service in self._engine.registry.all()})

    async def standing(self, request: Request) -> Response:
        """All services, and who consumes their messages."""
        return answer({"services": [self._standing(one) for one in self._engine.registry.all()]})

    async def stands(self, request: Request, name: str) -> Response:
        """One service, and who consumes its messages."""
        return answer(self._standing(self._engine.registry.require(name)))

    def _standing(self, service: Service) -> dict[str, object]:
        registry = self._engine.registry
        replicas = self._engine.replicas(service.name) if service.delivery == "all" else ()
        return {
            "name": service.name,
            "description": service.description,
            "host": service.host,
            "port": service.port,
            "schema": service.schema,
            "is_worker": service.is_worker,
            "retry": service.retry._asdict(),
            "max_concurrent_tasks": service.max_concurrent_tasks,
            "delivery": service.delivery,
            "state": registry.state(service.name),
            "consumers": registry.consumers(service.name),
            "replicas": [
                {"name": name, "state": registry.replica_state(service.name, name), "unfinished_tasks": unfinished}
                for name, unfinished in replicas
            ],
        }

    async def put_worker(self, request: Request, name: str) -> Response:
        """Register a service whose workers follow their tasks here."""
        service, replica = await _worker(request, name)
        if replica is not None:
            self._check_topic(name, replica)
        await self._engine.register(service)
        return answer({"service": name, "topic_namespace": self._about.namespace})

    def _check_topic(self, service: str, replica: str) -> None:
        """Raises InvalidBody."""
        # Both have a character before them in it.
        length = len(self._about.namespace) + len(service) + len(replica) + 2
        if length > TOPIC_MAX:
            problem = f"the name of its topic would have {length} characters, and may have {TOPIC_MAX}"
            raise InvalidBody([{"type": "value_error", "loc": ["body", "replica"], "msg": problem, "input": replica}])

    async def process_message(self, request: Request) -> Response:
        """Take a message as if it had come by the queue."""
        await self._engine.hear(read_message(await request.json()))
        return answer(None)

    async def health(self, request: Request) -> Response:
        """Whether the process runs."""
        return answer({"status": "ok", "version": self._about.version})


async def _worker(request: Request, name: str) -> tuple[Service, str | None]:
    """What it registers, and which replica it is. Raises InvalidBody."""
    try:
        _WORKER_NAME.validate_python(name)
        said = _Worker.model_validate(await request.json())
        return said.service(name), said.replica
    except ValidationError as error:
        raise InvalidBody(in_body(error)) from None
