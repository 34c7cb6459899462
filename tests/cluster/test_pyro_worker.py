"""A worker by itself: what each call does, and as a program how it keeps its name and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormtracks import __version__
from stormtracks.cluster.errors import BackendError, ClusterError, SessionError, WorkerEndedError, WorkerRefusedError
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Outcome
from stormtracks.cluster.pyro_worker import PyroWorker
from stormtracks.cluster.registration import Registration
from stormtracks.cluster.roots import changing, fingerprint, place_proof, remove_proofs
from stormtracks.cluster.wire.calls import Answer, Greeting, Order, check, to_process
from stormtracks.cluster.wire.transport import Address, Connection, list_names, register_name, serve, start_nameserver
from stormtracks.publish import remove_temporaries
from stormtracks.settings.campaign import CampaignSettings
from tests.cluster.cluster_parts import (
    BOUND,
    ROOT,
    Wire,
    descriptors_and_threads,
    poll_until,
    registered,
    toy_campaign,
    worker_process,
)

HERE = ("127.0.0.1", 0)
TOYS = "tests.cluster.toy_worker:work"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process, thread or file descriptor outlives a test."""
    children = psutil.Process().children(recursive=True)
    before = descriptors_and_threads()
    yield
    poll_until(lambda: psutil.Process().children(recursive=True) == children, "processes go")
    poll_until(lambda: descriptors_and_threads() == before, "threads and descriptors go")


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignSettings:
    return toy_campaign(tmp_path)


@pytest.fixture
def nameserver() -> Iterator[Address]:
    with start_nameserver(HERE) as service:
        yield service.address


def order(campaign: CampaignSettings, session: str = "first", **changes: Any) -> dict[str, Any]:
    root = campaign.results.root
    return {
        "session": session,
        "owner": "the manager on squall, process 7",
        "campaign_id": "toys",
        "epoch": 1,
        "opening": 1,
        "lease": BOUND,
        "settings": campaign.model_dump(mode="json"),
        "settings_hash": campaign.settings_hash,
        "first_years": [2000],
        "proof": place_proof(root),
        "fingerprint": fingerprint(campaign.data.root, leave_out=changing(root)),
    } | changes


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, campaign: CampaignSettings) -> Iterator[PyroWorker]:
    monkeypatch.setenv("TOY", "chosen")
    monkeypatch.setenv("TOY_ARGUMENTS", '{"by_member": {"2": "remedied", "3": "segfault", "4": "hang", "5": "leave"}}')
    worker = PyroWorker("gale", slots=2, campaign=campaign, task_function=TOYS)
    yield worker
    worker.close()


def ended(answer: object) -> list[Outcome]:
    """The outcomes in an answer to `exchange`."""
    return check(Answer, answer, "answer").ended


def only_outcome(worker: PyroWorker, number: int, begin: list[Any], cancel: list[Any]) -> Outcome:
    """The one outcome of a call and, if it comes later, of those that follow it."""
    deadline = time.monotonic() + BOUND
    while not (found := ended(worker.exchange("first", number, begin, cancel, 0.5))):
        assert time.monotonic() < deadline
        number, begin, cancel = number + 1, [], []
    (outcome,) = found
    return outcome


# --- do_work


def test_do_work_answers_as_documented(worker: PyroWorker) -> None:
    found = worker.do_work(2000, 1, "vort_track")
    assert {name: found[name] for name in ("year", "ensemble_member", "task", "status")} == {
        "year": 2000,
        "ensemble_member": 1,
        "task": "vort_track",
        "status": "complete",
    }
    assert found["result"]["tracks"] == 2
    assert found["seconds"] >= 0
    assert "error" not in found


@pytest.mark.parametrize(
    ("member", "task", "reason"),
    [
        (2, "vort_track", "variable 'u850' is not in u850_2001.nc"),
        (3, "vort_track", "its process was ended by SIGSEGV (signal 11)"),
        (5, "vort_track", "SystemExit: by the back door"),
        (1, "rain_track", "unknown task 'rain_track'"),
    ],
)
def test_do_work_tells_a_failure_with_its_reason(worker: PyroWorker, member: int, task: str, reason: str) -> None:
    found = worker.do_work(2000, member, task)
    assert (found["year"], found["ensemble_member"], found["task"]) == (2000, member, task)
    assert found["status"] == "failure"
    assert reason in found["error"]
    assert "result" not in found
    assert worker.do_work(2000, 1, "vort_track")["status"] == "complete"


