"""The board of a terminal, drawn: a pure function from a snapshot to coloured text that fits the room there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from rich.text import Text

from stormtracks.cluster.board import draining_text, duration, one_line, task_text, tasks_text, unreadable_text
from stormtracks.cluster.listener import Snapshot, WorkerState
from stormtracks.cluster.pyro_task import GLYPHS, Attempt

__all__ = ["render"]

_STYLES = {"-": "bright_black", "W": "bold cyan", "+": "green", "F": "bold red", "T": "bold magenta"}
_FAINT = "bright_black"
_GROUP = 10
"""Members between two spaces of a row."""
_FAILURE_LINES = 3


def render(snapshot: Snapshot, width: int, height: int) -> Text:
    """The board as a text that is at most `width` columns wide and `height` lines high.

    Parameters
    ----------
    snapshot : Snapshot
        What is to be shown.
    width, height : int
        Room on the terminal.

    Returns
    -------
    rich.text.Text
    """
    head = _head(snapshot, width)
    # The rows of years come first; workers and failures take what a small terminal has left for them.
    spare = height - len(head)
    failures = _failure_lines(snapshot)[-_FAILURE_LINES:] if spare >= 12 else []
    workers = _workers_block(snapshot.workers, width, max(1, spare // 4)) if spare >= 6 else []
    below = [line for block in (workers, failures) if block for line in (Text(), *block)]
    lines = [*head, *_year_lines(snapshot, width, max(1, spare - len(below))), *below][: max(1, height)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True).join(lines)


def _head(snapshot: Snapshot, width: int) -> list[Text]:
    """What it is and how long it runs, how far it is, how fast, and the counts that explain the glyphs."""
    progress, years = snapshot.progress, [year for year, _ in snapshot.rows]
    span = f"{years[0]}" if len(years) == 1 else f"{years[0]}-{years[-1]}"
    name = Text.assemble((snapshot.task, "bold"), f"  {span} x {len(snapshot.members)} members")
    elapsed = duration(snapshot.seconds)
    space = width - name.cell_len - len(elapsed)
    title = Text.assemble(name, " " * space, (elapsed, _FAINT)) if space > 1 else name

    share = progress.finished / progress.total
    numbers = f"  {progress.finished} of {progress.total}  {100 * share:.0f} %"
    bar = _bar(snapshot.counts, progress.total, max(10, width - len(numbers)))
    pace = "" if progress.per_minute is None else f"{_rate(progress.per_minute)} tasks/min"
    left = "" if progress.seconds_left is None or share == 1 else f"ETA {duration(progress.seconds_left)}"
    counts = _counts_text(snapshot.counts, names=True)
    if counts.cell_len > width:
        counts = _counts_text(snapshot.counts, names=False)
    unchecked = f"{snapshot.unchecked} results of before to be checked" if snapshot.unchecked else ""
    unreadable = unreadable_text(snapshot.unreadable) if snapshot.unreadable else ""
    timing = "   ".join(part for part in (pace, left, unchecked, unreadable) if part)
    timing = timing or "pace and ETA after the first task"
    second = Text(draining_text(snapshot.counts["working"]), "bold") if snapshot.draining else Text(timing)
    return [title, Text.assemble(bar, (numbers, "bold")), second, counts, Text()]


def _counts_text(counts: Mapping[str, int], *, names: bool) -> Text:
    return Text("   " if names else "  ").join(
        Text.assemble((glyph, _STYLES[glyph]), f" {counts[status]}", (f" {status}" if names else "", _FAINT))
        for status, glyph in GLYPHS.items()
    )


def _bar(counts: Mapping[str, int], total: int, width: int) -> Text:
    """One stroke per share of the tasks, coloured by status; a status that occurs has at least one stroke."""
    bar = Text()
    for status in ("complete", "failure", "timeout", "working"):
        if counts[status]:
            strokes = max(1, width * counts[status] // total)
            bar.append("━" * min(strokes, width - len(bar)), _STYLES[GLYPHS[status]])
    return bar.append("━" * (width - len(bar)), _STYLES["-"])


def _workers_block(workers: Sequence[WorkerState], width: int, room: int) -> list[Text]:
    """All workers in at most `room` lines; those that do not fit are counted, and not drawn: there may be thousands."""
    indent = 2 + max((len(state.worker.name) for state in workers), default=0)
    lines: list[Text] = []
    for number, state in enumerate(workers):
        others = len(workers) - number
        lines += _worker_lines(state, indent, width)
        if len(lines) > room - (others > 1):
            return [*lines[: room - 1], Text(f"... {others} more workers", style=_FAINT)]
    return lines


def _worker_lines(state: WorkerState, indent: int, width: int) -> list[Text]:
    """A worker with what it is at, the oldest first, on as many lines as that needs."""
    lines = []
    line = Text(state.worker.name.ljust(indent), style="bold")
    if state.trouble:
        line.append(f"{one_line(state.trouble)}   ", "magenta")
    elif not state.running:
        line.append("idle", _FAINT)
    for (year, number, seconds), members in _bundles(state.running):
        again = f" attempt {number}" if number > 1 else ""
        cell = Text.assemble(
            (tasks_text(year, members), "not bold"), (f"{again} {_age(seconds)}   ", f"not bold {_FAINT}")
        )
        if line.cell_len > indent and line.cell_len + cell.cell_len > width:
            lines.append(line)
            line = Text(" " * indent)
        line.append_text(cell)
    return [*lines, line]


def _bundles(running: Iterable[tuple[Attempt, float]]) -> list[tuple[tuple[int, int, float], list[int]]]:
    """The members of what was begun together: by year, number of the attempt and seconds since, the oldest first."""
    bundles: dict[tuple[int, int, float], list[int]] = {}
    for attempt, seconds in running:
        bundles.setdefault((attempt.year, attempt.number, seconds), []).append(attempt.ensemble_member)
    return sorted(bundles.items(), key=lambda item: -item[0][2])


def _failure_lines(snapshot: Snapshot) -> list[Text]:
    lines = []
    for failure in snapshot.last_failures:
        glyph = GLYPHS.get(failure.status, GLYPHS["failure"])
        attempt = f"{task_text(failure.attempt)} attempt {failure.attempt.number}"
        lines.append(Text.assemble((glyph, _STYLES[glyph]), f" {attempt} ", (one_line(failure.reason), _FAINT)))
    return lines


# --- rows of years

_FOLDS: tuple[tuple[str, ...], ...] = ((), ("+",), ("+", "-"), ("+FT", "-"))
"""What may fold, tried in this order: runs of years of which every task has one of these glyphs."""


def _year_lines(snapshot: Snapshot, width: int, room: int) -> list[Text]:
    """The rows of all years in at most `room` lines: in full if they fit, else folded as little as is needed."""
    lines_per_row = len(_row_lines(*snapshot.rows[0], width))
    for foldable in _FOLDS:
        runs = _runs(snapshot.rows, foldable)
        needed = sum(1 if len(run) > 1 else lines_per_row for run in runs)
        if needed <= room:
            ruler = _ruler(snapshot, width) if needed < room else []
            return [*ruler, *(line for run in runs for line in _run_lines(run, width, counts=False))]
    # Every run takes one line now.
    shown = runs if len(runs) <= room else runs[: room - 1]
    lines = [line for run in shown for line in _run_lines(run, width, counts=lines_per_row > 1)]
    rest = sum(map(len, runs[len(shown) :]))
    return [*lines, Text(f"... {rest} more years", style=_FAINT)] if rest else lines


def _runs(rows: Sequence[tuple[int, str]], foldable: Sequence[str]) -> list[list[tuple[int, str]]]:
    """Neighbouring years that fold into one line, and every other year by itself."""

    def kind(item: tuple[int, str]) -> str | int:
        year, row = item
        return next((glyphs for glyphs in foldable if not row.strip(glyphs)), year)

    return [list(run) for _, run in groupby(rows, key=kind)]


def _run_lines(run: Sequence[tuple[int, str]], width: int, *, counts: bool) -> list[Text]:
    """One line for several years; a single year as its row, or as `counts` of its tasks."""
    (year, row), last = run[0], run[-1][0]
    if len(run) == 1:
        return [_counts_line(str(year), row)] if counts else _row_lines(year, row, width)
    label, tasks = f"{year}-{last}: {len(run)} years", "".join(row for _, row in run)
    for status, glyph in GLYPHS.items():
        if not tasks.strip(glyph):
            return [Text.assemble(f"{label} ", (status, _STYLES[glyph]))]
    return [_counts_line(label, tasks)]


def _counts_line(label: str, row: str) -> Text:
    line = Text(label)
    for glyph in GLYPHS.values():
        if count := row.count(glyph):
            line.append("  ").append(glyph, _STYLES[glyph]).append(f" {count}")
    return line


def _row_lines(year: int, row: str, width: int) -> list[Text]:
    """A year and its glyphs, in groups of ten where there is room for it, on as many lines as it needs."""
    label = f"{year}  "
    room = max(1, width - len(label))
    per_line = _groups_per_line(len(row), room)
    step, group = (per_line * _GROUP, _GROUP) if per_line else (room, room)
    lines = []
    for start in range(0, len(row), step):
        line = Text(label if start == 0 else " " * len(label))
        for at in range(start, min(start + step, len(row)), group):
            line.append(" " if at > start else "")
            for glyph, run in groupby(row[at : min(at + group, start + step)]):
                line.append("".join(run), _STYLES[glyph])
        lines.append(line)
    return lines


def _groups_per_line(members: int, room: int) -> int:
    """Groups of ten that go on a line; 0 if a row is not to be grouped, as it fits only without the spaces."""
    groups = (room + 1) // (_GROUP + 1)
    return 0 if groups * _GROUP < members <= room else groups


def _ruler(snapshot: Snapshot, width: int) -> list[Text]:
    """The member at the start of each group, above rows that take one line each."""
    indent = len(f"{snapshot.rows[0][0]}  ")
    members = snapshot.members
    if _groups_per_line(len(members), max(1, width - indent)) * _GROUP < len(members):
        return []
    starts = "".join(f"{member:<{_GROUP + 1}}" for member in members[::_GROUP])
    return [Text(" " * indent + starts.rstrip(), style=_FAINT)]


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else duration(seconds)


def _rate(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.2g}"
