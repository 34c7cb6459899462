"""The record of a campaign: what is written is found again, and a manager that is killed anywhere is followed by one
that goes on."""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stormtracks import __version__
from stormtracks.cluster import ledger as ledger_module
from stormtracks.cluster.backends.base import Backend, Running, Worker
from stormtracks.cluster.campaign import open_ledger
from stormtracks.cluster.campaign_store import check_capacity, find_store, open_store, store_folder
from stormtracks.cluster.errors import StoreDamagedError, StoreError, WorkerEndedError, WorkflowNotFoundError
from stormtracks.cluster.ledger import Ledger
from stormtracks.cluster.listener import Snapshot
from stormtracks.cluster.manager import Limits, Manager
from stormtracks.cluster.process import Process
from stormtracks.cluster.pyro_task import Assignment, Attempt, Outcome, PyroTaskSchedule
from stormtracks.cluster.record import Published
from stormtracks.cluster.rerun import rerun
from stormtracks.cluster.schedule.rules import Rules
from stormtracks.cluster.status import read_status, tell_why
from stormtracks.settings.campaign import CampaignSettings, HostSettings
from tests.cluster.test_manager import Recorder

STORES = ["sqlite", "json", "zarr"]
HERE = Process.own()
GONE = Process(HERE.pid, HERE.started - 1, HERE.boot)
"""A process of this machine that has surely ended: its number is another's now."""


def campaign_in(root: Path, store: str = "sqlite", **changes: Any) -> CampaignSettings:
    values = {"name": "gale", "results": {"root": str(root)}, "run": {"store": store, "workers": 1}}
    return CampaignSettings.model_validate(values | changes)


class Session:
    """A manager's work by hand: schedule, ledger and one worker."""

    def __init__(self, ledger: Ledger, schedule: PyroTaskSchedule) -> None:
        self.ledger = ledger
        self.schedule = schedule

    def join(self, name: str = "gale", running: Sequence[Attempt] = (), **values: Any) -> Worker:
        worker = Worker(name, 1, **({"incarnation": f"{name}-1", "host": "host"} | values))
        self.ledger.joined(worker)
        self.schedule.join(name, worker.incarnation, running, now=0.0)
        return worker

    def begin(self, worker: Worker) -> Attempt:
        (attempt,) = self.schedule.next_assignment(worker.incarnation, now=time.monotonic())
        self.ledger.begun(attempt, worker)
        return attempt

    def complete(self, attempt: Attempt, **result: Any) -> None:
        assert self.schedule.completed(attempt)
        self.ledger.ended(Outcome(attempt, "complete", {"tracks": 3, "sha256": "abc"} | result, seconds=1.5))

    def fail(self, attempt: Attempt, reason: str = "ValueError: no u850") -> None:
        assert self.schedule.failed(attempt, reason, now=time.monotonic())
        self.ledger.ended(Outcome(attempt, "failure", error=reason, exit_code=3))


@contextmanager
def session(
    campaign: CampaignSettings,
    years: Sequence[int] = (2001, 2002),
    members: Sequence[int] = (1, 2, 3),
    *,
    replace: bool = False,
    rules: Rules = Rules(),  # noqa: B008 - it is frozen
) -> Iterator[Session]:
    schedule = PyroTaskSchedule(years=years, members=members, rules=rules)
    with open_ledger(campaign, schedule, replace=replace, resume="stormtracks run gale.toml") as ledger:
        yield Session(ledger, schedule)


