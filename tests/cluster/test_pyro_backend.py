"""Campaigns over real workers on loopback: whatever becomes of workers and wire, all is done once and told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from stormtracks.cluster.backends.base import Worker
from stormtracks.cluster.backends.pyro import PyroBackend
from stormtracks.cluster.errors import BackendError, ClusterError, WorkerEndedError
from stormtracks.cluster.facts import facts, versions
from stormtracks.cluster.listener import Change, Progress, Snapshot, Summary
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome, PyroTaskSchedule
from stormtracks.cluster.pyro_worker import PyroWorker
from stormtracks.cluster.roots import place_proof
from stormtracks.cluster.schedule.rules import Rules
from stormtracks.cluster.wire.certificates import host_certificate, make_certificates
from stormtracks.cluster.wire.credentials import credentials_in
from stormtracks.cluster.wire.transport import (
    Address,
    Connection,
    exposed,
    list_names,
    register_name,
    serve,
    start_nameserver,
    use_credentials,
)
from stormtracks.grid import Grid
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.synthetic import SyntheticEnsemble, write
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


class Recorder:
    """A listener that keeps what it is told, and may react to it."""

    def __init__(self, react: Callable[[Change], None] = lambda change: None) -> None:
        self.changes: list[Change] = []
        self.rows: list[str] = []
        self._react = react

    def begin(self, snapshot: Snapshot) -> None:
        self.rows.append(snapshot.rows[0][1])

    def changed(self, change: Change, progress: Progress) -> None:
        self.changes.append(change)
        self._react(change)

    def draining(self, running: int) -> None:
        """What is waited for shows in the rows."""

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        self.rows.append(snapshot().rows[0][1])

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        self.rows.append(snapshot.rows[0][1])

    def of(self, *events: str) -> list[Change]:
        return [change for change in self.changes if change.event in events]

    def workers(self, *events: str) -> set[str]:
        return {change.worker for change in self.of(*events)}


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No process, thread, file descriptor or temporary file outlives a test."""
    children = psutil.Process().children(recursive=True)
    before = descriptors_and_threads()
    yield
    poll_until(lambda: psutil.Process().children(recursive=True) == children, "processes go")
    poll_until(lambda: descriptors_and_threads() == before, "threads and descriptors go")
    assert [path.name for path in tmp_path.rglob(".stormtracks*")] == []


@pytest.fixture
def nameserver() -> Iterator[Address]:
    with start_nameserver(("127.0.0.1", 0)) as service:
        yield service.address


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignSettings:
    return toy_campaign(tmp_path)


def run(campaign: CampaignSettings, nameserver: Address, listener: Recorder, members: int, **options: Any) -> Summary:
    cluster = campaign.cluster
    rules = Rules(max_attempts=options.pop("max_attempts", 2), lease=cluster.given_up_after)
    schedule = PyroTaskSchedule(2000, 2000, members, rules=rules)
    limits = Limits(cluster.heartbeat, 2 * cluster.given_up_after, cluster.patience)
    with PyroBackend(campaign, nameserver) as backend:
        return Manager(schedule, backend, listener, limits=limits, **options).run()


def test_workers_share_the_work_and_wait_for_the_next_manager(campaign: CampaignSettings, nameserver: Address) -> None:
    place_proof(campaign.results.root)  # as a manager that was killed leaves it behind
    with worker_process("gale", nameserver, slots=2), worker_process("squall", nameserver):
        for _ in range(2):
            listener = Recorder()
            summary = run(campaign, nameserver, listener, 200)
            assert summary.ok
            assert summary.totals["tracks"] == 2 * sum(range(1, 201))
            assert listener.workers("complete") == {"gale", "squall"}
            assert Counter(change.event for change in listener.changes) == {"begun": 200, "complete": 200}


def test_a_killed_worker_loses_its_tasks_to_the_others(campaign: CampaignSettings, nameserver: Address) -> None:
    arguments = {"by_member": {"1": "nap", "2": "nap"}}
    with ExitStack() as stack:
        gale = stack.enter_context(worker_process("gale", nameserver, toy="chosen", arguments=arguments))
        stack.enter_context(worker_process("squall", nameserver, toy="chosen", arguments=arguments))

        def react(change: Change) -> None:
            if change.event == "begun" and change.worker == "gale":
                gale.kill()

        listener = Recorder(react)
        summary = run(campaign, nameserver, listener, 30, max_attempts=1)
    assert summary.ok
    (lost,) = listener.of("lost")
    assert lost.worker == "gale"
    assert "worker gale is gone" in lost.error
    assert listener.workers("complete") == {"squall"}
    # It showed a timeout until it was handed out again, as another attempt that counts for nothing.
    assert any("T" in row for row in listener.rows)
    assert {change.attempt.number for change in listener.of("complete")} == {1, 2}


