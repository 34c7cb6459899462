"""Print the versions of what is measured, as JSON."""

import json
import platform
from importlib.metadata import distributions

import netCDF4
import numpy
import scipy

import stormtracks

# Only needed for a comparison, and not there everywhere.
others = {found.name: found.version for name in ("distributed", "PyStormTracker") for found in distributions(name=name)}

print(
    json.dumps(
        {
            "python": platform.python_version(),
            "stormtracks": stormtracks.__version__,
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
            "netCDF4": netCDF4.__version__,
            "netcdf-c": netCDF4.__netcdf4libversion__,
            "hdf5": netCDF4.__hdf5libversion__,
            **others,
        }
    )
)
