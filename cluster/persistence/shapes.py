"""The shapes in which the documented calls take and give what the rows hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stormtracks.cluster.persistence.rows import Attempt, Element, to_json, to_time

__all__ = ["attempt_shape", "element_shape", "from_json", "merged", "plain_text"]


def from_json(text: str) -> Any:
    """The value of a JSON text."""
    return json.loads(text)


def merged(text: str, update: Mapping[str, Any], what: str) -> str:
    """A JSON object with some of its members replaced or added."""
    return to_json({**from_json(text), **update}, what)


def plain_text(text: str) -> str:
    """A text that any file can hold: what is no character, such as half of one in a file name, is written out."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def element_shape(row: Element, iterations: list[dict[str, Any]]) -> dict[str, Any]:
    """An element with its iterations."""
    return {
        "index": row.idx,
        "year": row.year,
        "member": row.member,
        "element_set": row.element_set,
        "retired": bool(row.retired),
        "iterations": iterations,
    }


def attempt_shape(row: Attempt) -> dict[str, Any]:
    """An attempt, with its times as such."""
    return {
        "number": row.number,
        "worker": row.worker,
        "incarnation": row.incarnation,
        "host": row.host,
        "pid": row.pid,
        "code": row.code,
        "submission": row.submission,
        "start": to_time(row.start),
        "end": to_time(row.end),
        "status": row.status,
        "error": row.error,
        "exit_code": row.exit_code,
        "seconds": row.seconds,
    }
