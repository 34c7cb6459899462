"""Import what `stormtracks track` imports on its way, and do nothing."""

import h5py  # noqa: F401

import stormtracks.cli
import stormtracks.reanalysis.cf
import stormtracks.settings.load
import stormtracks.tasks
import stormtracks.tracks_file  # noqa: F401
