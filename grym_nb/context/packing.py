"""What a file holds of a content: text and arrays made smaller where that pays, and back.

Text is deflated; arrays go into one npz, each with its bytes sorted by significance first where that helps
(all first bytes of the numbers, then all second ones), since the bytes of like numbers differ mostly in the
last. What a sample of it shows not to get smaller is kept as it is.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Packed", "from_npy", "npy", "pack", "unpack"]

_LEAST = 2048  # bytes; below that, nothing is worth the time
_SAMPLE = 1 << 16
_PAYS = 0.9  # of its size is what a sample has to come down to
_LEVEL = 1
_MOST_HEADER = 1 << 24  # bytes; numpy would refuse a dtype of many names
_PLAIN, _SHUFFLED = ".npy", ".shuffled.npy"


class Packed(NamedTuple):
    """A content as a file holds it: the text (bytes when it is deflated), the npz, and its size before."""

    text: str | bytes
    arrays: bytes | None
    raw: int

    @property
    def size(self) -> int:
        """Its size in the file, in bytes."""
        return len(self.text) + len(self.arrays or b"")


def pack(text: str, arrays: Sequence[Array]) -> Packed:
    """Return what the file is to hold of a text and its arrays."""
    raw = len(text) + sum(int(array.nbytes) for array in arrays)
    short: str | bytes = text
    if len(text) >= _LEAST:
        data = text.encode("ascii")
        if _gets_smaller(data):
            short = zlib.compress(data, 6)
    return Packed(short, _npz(arrays) if arrays else None, raw)


def unpack(text: str | bytes, arrays: bytes | None) -> tuple[str, list[Array]]:
    """Return the text and the arrays that were packed."""
    told = text if isinstance(text, str) else zlib.decompress(text).decode("ascii")
    return told, [] if arrays is None else _from_npz(arrays)


def npy(array: Array) -> bytes:
    """Return an array as an npy file."""
    import numpy as np

    buffer = io.BytesIO()
    # Left to itself, numpy warns when the names in a dtype need this version.
    np.lib.format.write_array(buffer, array, version=(3, 0), allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: bytes) -> Array:
    """Return the array in an npy file; it cannot be written to, nor be made so that it can."""
    import numpy as np

    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False, max_header_size=_MOST_HEADER)
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    owner.flags.writeable = array.flags.writeable = False
    return array.view()  # who owns its data may make it writeable again


def _gets_smaller(data: bytes | memoryview) -> bool:
    middle = max(0, (len(data) - _SAMPLE) // 2)
    sample = data[middle : middle + _SAMPLE]
    return len(zlib.compress(sample, _LEVEL)) < _PAYS * len(sample)


def _npz(arrays: Sequence[Array]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, array in enumerate(arrays):
            data = npy(array)
            name, deflate = f"{number}{_PLAIN}", False
            if array.nbytes >= _LEAST:
                head = len(data) - int(array.nbytes)
                sorted_ = _shuffled(data[head:], array.dtype.itemsize)
                if _gets_smaller(sorted_):
                    name, data, deflate = f"{number}{_SHUFFLED}", data[:head] + sorted_, True
            how = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), data, how, _LEVEL)
    return buffer.getvalue()


def _from_npz(data: bytes) -> list[Array]:
    import numpy as np

    found: dict[int, Array] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            member = archive.read(name)
            number, _, kind = name.partition(".")
            array = from_npy(member)
            if f".{kind}" == _SHUFFLED:
                head = len(member) - int(array.nbytes)
                sorted_ = np.frombuffer(member, np.uint8, offset=head)
                member = member[:head] + sorted_.reshape(array.dtype.itemsize, -1).T.tobytes()
                array = from_npy(member)
            found[int(number)] = array
    return [found[number] for number in range(len(found))]


def _shuffled(data: bytes, itemsize: int) -> bytes:
    """Return the bytes of numbers, all first ones first, then all second ones, and so on."""
    import numpy as np

    return np.frombuffer(data, np.uint8).reshape(-1, itemsize).T.tobytes()
