"""The board at every width and height, its lines without a terminal, and its JSON."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from rich.console import Console

from stormtracks.cluster.backends.base import Worker
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.board import JsonBoard, LiveBoard, PlainBoard, duration, make_board, report, tasks_text
from stormtracks.cluster.drawing import render
from stormtracks.cluster.listener import Change, Progress, Snapshot, Summary, WorkerState
from stormtracks.cluster.manager import Manager
from stormtracks.cluster.pyro_task import GLYPHS, Attempt, Failure, PyroTaskSchedule

TOYS = "tests.cluster.toy_tasks"
STATUS_OF = {glyph: status for status, glyph in GLYPHS.items()}


def attempt(member: int, year: int = 2001, number: int = 1) -> Attempt:
    return Attempt(number, year, member, "vort_track")


def snapshot(rows: dict[int, str], **changes: Any) -> Snapshot:
    """A campaign with these rows; the rest follows from them, unless it is given."""
    glyphs = Counter("".join(rows.values()))
    total = sum(glyphs.values())
    values: dict[str, Any] = {
        "task": "vort_track",
        "members": tuple(range(1, len(next(iter(rows.values()))) + 1)),
        "rows": tuple(rows.items()),
        "counts": {status: glyphs[glyph] for status, glyph in GLYPHS.items()},
        "progress": Progress(total - glyphs["-"] - glyphs["W"], total, 12.0, 65.0),
        "seconds": 3661.0,
        "workers": (WorkerState(Worker("gale", 2), ((attempt(7), 3.0), (attempt(8, number=2), 71.0))),),
        "last_failures": (Failure(attempt(4), "failure", "gale", "ValueError: no u850\n  remedy: name it"),),
    }
    return Snapshot(**(values | changes))


def shown(state: Snapshot, width: int, height: int) -> list[str]:
    """The lines as a terminal of this size shows them."""
    console = Console(width=width, height=height, record=True, file=io.StringIO(), color_system=None)
    console.print(render(state, width, height))
    return [line.rstrip() for line in console.export_text().rstrip("\n").split("\n")]


def test_the_board_of_a_small_campaign() -> None:
    assert shown(snapshot({2001: "+++FTWW-----", 2002: "------------"}), 80, 24) == [
        "vort_track  2001-2002 x 12 members" + "1:01:01".rjust(46),
        "━" * 65 + "  5 of 24  21 %",
        "12 tasks/min   ETA 0:01:05",
        "- 17 outstanding   W 2 working   + 3 complete   F 1 failure   T 1 timeout",
        "",
        "      1          11",
        "2001  +++FTWW--- --",
        "2002  ---------- --",
        "",
        "gale  2001 m008 attempt 2 0:01:11   2001 m007 3 s",
        "",
        "F 2001 m004 attempt 1 ValueError: no u850 remedy: name it",
    ]


def test_before_the_first_task_nothing_is_promised() -> None:
    state = snapshot(
        {2001: "---"}, progress=Progress(0, 3), workers=(WorkerState(Worker("gale", 2)),), last_failures=()
    )
    lines = shown(state, 80, 24)
    assert lines[2] == "pace and ETA after the first task"
    assert lines[-1] == "gale  idle"


def test_workers_that_get_no_work_and_those_that_do_not_answer_say_why() -> None:
    workers = (
        WorkerState(Worker("gale", 2), (), "failed 3 different tasks in a row"),
        WorkerState(Worker("squall", 0), ((attempt(7), 3.0),), "no answer for 30 s"),
    )
    lines = shown(snapshot({2001: "++++++W"}, workers=workers, unchecked=4), 80, 24)
    assert lines[2] == "12 tasks/min   ETA 0:01:05   4 results of before to be checked"
    assert "gale    failed 3 different tasks in a row" in lines
    assert "squall  no answer for 30 s   2001 m007 3 s" in lines


def test_what_a_worker_does_together_is_one_entry() -> None:
    first = tuple((attempt(member, year=1986), 125.3) for member in (*range(21, 26), *range(27, 57)))
    second = tuple((attempt(member, year=1987), 12.0) for member in range(1, 29))
    alone = ((attempt(26, year=1986, number=2), 3.0),)
    lines = shown(
        snapshot({2001: "WW"}, workers=(WorkerState(Worker("gale", 3), alone + first + second),), last_failures=()),
        80,
        24,
    )
    assert [line.rstrip() for line in lines[-2:]] == [
        "gale  1986 members 21-25, 27-56 0:02:05   1987 members 1-28 12 s",
        "      1986 m026 attempt 2 3 s",
    ]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([3], "m003"),
        ([1, 2], "members 1-2"),
        ([7, 1, 3], "members 1, 3, 7"),
        ([0, 1, 9, 10, 12], "members 0-1, 9-10, 12"),
    ],
)
def test_tasks_of_a_year_are_told_by_their_members(members: list[int], text: str) -> None:
    assert tasks_text(2001, members) == f"2001 {text}"


def test_a_task_that_was_lost_too_often_is_shown_as_failed() -> None:
    lost = (Failure(attempt(4), "lost", "gale", "lost with its worker 5 times"),)
    assert shown(snapshot({2001: "+F"}, last_failures=lost), 80, 24)[-1].startswith("F 2001 m004 attempt 1 lost with")


def test_56_members_and_the_year_fit_80_columns() -> None:
    lines = shown(snapshot(dict.fromkeys(range(2000, 2013), "+" * 56)), 80, 24)
    assert [line for line in lines if line.startswith("2012")] == ["2012  " + "++++++++++ " * 5 + "++++++"]


def test_120_years_fold_into_the_height() -> None:
    rows = dict.fromkeys(range(1890, 1938), "+" * 56)
    rows |= {1938: "+" * 30 + "F" + "W" * 4 + "-" * 21, 1939: "W" * 2 + "-" * 54}
    rows |= dict.fromkeys(range(1940, 2010), "-" * 56)
    lines = shown(snapshot(rows), 80, 24)
    assert len(lines) <= 24
    assert "1890-1937: 48 years complete" in lines
    assert "1940-2009: 70 years outstanding" in lines
    assert "1938  ++++++++++ ++++++++++ ++++++++++ FWWWW----- ---------- ------" in lines
    assert "1939  WW-------- ---------- ---------- ---------- ---------- ------" in lines


def test_years_that_are_done_but_for_failures_fold_with_their_counts() -> None:
    rows = {year: "+" * 50 + ("F" if year % 3 else "T") + "+" * 5 for year in range(1890, 2009)} | {2009: "W" * 56}
    lines = shown(snapshot(rows), 80, 24)
    assert "1890-2008: 119 years  + 6545  F 79  T 40" in lines
    assert any(line.startswith("2009  WWWW") for line in lines)


def test_as_little_folds_as_is_needed() -> None:
    rows = {2000: "++", 2001: "++", 2002: "+W", 2003: "--", 2004: "--"}
    assert len([line for line in shown(snapshot(rows), 80, 30) if line.startswith("20")]) == 5
    head = 5
    short = shown(snapshot(rows, workers=(), last_failures=()), 80, head + 4)
    assert short[head:] == ["2000-2001: 2 years complete", "2002  +W", "2003  --", "2004  --"]
    shorter = shown(snapshot(rows, workers=(), last_failures=()), 80, head + 3)
    assert shorter[head:] == ["2000-2001: 2 years complete", "2002  +W", "2003-2004: 2 years outstanding"]


def test_1000_members_wrap_where_there_is_room_and_are_counted_where_there_is_none() -> None:
    rows = {2000: "+" * 600 + "W" * 8 + "-" * 392, 2001: "-" * 1000}
    roomy = shown(snapshot(rows), 80, 60)
    assert sum(line.count("+") for line in roomy[5:]) == 600
    assert "2000  - 392  W 8  + 600" in shown(snapshot(rows), 80, 24)


def test_what_does_not_fit_is_counted() -> None:
    many = tuple(WorkerState(Worker(f"host{n:03d}", 8), ((attempt(n % 56), 1.0),)) for n in range(200))
    rows = dict.fromkeys(range(1890, 2010), "+W" * 28)
    lines = shown(snapshot(rows, workers=many), 80, 40)
    assert len(lines) <= 40
    (others,) = (re.fullmatch(r"\.\.\. (\d+) more workers", line) for line in lines if "more workers" in line)
    assert others is not None
    assert int(others[1]) + sum(line.startswith("host") for line in lines) == 200
    (rest,) = (re.fullmatch(r"\.\.\. (\d+) more years", line) for line in lines if "more years" in line)
    assert rest is not None
    assert int(rest[1]) + sum(bool(re.match(r"(18|19|20)\d\d  ", line)) for line in lines) == 120


ROWS = st.integers(1, 1000).flatmap(
    lambda members: st.lists(
        st.one_of(
            st.sampled_from("+-FT").map(lambda glyph: glyph * members),
            st.lists(st.tuples(st.sampled_from("-W+FT"), st.integers(1, 60)), min_size=1, max_size=20).map(
                lambda runs: ("".join(glyph * length for glyph, length in runs) * members)[:members]
            ),
        ),
        min_size=1,
        max_size=120,
    )
)


@given(rows=ROWS, width=st.sampled_from([1, 20, 40, 80, 200]), height=st.sampled_from([1, 3, 8, 15, 24, 40, 100]))
def test_the_board_always_fits(rows: list[str], width: int, height: int) -> None:
    state = snapshot(dict(enumerate(rows, start=1890)))
    text = render(state, width, height)
    lines = text.plain.split("\n")
    assert len(lines) <= height
    assert max(line.cell_len for line in text.split("\n")) <= width


@given(rows=ROWS, width=st.sampled_from([40, 80, 200]))
def test_given_room_every_task_is_shown(rows: list[str], width: int) -> None:
    state = snapshot(dict(enumerate(rows, start=1890)), workers=(), last_failures=())
    lines = render(state, width, 100_000).plain.split("\n")[5:]
    body = [re.sub(r"^( {4}|\d{4})  ", "", line) for line in lines]
    if "1" in body[0]:
        body = body[1:]
    assert "".join(body).replace(" ", "") == "".join(rows)


@given(rows=ROWS)
def test_every_status_that_occurs_shows_in_the_bar(rows: list[str]) -> None:
    state = snapshot(dict(enumerate(rows, start=1890)))
    bar = render(state, 80, 24).split("\n")[1]
    colours = {str(span.style) for span in bar.spans if "━" in bar.plain[span.start : span.end]}
    assert len(colours & {"green", "bold red", "bold magenta", "bold cyan"}) == sum(
        state.counts[status] > 0 for status in ("complete", "failure", "timeout", "working")
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (9.6, "0:00:10"), (65, "0:01:05"), (86_400, "24:00:00"), (6 * 86_400 + 3 * 3600, "6 d 03 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- without a terminal

PROGRESS = Progress(5, 12, 12.0, 10.0)
CHANGES = [
    Change("begun", attempt(3), "gale"),
    Change("complete", attempt(3), "gale", 1.3, {"tracks": 12}),
    Change("found", attempt(4), "gale", result={"tracks": 9}),
    Change("failure", attempt(5), "gale", 0.2, error="ValueError: no u850\n  remedy: name it"),
    Change("timeout", attempt(6), "gale", 60.0, error="not done within its time limit of 60 s"),
    Change("lost", attempt(7), "gale", 0.0, error="worker gale is gone: no answer"),
    Change("again", attempt(8), "", error="its result is damaged:\n  cut short"),
    Change("quarantined", attempt(5), "gale", error="failed 3 different tasks in a row"),
]
COMPLETE_LINES = [
    "2001 m003 complete 12 tracks 1.3 s (5 of 12, ETA 0:00:10)",
    "2001 m004 complete already 9 tracks (5 of 12, ETA 0:00:10)",
]
PROBLEM_LINES = [
    "2001 m005 failure 0.2 s (5 of 12, ETA 0:00:10) attempt 1 on gale: ValueError: no u850 remedy: name it",
    "2001 m006 timeout 60.0 s (5 of 12, ETA 0:00:10) attempt 1 on gale: not done within its time limit of 60 s",
    "2001 m007 lost 0.0 s (5 of 12, ETA 0:00:10) attempt 1 on gale: worker gale is gone: no answer",
    "2001 m008 to be done again (5 of 12, ETA 0:00:10) its result is damaged: cut short",
    "worker gale gets no more work: failed 3 different tasks in a row",
]
SUMMARY = Summary(
    counts={"outstanding": 3, "working": 0, "complete": 8, "failure": 1, "timeout": 0},
    total=12,
    found=2,
    totals={"tracks": 96},
    failures=(
        (
            Failure(attempt(5), "timeout", "gale", "not done within its time limit of 60 s"),
            Failure(attempt(5, number=2), "failure", "squall", "ValueError: no u850\n  remedy: name it"),
            Failure(attempt(5, number=3), "failure", "gale", "ImportError: no numpy", forgiven=True),
        ),
    ),
    interrupted=True,
    problem="no worker is left",
    seconds=65.0,
    resume="stormtracks run gale.toml",
    quarantined={"gale": "failed 3 different tasks in a row"},
)
REPORT_LINES = [
    "2001 m005 failure",
    "  attempt 1 on gale: timeout: not done within its time limit of 60 s",
    "  attempt 2 on squall: failure: ValueError: no u850 remedy: name it",
    "  attempt 3 on gale: failure, forgiven: ImportError: no numpy",
    "worker gale gets no more work: failed 3 different tasks in a row",
    "the campaign could not go on: no worker is left",
    "stopped before the end; nothing that is complete is lost",
    "to go on: stormtracks run gale.toml",
    "8 of 12 tasks complete (2 already before), 3 outstanding, 1 failure; 96 tracks; 0:01:05",
]


def written(mode: Any) -> list[str]:
    stream = io.StringIO()
    board = make_board(mode, stream)
    state = snapshot({2001: "------------"})
    board.begin(state)
    for change in CHANGES:
        board.changed(change, PROGRESS)
        board.refresh(lambda: state)
    board.end(state, SUMMARY)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("mode", ["auto", "plain", "quiet", "json"])
def test_a_process_without_standard_output_goes_on(mode: Any) -> None:
    board = make_board(mode, None)
    state = snapshot({2001: "------------"})
    board.begin(state)
    for change in CHANGES:
        board.changed(change, PROGRESS)
    board.end(state, SUMMARY)


def test_plain_lines() -> None:
    assert written("plain") == [*COMPLETE_LINES, *PROBLEM_LINES, *REPORT_LINES]
    assert written("auto") == written("plain")


def test_quiet_lines() -> None:
    assert written("quiet") == [*PROBLEM_LINES, *REPORT_LINES]


def test_a_good_end_is_one_line() -> None:
    good = Summary({"complete": 12, "failure": 0}, 12, 0, {"tracks": 96}, (), False, "", 65.0, "stormtracks run x")
    assert report(good) == ["12 of 12 tasks complete; 96 tracks; 0:01:05"]
    assert report(good, "storms") == ["96 tracks", "12 of 12 tasks complete; 0 storms; 0:01:05"]


def test_an_unknown_eta_is_said_to_be() -> None:
    stream = io.StringIO()
    PlainBoard(stream).changed(CHANGES[1], Progress(1, 12))
    assert stream.getvalue() == "2001 m003 complete 12 tracks 1.3 s (1 of 12, ETA unknown)\n"


def test_json_has_the_documented_keys() -> None:
    *changes, end = map(json.loads, written("json"))
    documented = set(re.findall(r"``(\w+)``", JsonBoard.__doc__ or ""))
    assert [document["event"] for document in changes] == [change.event for change in CHANGES]
    assert changes[1] == {
        "event": "complete",
        "year": 2001,
        "member": 3,
        "task": "vort_track",
        "attempt": 1,
        "worker": "gale",
        "seconds": 1.3,
        "result": {"tracks": 12},
        "error": "",
        "finished": 5,
        "total": 12,
        "tasks_per_minute": 12.0,
        "seconds_left": 10.0,
    }
    assert (end["event"], end["counts"], end["totals"]) == ("end", dict(SUMMARY.counts), {"tracks": 96})
    assert end["failures"][0]["attempts"][1] == {
        "number": 2,
        "status": "failure",
        "worker": "squall",
        "reason": "ValueError: no u850\n  remedy: name it",
        "forgiven": False,
    }
    assert end["quarantined"] == {"gale": "failed 3 different tasks in a row"}
    told = set(changes[0]) | set(end) | set(end["failures"][0]) | set(end["failures"][0]["attempts"][0])
    assert told == documented - {"end", "draining", "running"}


STOPPING = "stopping: 3 tasks still run; Ctrl-C again stops at once"


@pytest.mark.parametrize(
    ("mode", "line"), [("plain", STOPPING), ("quiet", STOPPING), ("json", '{"event": "draining", "running": 3}')]
)
def test_a_campaign_that_is_stopped_says_so_once(mode: Any, line: str) -> None:
    stream = io.StringIO()
    make_board(mode, stream).draining(3)
    assert stream.getvalue() == f"{line}\n"


def test_a_campaign_that_is_stopped_shows_it() -> None:
    lines = shown(snapshot({2001: "++WWW-------"}, draining=True), 80, 20)
    assert lines.count(STOPPING) == 1


def test_results_whose_input_is_gone_are_told() -> None:
    says = "input not there any more: 2 results not checked"
    assert says in "\n".join(shown(snapshot({2001: "++----------"}, unreadable=2), 120, 20))
    assert says in report(replace(SUMMARY, unreadable=2))
    assert says not in report(SUMMARY)


def test_json_stays_json_when_a_number_is_not_finite() -> None:
    stream = io.StringIO()
    result = {"mean": float("nan"), "list": [float("inf"), 1.0], "nested": {"x": -float("inf")}}
    JsonBoard(stream).changed(Change("complete", attempt(3), "gale", result=result), PROGRESS)
    assert json.loads(stream.getvalue())["result"] == {"mean": None, "list": [None, 1.0], "nested": {"x": None}}


def test_a_campaign_line_by_line() -> None:
    stream = io.StringIO()
    with LocalBackend(f"{TOYS}:double") as backend:
        Manager(PyroTaskSchedule(2001, 2001, 3), backend, make_board("plain", stream)).run()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[3].endswith(" pid")  # the other whole numbers that the task returns
    for member, line in enumerate(lines[:3], start=1):
        pattern = rf"2001 m00{member} complete {2 * member} tracks \d+\.\d s \({member} of 3, ETA \d:\d\d:\d\d\)"
        assert re.fullmatch(pattern, line)
    assert re.fullmatch(r"3 of 3 tasks complete; 12 tracks; \d:\d\d:\d\d", lines[4])


# --- on a terminal


def test_the_live_board_draws_when_something_has_changed_or_a_second_is_over() -> None:
    now = 100.0
    leader, follower = pty.openpty()
    taken: list[float] = []
    state = snapshot({2001: "------------"})

    def take() -> Snapshot:
        taken.append(now)
        return state

    reader = threading.Thread(target=read_all, args=(leader,))
    reader.start()
    with os.fdopen(follower, "w") as stream:
        board = LiveBoard(stream, clock=lambda: now)
        board.begin(state)
        for tick in range(1, 193):
            now = 100.0 + tick / 64
            if tick <= 64:
                board.changed(CHANGES[1], PROGRESS)
            board.refresh(take)
        board.end(state, SUMMARY)
    reader.join()
    assert [one - 100.0 for one in taken] == [0.25, 0.5, 0.75, 1.0, 1.90625, 2.8125]


def test_what_takes_long_to_draw_is_drawn_seldom() -> None:
    now, taken = 100.0, []
    state = snapshot({2001: "------------"})

    def take() -> Snapshot:
        nonlocal now
        taken.append(now - 100.0)
        now += 0.125
        return state

    board = LiveBoard(io.StringIO(), clock=lambda: now)
    board.begin(state)
    while now < 110:
        board.changed(CHANGES[1], PROGRESS)
        board.refresh(take)
        now += 0.25
    board.end(state, SUMMARY)
    assert taken[0] == 0.25
    assert all(later - earlier == pytest.approx(0.125 + 20 * 0.125, abs=0.25) for earlier, later in pairwise(taken))
    assert len(taken) == 4


def read_all(leader: int) -> bytes:
    """All that is written to a terminal until its last user is gone, which is an error on Linux."""
    written = b""
    with os.fdopen(leader, "rb", buffering=0) as terminal, suppress(OSError):
        while part := terminal.read(65536):
            written += part
    return written


PROGRAM = """
import sys
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.board import make_board
from stormtracks.cluster.manager import Manager
from stormtracks.cluster.pyro_task import PyroTaskSchedule

