"""What can go wrong with settings."""

from __future__ import annotations

__all__ = ["SettingsError"]


class SettingsError(ValueError):
    """A setting is unknown, misspelt or out of bounds; the text names it, what was given, and where."""