def test_a_stopped_worker_is_given_up_and_used_again_when_it_goes_on(
    campaign: CampaignSettings, nameserver: Address, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        gale = stack.enter_context(worker_process("gale", nameserver, toy="nap"))
        stack.enter_context(worker_process("squall", nameserver, toy="nap"))

        def react(change: Change) -> None:
            if change.event == "begun" and change.worker == "gale" and not listener.of("lost"):
                gale.send_signal(signal.SIGSTOP)
            if change.event == "lost":
                gale.send_signal(signal.SIGCONT)
                returned.append(len(listener.changes))

        returned: list[int] = []
        listener = Recorder(react)
        summary = run(campaign, nameserver, listener, 24)
    assert summary.ok
    (lost,) = listener.of("lost")
    assert (lost.worker, "no answer for" in lost.error) == ("gale", True)
    assert {change.worker for change in listener.changes[returned[0] :] if change.event == "complete"} == {
        "gale",
        "squall",
    }
    assert Counter(change.attempt.ensemble_member for change in listener.of("complete")) == dict.fromkeys(
        range(1, 25), 1
    )


def test_a_short_cut_costs_nothing_and_a_long_one_no_more_than_its_tasks(
    campaign: CampaignSettings, nameserver: Address, tmp_path: Path
) -> None:
    arguments = {"folder": str(tmp_path)}
    with worker_process("gale", nameserver, toy="counted", arguments=arguments), ExitStack() as stack:
        uri = str(registered(nameserver, "gale"))
        name, _, place = uri.partition("@")
        wire = Wire((place.partition(":")[0], int(place.partition(":")[2])))
        stack.callback(wire.close)
        around = stack.enter_context(start_nameserver(("127.0.0.1", 0))).address
        register_name(around, "stormtracks.toys.worker_gale", f"{name}@{wire.address[0]}:{wire.address[1]}")

        def react(change: Change) -> None:
            if change.event == "begun":
                wire.drop_next_answer = change.attempt.ensemble_member % 3 == 0

        listener = Recorder(react)
        assert run(campaign, around, listener, 10).ok
        assert listener.of("lost") == []
        assert sorted(path.name for path in tmp_path.glob("m*")) == sorted(f"m{n}-1" for n in range(1, 11))

        def cut(change: Change) -> None:
            if change.event == "begun" and change.attempt.ensemble_member == 5 and not listener.of("lost"):
                wire.cut()
            if change.event == "lost":
                wire.heal()

        listener = Recorder(cut)
        assert run(campaign, around, listener, 10).ok
        assert [change.attempt.ensemble_member for change in listener.of("lost")] == [5]


def test_a_worker_that_comes_late_is_used(campaign: CampaignSettings, nameserver: Address) -> None:
    with ExitStack() as stack:
        stack.enter_context(worker_process("gale", nameserver, toy="nap"))
        late: list[threading.Thread] = []

        def react(change: Change) -> None:
            if change.event == "complete" and not late:
                late.append(threading.Thread(target=come))
                late[0].start()

        def come() -> None:
            stack.enter_context(worker_process("squall", nameserver, toy="nap"))

        listener = Recorder(react)
        summary = run(campaign, nameserver, listener, 40)
        late[0].join(BOUND)
    assert summary.ok
    assert listener.workers("complete") == {"gale", "squall"}


def test_a_worker_that_is_drained_finishes_and_leaves(campaign: CampaignSettings, nameserver: Address) -> None:
    with worker_process("gale", nameserver, toy="nap"), worker_process("squall", nameserver, toy="nap"):
        uri = str(registered(nameserver, "gale"))
        drained_at: list[int] = []

        def react(change: Change) -> None:
            if change.event == "begun" and change.worker == "gale" and not drained_at:
                with Connection(uri, BOUND) as connection:
                    connection.call("drain")
                drained_at.append(len(listener.changes))

        listener = Recorder(react)
        summary = run(campaign, nameserver, listener, 12)
    assert summary.ok
    assert len([change for change in listener.of("complete") if change.worker == "gale"]) <= 1
    assert all("being stopped" in change.error for change in listener.of("lost"))


def test_failures_keep_the_worker_and_are_tried_again_on_another(
    campaign: CampaignSettings, nameserver: Address
) -> None:
    bad = {"by_member": {str(member): "unbuildable" for member in range(1, 7)}}
    with (
        worker_process("gale", nameserver, toy="chosen", arguments=bad),
        worker_process("squall", nameserver, toy="nap"),
    ):
        listener = Recorder()
        summary = run(campaign, nameserver, listener, 12)
    assert summary.ok
    assert listener.workers("failure") == {"gale"}
    failed = {change.attempt.ensemble_member for change in listener.of("failure")}
    assert {change.worker for change in listener.of("complete") if change.attempt.ensemble_member in failed} == {
        "squall"
    }
    assert listener.of("lost") == []


def test_other_versions_are_refused_with_both_values_and_the_rest_goes_on(
    campaign: CampaignSettings, nameserver: Address, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        worker_process("gale", nameserver, versions={"numpy": "1.26.0", "Python": "3.10"}),
        worker_process("squall", nameserver),
    ):
        listener = Recorder()
        assert run(campaign, nameserver, listener, 20).ok
    assert listener.workers("complete") == {"squall"}
    assert f"numpy 1.26.0 there and {np.__version__} here, Python 3.10 there and" in caplog.text
    assert caplog.text.count("worker gale: it has other versions") == 1


def test_no_usable_worker_ends_within_the_bound_and_tells_what_was_tried(tmp_path: Path, nameserver: Address) -> None:
    hosts = [{"name": name} for name in ("gale", "squall", "breeze")]
    campaign = toy_campaign(tmp_path, hosts=hosts, patience=5.0)
    with worker_process("gale", nameserver, versions={"stormtracks": "0.0.1"}):
        with worker_process("breeze", nameserver) as breeze:
            breeze.kill()
        began = time.monotonic()
        summary = run(campaign, nameserver, Recorder(), 3)
    assert time.monotonic() - began < BOUND / 2
    assert not summary.ok
    first, *others = summary.problem.split("\n")
    assert first == "no worker came within 5 s"
    breeze_line, gale_line, squall_line = others
    assert breeze_line.startswith("  breeze: nobody listens on 127.0.0.1:")
    assert gale_line.startswith("  gale: it has other versions than the manager: stormtracks 0.0.1 there and")
    assert squall_line.startswith("  squall: not registered with the name server at {}:{}; ".format(*nameserver))


def test_a_worker_whose_children_cannot_start_is_not_asked_again(
    campaign: CampaignSettings, nameserver: Address
) -> None:
    campaign = campaign.model_copy(update={"cluster": campaign.cluster.model_copy(update={"patience": 5.0})})
    with worker_process("gale", nameserver, toy="unloadable"):
        summary = run(campaign, nameserver, Recorder(), 3)
    assert summary.problem.startswith("no worker is left within 5 s\n  gale: ")
    assert "the task function cannot be loaded: ImportError: no library" in summary.problem


def test_a_hung_worker_does_not_keep_the_manager_from_stopping(campaign: CampaignSettings, nameserver: Address) -> None:
    slow = campaign.model_copy(update={"cluster": campaign.cluster.model_copy(update={"lease": 50.0})})
    with worker_process("gale", nameserver, toy="nap") as gale:

        def react(change: Change) -> None:
            if change.event == "begun":
                gale.send_signal(signal.SIGSTOP)
                manager.stop()
                manager.stop()

        listener = Recorder(react)
        with PyroBackend(slow, nameserver) as backend:
            limits = Limits(heartbeat=0.2, patience=BOUND)
            manager = Manager(PyroTaskSchedule(2000, 2000, 3), backend, listener, limits=limits)
            began = time.monotonic()
            summary = manager.run()
            assert time.monotonic() - began < 20
        assert summary.interrupted
        assert summary.counts["outstanding"] + summary.counts["working"] == 3


def test_one_thread_for_each_worker_and_a_few_more(campaign: CampaignSettings, nameserver: Address) -> None:
    with ExitStack() as stack:
        for number in range(6):
            stack.enter_context(worker_process(f"host{number}", nameserver))
        before = threading.active_count()
        counts: list[int] = []
        listener = Recorder(lambda change: counts.append(threading.active_count()))
        assert run(campaign, nameserver, listener, 60).ok
    # The name server's threads for those who ask are in this process, too.
    assert max(counts) <= before + 6 + 8 + 1 + 6


# --- what the backend says by itself


def attempt(member: int) -> Attempt:
    return Attempt(1, 2000, member, "vort_track")


def the_worker(backend: PyroBackend) -> Worker:
    """The one worker, once it can be used."""
    poll_until(backend.workers, f"there is a worker: {backend.troubles()}")
    (worker,) = backend.workers()
    return worker


def until_it_ends(backend: PyroBackend, begin: list[Assignment]) -> Outcome:
    """Exchange until something has ended."""
    found: list[Outcome] = []
    deadline = time.monotonic() + BOUND
    while not found:
        assert time.monotonic() < deadline
        found = backend.exchange("gale", begin, [], 0.2)
        begin = []
    return found[0]


def problem_of(backend: PyroBackend) -> BackendError:
    """What an exchange says in the end."""
    with pytest.raises(BackendError) as caught:
        poll_until(lambda: backend.exchange("gale", [], [], 0.1) is None, "it is given up")
    return caught.value


def test_a_worker_tells_what_it_is(campaign: CampaignSettings, nameserver: Address) -> None:
    with worker_process("gale", nameserver, slots=3) as process, PyroBackend(campaign, nameserver) as backend:
        worker = the_worker(backend)
        assert (worker.name, worker.slots, worker.running) == ("gale", 3, ())
        assert worker.process == Process.find(process.pid)
        assert worker.facts == versions() | facts()


def test_a_name_server_that_does_not_trust_the_manager_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = toy_campaign(tmp_path, certificates=tmp_path / "certs")
    make_certificates(campaign)
    for name, content in host_certificate(campaign, "here", also="127.0.0.1").files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    with ExitStack() as stack:
        stack.callback(use_credentials, None)
        use_credentials(credentials_in(tmp_path))
        service = stack.enter_context(start_nameserver(("127.0.0.1", 0)))
        use_credentials(None)
        summary = run(campaign, service.address, Recorder(), 3)
    assert summary.seconds < campaign.cluster.patience / 2
    assert "no worker came" in summary.problem
    assert re.search(r"name server: .*TLS.* remedy: ", summary.problem)
    warnings = [one.getMessage() for one in caplog.records if one.getMessage().startswith("name server: ")]
    assert len(warnings) == 1
    assert "remedy: " in warnings[0]


def test_a_manager_that_is_started_again_goes_on_with_what_runs(
    campaign: CampaignSettings, nameserver: Address, tmp_path: Path
) -> None:
    arguments = {"folder": str(tmp_path)}
    again: dict[str, Any] = {"campaign_id": "storms", "epoch": 2}
    with ExitStack() as stack:
        stack.enter_context(worker_process("gale", nameserver, toy="wait_at_the_barrier", arguments=arguments))
        first = stack.enter_context(PyroBackend(campaign, nameserver, campaign_id="storms", epoch=1))
        before = the_worker(first)
        first.exchange("gale", [(attempt(1),)], [], 0.0)
        poll_until(lambda: first.exchange("gale", [], [], 0.0) == [] and (tmp_path / "1").exists(), "it begins")
        second = stack.enter_context(PyroBackend(campaign, nameserver, **again))
        worker = the_worker(second)
        assert (worker.incarnation, worker.running) == (before.incarnation, (attempt(1),))
        assert worker.session != before.session
        # The first one is overtaken, and is not served again.
        assert isinstance(problem_of(first), WorkerEndedError)
        poll_until(lambda: "epoch 1 of the campaign is over" in first.troubles().get("gale", ""), "it is refused")
        (tmp_path / "go").touch()
        outcome = until_it_ends(second, [])
        assert (outcome.attempt, outcome.status) == (attempt(1), "complete")


@pytest.mark.parametrize("here", [True, False])
def test_a_worker_that_has_ended_is_told_from_one_that_is_silent(
    campaign: CampaignSettings, nameserver: Address, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    if not here:
        monkeypatch.setattr("stormtracks.cluster.process._boot", lambda: "another machine")
    with worker_process("gale", nameserver, toy="hang") as process, PyroBackend(campaign, nameserver) as backend:
        the_worker(backend)
        backend.exchange("gale", [(attempt(1),)], [], 0.0)
        process.kill()
        process.wait()
        problem = problem_of(backend)
        assert isinstance(problem, WorkerEndedError) == here
        assert (f"its process {process.pid} has ended" if here else "no answer for 2.5 s") in problem.what


def test_a_stopped_worker_may_go_on_until_its_lease_ends(campaign: CampaignSettings, nameserver: Address) -> None:
    with worker_process("gale", nameserver, toy="hang") as process, PyroBackend(campaign, nameserver) as backend:
        the_worker(backend)
        backend.exchange("gale", [(attempt(1),)], [], 0.0)
        process.send_signal(signal.SIGSTOP)
        problem = problem_of(backend)
        assert not isinstance(problem, WorkerEndedError)
        assert "no answer for 2.5 s" in problem.what
        process.send_signal(signal.SIGCONT)
        # Its lease was over: nothing goes on.
        assert the_worker(backend).running == ()


def test_the_worker_that_takes_a_place_tells_whether_the_one_before_has_ended(
    campaign: CampaignSettings, nameserver: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine, of whose processes nothing is known here."""
    monkeypatch.setattr("stormtracks.cluster.process._boot", lambda: "another machine")
    lasting = campaign.model_copy(update={"cluster": campaign.cluster.model_copy(update={"lease": 10 * BOUND})})
    with PyroBackend(lasting, nameserver) as backend, worker_process("gale", nameserver, toy="hang") as process:
        before = the_worker(backend)
        backend.exchange("gale", [(attempt(1),)], [], 0.0)
        process.kill()
        process.wait()
        with worker_process("gale", nameserver):
            # Whoever has driven the one hears of its end, even when there is the other.
            poll_until(lambda: [one for one in backend.workers() if one != before], "the other one comes")
            problem = problem_of(backend)
            assert isinstance(problem, WorkerEndedError)
            assert f"its process {process.pid} has ended" in problem.what
            assert the_worker(backend).incarnation != before.incarnation
            assert until_it_ends(backend, [(attempt(1),)]).status == "complete"


def test_the_names_of_the_dead_are_removed_and_no_others(campaign: CampaignSettings, nameserver: Address) -> None:
    register_name(nameserver, "stormtracks.toys.worker_ghost", "PYRO:stormtracks.worker-gone@127.0.0.1:9")
    register_name(nameserver, "stormtracks.other.worker_ghost", "PYRO:stormtracks.worker-gone@127.0.0.1:9")
    with PyroBackend(campaign, nameserver) as backend, worker_process("squall", nameserver):
        with worker_process("gale", nameserver) as process:
            poll_until(lambda: len(backend.workers()) == 2, "they come")
            process.kill()
            process.wait()
            problem_of(backend)
        left = {"stormtracks.other.worker_ghost", "stormtracks.toys.worker_squall"}
        poll_until(lambda: set(list_names(nameserver, "stormtracks.")) == left, "their names go")
        assert "has ended" in backend.troubles()["gale"]
        assert "nobody listens" in backend.troubles()["ghost"]


def test_a_name_that_stands_for_another_worker_takes_that_from_nobody(
    campaign: CampaignSettings, nameserver: Address
) -> None:
    with worker_process("gale", nameserver), worker_process("squall", nameserver), ExitStack() as stack:
        backend = stack.enter_context(PyroBackend(campaign, nameserver))
        poll_until(lambda: len(backend.workers()) == 2, "they come")
        before = {worker.name: worker.session for worker in backend.workers()}
        gale = str(registered(nameserver, "gale"))
        register_name(nameserver, "stormtracks.toys.worker_squall", gale)
        register_name(nameserver, "stormtracks.toys.worker_ghost", gale)
        problem = f"its name stands for another worker, 'gale', at {gale.rpartition('@')[2]}"
        poll_until(lambda: backend.troubles().get("ghost") == problem, "it is told")
        poll_until(lambda: registered(nameserver, "squall") not in (None, gale), "squall takes its name back")
        assert {worker.name: worker.session for worker in backend.workers()} == before


def test_another_processor_is_kept_on_record_or_refused_with_both_values(
    campaign: CampaignSettings, nameserver: Address
) -> None:
    strict = campaign.model_copy(update={"cluster": campaign.cluster.model_copy(update={"strict_cpu": True})})
    with worker_process("gale", nameserver, facts={"processor": "abacus"}):
        with PyroBackend(campaign, nameserver) as backend:
            assert the_worker(backend).facts["processor"] == "abacus"
        with PyroBackend(strict, nameserver) as backend:
            poll_until(lambda: "abacus" in backend.troubles().get("gale", ""), "it is refused")
            assert f"its processor is abacus, the manager's {facts()['processor']}" in backend.troubles()["gale"]
            assert backend.workers() == ()


class Impostor:
    """Answers as a worker does, but for what is spoiled."""

    def __init__(self, **spoiled: Any) -> None:
        self._spoiled = spoiled

    @exposed
    def hello(self) -> Any:
        return self._spoiled.get("hello", PyroWorker("gale").hello())

    @exposed
    def open(self, order: dict[str, Any]) -> Any:
        return self._spoiled.get("open", {"running": []})

    @exposed
    def exchange(self, *arguments: Any) -> Any:
        return self._spoiled["exchange"]

    @exposed
    def running(self) -> Any:
        return self._spoiled["running"]

    @exposed
    def end(self, session: str) -> None:
        pass


RESULTLESS = [[1, 2000, 1, "vort_track"], "complete"]


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [
        ({"hello": None}, "malformed answer to hello"),
        ({"hello": {"name": "gale"}}, "malformed answer to hello: host"),
        ({"open": []}, "malformed answer to open"),
        ({"open": {"running": [[1, 2000, 1]]}}, "malformed answer to open: running.0"),
        ({"exchange": {"outcomes": []}}, "malformed answer to exchange: draining"),
        ({"exchange": {"outcomes": [[*RESULTLESS, "[1]", "", 0.0, False, None]], "draining": False}}, "no JSON object"),
        ({"exchange": {"outcomes": [[*RESULTLESS, "[" * 9999, "", 0, False, None]], "draining": False}}, "is no JSON"),
        ({"exchange": {"outcomes": [[*RESULTLESS, "{}", "", -1.0, False, None]], "draining": False}}, "outcomes.0.4"),
        ({"running": "nothing", "exchange": None}, "malformed answer to exchange"),
    ],
)
def test_a_malformed_answer_is_the_workers_problem(
    campaign: CampaignSettings, nameserver: Address, spoiled: dict[str, Any], says: str
) -> None:
    with serve(Impostor(**spoiled), "stormtracks.worker-1", ("127.0.0.1", 0)) as service:
        register_name(nameserver, "stormtracks.toys.worker_gale", service.uri)
        with PyroBackend(campaign, nameserver) as backend:
            if "exchange" in spoiled:
                the_worker(backend)
                if "running" in spoiled:
                    with pytest.raises(ClusterError, match="malformed list of what runs"):
                        backend.running("gale")
                assert says in problem_of(backend).what
            poll_until(lambda: says in backend.troubles().get("gale", ""), "it is told")
            assert backend.workers() == ()


# --- the commands, with science

COARSE = Grid(np.linspace(90, -90, 61), np.arange(0, 360, 3.0))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive")
    write(SyntheticEnsemble((2001, 12, 1), (2002, 1, 15), members=3, grid=COARSE), root / "data", layout="c20")
    for path in (root / "data").rglob("*.nc"):
        os.utime(path, (0, 0))  # of the digests of new files no record is kept at first
    (root / "c.toml").write_text('name = "end-to-end"\nyears = "2001-2002"\n[cluster]\nheartbeat = 0.5\n')
    return root


def command(module: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", f"stormtracks.{module}", *map(str, arguments)]


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("results/**/*.nc"))}


def finished(process: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(process, capture_output=True, text=True, timeout=BOUND, check=False, cwd=ROOT, **options)


def test_the_embedded_cluster_gives_the_same_bytes_as_one_local_process(archive: Path, tmp_path: Path) -> None:
    local = finished(
        command("cli", "run", archive / "c.toml", "--out", tmp_path / "l", "--backend", "local", "--workers", "1")
    )
    assert local.returncode == 0, local.stderr
    pyro = finished(command("cluster.pyro_manager", archive / "c.toml", "--out", tmp_path / "p", "--json"))
    assert pyro.returncode == 0, pyro.stderr
    assert pyro.stderr == ""
    assert len(files(tmp_path / "l")) == 6
    assert files(tmp_path / "p") == files(tmp_path / "l")
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == sorted(
        path.name for path in (tmp_path / "l").iterdir()
    )


def test_the_commands_of_a_cluster_one_by_one(archive: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        names = subprocess.Popen(
            command("cluster.pyro_nameserver", "--listen", "127.0.0.1:0"), stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        stack.callback(ended, names)
        assert names.stdout is not None
        place = names.stdout.readline().rpartition(" ")[2].strip()
        stack.callback(names.stdout.close)
        path = tmp_path / "c.toml"
        text = f'name = "by-hand"\nyears = "2001-2002"\n[data]\nroot = "{archive / "data"}"\n'
        path.write_text(text + f'[cluster]\nnameserver = "{place}"\nheartbeat = 0.5\n')
        for name in ("gale", "squall"):
            worker = subprocess.Popen(
                command("cluster.pyro_worker", path, "--name", name, "--slots", "1"),
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
            )
            stack.callback(ended, worker)
        manager = finished(command("cluster.pyro_manager", path, "--out", tmp_path / "out"))
        assert manager.returncode == 0, manager.stderr
        assert manager.stdout.splitlines()[-1].startswith("6 of 6 tasks complete; ")
    assert len(files(tmp_path / "out")) == 6


def ended(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    assert process.wait(BOUND) == 0


def test_no_worker_is_exit_status_3_with_what_was_tried(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    cluster = '[cluster]\nnameserver = "127.0.0.1:9"\npatience = 0.5\n[[cluster.hosts]]\nname = "gale"\n'
    path.write_text(f'years = 2001\n[data]\nroot = "{archive / "data"}"\n{cluster}')
    for module in (["cluster.pyro_manager"], ["cli", "run"]):
        run = finished(command(*module, path, "--out", tmp_path / "out"))
        assert run.returncode == 3
        assert run.stdout.splitlines()[:2] == [
            "the campaign could not go on: no worker came within 0.5 s",
            "  gale: name server: nobody listens on 127.0.0.1:9",
        ]
        assert "Traceback" not in run.stderr


def test_the_embedded_worker_is_started_again_when_it_dies(archive: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("cli", "run", archive / "c.toml", "--out", tmp_path, "--json", "--workers", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "begun"
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()  # with what was read ahead of the first line
    assert process.wait(BOUND) == 0
    events = Counter(json.loads(line)["event"] for line in out.splitlines())
    assert events["complete"] == 6
    assert 1 <= events["lost"] <= 3  # a year in one bundle, of which some may have been done
    assert f"its process {worker.pid} has ended with exit status -9" in err


def test_a_task_that_takes_the_embedded_worker_along_is_given_up_and_all_else_is_done(
    archive: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command("cli", "run", archive / "c.toml", "--out", tmp_path, "--json", "--workers", "1"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"STORMTRACKS_RUN__MAX_LOSSES": "4"},
    )
    assert process.stdout is not None
    events: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in ("begun", "lost", "failure", "complete")}
    deadly = None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] not in events:
            continue
        task = event["year"], event["member"]
        events[event["event"]][task] += 1
        if event["event"] == "begun":
            deadly = deadly or task
            if task == deadly:
                (worker,) = psutil.Process(process.pid).children()
                worker.kill()
    assert process.wait(BOUND) == 1
    assert deadly is not None
    assert (events["failure"], len(events["complete"])) == (Counter([deadly]), 5)
    assert events["lost"].pop(deadly) == 3
    assert all(losses < 3 for losses in events["lost"].values())  # that shared its bundle at first


def test_ctrl_c_ends_the_embedded_cluster_and_a_killed_manager_takes_it_along(archive: Path, tmp_path: Path) -> None:
    for number, status in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        out = tmp_path / str(number)
        process = subprocess.Popen(
            command("cli", "run", archive / "c.toml", "--out", out, "--json", "--workers", "1"),
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
            cwd=ROOT,
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "begun"
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("stormtracks.cluster.pyro_worker" in one.cmdline() for one in family)
        os.killpg(process.pid, number)
        said = process.stdout.read()  # with what was read ahead of the first line
        assert process.wait(BOUND) == status
        if number == signal.SIGINT:  # what ran has ended by itself
            events = Counter(json.loads(line)["event"] for line in said.splitlines())
            assert (events["draining"], events["lost"], events["begun"] + 1) == (1, 0, events["complete"])
        poll_until(lambda family=family: not any(map(alive, family)), "the worker and its children go")
        # Only who is killed may leave something behind, for the next run to clean up.
        for left in out.rglob(".stormtracks*"):
            assert number == signal.SIGKILL
            left.unlink()


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
