"""How a campaign is doing, told from its store: while a manager runs, after it was killed, and for one task."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stormtracks.cluster.campaign_store import store_folder
from stormtracks.cluster.errors import NotScheduledError, StoreError, WorkflowNotFoundError
from stormtracks.cluster.manager_lock import hold_campaign
from stormtracks.cluster.pyro_task import GLYPHS, Outcome
from stormtracks.cluster.schedule.rules import Rules
from stormtracks.cluster.status import describe_status, describe_why, read_status, tell_why
from tests.cluster.cluster_parts import BOUND, ROOT
from tests.cluster.test_ledger import HERE, Session, campaign_in, session


def some_work(one: Session) -> None:
    """One complete, one failed, one timed out, one under way, one lost, one that waits."""
    gale, squall = one.join("gale", process=HERE), one.join("squall")
    one.complete(one.begin(gale), path="results/x.nc")
    one.fail(one.begin(gale), "ValueError: no u850\n  remedy: name it")
    late, lost = one.begin(squall), one.begin(squall)
    assert one.schedule.timed_out(late, "not done within 60 s", now=0.0)
    one.ledger.ended(Outcome(late, "timeout", error="not done within 60 s", seconds=60.0))
    one.begin(gale)
    assert one.schedule.lost(lost)
    one.ledger.ended(Outcome(lost, "lost", error="cancelled"))
    one.ledger.save()


def test_while_a_manager_runs(tmp_path: Path) -> None:
    with hold_campaign(tmp_path), session(campaign_in(tmp_path)) as one:
        some_work(one)
        status = read_status(tmp_path)
        assert json.loads(json.dumps(status)) == status
        assert (status["state"], status["manager"]["pid"]) == ("running", os.getpid())
        assert status["years"] == {"2001": "+FT", "2002": "-W-"}
        assert status["counts"] == {"outstanding": 2, "working": 1, "complete": 1, "failure": 1, "timeout": 1}
        assert (status["finished"], status["total"], status["epoch"]) == (3, 6, 1)
        (running,) = status["running"]
        since = datetime.fromisoformat(running["since"])
        told = {"year": 2002, "member": 2, "number": 1, "worker": "gale", "host": "host", "pid": HERE.pid}
        assert running == told | {"since": running["since"]}
        assert timedelta(0) <= datetime.now(UTC) - since < timedelta(seconds=BOUND)
        assert [(failure["member"], failure["status"]) for failure in status["failures"]] == [
            (2, "failure"),
            (3, "timeout"),
        ]
        lines = describe_status(status)
    assert lines[0].startswith(f"gale (vort_track): running by process {os.getpid()} on ")
    assert lines[1:3] == ["2001: +FT", "2002: -W-"]
    assert re.fullmatch(r"2002 m002 attempt 1 on gale since \d{4}-\d\d-\d\dT\S+\+00:00", lines[3])
    assert lines[4:7] == [
        "2001 m002 failure:",
        "  attempt 1 on gale: ValueError: no u850\n  remedy: name it",
        "2001 m003 timeout:",
    ]
    assert lines[-1] == "2 outstanding, 1 working, 1 complete, 1 failure, 1 timeout"


def test_what_a_worker_has_of_a_year_is_told_in_one_line(tmp_path: Path) -> None:
    with hold_campaign(tmp_path), session(campaign_in(tmp_path)) as one:
        gale, squall = one.join("gale"), one.join("squall")
        for worker in (gale, gale, squall, gale, squall):
            one.begin(worker)
        one.ledger.save()
        status = read_status(tmp_path)
    assert len(status["running"]) == 5
    starts = [each["since"] for each in status["running"]]
    assert describe_status(status)[3:-1] == [
        f"2001 members 1-2 attempt 1 on gale since {starts[0]}",
        f"2001 m003 attempt 1 on squall since {starts[2]}",
        f"2002 m001 attempt 1 on gale since {starts[3]}",
        f"2002 m002 attempt 1 on squall since {starts[4]}",
    ]


def test_when_nobody_works_on_what_is_left(tmp_path: Path) -> None:
    with session(campaign_in(tmp_path)) as one:
        some_work(one)
    status = read_status(tmp_path)
    assert (status["state"], status["manager"], status["running"]) == ("interrupted", None, [])
    assert status["years"] == {"2001": "+FT", "2002": "---"}
    assert status["counts"]["outstanding"] == 3
    assert describe_status(status)[-2] == "to go on: stormtracks run gale.toml"


def test_complete_and_ended(tmp_path: Path) -> None:
    rules = Rules(max_attempts=1)
    campaign = campaign_in(tmp_path, run={"max_attempts": 1})
    with session(campaign, [2001], [1, 2], rules=rules) as one:
        gale = one.join()
        one.complete(one.begin(gale))
        one.fail(one.begin(gale))
        one.ledger.save()
    status = read_status(tmp_path)
    assert (status["state"], status["finished"], status["total"]) == ("ended", 2, 2)
    assert describe_status(status)[-2:] == ["to go on: stormtracks run gale.toml", "1 complete, 1 failure"]
    with session(campaign, [2001], [1], rules=rules):
        pass
    assert read_status(tmp_path)["state"] == "complete"
    assert describe_status(read_status(tmp_path)) == ["gale (vort_track): complete", "2001: +", "1 complete"]


MANAGER = """
import sys, time
from pathlib import Path
from stormtracks.cluster.manager_lock import hold_campaign
from tests.cluster.test_ledger import campaign_in, session
from tests.cluster.test_status import some_work

