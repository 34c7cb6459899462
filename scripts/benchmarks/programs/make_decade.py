"""Make a long synthetic series: `python make_decade.py OUTPUT YEARS`: sea level pressure of one member, six-hourly.

Two degrees, in CF files of a year each, 16-bit integers of zlib level 1.
"""

import sys

from stormtracks.synthetic import SyntheticEnsemble, write

output, years = sys.argv[1], int(sys.argv[2])
ensemble = SyntheticEnsemble(start=(2001, 1, 1), end=(2001 + years, 1, 1), members=1)
write(ensemble, output, layout="cf", variables=["prmsl"], packed=True)
