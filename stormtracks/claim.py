"""Whose results lie in a folder: ``settings.json`` in it holds the settings that decide them, and their hash."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stormtracks.errors import ResultsError

__all__ = ["CLAIM", "check_claim", "claim_text", "differences"]

CLAIM = "settings.json"


def claim_text(science: Mapping[str, Any], settings_hash: str) -> str:
    """What the file says for these settings and their hash."""
    return json.dumps({"settings_hash": settings_hash, "science": dict(science)}, indent=2, sort_keys=True) + "\n"


def check_claim(folder: Path, settings_hash: str) -> None:
    """Refuse to publish where results of other settings are kept by now; where nobody has said so, anyone may.

    Raises
    ------
    ResultsError
        If the folder belongs to other settings.
    """
    path = folder / CLAIM
    try:
        held = json.loads(path.read_bytes())["settings_hash"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"nothing was published: {path} is unreadable: {error!r}", remedy="run again") from error
    if held != settings_hash:
        raise ResultsError(
            f"nothing was published: {folder} belongs to a campaign of settings {held} now, not {settings_hash}",
            remedy="end what still runs for the older campaign",
            permanent=True,
        )


def differences(held: Any, asked: Any) -> list[str]:
    """Settings that differ, one line each: ``  tracking.max_speed: 40.0 -> 30.0``."""
    old, new = dict(_flat(held)), dict(_flat(asked))
    absent = "(absent)"
    return [
        f"  {name}: {old.get(name, absent)} -> {new.get(name, absent)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, absent) != new.get(name, absent)
    ] or ["  (no setting differs, but their hash: another version of stormtracks made it)"]


def _flat(document: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, json.dumps(document)
