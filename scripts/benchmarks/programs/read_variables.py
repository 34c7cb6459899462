"""Read variables with netCDF4 and do nothing with them: `python read_variables.py VARIABLE FILE [VARIABLE FILE ...]`.

The reference: plain reading as fast as netCDF4-python goes, in blocks of whole chunks of about 16 MiB, as stored,
without masks or scaling.
"""

import sys

import netCDF4

BLOCK_BYTES = 16 * 2**20

for name, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    with netCDF4.Dataset(path) as dataset:
        dataset.set_auto_maskandscale(False)
        variable = dataset[name]
        chunks = variable.chunking()
        deep = 1 if chunks == "contiguous" else chunks[0]
        step_bytes = variable.dtype.itemsize * variable[0].size
        block = deep * max(1, BLOCK_BYTES // (deep * step_bytes))
        for start in range(0, len(variable), block):
            variable[start : start + block]