@pytest.mark.parametrize("store", STORES)
def test_what_was_written_is_found_again(tmp_path: Path, store: str) -> None:
    campaign = campaign_in(tmp_path, store)
    with session(campaign) as first:
        gale = first.join(process=HERE)
        first.complete(first.begin(gale))
        first.fail(first.begin(gale))
        under_way = first.begin(gale)
        first.ledger.save()
        dropped = first.begin(gale)
    with session(campaign) as second:
        assert second.schedule.get_progress() == "+FW\n---\n"
        assert second.ledger.completed() == ((2001, 1),)
        assert second.ledger.result(2001, 1) == {"tracks": 3, "sha256": "abc"}
        assert [held[:3] for held in second.ledger.held()] == [(under_way, "gale", "gale-1")]
        assert [second.ledger.attempts(2001, member) for member in (1, 2, 3)] == [1, 1, 1]
        assert second.ledger.attempts(dropped.year, dropped.ensemble_member) == 0
        assert [[one.reason for one in reasons] for _, reasons in second.schedule.failures()] == [
            ["ValueError: no u850"]
        ]
        # The worker is met again with what it was given, and goes on with it.
        second.join(running=[under_way])
        second.complete(under_way, tracks=7)
        second.ledger.save()
        assert second.ledger.epoch == 2
    with session(campaign) as third:
        assert third.schedule.get_progress() == "+F+\n---\n"
        assert third.ledger.result(2001, 3)["tracks"] == 7


def test_the_failures_of_an_earlier_start_count_until_a_task_is_given_up(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign, [2001], [1], rules=Rules(max_attempts=2)) as first:
        first.fail(first.begin(first.join()))
        first.ledger.save()
    with session(campaign, [2001], [1], rules=Rules(max_attempts=2)) as second:
        gale = second.join("squall")
        assert second.schedule.get_progress() == "F\n"
        attempt = second.begin(gale)
        assert attempt.number == 2
        second.fail(attempt)
        assert second.schedule.done
        second.ledger.save()
    assert read_status(tmp_path)["state"] == "ended"
    assert "given up" in tell_why(tmp_path, 2001, 1)["why"]
    # Whoever starts it again has mended what was wrong: it is tried afresh, and the history is kept.
    with session(campaign, [2001], [1], rules=Rules(max_attempts=2)) as third:
        assert third.schedule.get_progress() == "-\n"
        attempt = third.begin(third.join())
        assert attempt.number == 3
        third.complete(attempt)
        third.ledger.save()
    story = tell_why(tmp_path, 2001, 1)
    assert [[one["number"] for one in each["attempts"]] for each in story["rounds"]] == [[1, 2], [3]]
    assert "given up" in story["rounds"][1]["reason"]


def test_an_attempt_whose_process_has_ended_is_lost_at_once(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign) as first:
        first.begin(first.join("gale", process=GONE))
        alive = first.begin(first.join("squall", process=HERE))
        unknown = first.begin(first.join("breeze"))
        first.ledger.save()
    with session(campaign) as second:
        assert second.schedule.get_progress() == "-WW\n---\n"
        assert [held.attempt for held in second.ledger.held()] == [alive, unknown]
        (attempt,) = tell_why(tmp_path, 2001, 1)["rounds"][0]["attempts"]
        assert (attempt["status"], attempt["pid"], attempt["host"]) == ("lost", GONE.pid, "host")
        assert "has ended" in attempt["error"]


def test_a_held_attempt_goes_out_again_when_its_lease_is_over(tmp_path: Path) -> None:
    campaign, rules = campaign_in(tmp_path), Rules(lease=1e9)
    with session(campaign) as first:
        held = first.begin(first.join())
        first.ledger.save()
    with session(campaign, rules=rules) as second:
        assert second.schedule.tick(0.0) == ()
        assert second.schedule.tick(1e12) == (held,)
        second.ledger.ended(Outcome(held, "lost", error="not heard from"))
        assert second.begin(second.join("squall")) == Attempt(2, 2001, 1, "vort_track")
        second.ledger.save()


@pytest.mark.parametrize("store", STORES)
def test_what_seemed_lost_and_goes_on_is_one_attempt(tmp_path: Path, store: str) -> None:
    campaign = campaign_in(tmp_path, store)
    with session(campaign, rules=Rules(lease=10.0)) as first:
        attempt = first.begin(first.join())
        assert first.schedule.tick(100.0) == (attempt,)
        first.ledger.ended(Outcome(attempt, "lost", error="not heard from", seconds=100.0))
        first.ledger.save()
        first.join(running=[attempt])
        first.ledger.resumed(attempt)
        first.ledger.save()
        (told,) = tell_why(tmp_path, 2001, 1)["rounds"][0]["attempts"]
        assert (told["number"], told["status"], told["end"], told["error"]) == (1, None, None, "")
        with find_store(tmp_path) as found:
            assert found.get_all_tasks_metadata()[0]["rows"][2001] == "W--"
        first.fail(attempt)
        first.ledger.save()
    (told,) = tell_why(tmp_path, 2001, 1)["rounds"][0]["attempts"]
    assert (told["number"], told["status"], told["exit_code"]) == (1, "failure", 3)