def test_do_work_past_the_time_limit(worker: PyroWorker, campaign: CampaignSettings) -> None:
    run = campaign.run.model_copy(update={"time_limit": 0.3})
    worker.open(order(campaign.model_copy(update={"run": run})))
    found = worker.do_work(2000, 4, "vort_track")
    assert (found["status"], "time limit of 0.3 s" in found["error"]) == ("timeout", True)


def test_do_work_without_a_campaign() -> None:
    found = PyroWorker("gale", task_function=TOYS).do_work(2000, 1, "vort_track")
    assert found["status"] == "failure"
    assert "works for no campaign" in found["error"]


def test_a_missing_file_comes_back_as_a_failure(campaign: CampaignSettings) -> None:
    worker = PyroWorker("gale", campaign=campaign)
    try:
        found = worker.do_work(1987, 1, "vort_track")
    finally:
        worker.close()
    assert found["status"] == "failure"
    assert str(campaign.data.root) in found["error"]


def test_do_work_and_a_manager_share_the_slots(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    answers: list[dict[str, Any]] = []
    asked = threading.Thread(target=lambda: answers.append(worker.do_work(2000, 7, "vort_track")))
    # While the manager waits, too.
    waits = threading.Thread(target=lambda: worker.exchange("first", 1, [], [], 1.0))
    waits.start()
    asked.start()
    asked.join(BOUND)
    waits.join(BOUND)
    assert [answer["result"]["tracks"] for answer in answers] == [14]
    mine = only_outcome(worker, 2, [[[1, 2000, 9, "vort_track"]]], [])
    assert (mine.attempt.ensemble_member, mine.result["tracks"]) == (9, 18)


# --- sessions


def test_hello_says_who_it_is(worker: PyroWorker, campaign: CampaignSettings) -> None:
    found = worker.hello()
    assert (found["name"], found["pid"], found["slots"], found["owner"]) == ("gale", os.getpid(), 2, "")
    assert found["versions"]["stormtracks"] == __version__
    assert found["versions"]["Python"] == "{}.{}".format(*sys.version_info)
    assert set(found["versions"]) == {"stormtracks", "numpy", "Python"}
    worker.open(order(campaign))
    assert worker.hello()["owner"] == "the manager on squall, process 7"
    assert PyroWorker("gale").incarnation != worker.incarnation
    greeting = check(Greeting, worker.hello(), "hello")
    assert (greeting.campaign_id, greeting.epoch, greeting.process.process) == ("toys", 1, Process.own())
    assert "processor" in greeting.facts


def test_an_answer_that_went_astray_is_given_again(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    begin = [[[1, 2000, 1, "vort_track"]]]
    first = worker.exchange("first", 1, begin, [], BOUND)
    assert [one.result["tracks"] for one in ended(first)] == [2]
    assert worker.exchange("first", 1, begin, [], BOUND) == first
    assert worker.exchange("first", 2, [], [], 0.1)["outcomes"] == []


def test_an_exchange_waits_no_longer_than_it_is_told(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    assert worker.exchange("first", 1, [[[1, 2000, 4, "vort_track"]]], [], 0.0)["outcomes"] == []
    poll_until(worker.running, "it hangs")
    assert worker.exchange("first", 2, [], [], 0.2)["outcomes"] == []
    assert [one["attempt"] for one in worker.running()] == [[1, 2000, 4, "vort_track"]]
    cancelled = only_outcome(worker, 3, [], [[1, 2000, 4, "vort_track"]])
    assert (cancelled.status, cancelled.error) == ("lost", "cancelled")


def test_a_new_session_ends_what_the_old_one_left_running(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    worker.exchange("first", 1, [[[1, 2000, 4, "vort_track"]]], [], 0.0)
    poll_until(worker.running, "it hangs")
    (child,) = psutil.Process().children()
    opened = worker.open(order(campaign, "second", owner="the manager on gale, process 8", campaign_id="others"))
    assert opened == {"running": []}
    assert not child.is_running()
    assert worker.running() == []
    with pytest.raises(SessionError, match="works for the manager on gale, process 8 now"):
        worker.exchange("first", 2, [], [], 0.0)
    worker.end("first")
    assert worker.exchange("second", 1, [], [], 0.0)["outcomes"] == []
    worker.end("second")
    with pytest.raises(SessionError, match="works for nobody now"):
        worker.exchange("second", 2, [], [], 0.0)


@pytest.mark.parametrize(("campaign_id", "kind"), [("toys", SessionError), ("others", WorkerEndedError)])
def test_a_manager_that_waits_is_told_when_its_session_ends(
    worker: PyroWorker, campaign: CampaignSettings, campaign_id: str, kind: type[ClusterError]
) -> None:
    worker.open(order(campaign))
    problems: list[ClusterError] = []

    def wait() -> None:
        try:
            worker.exchange("first", 1, [], [], BOUND)
        except ClusterError as error:
            problems.append(error)

    waits = threading.Thread(target=wait)
    waits.start()
    worker.open(order(campaign, "second", campaign_id=campaign_id))
    waits.join(BOUND / 2)
    assert [type(problem) for problem in problems] in ([kind], [SessionError])


def test_a_worker_that_is_drained_finishes_and_takes_no_more(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    worker.exchange("first", 1, [[[1, 2000, 4, "vort_track"]]], [], 0.0)
    poll_until(worker.running, "it hangs")
    assert worker.drain() == 1
    answer = worker.exchange("first", 2, [[[1, 2000, 1, "vort_track"]]], [], BOUND)
    assert answer["draining"]
    (refused,) = ended(answer)
    assert (refused.attempt.ensemble_member, refused.status) == (1, "lost")
    assert len(worker.running()) == 1
    with pytest.raises(WorkerRefusedError, match="is being stopped"):
        worker.open(order(campaign, "second"))


# --- a manager that is started again

HANGS, WAITS, QUICK = ([1, 2000, member, "vort_track"] for member in (4, 9, 1))


def call_until(worker: PyroWorker | Connection, condition: Callable[[dict[str, Any]], object], begin: list[Any]) -> int:
    """Begin something and call again and again, until an answer is as it should be; the number of the last call."""
    exchange = worker.exchange if isinstance(worker, PyroWorker) else partial(worker.call, "exchange")
    deadline = time.monotonic() + BOUND
    number = 1
    while not condition(exchange("first", number, begin, [], 0.1)):
        assert time.monotonic() < deadline
        number, begin = number + 1, []
    return number


def work_under_way(worker: PyroWorker, campaign: CampaignSettings, **changes: Any) -> tuple[int, set[int]]:
    """Let an attempt hang, one wait behind it, and one end, whose outcome is told by the last call.

    The number of that call, and the processes of the slots.
    """
    worker.open(order(campaign, **changes))
    number = call_until(worker, lambda answer: answer["outcomes"], [[HANGS, WAITS], [QUICK]])
    poll_until(lambda: HANGS in [one["attempt"] for one in worker.running()], "one hangs")
    return number, {child.pid for child in psutil.Process().children()}


def test_what_runs_goes_on_for_a_later_manager_of_the_campaign(worker: PyroWorker, campaign: CampaignSettings) -> None:
    number, children = work_under_way(worker, campaign)
    grown = campaign.model_copy(update={"years": (2000, 2001)})
    assert worker.open(order(grown, "second", epoch=2)) == {"running": [HANGS, WAITS, QUICK]}
    with pytest.raises(SessionError, match="works for the manager on squall"):
        worker.exchange("first", number + 1, [], [], 0.0)
    # Nobody knows whether the first manager has heard that one has ended.
    (again,) = ended(worker.exchange("second", 1, [], [], BOUND))
    assert (again.attempt.ensemble_member, again.result["tracks"]) == (1, 2)
    assert worker.exchange("second", 2, [], [], 0.0)["outcomes"] == []
    assert worker.open(order(grown, "third", epoch=3)) == {"running": [HANGS, WAITS]}
    assert {child.pid for child in psutil.Process().children()} == children
    found = ended(worker.exchange("third", 1, [], [HANGS], BOUND))
    assert [(one.attempt.ensemble_member, one.status) for one in found] == [(4, "lost")]


def test_a_bundle_goes_on_for_a_later_manager_but_for_what_that_does_not_want(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, campaign: CampaignSettings
) -> None:
    """One of its members is done and perhaps not told, one is under way, and one is cancelled and publishes nothing."""
    (tmp_path / "there").mkdir()
    arguments = {"by_member": dict.fromkeys("357", "confirmed_at_the_barrier"), "folder": str(tmp_path / "there")}
    monkeypatch.setenv("TOY_ARGUMENTS", json.dumps(arguments))
    worker = PyroWorker("gale", campaign=campaign, bundle_function="tests.cluster.toy_worker:work_on_all")
    try:
        worker.open(order(campaign))
        begin = [[1, 2000, member, "vort_track"] for member in (1, 3, 5, 7)]
        first = only_outcome(worker, 1, [begin], [])
        assert (first.attempt.ensemble_member, first.status) == (1, "complete")
        poll_until((tmp_path / "there" / "3").exists, "the second is under way")
        assert {one["slot"] for one in worker.running()} == {1}
        running = worker.open(order(campaign, "second", epoch=2))["running"]
        assert running == begin  # nobody knows that the first outcome has arrived
        answer = worker.exchange("second", 1, [], [begin[2]], 0.0)
        assert [one.attempt.ensemble_member for one in ended(answer)] == [1]
        assert worker.drain() == 3
        (tmp_path / "there" / "go").touch()
        found, number = [], 1
        while len(found) < 3:
            number += 1
            found += ended(worker.exchange("second", number, [], [], 0.5))
        assert [(one.attempt.ensemble_member, one.status) for one in found] == [
            (3, "complete"),
            (5, "lost"),
            (7, "complete"),
        ]
        worker.exchange("second", number + 1, [], [], 0.0)
        assert not worker.busy
        assert {path.name for path in (tmp_path / "there").glob("*.nc*")} == {"m3.nc", "m7.nc"}
    finally:
        worker.close()


@pytest.mark.parametrize("other", ["campaign", "first years", "time limit", "science"])
def test_what_runs_for_anything_else_is_ended(worker: PyroWorker, campaign: CampaignSettings, other: str) -> None:
    worker = PyroWorker("gale", slots=2, task_function=TOYS)
    try:
        _, children = work_under_way(worker, campaign)
        changes: dict[str, Any] = {"campaign": {"campaign_id": "others"}, "first years": {"first_years": []}}.get(
            other, {}
        )
        if other == "time limit":
            campaign = campaign.model_copy(update={"run": campaign.run.model_copy(update={"time_limit": 7.0})})
        elif other == "science":
            tracking = campaign.tracking.model_copy(update={"min_points": 9})
            campaign = campaign.model_copy(update={"tracking": tracking})
        assert worker.open(order(campaign, "second", epoch=2, **changes)) == {"running": []}
        assert worker.running() == []
        assert not children & {child.pid for child in psutil.Process().children()}
    finally:
        worker.close()


def test_an_overtaken_manager_is_refused(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign, epoch=2))
    with pytest.raises(WorkerRefusedError, match="epoch 1 of the campaign is over: its manager of epoch 2 has come"):
        worker.open(order(campaign, "second", epoch=1))
    assert worker.exchange("first", 1, [], [], 0.0)["outcomes"] == []
    # A later one that cannot use this worker has come all the same.
    with pytest.raises(WorkerRefusedError, match="the data root"):
        worker.open(order(campaign, "third", epoch=3, fingerprint="other data"))
    with pytest.raises(SessionError, match="a later manager of this campaign has come"):
        worker.exchange("first", 2, [], [], 0.0)
    assert worker.open(order(campaign, "fourth", epoch=1, campaign_id="others")) == {"running": []}


def test_a_session_that_comes_after_a_later_one_is_refused(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign, opening=7))
    with pytest.raises(WorkerRefusedError, match="session 6 of this manager comes after its session 7"):
        worker.open(order(campaign, "late", opening=6))
    assert worker.open(order(campaign, "later", epoch=2, opening=1)) == {"running": []}


def test_settings_that_come_to_something_else_here_are_refused_with_both_values(campaign: CampaignSettings) -> None:
    hashes = {campaign.settings_hash, "0123456789abcdef"}
    with pytest.raises(WorkerRefusedError) as caught:
        PyroWorker("gale").open(order(campaign, settings_hash="0123456789abcdef"))
    assert all(value in caught.value.what for value in hashes)
    tracking = campaign.tracking.model_copy(update={"min_points": 9})
    own = campaign.model_copy(update={"tracking": tracking})
    with pytest.raises(WorkerRefusedError, match="its own campaign file") as caught:
        PyroWorker("gale", campaign=own).open(order(campaign))
    assert all(one.settings_hash in caught.value.what for one in (own, campaign))
    with pytest.raises(WorkerRefusedError, match=r"cannot read the manager's settings: tracking\.speed"):
        settings = campaign.model_dump(mode="json")
        settings["tracking"]["speed"] = 3
        PyroWorker("gale").open(order(campaign, settings=settings))


# --- leases


def test_a_worker_without_a_word_from_its_manager_ends_what_runs(
    worker: PyroWorker, campaign: CampaignSettings, caplog: pytest.LogCaptureFixture
) -> None:
    number, children = work_under_way(worker, campaign, lease=3.0)
    # Calls renew it, one after the other.
    began = time.monotonic()
    while time.monotonic() < began + 4.0:
        number += 1
        worker.exchange("first", number, [], [], 0.2)
    assert [one["attempt"] for one in worker.running()] == [HANGS]
    # The same call again proves nothing.
    with pytest.raises(SessionError, match="works for nobody now"):
        poll_until(lambda: worker.exchange("first", number, [], [], 0.0) is None, "the lease is over")
    assert worker.running() == []
    assert not children & {child.pid for child in psutil.Process().children()}
    # One hangs, and one waits behind it.
    assert "no word from the manager on squall, process 7: its lease is over, and what runs for it is ended (2)" in (
        caplog.text
    )
    assert worker.open(order(campaign, "second", epoch=2)) == {"running": []}


def test_a_call_that_was_long_on_its_way_is_void(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    worker.exchange("first", 1, [], [], 0.0)
    worker.exchange("first", 2, [], [], 0.0)
    for number in (1, 4):
        with pytest.raises(BackendError, match=f"call {number} came after call 2"):
            worker.exchange("first", number, [[QUICK]], [], 0.0)
    worker.exchange("first", 3, [[HANGS]], [], 0.0)
    with pytest.raises(BackendError, match="1 attempts are to be begun that are under way already"):
        worker.exchange("first", 4, [[HANGS]], [], 0.0)
    assert worker.exchange("first", 4, [], [], 0.0)["outcomes"] == []


def test_a_worker_that_was_stopped_past_its_lease_publishes_nothing(
    tmp_path: Path, campaign: CampaignSettings, nameserver: Address
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    with worker_process(
        "gale", nameserver, toy="confirmed_at_the_barrier", arguments={"folder": str(folder)}
    ) as process:
        with Connection(str(registered(nameserver, "gale")), BOUND) as connection:
            connection.call("open", order(campaign, lease=3.0))
            number = call_until(connection, lambda _: (folder / "1").exists(), [[QUICK]])
            process.send_signal(signal.SIGSTOP)
            over_at = time.clock_gettime(time.CLOCK_BOOTTIME) + 3.0
            (folder / "go").touch()
            poll_until((folder / "asked").exists, "it asks")
            poll_until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > over_at, "the lease is over")
            process.send_signal(signal.SIGCONT)
            with pytest.raises(SessionError):
                connection.call("exchange", "first", number + 1, [], [], 0.0)
            assert not psutil.pid_exists(int((folder / "1").read_text()))
        # Where the attempt was killed before it could clear up, the manager does so for it.
        remove_temporaries(folder, older_than=0.0)
        assert {path.name for path in folder.iterdir()} == {"1", "go", "asked"}
        # It is as good as new.
        with Connection(str(registered(nameserver, "gale")), BOUND) as connection:
            connection.call("open", order(campaign, "second"))
            answer = connection.call("exchange", "second", 1, [[QUICK]], [], BOUND)
        assert [one.status for one in ended(answer)] == ["complete"]
        assert (folder / "m1.nc").exists()


@pytest.mark.parametrize("why", ["overtaken", "lease over"])
def test_an_attempt_that_has_lost_its_lease_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, campaign: CampaignSettings, why: str
) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    monkeypatch.setenv("TOY", "confirmed_at_the_barrier")
    monkeypatch.setenv("TOY_ARGUMENTS", json.dumps({"folder": str(folder)}))
    worker = PyroWorker("gale", task_function=TOYS)
    try:
        worker.open(order(campaign))
        worker.exchange("first", 1, [[QUICK]], [], 0.0)
        poll_until((folder / "1").exists, "the result is written")
        if why == "overtaken":
            with pytest.raises(WorkerRefusedError):
                worker.open(order(campaign, "second", epoch=2, fingerprint="other data"))
        else:
            monkeypatch.setattr("stormtracks.cluster.session._now", lambda: time.monotonic() + 1e6)
        (folder / "go").touch()
        poll_until(lambda: not worker.running(), "it ends")
        assert {path.name for path in folder.iterdir()} == {"1", "go", "asked"}
    finally:
        worker.close()


# --- what anyone may send

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(spoiled=st.dictionaries(st.sampled_from(["session", "number", "begin", "cancel", "wait"]), ANYTHING, min_size=1))
@settings(max_examples=100)
def test_a_malformed_call_is_refused_and_harms_nothing(spoiled: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"session": "first", "number": 1, "begin": [], "cancel": [], "wait": 0.0}
    worker = PyroWorker("gale")
    with pytest.raises(ClusterError):
        worker.exchange(**(sound | spoiled))
    assert worker.running() == []


def test_a_malformed_call_is_logged_with_the_address_of_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    with serve(PyroWorker("gale"), "gale", HERE) as service, Connection(service.uri, BOUND) as connection:
        with pytest.raises(ClusterError, match=r"^malformed exchange: number: "):
            connection.call("exchange", "first", -1, [], [], 0.0)
        assert connection.call("running") == []
    assert re.fullmatch(r"refused 127\.0\.0\.1:\d+: malformed exchange: number: .+", caplog.messages[0])


@given(spoiled=st.dictionaries(st.sampled_from(sorted(Order.model_fields)), ANYTHING, min_size=1))
@settings(max_examples=100)
def test_a_malformed_order_is_refused_and_harms_nothing(spoiled: dict[str, Any]) -> None:
    sound = dict.fromkeys(Order.model_fields, "x")
    sound |= {"epoch": 1, "opening": 1, "settings": {}, "first_years": [], "lease": 1.0}
    worker = PyroWorker("gale")
    with pytest.raises(ClusterError):
        worker.open(sound | spoiled)
    assert worker.hello()["owner"] == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"number": 0}, "number"),
        ({"number": True}, "number"),
        ({"wait": float("nan")}, "wait"),
        ({"wait": -1.0}, "wait"),
        ({"begin": [[[0, 2000, 1, "vort_track"]]]}, "begin.0.0.0"),
        ({"begin": [[[1, 2000, 1, "rain_track"]]]}, "begin.0.0.3"),
        ({"cancel": [[1, -2000, 1, "vort_track"]]}, "cancel.0.1"),
        ({"cancel": [[1, 2000, 10**9, "vort_track"]]}, "cancel.0.2"),
        ({"session": "x" * 1000}, "session"),
    ],
)
def test_what_is_wrong_with_a_call_is_named(changes: dict[str, Any], says: str) -> None:
    sound: dict[str, Any] = {"session": "first", "number": 1, "begin": [], "cancel": [], "wait": 0.0}
    with pytest.raises(ClusterError, match=f"^malformed exchange: {says}: ") as caught:
        PyroWorker("gale").exchange(**(sound | changes))
    assert "same stormtracks" in caught.value.remedy


