"""One synthetic ensemble in every layout reads back as the same fields."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from stormtracks.grid import Grid
from stormtracks.reanalysis import open_archive
from stormtracks.settings.campaign import DataSettings
from stormtracks.synthetic import SyntheticEnsemble, write

GRID = Grid(np.linspace(90, -90, 37), np.arange(0, 360, 5.0))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("layout", "calendar"), [("c20", "standard"), ("c20v3", "standard"), ("cf", "360_day"), ("cf", "noleap")]
)
def test_every_layout_reads_back_the_same(
    tmp_path: Path, layout: Literal["c20", "c20v3", "cf"], calendar: str, packed: bool
) -> None:
    ensemble = SyntheticEnsemble(start=(2001, 12, 25), end=(2002, 1, 5), members=2, grid=GRID, calendar=calendar)
    write(ensemble, tmp_path, layout=layout, packed=packed)
    archive = open_archive(DataSettings(layout=layout, root=tmp_path))
    assert archive.years() == [2001, 2002]
    assert archive.members() == [1, 2]
    for member in archive.members():
        blocks = list(ensemble.blocks(member, ("u850", "v850")))
        series = [archive.open_year(year, [member]) for year in archive.years()]
        seconds = np.concatenate([part.times.seconds for part in series])
        assert seconds.tolist() == ensemble.times.seconds.tolist()
        assert {part.times.calendar for part in series} == {calendar}
        for which, standard_name in enumerate(("eastward_wind", "northward_wind")):
            read = np.concatenate([part.read(0, len(part.times))[which][0] for part in series])
            written = np.concatenate([block[which] for block in blocks])
            np.testing.assert_allclose(read, written, rtol=0, atol=0.00251 if packed else 0)
            assert series[0].quantities[which].standard_name == standard_name
        for part in series:
            part.close()