def test_what_seemed_lost_can_still_be_complete(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign, rules=Rules(lease=10.0)) as first:
        attempt = first.begin(first.join())
        assert first.schedule.tick(100.0) == (attempt,)
        first.ledger.ended(Outcome(attempt, "lost", error="not heard from"))
        first.ledger.save()
        first.complete(attempt)
        first.ledger.save()
    with session(campaign) as second:
        assert second.schedule.get_progress() == "+--\n---\n"


def test_a_result_that_was_found_needs_no_attempt(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign) as first:
        first.ledger.found(Attempt(1, 2001, 2, "vort_track"), {"tracks": 5})
        first.ledger.save()
    with session(campaign) as second:
        assert second.schedule.get_progress() == "-+-\n---\n"
    assert tell_why(tmp_path, 2001, 2)["rounds"][0]["attempts"] == []


def test_a_result_that_is_not_what_it_was_is_made_again_in_another_round(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign, [2001], [1]) as first:
        first.complete(first.begin(first.join()))
        first.ledger.save()
    with session(campaign, [2001], [1]) as second:
        second.schedule.find(2001, 1).status = "outstanding"
        second.ledger.again(2001, 1, "its result is damaged")
        assert not second.ledger.is_rerun(2001, 1)
        second.complete(second.begin(second.join()), tracks=4)
        second.ledger.save()
    story = tell_why(tmp_path, 2001, 1)
    assert [each["reason"] for each in story["rounds"]] == ["the first", "its result is damaged"]
    assert [each["result"]["tracks"] for each in story["rounds"]] == [3, 4]
    assert [each["attempts"][0]["number"] for each in story["rounds"]] == [1, 2]


def test_years_and_members_are_added_retired_and_restored(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign, [2001], [1, 2]) as first:
        first.complete(first.begin(first.join()))
        first.ledger.save()
    with session(campaign, [2000, 2001], [1, 2, 3]) as more:
        assert more.schedule.get_progress() == "---\n+--\n"
        more.complete(more.begin(more.join()))
        more.ledger.save()
    assert read_status(tmp_path)["years"] == {"2000": "+--", "2001": "+--"}
    with session(campaign, [2000], [1, 3]):
        assert read_status(tmp_path)["years"] == {"2000": "+-"}
        assert tell_why(tmp_path, 2001, 1)["retired"]
        assert "does not hold" in tell_why(tmp_path, 2001, 1)["why"]
    with session(campaign, [2001], [1, 4]) as other:
        assert other.schedule.get_progress() == "+-\n"
        assert other.ledger.attempts(2001, 1) == 1
    with find_store(tmp_path) as store:
        (task,) = store.get_all_tasks_metadata()
        assert task["num_elements"] == 7
        assert [(one["year"], one["member"]) for one in store.get_task_elements(0, 0, slice(None))] == [
            (2001, 1),
            (2001, 2),
            (2000, 1),
            (2000, 2),
            (2000, 3),
            (2001, 3),
            (2001, 4),
        ]


def test_a_worker_that_is_blamed_and_the_failures_that_are_forgiven(tmp_path: Path) -> None:
    campaign, rules = campaign_in(tmp_path), Rules(worker_strikes=2)
    with session(campaign, rules=rules) as first:
        gale = first.join()
        first.join("squall")
        for _ in range(2):
            first.fail(first.begin(gale))
        assert first.schedule.quarantined.keys() == {"gale"}
        first.ledger.quarantined(gale, "fails everything")
        first.ledger.forgiven([failure.attempt for failure in first.schedule.take_forgiven()])
        first.ledger.save()
        status = read_status(tmp_path)
        assert status["quarantined"] == {"gale": "fails everything"}
        assert status["years"]["2001"] == "---"
    with session(campaign, rules=rules) as second:
        assert read_status(tmp_path)["quarantined"] == {}
        assert second.schedule.get_progress() == "---\n---\n"
        assert list(second.schedule.failures()) == []
    (attempt,) = tell_why(tmp_path, 2001, 1)["rounds"][0]["attempts"]
    assert (attempt["status"], attempt["exit_code"]) == ("forgiven", 3)


