"""A campaign from its settings to its summary: what is to be done, by which backend, and who is told."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stormtracks.cluster.backends.base import Backend
from stormtracks.cluster.backends.local import LocalBackend
from stormtracks.cluster.listener import Change, Listener, Progress, Snapshot, Summary
from stormtracks.cluster.manager import Manager
from stormtracks.cluster.pyro_task import GLYPHS, Failure, PyroTaskSchedule, task_name
from stormtracks.errors import InputError, ResultsError
from stormtracks.publish import make_folder, publish
from stormtracks.reanalysis import open_archive
from stormtracks.results import StormtracksResultsManager
from stormtracks.settings.campaign import CampaignSettings
from stormtracks.settings.errors import SettingsError
from stormtracks.tasks import is_current, summary_of

__all__ = ["StatusFile", "describe_status", "exit_status", "read_status", "run_campaign"]

logger = logging.getLogger(__name__)

STATUS_FILE = "status.json"
_STATUS_KEYS = {"name", "task", "state", "host", "pid", "resume", "members", "years", "failures", "running"}
_SECONDS_BETWEEN_WRITES = 1.0


def run_campaign(campaign: CampaignSettings, listener: Listener, *, replace: bool = False, resume: str = "") -> Summary:
    """Run what is still to be done of a campaign.

    Parameters
    ----------
    campaign : CampaignSettings
    listener : Listener
        Who is told; usually a board.
    replace : bool
        Delete results of other settings that lie in the way, instead of refusing.
    resume : str
        The command that goes on with this campaign.

    Raises
    ------
    SettingsError
        If the data do not hold the years or members asked for.
    InputError, ResultsError
        If the data or the results folder cannot be used at all.
    ClusterError
        If the cluster cannot be set up.
    """
    task = task_name(campaign.task)
    years, members = years_and_members(campaign)
    schedule = PyroTaskSchedule(years=years, members=members, task=task, max_attempts=campaign.run.max_attempts)
    results = StormtracksResultsManager(campaign.results.root, task)
    results.claim(campaign.science, campaign.settings_hash, replace=replace)
    results.clean()
    first_years = sorted(set(years) - {year + 1 for year in years})
    cluster = campaign.cluster
    with _backend(campaign, first_years, slots=min(campaign.run.workers, len(schedule))) as backend:
        status = StatusFile(listener, campaign, resume)
        is_finished = _finished_in(results, campaign, first_years)
        manager = Manager(
            schedule,
            backend,
            status,
            is_finished=is_finished,
            heartbeat=cluster.heartbeat,
            # The backend of a cluster gives up by itself a little earlier, and knows why.
            silence=cluster.heartbeat + 1.5 * cluster.silence,
            patience=cluster.patience if campaign.run.backend == "pyro" else 0.0,
            resume=resume,
        )
        return manager.run()


def exit_status(summary: Summary) -> int:
    """How a command that has run a campaign ends.

    0: all complete; 1: a task failed or timed out; 3: no worker came, or none was left; 130: stopped by Ctrl-C.
    """
    if summary.interrupted:
        return 130
    if summary.problem:
        return 3
    return 0 if summary.ok else 1


@contextmanager
def _backend(campaign: CampaignSettings, first_years: Sequence[int], *, slots: int) -> Iterator[Backend]:
    """What carries the work of a campaign; `slots` are those that this machine gives."""
    if campaign.run.backend == "pyro":
        # Imported here: who works without a cluster need not wait for its libraries.
        from stormtracks.cluster.embedded import open_cluster

        with open_cluster(campaign, first_years, slots=slots) as cluster:
            yield cluster
        return
    with LocalBackend(
        "stormtracks.tasks:run_task",
        slots=slots,
        time_limit=campaign.run.time_limit,
        memory_limit_gib=campaign.run.memory_limit,
        arguments={"settings": campaign.model_dump(mode="json"), "first_years": first_years},
    ) as backend:
        yield backend


def years_and_members(campaign: CampaignSettings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The years and members that a campaign is about, the members as the data number them.

    Raises
    ------
    SettingsError
        If the data do not hold them.
    """
    archive = open_archive(campaign.data)
    years, members = tuple(archive.years()), tuple(archive.members())
    where = f"under {campaign.data.root} (layout {campaign.data.layout})"
    if not years:
        raise SettingsError(f"setting 'data.root': no data of {', '.join(campaign.data.variables)} {where}")
    if campaign.years != "all":
        # The season over the new year with which the data begin belongs to the year before.
        known = {*years, years[0] - 1} if campaign.season.over_new_year else set(years)
        if absent := sorted(set(campaign.years) - known):
            raise SettingsError(f"setting 'years': no data for {_listed(absent)} {where}, which holds {_listed(years)}")
        years = campaign.years
    if isinstance(campaign.members, int):
        if campaign.members > len(members):
            raise SettingsError(f"setting 'members' = {campaign.members}: there are only {len(members)} {where}")
        members = members[: campaign.members]
    elif campaign.members != "all":
        if absent := sorted(set(campaign.members) - set(members)):
            raise SettingsError(f"setting 'members': no {_listed(absent)} {where}, which holds {_listed(members)}")
        members = campaign.members
    if years[0] < 0 or years[-1] > 9999 or members[0] < 0 or members[-1] > 999:
        raise SettingsError(
            f"years {years[0]} to {years[-1]}, members {members[0]} to {members[-1]} {where}: results are kept for "
            "years 0 to 9999 and members 0 to 999; choose some with 'years' and 'members', or renumber the data"
        )
    return years, members


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" ... {numbers[-1]}" if len(numbers) > 10 else "")


