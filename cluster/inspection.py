"""Whether every host of a campaign is fit for it, as a table: what ``stormtracks hosts`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from stormtracks.cluster.errors import ClusterError
from stormtracks.cluster.fleet import Fleet, HostReport
from stormtracks.cluster.pyro_worker import changing, versions
from stormtracks.cluster.roots import fingerprint, place_proof
from stormtracks.settings.campaign import CampaignSettings

__all__ = ["COLUMNS", "Inspection", "Problem", "inspect_hosts", "print_inspection"]

COLUMNS = (
    "reached",
    "stormtracks",
    "numpy",
    "Python",
    "data root",
    "results root",
    "log folder",
    "certificate",
    "clock",
    "free",
)
"""What is looked at on each host."""

CLOCK_LIMIT = 5.0
"""Seconds that clocks may differ. They decide nothing, but the files and logs of hosts are read side by side."""
_BAD = "BAD"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a host that must be mended: in which column, what, and the remedy."""

    column: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found on one host: a text for each of `COLUMNS`, and what is wrong."""

    host: str
    cells: Mapping[str, str]
    problems: Sequence[Problem]


def inspect_hosts(campaign: CampaignSettings) -> list[Inspection]:
    """Look over all hosts of a campaign, in its order.

    Raises
    ------
    ClusterError
        If the campaign names no hosts, or its data are not on this machine.
    ResultsError
        If its results cannot be written from this machine.
    """
    fleet = Fleet(campaign)
    data, results = campaign.data.root, campaign.results.root
    if not data.is_dir():
        raise ClusterError(
            f"the data root {data} is no folder on this machine", remedy="correct data.root, or mount it"
        )
    ours = versions()
    leave_out = changing(results)
    proof = place_proof(results)
    try:
        order = {
            "results_root": str(results),
            "proof": proof,
            "data_root": str(data),
            "fingerprint": fingerprint(data, leave_out=leave_out),
            "leave_out": [str(path) for path in leave_out],
        }
        reports = {report.host: report for report in fleet.check(order)}
    finally:
        (results / proof).unlink(missing_ok=True)
    return [_inspection(reports[host.name], ours) for host in campaign.cluster.hosts]


def _inspection(report: HostReport, ours: Mapping[str, str]) -> Inspection:
    if not report.ok:
        return Inspection(report.host, {"reached": "no"}, [Problem("reached", report.detail, report.remedy)])
    found = report.found
    problems = [Problem(column, *texts) for column, texts in found["problems"].items()]
    problems += _differences(found["versions"], ours)
    clock = found["clock"]
    if abs(clock) > CLOCK_LIMIT:
        way = "ahead of" if clock > 0 else "behind"
        remedy = "have the clocks of all hosts kept by chrony or ntp"
        problems.append(Problem("clock", f"its clock is {abs(clock):.0f} s {way} this machine's", remedy))
    cells = dict.fromkeys(COLUMNS, "ok") | {"reached": "yes"} | found["versions"]
    cells |= {problem.column: _BAD for problem in problems if cells[problem.column] == "ok"}
    if cells["certificate"] == "ok":
        # Not there yet: the starter brings it. Nor is it where all stays on one machine, or is in plain text.
        cells["certificate"] = found["certificate"] or "-"
    cells["clock"] = f"{clock:+.1f} s"
    cells["free"] = "-" if found["free"] is None else f"{found['free'] / 2**30:.1f} GiB"
    return Inspection(report.host, cells, problems)


def _differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[Problem]:
    for name, version in ours.items():
        if theirs[name] != version:
            remedy = f"install the same {name} on both; the last bits of results can depend on it"
            yield Problem(name, f"{name} is {theirs[name]} there and {version} here", remedy)


def print_inspection(inspections: Sequence[Inspection], out: TextIO) -> bool:
    """Print a table, in colours on a terminal, and below it what is wrong; True if nothing is."""
    rows = [[one.host, *(one.cells.get(column, "-") for column in COLUMNS)] for one in inspections]
    if out.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table("host", *COLUMNS)
        for row, one in zip(rows, inspections, strict=True):
            table.add_row(*row, style="red" if one.problems else None)
        Console(file=out).print(table)
    else:
        lines = [["host", *COLUMNS], *rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
            print("  ".join(cells).rstrip(), file=out)
    for one in inspections:
        for problem in one.problems:
            print(f"{one.host}: {problem.what}\n  remedy: {problem.remedy}", file=out)
    return not any(one.problems for one in inspections)
