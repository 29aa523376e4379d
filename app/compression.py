"""Batches made smaller for links that are far and narrow.

Assumes nothing of the bytes it is given. Guarantees that what is unpacked is no larger than was
allowed, whatever it would become (G9).

Does not know what is in a batch.
"""

import zlib
from typing import Final

from app.errors import BadBatch, TooLarge

ENCODING: Final = "deflate"
"""Its name in HTTP (RFC 9110, section 8.4.1.2)."""
_LEVEL: Final = 1  # the quickest: what a batch repeats, it repeats close by


def packed(body: bytes) -> bytes:
    """The body, compressed."""
    return zlib.compress(body, _LEVEL)


def unpacked(body: bytes, most: int) -> bytes:
    """What was compressed. Raises BadBatch; TooLarge if it has more than `most` bytes."""
    reading = zlib.decompressobj()
    try:
        whole = reading.decompress(body, most + 1)
    except zlib.error as error:
        raise BadBatch(
            f"The batch cannot be unpacked: {error}. Nothing of it was applied."
        ) from None
    if len(whole) > most:
        raise TooLarge(
            f"The batch is larger than this node takes when it is unpacked: {most} bytes "
            "(REPLICATE_MAX_BYTES). Nothing was done."
        )
    if not reading.eof or reading.unused_data:
        raise BadBatch("The batch does not end where it should. Nothing of it was applied.")
    return whole
