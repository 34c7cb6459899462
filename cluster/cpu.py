"""What a processor computes with: the features by which numpy chooses its loops, and with them the last bits of sums.

Two processors with the same features run the same loops of the same numpy. Others may round the last bit of a number
otherwise; results are rounded far above that when they are written, so that this does not show.
"""

from __future__ import annotations

import functools
import platform

import numpy as np

__all__ = ["processor"]


@functools.cache
def processor() -> str:
    """This machine's kind of processor and the features that numpy uses of it: ``x86_64 X86_V2 X86_V3``."""
    # The features that a numpy build takes for granted come first; it refuses to load without them.
    known = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[call-overload,index,unused-ignore]
    return " ".join([platform.machine(), *known.get("baseline", ()), *known.get("found", ())])