def test_malformed_work_is_a_failure(worker: PyroWorker) -> None:
    arguments: Any
    for arguments in (("2000", 1, "vort_track"), (2000, 1.5, "vort_track"), (2000, 1, None), (2000, -1, "vort_track")):
        found = worker.do_work(*arguments)
        assert (found["status"], "malformed do_work" in found["error"]) == ("failure", True)


def test_it_tells_whether_a_process_has_ended() -> None:
    worker = PyroWorker("gale")
    me = Process.own()
    assert not worker.has_ended(to_process(me))
    assert worker.has_ended(to_process(replace(me, started=me.started + 1)))
    assert not worker.has_ended(to_process(replace(me, started=me.started + 1, boot="another machine")))
    with pytest.raises(ClusterError, match="malformed process: pid"):
        worker.has_ended({**to_process(me), "pid": -1})


# --- the same folders


def test_another_results_root_is_refused(worker: PyroWorker, campaign: CampaignSettings) -> None:
    elsewhere = ".stormtracks-proof-0123456789abcdef"
    with pytest.raises(WorkerRefusedError, match=r"^the results root .* is not the manager's") as caught:
        worker.open(order(campaign, proof=elsewhere))
    assert "mount" in caught.value.remedy
    (campaign.results.root / elsewhere).write_text("something else")
    with pytest.raises(WorkerRefusedError, match="another proof"):
        worker.open(order(campaign, proof=elsewhere))
    (campaign.results.root / elsewhere).unlink()
    for outside in ("../secret", "/etc/passwd", "forged"):
        with pytest.raises(ClusterError, match="malformed order to open a session: proof"):
            worker.open(order(campaign, proof=outside))
    with pytest.raises(SessionError):
        worker.exchange("first", 1, [], [], 0.0)


