"""How a campaign is doing, and the story of one task: read from its store, while a manager runs or after that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stormtracks.cluster.board import tasks_text, unreadable_text
from stormtracks.cluster.campaign_store import find_store, task_and_start
from stormtracks.cluster.errors import NotScheduledError
from stormtracks.cluster.manager_lock import Holder, find_holder
from stormtracks.cluster.persistence import PersistentStore
from stormtracks.cluster.pyro_task import GLYPHS
from stormtracks.cluster.schedule.attempts import FAILED

__all__ = ["describe_status", "describe_why", "read_status", "tell_why"]

_STATUS_OF = {glyph: status for status, glyph in GLYPHS.items()}


def read_status(root: Path) -> dict[str, Any]:
    """How far the campaign in a results root is.

    Returns
    -------
    dict
        Plain values. ``name``, ``task``, ``settings_hash``; ``state``: ``running``, ``interrupted`` (nobody works on
        what is left), ``complete``, or ``ended`` (nothing is left but tasks that have failed); ``manager``: ``host``,
        ``pid``, ``since`` and ``command`` of the one at work, or None; ``epoch``: how often one was started;
        ``resume``: the command to go on; ``members``; ``years``: the row of signs of each; ``counts`` by status;
        ``finished`` and ``total`` tasks; ``running``: attempts under way; ``failures``: ``year``, ``member``,
        ``status`` and ``attempts`` of each task whose last attempt has failed; ``quarantined``: workers that get no
        more work, with the reason; ``unreadable``: how many results the last start could not check, as their input is
        not there any more; ``versions``: of stormtracks, that have worked on it; ``store``: of which kind.

    Raises
    ------
    WorkflowNotFoundError
        If there is no campaign.
    StoreError
        If its store cannot be read.
    """
    with find_store(root) as store, store.cached_load():
        # Before the store is read, so that what a manager does last is seen.
        holder = find_holder(root)
        template, components = store.get_template(), store.get_template_components()
        task, start = task_and_start(store, root)
        rows: dict[int, str] = task["rows"]
        glyphs = Counter("".join(rows.values()).replace(" ", ""))
        running, failures = _under_way_and_failed(store, task) if glyphs.keys() & set("WFT") else ([], [])
        document = {
            "name": template["name"],
            "task": task["name"],
            "settings_hash": template["settings_hash"],
            "state": _state(holder, glyphs),
            "manager": vars(holder) if holder else None,
            "epoch": start["epoch"],
            "resume": start["command"],
            "members": task["members"],
            "years": {str(year): rows[year] for year in sorted(rows)},
            "running": running,
            "failures": failures,
            "quarantined": {
                one["worker"]: one["reason"]
                for one in components.get("quarantined", {}).values()
                if one["epoch"] == start["epoch"]
            },
            "unreadable": components.get("unreadable", {}).get("count", 0),
            "versions": sorted(components.get("versions", {})),
            "store": store.store_name,
        }
    if holder is None:
        # What was under way has ended or will end with its lease; it is to be done.
        document["running"] = []
        document["years"] = {year: row.replace("W", "-") for year, row in document["years"].items()}
        glyphs["-"] += glyphs.pop("W", 0)
    document["counts"] = {status: glyphs[glyph] for status, glyph in GLYPHS.items()}
    document["total"] = sum(glyphs.values())
    document["finished"] = document["total"] - glyphs["-"] - glyphs["W"]
    return document


def describe_status(document: Mapping[str, Any]) -> list[str]:
    """What `read_status` gives, for people: the board's rows, the failures with their reasons, and the counts."""
    manager = document["manager"]
    by_whom = f" by process {manager['pid']} on {manager['host']}, since {manager['since']}" if manager else ""
    lines = [f"{document['name']} ({document['task']}): {document['state']}{by_whom}"]
    lines += [f"{year}: {row}" for year, row in document["years"].items()]
    lines += _running_lines(document["running"])
    for one in document["failures"]:
        lines.append(f"{_name_of(one)} {one['status']}:")
        lines += [
            f"  attempt {attempt['number']} on {attempt['worker']}: {attempt['reason']}" for attempt in one["attempts"]
        ]
    lines += [f"worker {name} gets no more work: {reason}" for name, reason in document["quarantined"].items()]
    if document["unreadable"]:
        lines.append(unreadable_text(document["unreadable"]))
    if document["state"] in ("interrupted", "ended"):
        lines.append(f"to go on: {document['resume']}")
    counts = [f"{count} {status}" for status, count in document["counts"].items() if count]
    lines.append(", ".join(counts))
    return lines


