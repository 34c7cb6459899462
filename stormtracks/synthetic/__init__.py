"""Ensembles of known truth: storms in red noise, as fields and as files in the layouts of real archives."""

from __future__ import annotations

from stormtracks.synthetic.ensemble import SyntheticEnsemble
from stormtracks.synthetic.noise import NoiseStatistics
from stormtracks.synthetic.storms import StormStatistics
from stormtracks.synthetic.writing import Layout, write

__all__ = ["Layout", "NoiseStatistics", "StormStatistics", "SyntheticEnsemble", "write"]
