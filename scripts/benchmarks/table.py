"""Measured figures as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import BenchError

__all__ = ["replace_table", "table"]

_HEAD = (
    "",
    "wall, s",
    "user + sys, s",
    "peak, MiB",
    "wall / reference",
    "user + sys / reference",
    "the same less start-up",
)
_BEGIN, _END = "<!-- figures: written by scripts/bench --document -->", "<!-- end of figures -->"


def table(document: dict[str, Any]) -> str:
    """What `scripts/bench` measured: a paragraph on the machine, and for each figure a table and its commands."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mib'] / 1024:.0f} GiB; {versions}.",
        f"Medians of {document['rounds']} rounds, least and greatest in brackets. Load average "
        f"{machine['load_average_before']:.1f} before and {machine['load_average_after']:.1f} after.",
    ]
    for name, figure in document["figures"].items():
        lines += ["", f"### {name}", "", *_figure(figure)]
    return "\n".join(lines)


def replace_table(path: Path, text: str) -> None:
    """Put tables between the two marks of a document, in place of those there.

    Raises
    ------
    BenchError
        If the marks are not there.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BenchError(f"{path} lacks the lines {_BEGIN!r} and {_END!r}, between which the figures belong")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def _figure(figure: dict[str, Any]) -> Iterator[str]:
    yield figure["title"]
    if "skipped" in figure:
        yield f"Skipped: {figure['skipped']}."
        return
    if "values" in figure:
        counts = (f"{count} {name.replace('_', ' ')}" for name, count in figure.items() if isinstance(count, int))
        yield f"{', '.join(counts)}."
        if figure.get("missing"):
            yield f"Not installed, and left out: {', '.join(figure['missing'])}."
        yield from ["", "| | median (min-max) |", "| --- | ---: |"]
        yield from (f"| {name.replace('_', ' ')} | {_spread(spread, 2)} |" for name, spread in figure["values"].items())
        return
    sizes = [f"`{name}` {size / 1e6:.0f} MB" for name, size in figure.get("input", {}).items()]
    if sizes:
        yield f"Input: {', '.join(sizes)}."
    yield ""
    yield _row(_HEAD)
    yield _row(["---"] + ["---:"] * (len(_HEAD) - 1))
    yield _row([f"reference: {figure['reference']['command']}", *_measures(figure["reference"])])
    for name, entry in figure["ours"].items():
        yield _row([_label(name, entry), *_measures(entry), *_ratios(entry)])
    commands = [entry["command"] for entry in figure["ours"].values()]
    typed = [command for command in commands if command.startswith("stormtracks ")]
    yield from ["", "```sh", *typed, "```"]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join([*cells, *[""] * (len(_HEAD) - len(cells))]) + " |"


def _label(name: str, entry: dict[str, Any]) -> str:
    centres = entry.get("centres_per_step")
    return name if centres is None else f"{name}; {centres:,} centres a step"


def _measures(entry: dict[str, Any]) -> list[str]:
    return [_spread(entry["wall_s"], 2), _spread(entry["cpu_s"], 2), f"{entry['peak_mib']['median']:.0f}"]


def _ratios(entry: dict[str, Any]) -> list[str]:
    less_start = entry.get("ratio_less_start")
    return [
        _spread(entry["ratio"]["wall_s"], 1),
        _spread(entry["ratio"]["cpu_s"], 1),
        "" if less_start is None else _spread(less_start["cpu_s"], 1),
    ]


def _spread(spread: dict[str, float], digits: int) -> str:
    digits = digits if spread["median"] >= 0.1 else 3
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f}-{spread['max']:.{digits}f})"
