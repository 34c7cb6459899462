"""Make the start of one synthetic member-year on the grid of 20CR: `python make_member_year.py ROOT DAYS`.

Two degrees, six-hourly, in the layout of 20CRv3: u850 and v850 of one member in a file each, float32, zlib level 1.
"""

import datetime
import sys

from stormtracks.synthetic import SyntheticEnsemble, write

root, days = sys.argv[1:]
end = datetime.date(2001, 1, 1) + datetime.timedelta(days=int(days))
write(SyntheticEnsemble(start=(2001, 1, 1), end=(end.year, end.month, end.day), members=1), root, layout="c20v3")
