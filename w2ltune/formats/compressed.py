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

_PIECE_BYTES = 2**24
_ZSTANDARD_BYTES = 2**9  # four bytes may become 128 KiB
ROOM_PART = 2
"""A file may unpack to the memory that is free by this."""

LONGEST_BYTES = 2**24
"""No line of text is as long."""

DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading from :func:`open_unpacked` raises on a file that is cut or damaged."""


def room_bytes() -> int:
    """Return to how much a file may unpack on this machine: half of the memory that is free."""
    with contextlib.suppress(OSError), Path("/proc/meminfo").open("rb") as lines:
        for line in lines:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024 // ROOM_PART
    return 2**34


def require_room(size: int, what: str) -> None:
    """Refuse what would unpack to more than this machine has room for.

    Raises:
        ValueError: A few MB may unpack to thousands of times as much.
    """
    if size > (room := room_bytes()):
        raise ValueError(
            f"{what} would unpack to {size} bytes, and there is room for {room}, half of the free "
            "memory"
        )


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


def read_unpacked(path: Path) -> bytes:
    """Return the whole content of a file, unpacked.

    Raises:
        InputError: As for :func:`open_unpacked`, or it has no room in memory.
        EOFError, zlib.error, …: It is cut or damaged: one of :data:`DAMAGE`.
    """
    pieces: list[bytes] = []
    size = 0
    with open_unpacked(path) as file:
        while piece := file.read(_PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            _require_room(size, path)
    return b"".join(pieces)


def _require_room(size: int, path: Path) -> None:
    try:
        require_room(size, "it")
    except ValueError as error:
        raise InputError(str(error), path=path) from None


def packing(file: IO[bytes], path: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    """Return what packs into an open file, as its later name says; the file stays open."""
    if path.suffix == ".gz":
        # Without name and time in its header, the same content gives the same file.
        return cast(IO[bytes], gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0))
    if path.suffix == ".zst":
        writer = _zstandard(path).ZstdCompressor().stream_writer(file, closefd=False)
        return cast(IO[bytes], writer)
    return contextlib.nullcontext(file)


def _unpack_zstandard(path: Path) -> bytes:
    zstandard = _zstandard(path)
    parts: list[bytes] = []
    size = 0
    try:
        with path.open("rb") as file:
            rest = file.read(_ZSTANDARD_BYTES)
            while rest:  # frame by frame
                # Its readers of streams take the end of a cut file for the end of the content.
                frame = zstandard.ZstdDecompressor().decompressobj()
                while rest and not frame.eof:
                    parts.append(frame.decompress(rest))
                    size += len(parts[-1])
                    _require_room(size, path)
                    rest = frame.unused_data or file.read(_ZSTANDARD_BYTES)
                if not frame.eof:
                    raise EOFError("the file ends within a frame")
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
