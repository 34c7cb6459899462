"""Make the start of a year of a synthetic ensemble: `python make_ensemble.py OUTPUT YEAR DAYS MEMBERS`.

In the layout of 20CR version 2, of which OUTPUT is the folder of the year: two degrees, six-hourly, u850 and v850 in
one file each, all members of a time step in one chunk, 16-bit integers, zlib level 1.
"""

import datetime
import sys
import tempfile
from pathlib import Path

from stormtracks.synthetic import SyntheticEnsemble, write

output = Path(sys.argv[1])
year, days, members = map(int, sys.argv[2:])
end = datetime.date(year, 1, 1) + datetime.timedelta(days=days)
ensemble = SyntheticEnsemble(start=(year, 1, 1), end=(end.year, end.month, end.day), members=members, seed=year)
with tempfile.TemporaryDirectory(dir=output.parent) as root:
    write(ensemble, root, layout="c20", packed=True)
    (Path(root) / str(year)).rename(output)
