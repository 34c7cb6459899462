"""One manager for each campaign: the second is told who holds it, and a dead holder is nobody."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stormtracks.cluster import manager_lock
from stormtracks.cluster.errors import CampaignHeldError, ClusterError
from stormtracks.cluster.manager_lock import find_holder, hold_campaign
from stormtracks.errors import ResultsError
from tests.cluster.cluster_parts import BOUND, ROOT

HOLD = """
import sys
from pathlib import Path
from stormtracks.cluster.manager_lock import hold_campaign

with hold_campaign(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the campaign until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_holder_says_who_it_is(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "out"
    assert find_holder(root) is None
    with hold_campaign(root):
        holder = find_holder(root)
        assert holder is not None
        assert (holder.host, holder.pid) == (socket.gethostname(), os.getpid())
        assert datetime.now(UTC) - datetime.fromisoformat(holder.since) < timedelta(seconds=BOUND)
        assert json.loads((root / "manager.lock").read_text(encoding="utf-8"))["command"] == holder.command
    assert find_holder(root) is None


def test_a_second_one_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with another_holder(tmp_path) as process:
        for _ in range(2):
            with (
                pytest.raises(CampaignHeldError, match=rf"process {process.pid} on ") as refused,
                hold_campaign(tmp_path),
            ):
                pass
            assert "stormtracks status" in refused.value.remedy
        holder = find_holder(tmp_path)
        assert holder is not None
        assert holder.pid == process.pid
    # Killed: the lock went with it, though the file still names it.
    assert find_holder(tmp_path) is None
    with hold_campaign(tmp_path):
        holder = find_holder(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_within_one_process_too(tmp_path: Path) -> None:
    with hold_campaign(tmp_path), pytest.raises(CampaignHeldError), hold_campaign(tmp_path):
        pass
    with hold_campaign(tmp_path):
        pass


def test_a_stopped_holder_is_still_one(tmp_path: Path) -> None:
    with another_holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(CampaignHeldError), hold_campaign(tmp_path):
            pass


def test_to_look_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold_campaign(tmp_path):
        pass
    looking = os.open(tmp_path / "manager.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    looked = 0

    def sleep(seconds: float) -> None:
        nonlocal looked
        looked += 1
        if looked == 3:
            os.close(looking)

    monkeypatch.setattr(manager_lock.time, "sleep", sleep)
    with hold_campaign(tmp_path):
        assert looked == 3


def test_what_the_file_says_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "manager.lock").write_bytes(b"\xff{ not JSON")
    assert find_holder(tmp_path) is None
    with hold_campaign(tmp_path):
        assert find_holder(tmp_path) is not None
        (tmp_path / "manager.lock").write_bytes(b"")
        assert str(find_holder(tmp_path)).startswith("process 0 on an unknown host")
        with pytest.raises(CampaignHeldError, match="another manager"), hold_campaign(tmp_path):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(descriptor: int, kind: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ClusterError, match="knows no locks") as refused, hold_campaign(tmp_path):
        pass
    assert "results root" in refused.value.remedy


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ResultsError), hold_campaign(tmp_path / "out"):
        pass
