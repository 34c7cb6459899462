"""20th Century Reanalysis version 3: one file per variable, year and member."""

from __future__ import annotations

import re

from stormtracks.reanalysis.folders import YearFolders

__all__ = ["C20v3Archive"]


class C20v3Archive(YearFolders):
    """Files of one member each: ``<root>/<year>/<VAR>.<year>_mem<member>.nc``, the member in three digits.

    Members have the numbers in the names of the files; a file may have a member axis of length 1, whatever its
    coordinate says. Variables are named as the files are (``PRMSL``, ``UGRD850``) or by an alias (``prmsl``, ``u850``).
    """

    layout = "<root>/<year>/<variable>.<year>_mem<member>.nc"
    file_name = re.compile(r"(?P<variable>.+)\.(?P<year>\d+)_mem(?P<member>\d+)\.nc")
    lone_variable = True
