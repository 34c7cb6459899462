"""The console board: what a campaign is doing, for eyes (live or line by line) or for scripts (JSON).

On a terminal the board is drawn in place: a row of glyphs per year (``-`` outstanding, ``W`` working, ``+`` complete,
``F`` failure, ``T`` timeout), throughput, time left, the workers with what they do, and the last failures. Years fold
into one line where they would not fit. Without a terminal there is one line per change.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from itertools import groupby
from typing import Any, Literal, TextIO

from stormtracks.cluster.listener import Change, Listener, Progress, Snapshot, Summary
from stormtracks.cluster.pyro_task import Attempt, Failure

__all__ = [
    "JsonBoard",
    "LiveBoard",
    "PlainBoard",
    "draining_text",
    "duration",
    "make_board",
    "one_line",
    "report",
    "task_text",
    "tasks_text",
    "unreadable_text",
]

_REDRAW_AFTER_CHANGE = 0.25
_REDRAW_CLOCKS = 0.9
"""A little less than the heartbeat with which the manager calls, so that seconds are not skipped."""
_REST = 20
"""How many times as long as drawing takes nothing is drawn after it: with a million tasks, that takes a while."""


def make_board(
    mode: Literal["auto", "plain", "quiet", "json"], stream: TextIO | None, *, noun: str = "tracks"
) -> Listener:
    """The board for a stream.

    Parameters
    ----------
    mode : str
        ``auto``: live on a terminal, else plain; ``plain``: one line per task that ended; ``quiet``: only problems and
        the end; ``json``: one object per change (see `JsonBoard`).
    stream : text file or None
        Where to write, usually ``sys.stdout``, which is None in a process that was started with it closed: what is
        written then goes nowhere.
    noun : str
        The whole number in a task's result that is shown, by its name.
    """
    if stream is None:
        stream = _Nowhere()
    if mode == "json":
        return JsonBoard(stream)
    capable = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and "utf" in (stream.encoding or "").lower()
    if mode == "auto" and capable:
        return LiveBoard(stream, noun=noun)
    return PlainBoard(stream, noun=noun, quiet=mode == "quiet")


class _Nowhere(io.StringIO):
    """A stream that keeps nothing of what is written."""

    def write(self, text: str, /) -> int:
        return len(text)


class LiveBoard:
    """Draws the board in place, at most four times a second, and once a second when nothing but time moves on."""

    def __init__(self, stream: TextIO, *, noun: str = "tracks", clock: Callable[[], float] = time.monotonic) -> None:
        # Imported here, as `stormtracks --help` must not pay for it.
        from rich.console import Console
        from rich.live import Live

        from stormtracks.cluster.drawing import render

        self._render = render
        self._console = Console(file=stream, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._noun = noun
        self._clock = clock
        self._changed = False
        self._drawn_at = float("-inf")
        self._took = 0.0

    def begin(self, snapshot: Snapshot) -> None:
        """Draw the board for the first time."""
        self._live.start()
        self._draw(snapshot)

    def changed(self, change: Change, progress: Progress) -> None:
        """Draw again soon."""
        self._changed = True

    def draining(self, running: int) -> None:
        """Draw again soon; the board says it from now on."""
        self._changed = True

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Draw again if it is time."""
        began = self._clock()
        pause = max(_REDRAW_AFTER_CHANGE if self._changed else _REDRAW_CLOCKS, _REST * self._took)
        if began - self._drawn_at >= pause:
            self._draw(snapshot())
            self._took = self._drawn_at - began

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """Leave the last state on the screen, and the report below it."""
        self._draw(snapshot)
        self._live.stop()
        for line in report(summary, self._noun):
            self._console.print(line, markup=False, soft_wrap=True)

    def _draw(self, snapshot: Snapshot) -> None:
        # One line less than the terminal has, for the cursor.
        self._live.update(self._render(snapshot, self._console.width, self._console.height - 1), refresh=True)
        self._changed = False
        self._drawn_at = self._clock()