with LocalBackend("tests.cluster.toy_tasks:double", slots=2) as backend:
    Manager(PyroTaskSchedule(2001, 2002, 6), backend, make_board("auto", sys.stdout)).run()
print("rich" in sys.modules, file=sys.stderr)
"""


def on_a_terminal(term: str) -> tuple[str, str]:
    """What a campaign writes on a terminal of 80 x 24, and on stderr."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": term, "COLUMNS": "80", "LINES": "24", "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=follower, stderr=subprocess.PIPE, text=True
    )
    os.close(follower)
    written = read_all(leader)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return written.decode(), err


def test_a_campaign_on_a_terminal() -> None:
    written, err = on_a_terminal("xterm-256color")
    assert err == "True\n"
    hidden, back = written.index("\x1b[?25l"), written.rindex("\x1b[?25h")
    assert hidden < back
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert "vort_track  2001-2002 x 6 members" in plain
    assert "2001  ++++++\r\n2002  ++++++" in plain
    assert re.search(r"\n12 of 12 tasks complete; 84 tracks; 0:00:0\d\r\n$", plain)


def test_a_terminal_that_can_do_nothing_gets_lines() -> None:
    written, err = on_a_terminal("dumb")
    assert err == "False\n"
    assert "\x1b" not in written
    assert written.count(" complete ") == 12
    assert re.search(r"\n12 of 12 tasks complete; 84 tracks; 0:00:0\d\r\n$", written)
