import signal
import sys
import time

import psutil
import pytest

from wakeq_bench.processes import Child, ProcessFailed, ending_on_signals, free_ports, json_record

SAY = "import sys, signal; sys.stdout.write({!r}); sys.stdout.flush(); signal.pause()"
STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('READY', flush=True); signal.pause()"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_waits_for_its_line_and_keeps_what_follows() -> None:
    with Child("sayer", python(SAY.format('noise\nREADY\n{"n": 1}\n{"m": 2}\n'))) as child:
        child.wait_for_ready()
        assert child.wait_for_record("m") == {"m": 2}
        child.check()
    assert not psutil.pid_exists(child.pid)


def test_a_child_that_dies_fails_with_the_end_of_its_output() -> None:
    with (
        Child("failer", python("import sys; sys.exit('cannot go on')")) as child,
        pytest.raises(ProcessFailed, match=r"failer ended with status 1:\n  cannot go on"),
    ):
        child.wait_for_ready()


def test_a_child_that_says_nothing_fails_in_time() -> None:
    started = time.monotonic()
    with Child("silent", python(SAY.format(""))) as child, pytest.raises(ProcessFailed, match=r"within 0\.1 s"):
        child.wait_for_ready(timeout_s=0.1)
    assert time.monotonic() - started < 10


def test_checking_a_child_that_has_ended() -> None:
    with Child("brief", python("pass")) as child:
        with pytest.raises(ProcessFailed):
            child.wait_for_ready()
        with pytest.raises(ProcessFailed, match="without a word"):
            child.check()


def test_stubborn_children_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeq_bench.processes.STOP_MAX_S", 0.1)
    with Child("stubborn", python(STUBBORN)) as child:
        child.wait_for_ready()
    assert not psutil.pid_exists(child.pid)


def test_killed_as_by_a_crash() -> None:
    with Child("stubborn", python(STUBBORN)) as child:
        child.wait_for_ready()
        child.kill()
        with pytest.raises(ProcessFailed, match=r"ended with status -9"):
            child.check()
    assert not psutil.pid_exists(child.pid)


def test_asking_by_signal() -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('{\"requests\": 7}', flush=True))\n"
        "print('READY', flush=True)\n"
        "while True: signal.pause()"
    )
    with Child("asked", python(code)) as child:
        child.wait_for_ready()
        assert child.ask("requests") == {"requests": 7}


def test_children_go_around_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "elsewhere")
    code = "import os, json; print(json.dumps({'no_proxy': os.environ['NO_PROXY']}))"
    with Child("proxied", python(code)) as child:
        assert "127.0.0.1" in child.wait_for_record("no_proxy")["no_proxy"]


def test_children_do_not_take_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEQ_LEGACY_WAIT", "1")
    code = "import os, json; print(json.dumps({'wait': os.environ.get('WAKEQ_LEGACY_WAIT')}))"
    with Child("plain", python(code)) as child:
        assert child.wait_for_record("wait") == {"wait": None}


def test_json_records() -> None:
    assert json_record('{"a": 1}', "a") == {"a": 1}
    assert json_record('{"a": 1}', "b") is None
    assert json_record("{broken", "a") is None
    assert json_record("text", "a") is None


def test_free_ports_differ() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5


def test_sigterm_unwinds() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, ending_on_signals():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