def test_other_data_are_refused_with_both_values(worker: PyroWorker, campaign: CampaignSettings) -> None:
    expected = order(campaign)["fingerprint"]
    (campaign.data.root / "more.nc").touch()
    with pytest.raises(WorkerRefusedError, match=rf"holds 2 files, \w+, the manager's {expected}"):
        worker.open(order(campaign, fingerprint=expected))


def test_a_fingerprint_tells_content_and_leaves_out_what_changes(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "1987").mkdir(parents=True)
        (tmp_path / name / "1987" / "u850_1987.nc").write_bytes(b"wind")
        (tmp_path / name / "1988.nc").write_bytes(b"more")
    first = fingerprint(tmp_path / "here")
    assert first.startswith("2 files, ")
    assert fingerprint(tmp_path / "there") == first
    (tmp_path / "here" / ".hidden").touch()
    (tmp_path / "here" / "results").mkdir()
    (tmp_path / "here" / "results" / "m001.nc").touch()
    assert fingerprint(tmp_path / "here", leave_out=changing(tmp_path / "here")) == first
    assert fingerprint(tmp_path / "here") != first
    (tmp_path / "there" / "1987" / "u850_1987.nc").write_bytes(b"gust")
    assert fingerprint(tmp_path / "there") != first
    assert fingerprint(tmp_path / "absent").startswith("nothing that can be read")
    (tmp_path / "empty").mkdir()
    assert fingerprint(tmp_path / "empty") == "no files"


