"""Make the start of a year of a synthetic ensemble: `python make_ensemble.py OUTPUT YEAR DAYS MEMBERS`.

In the layout of 20CR version 2, of which OUTPUT is the folder of the year: two degrees, six-hourly, u850 and v850 in
one file each, all members of a time step in one chunk. As in the real files, the numbers are float32 and were rounded
once (there to 1/128 m s-1, here to 1/200), which makes them as compressible; zlib level 1 with shuffle.
"""

import datetime
import sys
import tempfile
from pathlib import Path
from typing import cast

import netCDF4
import numpy as np

from stormtracks.synthetic import SyntheticEnsemble, write


def unpacked(source: netCDF4.Dataset, target: netCDF4.Dataset) -> None:
    """Copy a file whose fields are packed, with float32 in their place."""
    for name, dimension in source.dimensions.items():
        target.createDimension(name, None if dimension.isunlimited() else len(dimension))
    for name, variable in source.variables.items():
        fields = variable.ndim > 1
        chunks = cast("list[int]", variable.chunking()) if fields else None
        kind = np.dtype("f4") if fields else np.dtype(variable.dtype)
        copy = target.createVariable(name, kind, variable.dimensions, zlib=fields, complevel=1, chunksizes=chunks)
        of_packing = {"scale_factor", "add_offset", "missing_value", "_FillValue"}
        copy.setncatts({key: variable.getncattr(key) for key in variable.ncattrs() if key not in of_packing})
        for step in range(len(variable)) if fields else [...]:
            copy[step] = variable[step]


output = Path(sys.argv[1])
year, days, members = map(int, sys.argv[2:])
end = datetime.date(year, 1, 1) + datetime.timedelta(days=days)
ensemble = SyntheticEnsemble(start=(year, 1, 1), end=(end.year, end.month, end.day), members=members, seed=year)
with tempfile.TemporaryDirectory(dir=output.parent) as root:
    made = Path(root) / "unpacked"
    made.mkdir()
    for path in write(ensemble, root, layout="c20", packed=True):
        with netCDF4.Dataset(path) as source, netCDF4.Dataset(made / path.name, "w") as target:
            unpacked(source, target)
    made.rename(output)
