"""`/metrics`, in Prometheus' text format: read from the engine's own counts when somebody asks, free otherwise."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from wakeq_server.core.model import TopicInfo
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
    """One scrape of the queue."""

    def __init__(self, stats: Stats, parked: int, polls: PollWatch, topics: list[TopicInfo], requests: int) -> None:
        self._stats = stats
        self._parked = parked
        self._polls = polls
        self._topics = topics
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """Totals, then topics."""
        stats = self._stats
        yield CounterMetricFamily("wakeq_requests", "HTTP requests answered.", value=self._requests)
        yield CounterMetricFamily("wakeq_published_messages", "Messages published.", value=stats.published)
        yield CounterMetricFamily("wakeq_delivered_messages", "Messages leased to a consumer.", value=stats.delivered)
        yield CounterMetricFamily(
            "wakeq_redelivered_messages", "Of these, not the first time.", value=stats.redelivered
        )
        yield CounterMetricFamily("wakeq_expired_leases", "Leases that ran out.", value=stats.expired)
        yield CounterMetricFamily(
            "wakeq_undone_leases", "Leases undone since the consumer had gone.", value=stats.undone
        )
        settled = CounterMetricFamily("wakeq_settled_messages", "Lines of settles, by outcome.", labels=["outcome"])
        for outcome in ("ack", "nack", "extend", "dead"):
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
        for (topic, code), count in stats.refused_publishes.items():
            lost.add_metric([topic, code], count)
        yield lost
        yield GaugeMetricFamily("wakeq_parked_consumers", "Consumers parked now.", value=self._parked)
        yield _histogram("wakeq_publish_seconds", "From a publish's arrival to its answer.", stats.publish_s)
        yield _histogram(
            "wakeq_wake_seconds", "From a message's hand-over to its parked consumer running.", stats.wake_s
        )
        yield from self._by_topic()

    def _by_topic(self) -> Iterator[Metric]:
        messages = GaugeMetricFamily(
            "wakeq_topic_messages", "Messages, by topic, group and state.", labels=[*_PLACE, "state"]
        )
        age = GaugeMetricFamily("wakeq_topic_oldest_age_seconds", "Age of the oldest message.", labels=_PLACE)
        for info in self._topics:
            for group in info.groups:
                for state in ("ready", "delayed", "leased", "dead"):
                    messages.add_metric([info.name, group.name, state], getattr(group, state))
                age.add_metric([info.name, group.name], group.oldest_age_s or 0.0)
        yield messages
        yield age


_PLACE = ["topic", "group"]


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    total, buckets = 0, []
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
