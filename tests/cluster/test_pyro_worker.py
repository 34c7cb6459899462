"""A worker by itself: what each call does, and as a program how it keeps its name and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from stormtracks import __version__
from stormtracks.cluster.errors import BackendError, ClusterError, SessionError, WorkerRefusedError
from stormtracks.cluster.pyro_task import Outcome
from stormtracks.cluster.pyro_worker import PyroWorker, changing
from stormtracks.cluster.roots import fingerprint, place_proof, remove_proofs
from stormtracks.cluster.transport import Address, Connection, list_names, start_nameserver
from stormtracks.cluster.wire import from_wire
from stormtracks.settings.campaign import CampaignSettings
from tests.cluster.cluster_parts import (
    BOUND,
    ROOT,
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
        "settings": campaign.model_dump(mode="json"),
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


def only_outcome(worker: PyroWorker, number: int, begin: list[Any], cancel: list[Any]) -> Outcome:
    """The one outcome of a call and, if it comes later, of those that follow it."""
    deadline = time.monotonic() + BOUND
    while not (found := worker.exchange("first", number, begin, cancel, 0.5)["outcomes"]):
        assert time.monotonic() < deadline
        number, begin, cancel = number + 1, [], []
    (outcome,) = map(from_wire, found)
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


def test_an_answer_that_went_astray_is_given_again(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    begin = [[[1, 2000, 1, "vort_track"]]]
    first = worker.exchange("first", 1, begin, [], BOUND)
    assert [from_wire(one).result["tracks"] for one in first["outcomes"]] == [2]
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
    worker.open(order(campaign, "second", owner="the manager on gale, process 8"))
    assert not child.is_running()
    assert worker.running() == []
    with pytest.raises(SessionError, match="works for the manager on gale, process 8 now"):
        worker.exchange("first", 2, [], [], 0.0)
    worker.end("first")
    assert worker.exchange("second", 1, [], [], 0.0)["outcomes"] == []
    worker.end("second")
    with pytest.raises(SessionError, match="works for nobody now"):
        worker.exchange("second", 2, [], [], 0.0)


def test_a_manager_that_waits_is_told_when_its_session_ends(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    problems: list[ClusterError] = []

    def wait() -> None:
        try:
            worker.exchange("first", 1, [], [], BOUND)
        except ClusterError as error:
            problems.append(error)

    waits = threading.Thread(target=wait)
    waits.start()
    worker.open(order(campaign, "second"))
    waits.join(BOUND)
    assert [type(problem) for problem in problems] in ([BackendError], [SessionError])


def test_a_worker_that_is_drained_finishes_and_takes_no_more(worker: PyroWorker, campaign: CampaignSettings) -> None:
    worker.open(order(campaign))
    worker.exchange("first", 1, [[[1, 2000, 4, "vort_track"]]], [], 0.0)
    poll_until(worker.running, "it hangs")
    assert worker.drain() == 1
    answer = worker.exchange("first", 2, [[[1, 2000, 1, "vort_track"]]], [], BOUND)
    assert answer["draining"]
    (refused,) = map(from_wire, answer["outcomes"])
    assert (refused.attempt.ensemble_member, refused.status) == (1, "lost")
    assert len(worker.running()) == 1
    with pytest.raises(WorkerRefusedError, match="is being stopped"):
        worker.open(order(campaign, "second"))


# --- the same folders


def test_another_results_root_is_refused(worker: PyroWorker, campaign: CampaignSettings) -> None:
    with pytest.raises(WorkerRefusedError, match=r"worker gale: the results root .* is not the manager's") as caught:
        worker.open(order(campaign, proof=".stormtracks-proof-elsewhere"))
    assert "mount" in caught.value.remedy
    (campaign.results.root / "forged").write_text("something else")
    with pytest.raises(WorkerRefusedError, match="another proof"):
        worker.open(order(campaign, proof="forged"))
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