def test_each_start_and_each_process_of_a_worker_is_on_record(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path, cluster={"hosts": [HostSettings(name="gale").model_dump()]})
    for start in (1, 2):
        with session(campaign) as one:
            for _ in range(2):
                one.join("gale", incarnation=f"first-{start}", process=HERE, facts={"processor": "x86_64 AVX2"})
            one.join("gale", incarnation=f"second-{start}")
            one.ledger.save()
    with find_store(tmp_path) as store:
        starts = store.get_submissions()
        assert [one["epoch"] for one in starts] == [1, 2]
        assert [one["fleet"] for one in starts] == [["gale"], ["gale"]]
        assert [one["submission_attempts"] for one in starts] == [[0, 0, 1]] * 2
        first, second = starts[1]["jobscripts"]
        assert (first["job_ID"], second["job_ID"]) == ("first-2", "second-2")
        assert first["submit_time"].tzinfo is not None
        assert dict(first["version_info"])["processor"] == "x86_64 AVX2"
        assert dict(first["version_info"])["pid"] == str(HERE.pid)
        assert store.get_template()["settings_hash"] == campaign.settings_hash
        assert store.get_parameter_data(0) == (True, campaign.science)


def test_newer_code_is_warned_of_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign):
        assert caplog.records == []
    monkeypatch.setattr(ledger_module, "__version__", "99.0")
    for _ in range(2):
        with session(campaign):
            pass
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert __version__ in warning.getMessage()
    assert "99.0" in warning.getMessage()
    assert read_status(tmp_path)["versions"] == sorted([__version__, "99.0"])


# --- stores


def test_other_settings_are_refused_or_replace_the_record(tmp_path: Path) -> None:
    with session(campaign_in(tmp_path)) as first:
        first.complete(first.begin(first.join()))
        first.ledger.save()
    before = files_in(tmp_path)
    other = campaign_in(tmp_path, tracking={"min_points": 9})
    with pytest.raises(StoreError, match="other settings") as refused, session(other):
        pass
    assert "--replace" in refused.value.remedy
    assert files_in(tmp_path) == before
    with session(other, replace=True) as second:
        assert second.schedule.get_progress() == "---\n---\n"
        assert second.ledger.epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["campaign"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_record_of_other_settings_makes_way_only_if_nothing_was_begun(tmp_path: Path, begun: bool) -> None:
    """Results that were moved away, or that all tasks have failed, is no reason to delete a history."""
    with session(campaign_in(tmp_path)) as first:
        if begun:
            first.fail(first.begin(first.join()))
            first.ledger.save()
    other = campaign_in(tmp_path, tracking={"min_points": 9})
    if begun:
        with pytest.raises(StoreError, match="other settings"), session(other):
            pass
    else:
        with session(other) as second:
            assert second.ledger.epoch == 1


def test_a_replacement_that_fails_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with session(campaign_in(tmp_path)) as first:
        first.complete(first.begin(first.join()))
        first.ledger.save()
    before = files_in(tmp_path)

    def save(ledger: Ledger) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Ledger, "_save", save)
    with pytest.raises(StoreError, match="full"), session(campaign_in(tmp_path, season="DJF"), replace=True):
        pass
    monkeypatch.undo()
    assert files_in(tmp_path) == before
    assert read_status(tmp_path)["years"]["2001"] == "+--"


