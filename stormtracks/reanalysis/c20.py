"""20th Century Reanalysis versions 2 and 2c: one file per variable and year, in which all members are."""

from __future__ import annotations

import re

from stormtracks.reanalysis.folders import YearFolders

__all__ = ["C20Archive"]


class C20Archive(YearFolders):
    """Files of all members: ``<root>/<year>/<variable>_<year>.nc``, with axes in any order.

    The number of members, the grid and the time step are the files' own. Members have the numbers of the member
    coordinate, or 1 to n without one; a file without a member axis holds member 1.
    """

    layout = "<root>/<year>/<variable>_<year>.nc"
    file_name = re.compile(r"(?P<variable>.+)_(?P<year>\d+)\.nc")