root = Path(sys.argv[1])
with hold_campaign(root), session(campaign_in(root)) as one:
    some_work(one)
    print("done", flush=True)
    time.sleep(3600)
"""


def test_of_a_manager_in_another_process_alive_and_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MANAGER, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            status = read_status(tmp_path)
            assert (status["state"], status["manager"]["pid"]) == ("running", process.pid)
            assert status["years"]["2002"] == "-W-"
        finally:
            process.kill()
    assert read_status(tmp_path)["state"] == "interrupted"
    assert read_status(tmp_path)["years"] == {"2001": "+FT", "2002": "---"}


# --- one task


def test_the_story_of_a_task(tmp_path: Path) -> None:
    with session(campaign_in(tmp_path)) as one:
        some_work(one)
    with session(campaign_in(tmp_path)) as two:
        two.schedule.find(2001, 1).status = "outstanding"
        two.ledger.again(2001, 1, "its result is damaged")
        breeze = two.join("breeze", facts={"stormtracks": "9.9"})
        two.complete(two.begin(breeze), sha256="def")
        two.ledger.save()
    story = tell_why(tmp_path, 2001, 1)
    assert json.loads(json.dumps(story)) == story
    assert (story["status"], story["retired"]) == ("complete", False)
    assert story["settings"] == campaign_in(tmp_path).science
    first, second = story["rounds"]
    assert (first["reason"], first["result"]["sha256"]) == ("the first", "abc")
    assert (second["reason"], second["result"]["sha256"]) == ("its result is damaged", "def")
    (attempt,) = second["attempts"]
    assert (attempt["number"], attempt["epoch"], attempt["worker"], attempt["code"]) == (2, 2, "breeze", "9.9")
    assert attempt["start"] <= attempt["end"]
    assert attempt["end"].endswith("+00:00")
    assert attempt["seconds"] == 1.5
    lines = describe_why(story)
    assert lines[0] == "2001 m001 (vort_track): complete"
    assert "round 2: its result is damaged" in lines
    assert "  attempt 2, start 2 of the manager: on breeze (process None on host, stormtracks 9.9)" in lines
    assert "  result: 3 tracks; sha256 def" in lines
    assert lines[-1].startswith("it will not be run again")


@pytest.mark.parametrize(
    ("year", "member", "status", "why"),
    [
        (2001, 2, "failure", "it will be tried again at the next start: 1 of 2 attempts have failed"),
        (2001, 3, "timeout", "it will be tried again at the next start: 1 of 2 attempts have failed"),
        (2002, 1, "outstanding", "it will be run: attempt 1 does not count against it"),
        (2002, 2, "outstanding", "the next one takes it up, or runs it again"),
        (2002, 3, "outstanding", "it will be run: it has not been begun"),
    ],
)
def test_why_a_task_will_be_run(tmp_path: Path, year: int, member: int, status: str, why: str) -> None:
    with session(campaign_in(tmp_path)) as one:
        some_work(one)
    story = tell_why(tmp_path, year, member)
    assert story["status"] == status
    assert why in story["why"]
    assert describe_why(story)[-1] == story["why"]


def test_a_task_that_is_being_run(tmp_path: Path) -> None:
    with hold_campaign(tmp_path), session(campaign_in(tmp_path)) as one:
        some_work(one)
        story = tell_why(tmp_path, 2002, 2)
        assert (story["status"], story["why"]) == ("working", "it is being run by gale")
        assert any("has not ended as far as is known" in line for line in describe_why(story))


def test_a_task_that_there_is_not(tmp_path: Path) -> None:
    with session(campaign_in(tmp_path)):
        pass
    with pytest.raises(NotScheduledError, match="no task of year 1999") as refused:
        tell_why(tmp_path, 1999, 1)
    assert "2001 to 2002" in refused.value.remedy


def test_no_campaign_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(WorkflowNotFoundError, match="no campaign in"):
        read_status(tmp_path)
    with pytest.raises(WorkflowNotFoundError, match="no campaign in"):
        tell_why(tmp_path, 2001, 1)
    assert list(tmp_path.iterdir()) == []
    with session(campaign_in(tmp_path)):
        pass
    path = store_folder(tmp_path) / "store.sqlite"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError):
        read_status(tmp_path)


def test_every_sign_has_a_status(tmp_path: Path) -> None:
    with session(campaign_in(tmp_path)) as one:
        some_work(one)
    assert set(read_status(tmp_path)["counts"]) == set(GLYPHS)