def test_what_lies_in_the_place_of_a_store_is_not_taken_for_nothing(tmp_path: Path) -> None:
    """A store that was set aside, or has lost the file that tells its kind, is no free place."""
    with session(campaign_in(tmp_path)):
        pass
    store = tmp_path / "campaign" / "store.sqlite"
    store.rename(store.with_name("store.sqlite.bak"))
    before = files_in(tmp_path)
    with pytest.raises(StoreDamagedError, match="no campaign store"), session(campaign_in(tmp_path)):
        pass
    assert files_in(tmp_path) == before
    for path in (tmp_path / "campaign").iterdir():
        path.unlink()
    with session(campaign_in(tmp_path)) as again:
        assert again.ledger.epoch == 1


def files_in(root: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_a_campaign_is_kept_in_the_store_that_it_has(tmp_path: Path) -> None:
    with session(campaign_in(tmp_path, "json")) as first:
        first.complete(first.begin(first.join()))
        first.ledger.save()
    with session(campaign_in(tmp_path, "sqlite")) as second:
        assert second.schedule.get_progress() == "+--\n---\n"
    assert read_status(tmp_path)["store"] == "json"


@pytest.mark.parametrize(
    "changes",
    [
        {"run": {"store": "json", "workers": 2, "backend": "local"}},
        {"run": {"store": "json", "workers": 2}},
        {"run": {"store": "json"}, "cluster": {"hosts": [{"name": "gale"}, {"name": "squall"}]}},
        {"run": {"store": "json"}, "cluster": {"hosts": [{"name": "gale", "slots": 2}]}},
    ],
)
def test_a_store_for_one_task_at_a_time_is_refused_for_more(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="one task at a time") as refused, session(campaign_in(tmp_path, **changes)):
        pass
    assert "sqlite" in refused.value.remedy
    assert not store_folder(tmp_path).exists()  # else the campaign would be kept in that one, whatever it says later


def test_a_store_for_one_task_at_a_time_is_given_one_at_a_time(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path, "json", cluster={"nameserver": "127.0.0.1:9090"})
    listener, backend = Recorder(), Obedient("ab", slots=3)
    with session(campaign) as one:
        assert Manager(one.schedule, backend, listener, record=one.ledger, limits=Limits(heartbeat=0.01)).run().ok
    assert max(snapshot.counts["working"] for snapshot in listener.snapshots) == 1
    with open_store(campaign, replace=False) as store:
        check_capacity(store, campaign)


def test_no_campaign(tmp_path: Path) -> None:
    with pytest.raises(WorkflowNotFoundError, match="no campaign in"):
        find_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- with a manager


class Obedient(Backend):
    """Workers without processes, which have done at once what they are given."""

    def __init__(self, names: Sequence[str] = "a", *, slots: int = 2) -> None:
        self._workers = tuple(Worker(name, slots, incarnation=name, process=GONE) for name in names)
        self.begun: list[Attempt] = []

    def workers(self) -> tuple[Worker, ...]:
        return self._workers

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        attempts = [attempt for assignment in begin for attempt in assignment]
        self.begun += attempts
        return [Outcome(one, "complete", {"tracks": one.ensemble_member, "sha256": "abc"}) for one in attempts]

    def running(self, worker: str) -> tuple[Running, ...]:
        return ()

    def close(self) -> None:
        """Nothing was started."""


class Killed(BaseException):
    """Ends a manager where it stands."""


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, when: str) -> None:
    """What was shown is on record, what was handed out is too, and the next manager does the rest."""
    save, number = Ledger._save, 0
    while True:
        number += 1
        root = tmp_path / str(number)
        root.mkdir()
        commits, shown, backend = 0, Recorder(), Obedient()

        def save_or_die(ledger: Ledger) -> None:
            nonlocal commits
            commits += 1
            if commits == number and when == "before":  # noqa: B023 - called within this turn
                raise Killed
            save(ledger)
            if commits == number and when == "after":  # noqa: B023 - called within this turn
                raise Killed

        with monkeypatch.context() as patch, ExitStack() as stack:
            patch.setattr(Ledger, "_save", save_or_die)
            killed = True
            try:
                one = stack.enter_context(session(campaign_in(root, store)))
                Manager(one.schedule, backend, shown, record=one.ledger, limits=Limits(heartbeat=0.01)).run()
                killed = False
            except Killed:
                pass
        if not killed:
            break
        again, listener = Obedient(), Recorder()
        with session(campaign_in(root, store)) as two:
            told = {(one.year, one.ensemble_member) for one in shown.events("complete")}
            assert told <= set(two.ledger.completed())
            summary = Manager(two.schedule, again, listener, record=two.ledger, limits=Limits(heartbeat=0.01)).run()
        assert summary.ok
        assert summary.totals["tracks"] == 2 * (1 + 2 + 3)
        assert not told & {(one.year, one.ensemble_member) for one in again.begun}
        with find_store(root) as found:
            on_record = [
                (one["number"], element["year"], element["member"])
                for element in found.get_task_elements(0, 0, slice(None))
                for one in element["iterations"][0]["EARs"]
            ]
        handed_out = {(one.number, one.year, one.ensemble_member) for one in (*backend.begun, *again.begun)}
        assert handed_out <= set(on_record)
        assert len(on_record) == len(set(on_record))
    assert number > 4


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_disk_that_takes_no_more_ends_the_campaign_and_nothing_else_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    save, commits = Ledger._save, 0

    def save_if_there_is_room(ledger: Ledger) -> None:
        nonlocal commits
        commits += 1
        if commits > at:
            raise StoreError(f"cannot write {tmp_path}: no space left", remedy="free space on that disk")
        save(ledger)

    campaign, listener, backend = campaign_in(tmp_path), Recorder(), Obedient()
    with session(campaign) as one, monkeypatch.context() as patch:
        patch.setattr(Ledger, "_save", save_if_there_is_room)
        summary = Manager(one.schedule, backend, listener, record=one.ledger, limits=Limits(heartbeat=0.01)).run()
    assert "no space left" in summary.problem
    assert "free space" in summary.problem
    assert not summary.interrupted
    complete = [(one.year, one.ensemble_member) for one in listener.events("complete")]
    assert summary.counts["complete"] == len(complete)
    assert summary.counts["failure"] == summary.counts["timeout"] == 0
    with session(campaign) as two:
        assert set(complete) == set(two.ledger.completed())
        assert Manager(two.schedule, Obedient(), Recorder(), record=two.ledger).run().ok


