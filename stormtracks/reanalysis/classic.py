"""The length that a classic NetCDF file must have, since the C library reads what is cut off as zeros."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["expected_length"]

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


@dataclass(frozen=True)
class _Variable:
    begin: int
    size: int  # bytes of all of it, or of one record
    record: bool


class _Header:
    """A cursor over the header of a classic file: format 1, 2 (64-bit offsets) or 5 (64-bit data).

    Notes
    -----
    NetCDF users' guide, appendix "File Format Specifications": the classic format.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        version = stream.read(4)[3]
        self.count_format = ">Q" if version == 5 else ">I"
        self.offset_format = ">I" if version == 1 else ">Q"

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.stream.read(struct.calcsize(form)))[0])

    def count(self) -> int:
        return self.number(self.count_format)

    def skip(self, size: int) -> None:
        self.stream.seek(_padded(size), 1)

    def list_length(self) -> int:
        self.number(">I")  # the tag of the list, zero if it is absent, and then its length is zero too
        return self.count()

    def dimensions(self) -> list[int]:
        lengths = []
        for _ in range(self.list_length()):
            self.skip(self.count())
            lengths.append(self.count())
        return lengths

    def skip_attributes(self) -> None:
        for _ in range(self.list_length()):
            self.skip(self.count())
            size = _TYPE_SIZES[self.number(">I")]
            self.skip(size * self.count())

    def variables(self, dimensions: list[int]) -> list[_Variable]:
        found = []
        for _ in range(self.list_length()):
            self.skip(self.count())
            lengths = [dimensions[self.count()] for _ in range(self.count())]
            self.skip_attributes()
            size = _TYPE_SIZES[self.number(">I")]
            self.count()  # the stored size overflows for large variables: it is worked out instead
            # The dimension without limit has length 0 here and can only come first.
            record = bool(lengths) and lengths[0] == 0
            size *= math.prod(lengths[1:] if record else lengths)
            found.append(_Variable(self.number(self.offset_format), size, record))
        return found


def expected_length(path: Path) -> int:
    """Bytes up to the end of the last variable of a classic NetCDF file.

    Parameters
    ----------
    path : pathlib.Path
        A file that starts with ``CDF``.

    Raises
    ------
    ValueError, KeyError, IndexError, struct.error
        If the header itself is cut or damaged.
    """
    with path.open("rb") as stream:
        header = _Header(stream)
        records = header.count()
        dimensions = header.dimensions()
        header.skip_attributes()
        variables = header.variables(dimensions)
    if records == 2 ** (8 * struct.calcsize(header.count_format)) - 1:  # written as a stream: not counted
        records = 0
    in_records = [variable for variable in variables if variable.record]
    # A lone variable with records is not padded between them.
    stride = in_records[0].size if len(in_records) == 1 else sum(_padded(variable.size) for variable in in_records)
    ends = [0]
    for variable in variables:
        if not variable.record:
            ends.append(variable.begin + variable.size)
        elif records:
            ends.append(variable.begin + (records - 1) * stride + variable.size)
    return max(ends)


def _padded(size: int) -> int:
    return -(-size // 4) * 4