def test_proofs_are_removed(tmp_path: Path) -> None:
    assert place_proof(tmp_path) != place_proof(tmp_path)
    remove_proofs(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- as a program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_it_and_a_second_one_ends_it_with_its_children_and_its_name(
    tmp_path: Path, campaign: CampaignSettings, nameserver: Address, number: signal.Signals
) -> None:
    arguments = {"folder": str(tmp_path)}
    with worker_process("gale", nameserver, toy="at_the_barrier", arguments=arguments) as process:
        uri = registered(nameserver, "gale")
        assert uri is not None
        with Connection(uri, BOUND) as connection:
            connection.call("open", order(campaign))
            connection.call("exchange", "first", 1, [[[1, 2000, 1, "vort_track"]]], [], 0.0)
            poll_until((tmp_path / "1").exists, "the task begins")
            process.send_signal(number)
            poll_until(lambda: connection.call("hello")["draining"], "it takes no more work")
            assert connection.call("running") != []
            process.send_signal(number)
            assert process.wait(BOUND) == 0
        assert not psutil.pid_exists(int((tmp_path / "1").read_text()))
        assert list_names(nameserver, "stormtracks.") == {}


def test_a_signal_lets_running_tasks_end(tmp_path: Path, campaign: CampaignSettings, nameserver: Address) -> None:
    with worker_process("gale", nameserver, toy="wait_at_the_barrier", arguments={"folder": str(tmp_path)}) as process:
        with Connection(str(registered(nameserver, "gale")), BOUND) as connection:
            connection.call("open", order(campaign))
            connection.call("exchange", "first", 1, [[[1, 2000, 1, "vort_track"]]], [], 0.0)
            poll_until((tmp_path / "1").exists, "the task begins")
            process.send_signal(signal.SIGTERM)
            poll_until(lambda: connection.call("hello")["draining"], "it takes no more work")
            assert connection.call("running") != []
            (tmp_path / "go").touch()
            poll_until(lambda: connection.call("running") == [], "the task ends")
            # Nobody has heard of that yet.
            assert process.poll() is None
            (outcome,) = ended(connection.call("exchange", "first", 2, [], [], BOUND))
            assert outcome.status == "complete"
        assert process.wait(BOUND) == 0
        assert list_names(nameserver, "stormtracks.") == {}


def test_stop_ends_it_too(nameserver: Address) -> None:
    with worker_process("gale", nameserver) as process:
        with Connection(str(registered(nameserver, "gale")), BOUND) as connection:
            connection.call("stop")
        assert process.wait(BOUND) == 0
        assert list_names(nameserver, "stormtracks.") == {}


def test_it_registers_again_when_the_name_server_has_forgotten_it() -> None:
    with start_nameserver(HERE) as service:
        address = service.address
        with worker_process("gale", address) as process:
            service.close()
            with start_nameserver(address):
                poll_until(lambda: registered(address, "gale"), "it registers again")
                process.terminate()
                assert process.wait(BOUND) == 0


@pytest.mark.parametrize("place", ["a..b:1", f"{'x' * 64}:1", "127.0.0.1:0", "[nowhere]:1"])
def test_a_name_that_stands_for_no_place_is_taken_back(nameserver: Address, place: str) -> None:
    name = "stormtracks.toys.worker_gale"
    with suppress(ClusterError):
        register_name(nameserver, name, f"PYRO:stormtracks.worker-x@{place}")
    Registration(nameserver, name, "PYRO:stormtracks.worker-y@127.0.0.1:9").keep()
    assert list_names(nameserver, name) == {name: "PYRO:stormtracks.worker-y@127.0.0.1:9"}


def test_a_second_worker_of_the_same_name_is_refused(nameserver: Address) -> None:
    with worker_process("gale", nameserver) as process:
        uri = registered(nameserver, "gale")
        second = subprocess.run(
            pyro_worker("--name", "gale", "--campaign", "toys", "--nameserver", "{}:{}".format(*nameserver)),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=BOUND,
            check=False,
        )
        assert second.returncode == 2
        assert f"there is a worker stormtracks.toys.worker_gale already: process {process.pid} on " in second.stderr
        assert registered(nameserver, "gale") == uri
        # One that was killed has left its name behind, and stands in nobody's way.
        process.kill()
        process.wait()
        with worker_process("gale", nameserver):
            poll_until(lambda: registered(nameserver, "gale") != uri, "the new one registers")


def test_it_ends_with_its_parent(nameserver: Address) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    place = "{}:{}".format(*nameserver)
    command = pyro_worker("--name", "gale", "--campaign", "toys", "--nameserver", place, "--parent", str(parent.pid))
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    poll_until(lambda: registered(nameserver, "gale"), "it registers")
    parent.kill()
    parent.wait()
    assert process.wait(BOUND) == 0
    assert list_names(nameserver, "stormtracks.") == {}


def test_its_children_end_with_its_parent_at_once(
    tmp_path: Path, campaign: CampaignSettings, nameserver: Address
) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    wire = Wire(nameserver)
    arguments = {"folder": str(tmp_path)}
    try:
        with worker_process(
            "gale", wire.address, toy="hang_deaf_at_the_barrier", arguments=arguments, parent=parent.pid
        ) as process:
            with Connection(str(registered(nameserver, "gale")), BOUND) as connection:
                connection.call("open", order(campaign))
                connection.call("exchange", "first", 1, [[QUICK]], [], 0.0)
                poll_until((tmp_path / "1").exists, "the task begins")
            # No name server that does not answer keeps them alive.
            wire.cut()
            parent.kill()
            parent.wait()
            poll_until(lambda: not psutil.pid_exists(int((tmp_path / "1").read_text())), "the child ends")
            assert process.poll() is None
            assert process.wait(BOUND) == 0
    finally:
        wire.close()


def test_by_hand_with_a_campaign_file_it_works_for_that(tmp_path: Path, nameserver: Address) -> None:
    place = "{}:{}".format(*nameserver)
    path = tmp_path / "c.toml"
    host = '[[cluster.hosts]]\nname = "gale"\nslots = 3\naddress = "127.0.0.1"\n'
    path.write_text(f'name = "toys"\n[cluster]\nnameserver = "{place}"\n{host}')
    process = subprocess.Popen(pyro_worker(path, "--name", "gale"), cwd=ROOT, stderr=subprocess.DEVNULL)
    poll_until(lambda: registered(nameserver, "gale"), "it registers")
    with Connection(str(registered(nameserver, "gale")), BOUND) as connection:
        assert connection.call("hello")["slots"] == 3
        found = connection.call("do_work", 1987, 1, "vort_track")
        assert found["status"] == "failure"
        assert str(tmp_path / "data") in found["error"]
    process.terminate()
    assert process.wait(BOUND) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.toml"], "absent.toml"),
        (["--nameserver", "gale"], "is not an address"),
        (["--slots", "0"], "at least 1"),
        (["--listen", "10.255.255.1"], "cluster.insecure"),
        (["--listen", "0.0.0.0", "--insecure"], "the address by which the manager reaches it"),
    ],
)
def test_what_it_cannot_start_with(arguments: list[str], says: str) -> None:
    run = subprocess.run(pyro_worker(*arguments), capture_output=True, text=True, cwd=ROOT, timeout=BOUND, check=False)
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def pyro_worker(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "stormtracks.cluster.pyro_worker", *map(str, arguments)]
