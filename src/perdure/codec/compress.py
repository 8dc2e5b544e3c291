"""zstd above a size, bounded on the way back."""

from __future__ import annotations

import sys
import threading

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS_ABOVE = 1024
"""Bytes above which a payload is compressed, if that makes it smaller."""
LEVEL = 1

_local = threading.local()


def compress(payload: bytes) -> bytes:
    """One zstd frame with its content size in the header. Compressors are kept per thread: making one costs more than using it."""
    compressor = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstd.ZstdCompressor(level=LEVEL)
    compressor.set_pledged_input_size(len(payload))
    frame: bytes = compressor.compress(payload, zstd.ZstdCompressor.FLUSH_FRAME)
    return frame


def decompress(frame: bytes, bytes_max: int) -> bytes:
    """The payload of exactly one frame. Raises `ValueError` if it is damaged, larger than `bytes_max`, or followed by anything."""
    try:
        decompressor = zstd.ZstdDecompressor()
        payload: bytes = decompressor.decompress(frame, max_length=bytes_max + 1)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"the compressed payload is damaged ({error})") from None
    if len(payload) > bytes_max:
        raise ValueError(f"the payload is larger than {bytes_max} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("the compressed payload is cut short or has bytes behind it")
    return payload
