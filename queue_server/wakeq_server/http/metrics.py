"""`/metrics`, in Prometheus' text format: read from the engine's own counts when somebody asks, free otherwise."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from wakeq_server.core.model import GroupInfo, Overview
from wakeq_server.engine.stats import Histogram, Stats
from wakeq_server.http.polls import PollWatch

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def process_registry() -> CollectorRegistry:
    """What Python and the operating system say about this process."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class QueueCollector(Collector):
    """One scrape of the queue. Made by the loop; read by any thread."""

    def __init__(
        self,
        stats: Stats,
        parked: int,
        polls: PollWatch,
        overview: Overview,
        requests: int,
        refused: Mapping[str, int],
    ) -> None:
        """``refused``: requests by the code of their refusal."""
        self._stats = stats
        self._parked = parked
        self._polls = polls
        self._overview = overview
        self._requests = requests
        # These may get new keys while they are gone through.
        self._refused = dict(refused)
        self._lost = dict(stats.refused_publishes)

    def collect(self) -> Iterator[Metric]:
        """Totals, then topics."""
        stats = self._stats
        yield CounterMetricFamily("wakeq_requests", "HTTP requests answered.", value=self._requests)
        refused = CounterMetricFamily("wakeq_refused_requests", "Of these, refused, by code.", labels=["code"])
        for code, count in self._refused.items():
            refused.add_metric([code], count)
        yield refused
        yield CounterMetricFamily("wakeq_published_messages", "Messages published.", value=stats.published)
        yield CounterMetricFamily(
            "wakeq_duplicate_publishes", "Publishes whose idempotency key was known.", value=stats.duplicates
        )
        yield CounterMetricFamily("wakeq_delivered_messages", "Messages leased to a consumer.", value=stats.delivered)
        yield CounterMetricFamily(
            "wakeq_redelivered_messages", "Of these, not the first time.", value=stats.redelivered
        )
        yield CounterMetricFamily("wakeq_expired_leases", "Leases that ran out.", value=stats.expired)
        yield CounterMetricFamily(
            "wakeq_undone_leases", "Leases undone since the consumer had gone.", value=stats.undone
        )
        settled = CounterMetricFamily("wakeq_settled_messages", "Lines of settles, by outcome.", labels=["outcome"])
        for outcome in ("ack", "nack", "extend", "dead", "release"):
            settled.add_metric([outcome], stats.settled[outcome])
        yield settled
        yield CounterMetricFamily(
            "wakeq_pushed_messages", "Messages acked since their push's target took them.", value=stats.pushes_delivered
        )
        yield CounterMetricFamily(
            "wakeq_failed_pushes",
            "Pushed messages that their target refused or didn't answer.",
            value=stats.pushes_failed,
        )
        yield GaugeMetricFamily(
            "wakeq_suspended_pushes", "Pushes whose target can't be reached.", value=stats.pushes_suspended
        )
        yield CounterMetricFamily("wakeq_dead_letters", "Messages that died.", value=stats.dead)
        yield CounterMetricFamily(
            "wakeq_expired_messages", "Messages dropped since their time to live was over.", value=stats.dropped_by_ttl
        )
        yield CounterMetricFamily("wakeq_commits", "Transactions written to the store.", value=stats.commits)
        yield CounterMetricFamily(
            "wakeq_empty_polls", "Answers without a message to requests that did not wait.", value=self._polls.empty
        )
        yield CounterMetricFamily(
            "wakeq_tight_polls", "Of these, to consumers asking more than 5 times a second.", value=self._polls.tight
        )
        lost = CounterMetricFamily(
            "wakeq_refused_legacy_publishes",
            "Publishes refused to clients that do not look at the answer.",
            labels=["topic", "code"],
        )
        for (topic, code), count in self._lost.items():
            lost.add_metric([topic, code], count)
        yield lost
        yield GaugeMetricFamily("wakeq_parked_consumers", "Consumers parked now.", value=self._parked)
        yield _histogram(
            "wakeq_commit_seconds", "From a batch being handed to the store to its being durable.", stats.commit_s
        )
        yield _histogram("wakeq_publish_seconds", "From a publish's arrival to its answer.", stats.publish_s)
        yield _histogram(
            "wakeq_wake_seconds", "From a message's hand-over to its parked consumer running.", stats.wake_s
        )
        yield GaugeMetricFamily(
            "wakeq_memory_bytes", "What messages in memory cost, bodies included.", value=stats.memory_bytes
        )
        yield GaugeMetricFamily(
            "wakeq_memory_budget_bytes", "What they may; beyond it bodies stay in the store.",
            value=stats.memory_budget_bytes,
        )  # fmt: skip
        yield from self._keys()
        yield from self._all_topics()
        yield from self._busiest_topics()

    def _keys(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "wakeq_forgotten_keys",
            "Idempotency keys forgotten within their window, since a topic had too many.",
            value=self._stats.keys_forgotten,
        )
        by_topic = GaugeMetricFamily(
            "wakeq_topic_forgotten_keys", "Of these, those of topics that are.", labels=["topic"]
        )
        for topic, count in self._overview.short_of_keys.items():
            by_topic.add_metric([topic], count)
        yield by_topic

    def _all_topics(self) -> Iterator[Metric]:
        overview = self._overview
        yield GaugeMetricFamily("wakeq_topics", "Topics.", value=overview.topics)
        yield GaugeMetricFamily("wakeq_held_messages", "Unsettled messages in all topics.", value=overview.messages)
        yield GaugeMetricFamily("wakeq_held_bytes", "Bytes of their bodies, in the store or not.", value=overview.bytes)
        messages = GaugeMetricFamily("wakeq_messages", "Messages in all groups, by state.", labels=["state"])
        for state in _STATES:
            messages.add_metric([state], getattr(overview, state))
        yield messages

    def _busiest_topics(self) -> Iterator[Metric]:
        published = GaugeMetricFamily(
            "wakeq_topic_published_per_second", "Messages published, of late.", labels=["topic"]
        )
        for info in self._overview.busiest:
            published.add_metric([info.name], info.published_per_s)
        yield published
        places = [((info.name, group.name), group) for info in self._overview.busiest for group in info.groups]
        yield from _by_place(places)


_PLACE = ["topic", "group"]
_STATES = ("ready", "delayed", "leased", "dead")


def _by_place(places: list[tuple[tuple[str, str], GroupInfo]]) -> Iterator[Metric]:
    messages = GaugeMetricFamily(
        "wakeq_topic_messages", "Messages, by topic, group and state.", labels=[*_PLACE, "state"]
    )
    age = GaugeMetricFamily("wakeq_topic_oldest_age_seconds", "Age of the oldest message.", labels=_PLACE)
    delivered = GaugeMetricFamily("wakeq_topic_delivered_per_second", "Messages delivered, of late.", labels=_PLACE)
    settled = GaugeMetricFamily("wakeq_topic_settled_per_second", "Messages settled, of late.", labels=_PLACE)
    for place, group in places:
        for state in _STATES:
            messages.add_metric([*place, state], getattr(group, state))
        if group.oldest_age_s is not None:
            age.add_metric(place, group.oldest_age_s)
        elif not group.ready + group.delayed + group.leased:
            age.add_metric(place, 0.0)
        delivered.add_metric(place, group.delivered_per_s)
        settled.add_metric(place, group.settled_per_s)
    yield from (messages, age, delivered, settled)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    total, buckets = 0, []
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