def test_what_is_told_when_a_later_commit_fails_stays_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that looks while results are found has what was on record by then told before the next one is lost."""
    save = Ledger._save

    class Looks(Recorder):
        def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
            super().refresh(snapshot)
            if self.snapshots[-1].counts["complete"]:
                monkeypatch.setattr(Ledger, "_save", no_room)

    def no_room(ledger: Ledger) -> None:
        raise StoreError("no space left")

    class Lies(Published):
        def find(self, year: int, ensemble_member: int) -> Mapping[str, Any] | None:
            return {"tracks": 1} if (year, ensemble_member) == (2001, 3) else None

    campaign, listener = campaign_in(tmp_path), Looks()
    with session(campaign) as one:
        manager = Manager(
            one.schedule, Obedient(), listener, record=one.ledger, published=Lies(), limits=Limits(heartbeat=0.01)
        )
        summary = manager.run()
    assert "no space left" in summary.problem
    monkeypatch.setattr(Ledger, "_save", save)
    told = {(one.year, one.ensemble_member) for one in listener.events("complete", "found")}
    with session(campaign) as two:
        assert set(two.ledger.completed()) == told
    assert summary.counts["complete"] == len(told) > 0


class Returning(Obedient):
    """A worker that is at work when the manager comes."""

    def __init__(self, running: Sequence[Attempt]) -> None:
        super().__init__("a", slots=2)
        self._running = running
        self._workers = (Worker("a", 2, session="2", incarnation="a", running=tuple(running)),)
        self.cancelled: list[Attempt] = []

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        self.cancelled += cancel
        finished = [Outcome(one, "complete", {"tracks": 10, "sha256": "abc"}) for one in self._running]
        self._running = ()
        outcomes = [one for one in finished if one.attempt not in cancel]
        return [*outcomes, *(Outcome(one, "lost") for one in cancel), *super().exchange(worker, begin, cancel, wait)]


def test_what_a_worker_is_still_at_is_gone_on_with_and_what_counts_no_more_is_cancelled(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign) as first:
        a, b = first.join("a", incarnation="a"), first.join("b", incarnation="b", process=GONE)
        held, forgotten, gone = first.begin(a), first.begin(a), first.begin(b)
        first.ledger.save()
    stale = Attempt(7, 2002, 3, "vort_track")
    backend, listener = Returning([held, stale]), Recorder()
    with session(campaign) as second:
        limits = Limits(heartbeat=0.01)
        assert Manager(second.schedule, backend, listener, record=second.ledger, limits=limits).run().ok
    assert backend.cancelled == [stale]
    assert held not in backend.begun
    assert {Attempt(2, one.year, one.ensemble_member, one.task) for one in (forgotten, gone)} <= set(backend.begun)
    (lost,) = (change for change, _ in listener.changes if change.event == "lost")
    assert (lost.attempt, lost.error) == (forgotten, "worker a knows nothing of it any more")
    assert [one["status"] for one in tell_why(tmp_path, 2001, 2)["rounds"][0]["attempts"]] == ["lost", "complete"]
    (attempt,) = tell_why(tmp_path, 2001, 1)["rounds"][0]["attempts"]
    assert (attempt["status"], attempt["epoch"]) == ("complete", 1)


class Broken(Obedient):
    """Two workers: b fails what it gets; a is stopped when b has failed two."""

    failed = 0

    def workers(self) -> tuple[Worker, ...]:
        return self._workers[1:] if self.begun and self.failed >= 2 else self._workers

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        attempts = [attempt for assignment in begin for attempt in assignment]
        time.sleep(wait)
        if worker == "b":
            self.failed += len(attempts)
            return [Outcome(one, "failure", error="ImportError: no numpy") for one in attempts]
        first, self.begun = self.begun, self.begun or attempts
        if first and self.failed >= 2:
            return [Outcome(one, "lost", error="the worker is being stopped") for one in (*first, *attempts)]
        return []


def test_a_campaign_that_is_left_with_a_quarantined_worker_ends_and_says_so(tmp_path: Path) -> None:
    listener = Recorder()
    with session(campaign_in(tmp_path), rules=Rules(worker_strikes=2, lease=5.0)) as one:
        backend = Broken("ab", slots=1)
        summary = Manager(one.schedule, backend, listener, record=one.ledger, limits=Limits(heartbeat=0.05)).run()
    assert summary.quarantined.keys() == {"b"}
    assert "ImportError: no numpy" in summary.quarantined["b"]
    assert "no worker is left" in summary.problem
    assert len(listener.events("quarantined")) == 1
    assert read_status(tmp_path)["quarantined"] == dict(summary.quarantined)


class Deadly(Obedient):
    """A worker that ends, surely, with whatever it gets; and is there again as another process."""

    def __init__(self) -> None:
        super().__init__("a", slots=1)
        self._lives = 1

    def workers(self) -> tuple[Worker, ...]:
        return (Worker("a", 1, session=str(self._lives), incarnation=f"a{self._lives}"),)

    def exchange(
        self, worker: str, begin: Sequence[Assignment], cancel: Sequence[Attempt], wait: float
    ) -> list[Outcome]:
        time.sleep(wait)
        if begin:
            self._lives += 1
            raise WorkerEndedError("killed for want of memory")
        return []


def test_a_task_that_takes_its_workers_along_is_given_up_with_the_reasons(tmp_path: Path) -> None:
    listener = Recorder()
    with session(campaign_in(tmp_path), [2001], [1], rules=Rules(max_losses=3)) as one:
        limits = Limits(heartbeat=0.01, patience=60.0)
        summary = Manager(one.schedule, Deadly(), listener, record=one.ledger, limits=limits).run()
    ((failure,),) = summary.failures
    assert failure.reason.startswith("lost with its worker 3 times: a (")
    assert failure.reason.count("killed for want of memory") == 3
    assert [change.event for change, _ in listener.changes if change.event != "begun"] == ["lost", "lost", "failure"]
    assert listener.snapshots[-1].rows == ((2001, "F"),)
    status = read_status(tmp_path)
    assert status["years"] == {"2001": "F"}
    (told,) = status["failures"]
    assert told["attempts"][-1]["reason"] == failure.reason


class Faults(Published):
    """Results of which some are not what they were."""

    def __init__(self, *damaged: tuple[int, int]) -> None:
        self._damaged = damaged

    def fault(self, year: int, ensemble_member: int, result: Any) -> str:
        assert result["sha256"] == "abc"
        return "its result is damaged" if (year, ensemble_member) in self._damaged else ""


def test_a_finished_campaign_needs_no_worker(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign) as first:
        assert Manager(first.schedule, Obedient(), Recorder(), record=first.ledger).run().ok
    listener = Recorder()
    with session(campaign) as second:
        backend = Obedient("")
        summary = Manager(second.schedule, backend, listener, record=second.ledger, published=Faults()).run()
    assert (summary.ok, summary.found, summary.problem) == (True, 6, "")
    assert summary.totals == {"tracks": 12}
    assert len(listener.events("found")) == 6


def test_what_is_damaged_is_done_again_and_the_rest_is_not(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign) as first:
        assert Manager(first.schedule, Obedient(), Recorder(), record=first.ledger).run().ok
    listener, backend = Recorder(), Obedient()
    with session(campaign) as second:
        damaged = Faults((2001, 2), (2002, 3))
        summary = Manager(second.schedule, backend, listener, record=second.ledger, published=damaged).run()
    assert (summary.ok, summary.found, summary.totals) == (True, 4, {"tracks": 12})
    assert sorted((one.year, one.ensemble_member, one.number) for one in backend.begun) == [(2001, 2, 2), (2002, 3, 2)]
    assert len(listener.events("again")) == 2
    assert "damaged" in tell_why(tmp_path, 2001, 2)["rounds"][1]["reason"]


class Everywhere(Published):
    """An intact result of every task."""

    def find(self, year: int, ensemble_member: int) -> dict[str, Any]:
        return {"tracks": 1, "sha256": "abc"}


def test_a_rerun_is_done_although_its_result_is_there(tmp_path: Path) -> None:
    campaign = campaign_in(tmp_path)
    with session(campaign) as first:
        summary = Manager(first.schedule, Obedient(), Recorder(), record=first.ledger, published=Everywhere()).run()
        assert summary.found == 6
    assert "2 tasks" in rerun(tmp_path, members=[2])
    backend = Obedient()
    with session(campaign) as second:
        summary = Manager(second.schedule, backend, Recorder(), record=second.ledger, published=Everywhere()).run()
    assert (summary.ok, summary.found) == (True, 4)
    assert [(one.year, one.ensemble_member) for one in backend.begun] == [(2001, 2), (2002, 2)]


def test_the_lock_and_the_store_are_all_that_is_left(tmp_path: Path) -> None:
    with session(campaign_in(tmp_path)) as one:
        assert Manager(one.schedule, Obedient(), Recorder(), record=one.ledger).run().ok
    assert [path.name for path in tmp_path.iterdir()] == [store_folder(tmp_path).name]
    assert json.dumps(read_status(tmp_path))


def test_an_attempt_goes_out_again_as_soon_as_its_process_has_ended(tmp_path: Path) -> None:
    """Its manager was killed, and the next one started before the worker of the first was gone."""
    campaign, rules = campaign_in(tmp_path), Rules(lease=1e9)
    with subprocess.Popen(["sleep", "60"]) as child:
        process = Process.find(child.pid)
        with session(campaign) as first:
            first.begin(first.join("gale", process=process))
            first.ledger.save()
        listener = Recorder()
        with session(campaign, rules=rules) as second:
            assert len(second.ledger.held()) == 1
            child.kill()
            child.wait()
            limits = Limits(heartbeat=0.01)
            manager = Manager(second.schedule, Obedient("a"), listener, record=second.ledger, limits=limits)
            bound = threading.Timer(10, manager.stop)
            bound.start()
            assert manager.run().ok
            bound.cancel()
    assert "has ended" in tell_why(tmp_path, 2001, 1)["rounds"][0]["attempts"][0]["error"]
