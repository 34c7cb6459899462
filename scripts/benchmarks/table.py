"""Measured figures as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import LETTERS
from benchmarks.measure import BenchError
from benchmarks.scaling import CLUSTER, LAPTOP, Production, costs_of, hosts_fed, times
from benchmarks.targets import TARGETS, Target

__all__ = ["replace_tables", "scaling_rows", "tables"]

_HEAD = (
    "",
    "wall, s",
    "user + sys, s",
    "peak, MiB",
    "wall / reference",
    "user + sys / reference",
    "wall less start-up",
    "user + sys less start-up",
)


def tables(document: dict[str, Any]) -> dict[str, str]:
    """What `scripts/bench` measured, by the name of its place in the document: targets, figures and scaling."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mib'] / 1024:.0f} GiB; {versions}.",
        f"Medians of {document['rounds']} rounds, least and greatest in brackets. Load average "
        f"{machine['load_average_before']:.1f} before and {machine['load_average_after']:.1f} after.",
    ]
    for name, figure in document["figures"].items():
        letter = f" ({LETTERS[name]})" if name in LETTERS else ""
        lines += ["", f"### {name}{letter}", "", *_figure(figure)]
    return {
        "targets": "\n".join(_targets(document)),
        "figures": "\n".join(lines),
        "scaling": "\n".join(scaling_rows(document)),
    }


def replace_tables(path: Path, texts: Mapping[str, str]) -> None:
    """Put tables between the marks of their names in a document, in place of those there.

    Raises
    ------
    BenchError
        If marks are not there.
    """
    document = path.read_text(encoding="utf-8")
    for name, text in texts.items():
        opening, closing = f"<!-- {name}: written by scripts/bench --document -->", f"<!-- end of {name} -->"
        before, begin, rest = document.partition(opening)
        _, end, after = rest.partition(closing)
        if not begin or not end:
            raise BenchError(f"{path} lacks the lines {opening!r} and {closing!r}, between which a table belongs")
        document = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    path.write_text(document, encoding="utf-8")


# --- targets


def _targets(document: dict[str, Any]) -> Iterator[str]:
    yield "| | what | beside | wall | user + sys | target | met |"
    yield "| --- | --- | --- | ---: | ---: | --- | --- |"
    for target in TARGETS:
        spread = target.measured(document)
        processor = target.measured(document, of="cpu_s") if target.path[-1] == "wall_s" else None
        cells = [
            target.letter,
            target.what,
            target.against,
            "not measured" if spread is None else _with_unit(spread, target),
            "" if processor is None else _spread(processor, 2),
            target.shown,
            "" if spread is None else "yes" if target.met(spread) else "no",
        ]
        yield f"| {' | '.join(cells)} |"


def _with_unit(spread: dict[str, float], target: Target) -> str:
    text = _spread(spread, 0 if spread["median"] >= 10 else 2)
    return text if target.unit == "x" else f"{text} {target.unit}"


# --- figures


def _figure(figure: dict[str, Any]) -> Iterator[str]:
    yield figure["title"]
    if "skipped" in figure:
        yield f"Skipped: {figure['skipped']}."
        return
    counts = [f"{count:,} {name.replace('_', ' ')}" for name, count in figure.items() if isinstance(count, int)]
    if counts:
        yield f"{', '.join(counts)}."
    if figure.get("missing"):
        yield f"Not installed, and left out: {', '.join(figure['missing'])}."
    if "values" in figure:
        yield from ["", "| | median (min-max) |", "| --- | ---: |"]
        yield from (f"| {name.replace('_', ' ')} | {_spread(spread, 2)} |" for name, spread in figure["values"].items())
        return
    sizes = [f"`{name}` {size / 1e6:.0f} MB" for name, size in figure.get("input", {}).items()]
    if sizes:
        yield f"Input: {', '.join(sizes)}."
    if "times_as_fast" in figure:
        yield f"Start-up apart, ours is {_spread(figure['times_as_fast'], 2)} times as fast as the reference."
    yield ""
    yield _row(_HEAD)
    yield _row(["---"] + ["---:"] * (len(_HEAD) - 1))
    reference = figure["reference"]
    yield _row([f"reference: {_label(reference['command'], reference)}", *_measures(reference)])
    for name, entry in figure["ours"].items():
        yield _row([_label(name, entry), *_measures(entry), *_ratios(entry)])
    commands = [entry["command"] for entry in figure["ours"].values()]
    typed = [command for command in commands if command.startswith("stormtracks ")]
    yield from ["", "```sh", *typed, "```"]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join([*cells, *[""] * (len(_HEAD) - len(cells))]) + " |"


def _label(name: str, entry: dict[str, Any]) -> str:
    cores, centres = entry.get("cores"), entry.get("centres_per_step")
    label = name if cores is None else f"{name}; {cores} core{'s' * (cores > 1)}"
    return label if centres is None else f"{label}; {centres:,} centres a step"


def _measures(entry: dict[str, Any]) -> list[str]:
    return [_spread(entry["wall_s"], 2), _spread(entry["cpu_s"], 2), f"{entry['peak_mib']['median']:.0f}"]


def _ratios(entry: dict[str, Any]) -> list[str]:
    less_start = entry.get("ratio_less_start")
    cells = [_spread(entry["ratio"][name], 2) for name in ("wall_s", "cpu_s")]
    return cells if less_start is None else cells + [_spread(less_start[name], 2) for name in ("wall_s", "cpu_s")]


def _spread(spread: dict[str, float], digits: int) -> str:
    digits = digits if spread["median"] >= 0.1 else 3
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f}-{spread['max']:.{digits}f})"


# --- scaling


def scaling_rows(document: dict[str, Any]) -> Iterator[str]:
    """What a production run would take, and what that is reckoned from."""
    costs = costs_of(document)
    if costs is None:
        yield "Not measured."
        return
    production = Production()
    yield "| measured | |"
    yield "| --- | ---: |"
    yield f"| c, processor time of a member-year | {costs.cpu_s:.2f} s |"
    yield f"| b, input of a member-year | {costs.input_bytes / 1e6:.0f} MB |"
    yield f"| e, efficiency of two workers on two cores | {costs.efficiency:.2f} |"
    yield f"| m, the manager's processor time for a task | {1e3 * costs.manager_s:.2f} ms |"
    yield f"| s, start of a worker | {costs.start_s:.1f} s |"
    yield ""
    yield f"| {production.tasks:,} member-years | computing | data's way | manager | whole | limit |"
    yield "| --- | ---: | ---: | ---: | ---: | --- |"
    for machines in (LAPTOP, CLUSTER):
        found = times(production, machines, costs)
        parts = [_duration(part) for part in (found.computing, found.reading, found.managing, found.whole)]
        name = f"{machines.name} of {machines.cores} cores; {machines.storage}"
        yield f"| {name} | {' | '.join(parts)} | {found.limit} |"
    yield ""
    yield (
        f"A file server behind 1 Gbit/s keeps {hosts_fed(CLUSTER, costs):.1f} such hosts at work; the disk of the "
        f"laptop would do for {hosts_fed(LAPTOP, costs):.1f}."
    )


def _duration(seconds: float) -> str:
    if seconds < 180:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
