"""Files that may be compressed, told by their name: ``.gz``, ``.zst``, or as they are."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any, cast

from w2ltune.errors import InputError

BYTE_ORDER_MARK = codecs.BOM_UTF8
"""What some editors write before UTF-8 text; it would become a part of the first id."""

MARKED = "a byte order mark: save as UTF-8 without it"
"""What is said of a line that begins with one."""

DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading from :func:`open_unpacked` raises on a file that is cut or damaged."""


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading its content, unpacked.

    Args:
        path: The file. One in ``.zst`` is unpacked into memory.

    Raises:
        InputError: It ends in ``.zst`` and the package for that is not installed.
        EOFError: The ``.zst`` is cut.
        zlib.error: The ``.zst`` is damaged. A ``.gz`` raises one of :data:`DAMAGE` when read.
    """
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return io.BytesIO(_unpack_zstandard(path))
    return path.open("rb")


def packing(file: IO[bytes], path: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Return what packs into an open file as the name says; the file stays open.

    Args:
        file: Open for writing, perhaps under a temporary name.
        path: The name that it will have.

    Raises:
        InputError: As for :func:`open_unpacked`.
    """
    if path.suffix == ".gz":
        # Without name and time in its header, the same content gives the same file.
        return cast(IO[bytes], gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
    if path.suffix == ".zst":
        writer = _zstandard(path).ZstdCompressor().stream_writer(file, closefd=False)
        return cast(IO[bytes], writer)
    return contextlib.nullcontext(file)


def _unpack_zstandard(path: Path) -> bytes:
    zstandard = _zstandard(path)
    rest = path.read_bytes()
    parts: list[bytes] = []
    try:
        while rest:  # frame by frame
            # Its readers of streams take the end of a cut file for the end of the content.
            frame = zstandard.ZstdDecompressor().decompressobj()
            parts.append(frame.decompress(rest))
            if not frame.eof:
                raise EOFError("the file ends within a frame")
            rest = frame.unused_data
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error
    return b"".join(parts)


def _zstandard(path: Path) -> Any:
    try:
        import zstandard
    except ImportError:
        raise InputError(
            "reading and writing .zst needs zstandard, not installed: "
            "pip install 'w2ltune[zst]' (or use .gz)",
            path=path,
        ) from None
    return zstandard