def _finished_in(
    results: StormtracksResultsManager, campaign: CampaignSettings, first_years: Sequence[int]
) -> Callable[[int, int], Mapping[str, Any] | None]:
    """Tells what a result holds that is intact and would come out the same again; None if there is none."""
    archive = open_archive(campaign.data)

    def is_finished(year: int, ensemble_member: int) -> Mapping[str, Any] | None:
        try:
            tracks = results.get_result(year, ensemble_member)
            if not is_current(tracks, campaign, archive, ensemble_member):
                return None
        except (ResultsError, InputError):
            return None
        return summary_of(tracks, first=year in first_years)

    return is_finished


class StatusFile:
    """Passes everything on to another listener, and keeps `status.json` in the results root for `stormtracks status`.

    The file is for people and scripts that look on: nothing is ever decided by it.
    """

    def __init__(self, listener: Listener, campaign: CampaignSettings, resume: str) -> None:
        self._listener = listener
        self._path = campaign.results.root / STATUS_FILE
        self._known = {
            "name": campaign.name,
            "settings_hash": campaign.settings_hash,
            "resume": resume,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._failures: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self._written_at = float("-inf")

    def begin(self, snapshot: Snapshot) -> None:
        """Write the first status."""
        self._write(snapshot, "starting")
        self._listener.begin(snapshot)

    def changed(self, change: Change, progress: Progress) -> None:
        """Remember failures."""
        key = change.attempt.year, change.attempt.ensemble_member
        if change.event in ("failure", "timeout"):
            failure = Failure(change.attempt, change.event, change.worker, change.error)
            self._failures.setdefault(key, []).append(asdict(failure))
        elif change.event in ("complete", "found"):
            self._failures.pop(key, None)
        self._listener.changed(change, progress)

    def refresh(self, snapshot: Callable[[], Snapshot]) -> None:
        """Write the status again if a second has passed."""
        if time.monotonic() - self._written_at >= _SECONDS_BETWEEN_WRITES:
            self._write(snapshot(), "running")
        self._listener.refresh(snapshot)

    def end(self, snapshot: Snapshot, summary: Summary) -> None:
        """Write the last status."""
        self._write(snapshot, "complete" if summary.ok else "interrupted" if summary.interrupted else "ended")
        self._listener.end(snapshot, summary)

    def _write(self, snapshot: Snapshot, state: str) -> None:
        document = {
            **self._known,
            "state": state,
            "task": snapshot.task,
            "members": snapshot.members,
            "years": {str(year): row for year, row in snapshot.rows},
            "counts": dict(snapshot.counts),
            "progress": asdict(snapshot.progress),
            "seconds": snapshot.seconds,
            "running": [asdict(attempt) for worker in snapshot.workers for attempt, _ in worker.running],
            "failures": [self._failures[task] for task in sorted(self._failures)],
        }
        self._written_at = time.monotonic()
        try:
            make_folder(self._path.parent)
            publish(self._path, json.dumps(document, indent=1).encode())
        except ResultsError:
            # A disk that fills up while tasks run fails those tasks, with that reason; it must not end the campaign.
            if state == "starting":
                raise
            logger.warning("status not written", exc_info=True)


def read_status(root: Path) -> dict[str, Any]:
    """The status of the campaign in a results root, as `StatusFile` last wrote it.

    A campaign whose manager is gone without a word is told as ``interrupted``.

    Raises
    ------
    InputError
        If there is no campaign.
    """
    path = root / STATUS_FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if missing := _STATUS_KEYS - set(document):
            raise ValueError(f"{', '.join(sorted(missing))} missing")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no campaign in {root}: cannot read {path.name}: {error}",
            remedy="name the folder given as --out (or results.root) when the campaign was run",
        ) from error
    if document["state"] not in ("starting", "running") or not _is_alive(document["host"], document["pid"]):
        document["running"] = []
        results = StormtracksResultsManager(root, document["task"])
        rows = {year: _settled(row, document["members"], results, int(year)) for year, row in document["years"].items()}
        document["years"] = rows
        if document["state"] != "ended" and set("".join(rows.values())) != {"+"}:
            document["state"] = "interrupted"
    return document


def _settled(row: str, members: Sequence[int], results: StormtracksResultsManager, year: int) -> str:
    """A year's row when nobody works on it any more: complete is what has a result, even from an attempt cut short."""
    held = set(results.list_members(year))
    return "".join(
        glyph if glyph in "FT" else "+" if member in held else "-" for glyph, member in zip(row, members, strict=True)
    )


def describe_status(document: Mapping[str, Any]) -> list[str]:
    """What `read_status` gives, for people: the board's rows, the failures with their reasons, and the counts."""
    lines = [f"{document['name']} ({document['task']}): {document['state']}"]
    lines += [f"{year}: {row}" for year, row in document["years"].items()]
    for reasons in document["failures"]:
        attempt = reasons[-1]["attempt"]
        lines.append(f"{attempt['year']} m{attempt['ensemble_member']:03d} {reasons[-1]['status']}:")
        lines += [f"  attempt {one['attempt']['number']} on {one['worker']}: {one['reason']}" for one in reasons]
    if document["state"] in ("interrupted", "ended"):
        lines.append(f"to go on: {document['resume']}")
    glyphs = Counter("".join(document["years"].values()))
    lines.append(", ".join(f"{glyphs[glyph]} {status}" for status, glyph in GLYPHS.items() if glyphs[glyph]))
    return lines


def _is_alive(host: str, pid: int) -> bool:
    if host != socket.gethostname():
        return True  # cannot be told from here
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # dead, but its parent has not noticed yet
