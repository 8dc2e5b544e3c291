"""Compression with zstd above a size. Small payloads use a dictionary. Decompression is bounded."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import resources

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NONE, PLAIN, DICTIONARY = 0, 1, 2
"""How a payload is stored: as it is, as a zstd frame, as a zstd frame made with the dictionary. The codes are stored: never reuse one."""
COMPRESS_ABOVE = 512
"""Bytes above which a payload is compressed, if that makes it smaller."""
DICTIONARY_UPTO = 4 << 10
"""Bytes up to which the dictionary is used: what is larger has enough of its own to repeat."""
PLAIN_LEVEL, DICTIONARY_LEVEL, FRAME_LEVEL = 1, 4, 5


@functools.cache
def dictionary() -> zstd.ZstdDict:
    """What events, operations and the frameworks' messages have in common. It never changes: a better dictionary gets a new code.

    Made by scripts/make_dictionary.py.
    """
    return zstd.ZstdDict(resources.files(__package__).joinpath("dictionary1.zstd").read_bytes())


def _plain() -> zstd.ZstdCompressor:
    return zstd.ZstdCompressor(level=PLAIN_LEVEL)


def _with_dictionary(level: int) -> zstd.ZstdCompressor:
    options: dict[int, int] = {zstd.CompressionParameter.compression_level: level, zstd.CompressionParameter.dict_id_flag: 0}
    return zstd.ZstdCompressor(options=options, zstd_dict=dictionary().as_digested_dict)


class _Idle:
    """Compressors of one kind that are not in use.

    They outlive threads. To make one costs fifteen times as much as to use it, and frameworks start threads for a call or two.
    """

    def __init__(self, make: Callable[[], zstd.ZstdCompressor]) -> None:
        self._make = make
        self._idle: list[zstd.ZstdCompressor] = []

    def compress(self, payload: bytes) -> bytes:
        """One frame that names its content's size. From any thread."""
        try:
            compressor = self._idle.pop()
        except IndexError:
            compressor = self._make()
        compressor.set_pledged_input_size(len(payload))
        frame: bytes = compressor.compress(payload, zstd.ZstdCompressor.FLUSH_FRAME)
        self._idle.append(compressor)
        return frame


_idle = {DICTIONARY: _Idle(lambda: _with_dictionary(DICTIONARY_LEVEL)), PLAIN: _Idle(_plain)}
_idle_frames = _Idle(lambda: _with_dictionary(FRAME_LEVEL))


def compress(payload: bytes) -> tuple[bytes, int]:
    """The payload as it is to be stored, and the code that says how: one frame, if that is smaller."""
    size = len(payload)
    if size <= COMPRESS_ABOVE:
        return payload, NONE
    code = DICTIONARY if size <= DICTIONARY_UPTO else PLAIN
    frame = _idle[code].compress(payload)
    return (frame, code) if len(frame) < size else (payload, NONE)


def compress_frame(payload: bytes) -> bytes:
    """A frame of a pack, whatever its size, made with the dictionary; `decompress` reads it as `DICTIONARY`."""
    return _idle_frames.compress(payload)


def decompressed_bytes(stored: bytes, code: int) -> int:
    """How many bytes `decompress` would give, as the frame says; what is stored has so many where it does not say."""
    if code == NONE:
        return len(stored)
    try:
        return zstd.get_frame_info(stored).decompressed_size or len(stored)
    except zstd.ZstdError:
        return len(stored)


def decompress(stored: bytes, code: int, bytes_max: int) -> bytes:
    """The payload again.

    Raises `ValueError` for an unknown code, and for a frame that is damaged, larger than `bytes_max`, or followed by anything.
    """
    if code == NONE:
        return stored
    if code not in (PLAIN, DICTIONARY):
        raise ValueError("its compression is not one that this version knows")
    try:
        decompressor = zstd.ZstdDecompressor(zstd_dict=dictionary() if code == DICTIONARY else None)
        payload: bytes = decompressor.decompress(stored, max_length=bytes_max + 1)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"the compressed payload is damaged ({error})") from None
    if len(payload) > bytes_max:
        raise ValueError(f"the payload is larger than {bytes_max} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("the compressed payload is cut short or other bytes follow it")
    return payload