class PlainBoard:
    """One line per task that ended; with `quiet`, only for those that did so badly. The report at the end."""

    def __init__(self, stream: TextIO, *, noun: str = "tracks", quiet: bool = False) -> None:
        self._stream = stream
        self._noun = noun
        self._quiet = quiet

    def begin(self, snapshot: Snapshot) -> None:
        """Nothing has happened yet."""

    def changed(self, change: Change, progress: Progress) -> None:
        """Write a line, if the task has ended."""
        shown = change.event in ("again", "failure", "lost", "quarantined", "timeout")
        if shown or (change.event in ("complete", "found") and not self._quiet):
            print(_change_line(change, progress, self._noun), file=self._stream, flush=True)

    def draining(self, running: int) -> None:
        """Write what is waited for."""
        print(draining_text(running), file=self._stream, flush=True)

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Lines that are written stay."""

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """Write the report."""
        print("\n".join(report(summary, self._noun)), file=self._stream, flush=True)


class JsonBoard:
    """One JSON object per line.

    Each change: ``event`` (begun, complete, found, again, failure, timeout, lost, quarantined), ``year``, ``member``,
    ``task``, ``attempt``, ``worker``, ``seconds``, ``result`` (object or null), ``error``, ``finished``, ``total``,
    ``tasks_per_minute`` and ``seconds_left`` (null until known). When it is being stopped: ``event`` is ``draining``,
    with ``running``, the number of attempts that are waited for. The last line: ``event`` is ``end``, with ``counts``
    by status, ``total``, ``found``, ``totals`` of the whole numbers in the results, ``failures`` (a list of ``year``,
    ``member``, ``attempts``: a list of ``number``, ``status``, ``worker``, ``reason``, ``forgiven``),
    ``quarantined`` (reasons by worker), ``interrupted``, ``problem``, ``seconds``, ``resume``, ``unreadable`` (results
    that were not checked, as their input is not there any more). A number that is not finite is written as null.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, snapshot: Snapshot) -> None:
        """Nothing has happened yet."""

    def changed(self, change: Change, progress: Progress) -> None:
        """Write the change."""
        attempt = change.attempt
        self._write(
            event=change.event,
            year=attempt.year,
            member=attempt.ensemble_member,
            task=attempt.task,
            attempt=attempt.number,
            worker=change.worker,
            seconds=change.seconds,
            result=change.result,
            error=change.error,
            finished=progress.finished,
            total=progress.total,
            tasks_per_minute=progress.per_minute,
            seconds_left=progress.seconds_left,
        )

    def draining(self, running: int) -> None:
        """Write how many attempts are waited for."""
        self._write(event="draining", running=running)

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Lines that are written stay."""

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """Write the summary."""
        failures = [
            {
                "year": reasons[0].attempt.year,
                "member": reasons[0].attempt.ensemble_member,
                "attempts": [
                    {
                        "number": one.attempt.number,
                        "status": one.status,
                        "worker": one.worker,
                        "reason": one.reason,
                        "forgiven": one.forgiven,
                    }
                    for one in reasons
                ],
            }
            for reasons in summary.failures
        ]
        self._write(
            event="end",
            counts=summary.counts,
            total=summary.total,
            found=summary.found,
            totals=summary.totals,
            failures=failures,
            quarantined=summary.quarantined,
            interrupted=summary.interrupted,
            problem=summary.problem,
            seconds=summary.seconds,
            resume=summary.resume,
            unreadable=summary.unreadable,
        )

    def _write(self, **document: Any) -> None:
        print(json.dumps(_finite(document), allow_nan=False), file=self._stream, flush=True)


# --- text


def report(summary: Summary, noun: str = "tracks") -> list[str]:
    """How a campaign ended, line by line: each failure with its reasons, what to do now, and last the counts."""
    lines = []
    for reasons in summary.failures:
        lines.append(f"{task_text(reasons[0].attempt)} {reasons[-1].status}")
        lines += [_failure_line(one) for one in reasons]
    lines += [f"worker {name} gets no more work: {one_line(reason)}" for name, reason in summary.quarantined.items()]
    if summary.unreadable:
        lines.append(unreadable_text(summary.unreadable))
    if summary.problem:
        lines += f"the campaign could not go on: {summary.problem}".split("\n")
    if summary.interrupted:
        lines.append("stopped before the end; nothing that is complete is lost")
    if summary.resume and not summary.ok:
        lines.append(f"to go on: {summary.resume}")
    others = [f"{total} {name}" for name, total in summary.totals.items() if name != noun]
    if others:
        lines.append(", ".join(others))
    found = f" ({summary.found} already before)" if summary.found else ""
    counts = [f"{summary.counts['complete']} of {summary.total} tasks complete{found}"]
    counts += [f"{count} {status}" for status, count in summary.counts.items() if count and status != "complete"]
    lines.append(f"{', '.join(counts)}; {summary.totals.get(noun, 0)} {noun}; {duration(summary.seconds)}")
    return lines


def _failure_line(failure: Failure) -> str:
    forgiven = ", forgiven" if failure.forgiven else ""
    reason = one_line(failure.reason)
    return f"  attempt {failure.attempt.number} on {failure.worker}: {failure.status}{forgiven}: {reason}"


_WORDS = {"again": "to be done again", "found": "complete already"}


def _change_line(change: Change, progress: Progress, noun: str) -> str:
    if change.event == "quarantined":
        return f"worker {change.worker} gets no more work: {one_line(change.error)}"
    words = [task_text(change.attempt), _WORDS.get(change.event, change.event)]
    if change.result is not None and noun in change.result:
        words.append(f"{change.result[noun]} {noun}")
    if change.event not in _WORDS:
        words.append(f"{change.seconds:.1f} s")
    left = "unknown" if progress.seconds_left is None else duration(progress.seconds_left)
    words.append(f"({progress.finished} of {progress.total}, ETA {left})")
    if change.event == "again":
        words.append(one_line(change.error))
    elif change.error:
        words.append(f"attempt {change.attempt.number} on {change.worker}: {one_line(change.error)}")
    return " ".join(words)


def draining_text(running: int) -> str:
    """That a campaign is being stopped, and how to stop it at once."""
    what = "1 task still runs" if running == 1 else f"{running} tasks still run"
    return f"stopping: {what}; Ctrl-C again stops at once"


def unreadable_text(count: int) -> str:
    """That results were kept although they could not be checked."""
    return f"input not there any more: {count} {'result' if count == 1 else 'results'} not checked"


def task_text(attempt: Attempt) -> str:
    """``2001 m003``."""
    return tasks_text(attempt.year, [attempt.ensemble_member])


def tasks_text(year: int, members: Collection[int]) -> str:
    """Tasks of one year: ``2001 m003``, or ``2001 members 1-7, 9``."""
    if len(members) == 1:
        return f"{year} m{next(iter(members)):03d}"
    # What follows on each other has the same distance to its place in the order.
    runs = [[member for _, member in run] for _, run in groupby(enumerate(sorted(members)), lambda at: at[1] - at[0])]
    return f"{year} members " + ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def one_line(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def duration(seconds: float) -> str:
    """``0:01:05``; from two days on ``5 d 03 h``."""
    whole = round(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
