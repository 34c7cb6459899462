"""What a host does for its worker, with real processes: one is started once, and none but that one is ever stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stormtracks.cluster import host
from stormtracks.cluster.errors import HostError
from stormtracks.cluster.host import CERTIFICATE_WANTED, Process, WorkerFiles, digest_of, start, stop
from stormtracks.errors import ResultsError
from tests.cluster.ssh_hosts import ROOT, until

STAND_IN = str(Path(__file__).with_name("stand_in_worker.py"))

Order = dict[str, Any]


@pytest.fixture
def order(tmp_path: Path) -> Iterator[Order]:
    """An order that does for each verb; what was started by it is ended after the test."""
    order = {"campaign": "gale", "host": "north", "log_folder": str(tmp_path / "logs"), "command": [STAND_IN]}
    order |= {"listen": None, "nameserver": "127.0.0.1:9090", "wait": 20.0, "force": False}
    yield order
    with suppress(HostError):
        stop(order | {"wait": 0.0, "force": True})


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody may stop."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def files_of(order: Order) -> WorkerFiles:
    return WorkerFiles(Path(order["log_folder"]), order["campaign"], order["host"])


def process_of(order: Order) -> Process:
    process = files_of(order).read()
    assert process is not None
    return process


def ask(verb: str, order: Order) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stormtracks.cluster.host", verb, json.dumps(order)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


# --- which process


def test_a_process_is_known_by_number_start_and_boot(bystander: subprocess.Popen[bytes]) -> None:
    found = Process.find(bystander.pid)
    assert found is not None
    assert found.runs
    assert not Process(found.pid, found.started + 1, found.boot).runs
    assert not Process(found.pid, found.started, "another boot").runs


def test_a_program_may_have_any_name(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 2 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "600"]) as process:
        until(lambda: b"600" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "the program has its name")
        plain = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
        found = Process.find(process.pid)
        process.kill()
    assert found is not None
    assert found.started == int(plain[19])


def test_a_process_that_nobody_waited_for_has_ended(bystander: subprocess.Popen[bytes]) -> None:
    found = Process.find(bystander.pid)
    assert found is not None
    bystander.kill()
    until(lambda: not found.runs, "it has ended")
    assert Path(f"/proc/{bystander.pid}").exists()


# --- start


def test_a_worker_is_started_once_and_on_the_terms_of_the_order(order: Order) -> None:
    answer = start(order | {"command": [STAND_IN, "--name", 'it\'s a "name"']})
    assert answer["what"] == "started"
    first = process_of(order)
    assert f"pid {first.pid}" in answer["detail"]
    assert start(order)["what"] == "already running"
    assert process_of(order) == first
    (said,) = files_of(order).log.read_text(encoding="utf-8").splitlines()
    assert json.loads(said)["arguments"] == ["--name", 'it\'s a "name"', "--listen", "127.0.0.1"]
    # It leads a session of its own, has no way to a terminal, and writes to nothing but its log.
    assert os.getsid(first.pid) == first.pid
    streams = [Path(f"/proc/{first.pid}/fd/{number}").readlink() for number in range(3)]
    assert streams == [Path("/dev/null"), files_of(order).log, files_of(order).log]


def test_of_two_who_start_it_at_the_same_time_one_does(order: Order) -> None:
    with ask("start", order) as one, ask("start", order) as other:
        answers = [json.loads(asked.communicate(timeout=60)[0])["what"] for asked in (one, other)]
    assert sorted(answers) == ["already running", "started"]
    assert len(files_of(order).log.read_text(encoding="utf-8").splitlines()) == 1


def test_a_worker_that_ends_at_once_says_why(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "ends")
    with pytest.raises(HostError, match=r"exit status 1: .*the sea is too rough") as caught:
        start(order)
    assert str(files_of(order).log) in caught.value.remedy
    assert not files_of(order).state.exists()
    monkeypatch.delenv("STAND_IN")
    assert start(order)["what"] == "started"


def test_a_worker_that_is_slow_to_listen_counts_as_started_and_is_told(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "deaf")
    answer = start(order | {"wait": 0.2})
    assert answer["what"] == "started"
    assert "not listened within 0.2 s" in answer["detail"]
    assert process_of(order).runs


def test_a_worker_that_has_died_is_started_again(order: Order) -> None:
    start(order)
    first = process_of(order)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not first.runs, "it has ended")
    assert start(order)["what"] == "started"
    assert process_of(order) != first


@pytest.mark.parametrize(
    ("connection", "nameserver", "refused"),
    [
        ("10.0.0.1 50000 10.0.0.2 22", "127.0.0.1:9090", True),
        ("10.0.0.1 50000 10.0.0.2 22", "localhost:9090", True),
        ("10.0.0.1 50000 10.0.0.2 22", "10.0.0.1:9090", False),
        ("10.0.0.1 50000 10.0.0.2 22", "gale:9090", False),
        ("10.0.0.1 50000 10.0.0.1 22", "127.0.0.1:9090", False),
        ("127.0.0.1 50000 127.0.0.1 22", "127.0.0.1:9090", False),
        ("", "127.0.0.1:9090", False),
    ],
)
def test_a_name_server_that_the_worker_could_never_reach_is_refused(
    order: Order, monkeypatch: pytest.MonkeyPatch, connection: str, nameserver: str, refused: bool
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", connection)
    asked = order | {"nameserver": nameserver, "listen": "127.0.0.1"}
    if refused:
        with pytest.raises(HostError, match=f"{nameserver} is this host itself") as caught:
            start(asked)
        assert "10.0.0.1" in caught.value.remedy
        assert not files_of(order).state.exists()
    else:
        assert start(asked)["what"] == "started"


def test_a_worker_listens_where_ssh_came_in(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "127.0.0.1 50000 127.0.0.2 22")
    start(order)
    assert '"--listen", "127.0.0.2"' in files_of(order).log.read_text(encoding="utf-8")


def test_a_log_folder_that_cannot_be_is_told(order: Order, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="file"):
        start(order | {"log_folder": str(tmp_path / "file" / "logs")})


def test_a_worker_that_must_prove_itself_is_started_with_the_files_for_that(order: Order) -> None:
    files = {"authority.crt": b"an authority", "worker.pem": b"a certificate"}
    asked = order | {"certificate": {"digest": digest_of(files), "names": ["127.0.0.1", "north"]}}
    folder = files_of(order).certificates
    for _ in range(2):
        wanted = {"what": CERTIFICATE_WANTED, "folder": str(folder), "address": "127.0.0.1"}
        assert start(asked) == wanted
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.iterdir()) == []
        assert not files_of(order).state.exists()
        # A copy that was cut short is none.
        (folder / "worker.pem").write_bytes(b"a cert")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert start(asked)["what"] == "started"
    assert f'"--certificates", "{folder}"' in files_of(order).log.read_text(encoding="utf-8")
    assert start(asked)["what"] == "already running"
    # Others are wanted though it runs: those that it has may end soon, or be for another address.
    assert start(asked | {"listen": "127.0.0.2"})["address"] == "127.0.0.2"
    assert stop(order)["what"] == "stopped"
    assert not folder.exists()


def test_where_nothing_runs_no_key_is_left(order: Order) -> None:
    start(order | {"certificate": {"digest": "", "names": []}})
    (files_of(order).certificates / "worker.pem").touch()
    assert stop(order)["what"] == "not running"
    assert not files_of(order).certificates.exists()


def test_nobody_else_prepares_the_folder_of_the_key(order: Order, tmp_path: Path) -> None:
    files_of(order).folder.mkdir()
    files_of(order).certificates.symlink_to(tmp_path)
    with pytest.raises(ResultsError, match=r"gale\.north\.certs"):
        start(order | {"certificate": {"digest": "", "names": []}})
    assert tmp_path.exists()


# --- stop


def test_a_worker_is_stopped_and_nothing_but_its_log_is_left(order: Order) -> None:
    start(order)
    process = process_of(order)
    assert stop(order) == {"what": "stopped", "detail": f"pid {process.pid}"}
    assert not process.runs
    assert [path.name for path in Path(order["log_folder"]).iterdir()] == ["gale.north.log"]
    assert stop(order)["what"] == "not running"


def test_where_nothing_was_started_nothing_is_made(order: Order) -> None:
    assert stop(order)["what"] == "not running"
    assert not Path(order["log_folder"]).exists()


@pytest.mark.parametrize("other", [{"started": 1}, {"boot": "another boot"}])
def test_a_process_that_only_has_the_number_is_never_stopped(
    order: Order, bystander: subprocess.Popen[bytes], other: dict[str, Any]
) -> None:
    start(order)
    state = files_of(order).state
    document = json.loads(state.read_bytes())
    stop(order)
    found = Process.find(bystander.pid)
    assert found is not None
    state.write_text(
        json.dumps(document | {"pid": found.pid, "started": found.started, "boot": found.boot} | other),
        encoding="utf-8",
    )
    answer = stop(order | {"force": True})
    assert answer["what"] == "not running"
    assert "left alone" in answer["detail"]
    assert bystander.poll() is None
    assert not state.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1, "boot": ""}'])
@pytest.mark.parametrize("verb", [start, stop])
def test_a_state_that_cannot_be_read_stops_nothing_and_starts_nothing(
    order: Order, verb: Callable[[Order], object], text: str
) -> None:
    Path(order["log_folder"]).mkdir()
    files_of(order).state.write_text(text, encoding="utf-8")
    with pytest.raises(HostError, match="cannot tell what was started") as caught:
        verb(order)
    assert "delete that file" in caught.value.remedy
    assert files_of(order).state.read_text(encoding="utf-8") == text


def test_a_worker_that_does_not_end_is_killed_by_force_alone(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "stubborn")
    start(order)
    process = process_of(order)
    with pytest.raises(HostError, match=r"has not ended within 0.3 s") as caught:
        stop(order | {"wait": 0.3})
    assert "--force" in caught.value.remedy
    assert process_of(order) == process
    assert process.runs
    assert stop(order | {"wait": 0.3, "force": True})["what"] == "killed"
    assert not process.runs


def test_who_comes_while_another_is_at_it_waits_and_gives_up(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    start(order)
    monkeypatch.setattr(host, "_BUSY", 0.2)
    with files_of(order).log.open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(HostError, match="another pyro_starter or pyro_ender"):
            stop(order)
    assert stop(order)["what"] == "stopped"


# --- as a program


def test_the_answer_is_one_line_of_json_good_or_bad(order: Order) -> None:
    with ask("stop", order) as asked:
        output, errors = asked.communicate(timeout=60)
    assert (json.loads(output)["what"], errors, asked.returncode) == ("not running", "", 0)
    Path(order["log_folder"]).mkdir()
    files_of(order).state.touch()
    with ask("stop", order) as asked:
        output, _ = asked.communicate(timeout=60)
    assert set(json.loads(output)) == {"error", "remedy"}
    assert asked.returncode == 0
