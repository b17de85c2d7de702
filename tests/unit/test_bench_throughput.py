from pathlib import Path

import pytest
from rich.console import Console

from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.peers.contestant import Contestant
from wakeq_bench.peers.everyone import BY_KEY
from wakeq_bench.scenarios import throughput
from wakeq_bench.scenarios.throughput import Found, Load, Throughput, figures, loads_of

SIZES = Throughput(batch=[1, 100], seconds=1.0, rounds=1)


def found(contestant: str, per_second: float, lost: int = 0, doubled: int = 0) -> Found:
    return Found(BATCHES.name, contestant, per_second, 1e-5, 1e-5, 0.5, 0.5, lost, doubled)


(_, BATCHES, CONCURRENT) = loads_of(SIZES)


def test_loads() -> None:
    assert [load.name for load in loads_of(Throughput(mode=["batches"], batch=[1, 100]))] == [
        "batches of 1",
        "batches of 100",
    ]
    assert CONCURRENT.options == ("--singly", "--in-flight", "100", "--size", "100")


def test_only_what_was_agreed_on_has_targets() -> None:
    small, large, _ = loads_of(SIZES)
    assert small.bounds == ()
    assert {key for key, _ in large.bounds} <= set(BY_KEY)
    assert loads_of(Throughput(mode=["concurrent"], calls=[50]))[0].bounds == ()


def test_rates_are_compared_by_their_medians() -> None:
    runs = [found("wakeq-fsync", rate) for rate in (10.0, 30.0, 90.0)] + [found("redis-always", 20.0)]
    ratio, among_synced, among_all, wrong = figures(BATCHES, runs)
    assert (ratio.value, ratio.met) == (1.5, True)
    assert (among_synced.value, among_all.value) == (1, 1)
    assert (wrong.value, wrong.met) == (0, True)


def test_its_place_is_among_others_and_not_among_its_own_ways() -> None:
    rates = {"wakeq-fsync": 20.0, "wakeq-memory": 90.0, "redis-always": 30.0, "redis-everysec": 50.0}
    shown = figures(BATCHES, [found(key, rate) for key, rate in rates.items()])
    among_synced, among_all = (figure for figure in shown if "place" in figure.name)
    assert (among_synced.value, among_synced.met) == (2, False)
    assert (among_all.value, among_all.met) == (3, False)


def test_what_is_lost_or_doubled_misses_its_target() -> None:
    (wrong,) = figures(BATCHES, [found("wakeq-fsync", 1.0, lost=1), found("wakeq-fsync", 1.0, doubled=2)])
    assert (wrong.value, wrong.met) == (3, False)


@pytest.mark.parametrize("runs", [[], [found("redis-always", 20.0)], [found("wakeq-memory", 20.0)]])
def test_without_wakeq_synced_nothing_is_compared(runs: list[Found]) -> None:
    assert figures(BATCHES, runs) == []
    assert figures(Load("another", ()), runs) == []


def test_a_missing_contestant_is_named_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(load: Load, broker: Contestant, *_: object) -> Found:
        return Found(load.name, broker.key, 5.0, 1e-5, 1e-5, 0.95, 0.5, 0, 0)

    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(throughput, "_measure", measure)
    given = Throughput(mode=["batches"], batch=[1, 100], only=["wakeq-fsync", "redis-always"], rounds=1)
    report = throughput.run(given, Console(quiet=True))
    assert list(report.settings["contestants"]) == ["wakeq-fsync"]
    assert report.overview is not None
    assert len(report.overview.rows) == 2
    elastic_mq, missing = report.missing
    assert "no contestant for it" in elastic_mq.reason
    assert "appendfsync always" in missing.name
    assert "redis-server is not installed" in missing.reason
    assert any("at its limit with wakeq-fsync (batches of 1)" in note for note in report.notes)


@pytest.mark.parametrize(
    ("key", "package"),
    [
        ("redis-always", "redis-server"),
        ("rabbitmq", "rabbitmq-server"),
        ("beanstalkd-always", "beanstalkd"),
        ("nchan", "libnginx-mod-nchan"),
    ],
)
def test_a_server_is_looked_for_before_anything_is_installed(
    key: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_found(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr("shutil.which", not_found)
    with pytest.raises(PeerUnavailable, match=f"apt-get install .*{package}"):
        BY_KEY[key].prepare(lambda _: None)


def test_whoever_has_no_batches_is_not_asked_for_them() -> None:
    given = throughput.Throughput(only=["nchan", "wakeq-fsync"])
    pythons = {BY_KEY[key]: Path("python") for key in given.only}
    batches, single_calls = loads_of(given)[0], loads_of(given)[-1]
    assert [one.key for one in throughput._taking(given, batches, pythons)] == ["wakeq-fsync"]
    assert [one.key for one in throughput._taking(given, single_calls, pythons)] == ["wakeq-fsync"]
    everybody = given.model_copy(update={"singly": ["wakeq-fsync", "nchan"]})
    assert len(throughput._taking(everybody, single_calls, pythons)) == 2
    alone = given.model_copy(update={"only": ["nchan"]})
    assert alone.taking(single_calls) == ["nchan"]


def test_sizes_and_calls_are_one_measurement_each_and_no_batch_is_too_large() -> None:
    loads = loads_of(Throughput(batch=[1, 100], calls=[10, 100], size=[100, 1_000_000]))
    assert [load.name for load in loads] == [
        "batches of 1",
        "batches of 100",
        "10 single calls",
        "100 single calls",
        "batches of 1, 1,000,000 bytes",
        "10 single calls, 1,000,000 bytes",
        "100 single calls, 1,000,000 bytes",
    ]
    assert not any(load.bounds for load in loads[4:])


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["memory", "fsync"])
def test_wakeq_under_load(durability: str) -> None:
    given = Throughput(batch=[10], in_flight=2, calls=[4], seconds=1.0, rounds=1, only=[f"wakeq-{durability}"])
    report = throughput.run(given, Console(quiet=True))
    assert [(sample["lost"], sample["doubled"]) for sample in report.samples] == [(0, 0), (0, 0)]
    assert all(sample["per_second"] > 0 for sample in report.samples)