def _running_lines(running: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What each worker is at: in one line what it has of a year, since it was given the first of that."""
    together: dict[tuple[int, int, str], list[Mapping[str, Any]]] = {}
    for one in running:
        together.setdefault((one["year"], one["number"], one["worker"]), []).append(one)
    for (year, number, worker), those in together.items():
        since = min(one["since"] for one in those)
        yield f"{tasks_text(year, [one['member'] for one in those])} attempt {number} on {worker} since {since}"


def tell_why(root: Path, year: int, member: int) -> dict[str, Any]:
    """The whole story of one task, and why it will or will not be run.

    Returns
    -------
    dict
        Plain values. ``year``, ``member``, ``task``, ``status``, ``retired``; ``settings_hash`` and ``settings``: those
        that decide its result; ``rounds``: for each its ``reason``, the ``attempts`` (``number``, ``epoch``,
        ``worker``, ``host``, ``pid``, ``code``, ``start`` and ``end`` in UTC, ``status``, ``seconds``, ``exit_code``,
        ``error``) and the ``result``, None if it has none; ``why``.

    Raises
    ------
    WorkflowNotFoundError
        If there is no campaign.
    NotScheduledError
        If it has no such task.
    StoreError
        If its store cannot be read.
    """
    with find_store(root) as store, store.cached_load():
        holder = find_holder(root)
        task, start = task_and_start(store, root)
        element = _find_element(store, task, year, member)
        rounds = [_round(store, iteration) for iteration in element["iterations"]]
        glyph = element["iterations"][-1]["status"]
        if glyph == "W" and holder is None:
            glyph = "-"
        return {
            "year": year,
            "member": member,
            "task": task["name"],
            "status": _STATUS_OF[glyph],
            "retired": element["retired"],
            "settings_hash": store.get_template()["settings_hash"],
            # The first parameter of a campaign is what its science was when it was created.
            "settings": store.get_parameter_data(0)[1] if store.check_parameters_exist(0) else {},
            "rounds": rounds,
            "why": _why(element, rounds, start, holder),
        }


def describe_why(document: Mapping[str, Any]) -> list[str]:
    """What `tell_why` gives, for people."""
    lines = [f"{_name_of(document)} ({document['task']}): {document['status']}"]
    lines.append(f"settings {document['settings_hash']}")
    for number, one in enumerate(document["rounds"], start=1):
        lines.append(f"round {number}: {one['reason']}")
        for attempt in one["attempts"]:
            lines += _attempt_lines(attempt)
        if one["result"] is not None:
            numbers = [f"{value} {name}" for name, value in one["result"].items() if type(value) is int]
            lines.append(f"  result: {', '.join(numbers)}; sha256 {one['result'].get('sha256', 'unknown')}")
    lines.append(document["why"])
    return lines


def _attempt_lines(attempt: Mapping[str, Any]) -> Iterator[str]:
    where = f"{attempt['worker']} (process {attempt['pid']} on {attempt['host']}, stormtracks {attempt['code']})"
    yield f"  attempt {attempt['number']}, start {attempt['epoch']} of the manager: on {where}"
    end = f"to {attempt['end']}: {attempt['status']}" if attempt["end"] else "on, and has not ended as far as is known"
    exit_code = "" if attempt["exit_code"] is None else f", exit status {attempt['exit_code']}"
    yield f"    from {attempt['start']} {end}{exit_code}"
    yield from (f"    {line}" for line in attempt["error"].splitlines())


def _name_of(one: Mapping[str, Any]) -> str:
    return tasks_text(one["year"], [one["member"]])


# --- the store


def _state(holder: Holder | None, glyphs: Counter[str]) -> str:
    if holder is not None:
        return "running"
    if set(glyphs) & set("-W"):
        return "interrupted"
    return "ended" if set(glyphs) & set("FT") else "complete"


def _under_way_and_failed(
    store: PersistentStore, task: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The attempts that run, and the tasks that have failed last, each with its attempts."""
    running, failures = [], []
    at = store.get_task_idx_from_insert_ID(task["insert_ID"])
    for element in store.get_task_elements_of_status(at, task["insert_ID"], "WFT"):
        latest = element["iterations"][-1]
        key = {"year": element["year"], "member": element["member"]}
        if latest["status"] == "W":
            one = latest["EARs"][-1]
            told = {name: one[name] for name in ("number", "worker", "host", "pid")}
            running.append({**key, **told, "since": _time(one["start"])})
        else:
            attempts = [
                {"number": one["number"], "status": one["status"], "worker": one["worker"], "reason": one["error"]}
                for one in latest["EARs"]
                if one["status"] in (*FAILED, "forgiven")
            ]
            failures.append({**key, "status": _STATUS_OF[latest["status"]], "attempts": attempts})
    return sorted(running, key=_by_task), sorted(failures, key=_by_task)


def _by_task(one: Mapping[str, Any]) -> tuple[int, int]:
    key: tuple[int, int] = (one["year"], one["member"])
    return key


def _find_element(store: PersistentStore, task: Mapping[str, Any], year: int, member: int) -> dict[str, Any]:
    at = _position(task["element_sets"], year, member)
    if at is None:
        raise NotScheduledError(
            f"the campaign has no task of year {year}, member {member}",
            remedy=f"use one of its years {_span(task['rows'])} and members {_span(task['members'])}",
        )
    index = store.get_task_idx_from_insert_ID(task["insert_ID"])
    (element,) = store.get_task_elements(index, task["insert_ID"], slice(at, at + 1))
    assert (element["year"], element["member"]) == (year, member), "elements stand in the order of their sets"
    return element


def _position(element_sets: Iterable[Mapping[str, Any]], year: int, member: int) -> int | None:
    """Where an element stands: each set holds those of its years and members that no set before it holds, in order."""
    known: set[tuple[int, int]] = set()
    at = 0
    for one in element_sets:
        for key in ((y, m) for y in one["years"] for m in one["members"]):
            if key in known:
                continue
            if key == (year, member):
                return at
            known.add(key)
            at += 1
    return None


def _span(numbers: Iterable[int]) -> str:
    known = sorted(numbers)
    return f"{known[0]} to {known[-1]}" if known else "(none)"


def _round(store: PersistentStore, iteration: Mapping[str, Any]) -> dict[str, Any]:
    source = store.get_parameter_source(iteration["parameter"])
    is_set = store.is_parameter_set(iteration["parameter"])
    reason = source.get("reason", "the first")
    if iteration["loop"] is not None:
        reason = f"{store.get_loops()[iteration['loop']]['name']}: {reason}"
    return {
        "reason": reason,
        "attempts": [
            {
                **{name: one[name] for name in ("number", "worker", "host", "pid", "code")},
                "epoch": None if one["submission"] is None else one["submission"] + 1,
                "start": _time(one["start"]),
                "end": _time(one["end"]),
                **{name: one[name] for name in ("status", "seconds", "exit_code", "error")},
            }
            for one in iteration["EARs"]
        ],
        "result": store.get_parameter_data(iteration["parameter"])[1] if is_set else None,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def _why(
    element: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]], start: Mapping[str, Any], holder: Holder | None
) -> str:
    """Why a task will or will not be run."""
    glyph, latest = element["iterations"][-1]["status"], rounds[-1]
    if element["retired"]:
        return "it will not be run: the campaign does not hold this year or member any more"
    if glyph == "+":
        return "it will not be run again, unless its result or its input are found changed at the next start"
    if glyph == "W":
        worker = latest["attempts"][-1]["worker"]
        if holder is not None:
            return f"it is being run by {worker}"
        return f"it was being run by {worker} when the manager ended; the next one takes it up, or runs it again"
    counted, allowed = sum(one["status"] in FAILED for one in latest["attempts"]), start["run"]["max_attempts"]
    if glyph in "FT" and counted >= allowed:
        return f"it is given up: {counted} of {allowed} attempts have failed; the next start tries it afresh"
    if glyph in "FT":
        when = "at the next start" if holder is None else "by this manager, unless that would be in vain"
        return f"it will be tried again {when}: {counted} of {allowed} attempts have failed"
    if latest["attempts"]:
        return f"it will be run: attempt {latest['attempts'][-1]['number']} does not count against it"
    return "it will be run: it has not been begun" if len(rounds) == 1 else f"it will be run: {latest['reason']}"
