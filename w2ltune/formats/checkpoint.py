"""The head of a model file of flashlight: where a training stood and the flags that it had.

Little endian, without any padding, before all that only flashlight can read::

    u64 3, "0.1"; u64 n; n times: u64 length, key; u64 length, value; the payload

The keys are ``runPath runIdx timestamp hostname username gflags commandline programname epoch
updates``. The values differ in length from one checkpoint of a run to the next: what tells a whole
file from one cut short is the size of its payload, which does not (measured with v0.3.2).
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from w2ltune.errors import InputError, existing_file, storage_fault

VERSION = "0.1"

_LENGTH = struct.Struct("<Q")
_ANY_VERSION = re.compile(r"\d+(\.\d+)+", re.ASCII)
_NUMBER = re.compile(r"\d{1,19}", re.ASCII)
_ARRAY = struct.Struct("<4qiQ")
_ITEM_BYTES = (4, 8, 8, 16, 1, 4, 4, 1, 8, 8, 2, 2, 2)  # by ArrayFire's number of the type
_LONGEST_GAP = 64 * 1024
"""Between two arrays lie names and numbers of layers, some hundred bytes."""


@dataclass(frozen=True, kw_only=True)
class CheckpointHeader:
    """The head of a model file.

    Attributes:
        version: Of the format.
        entries: Values by key, in the order of the file.
        header_bytes: Size of the head; the payload is the rest of the file.
    """

    version: str
    entries: Mapping[str, str]
    header_bytes: int

    @property
    def epoch(self) -> int:
        """Epochs done, or begun where the checkpoint was written within one."""
        return int(self.entries["epoch"])

    @property
    def updates(self) -> int:
        """Updates done."""
        return int(self.entries["updates"])

    @property
    def flags(self) -> dict[str, str]:
        """All flags that the training had, those of the logging library too."""
        lines = self.entries.get("gflags", "").split("\n")
        flags = (line.removeprefix("--").partition("=") for line in lines if line[:2] == "--")
        return {name: value for name, _, value in flags}


def read_header(path: str | os.PathLike[str]) -> CheckpointHeader:
    """Read the head of a model file.

    Raises:
        InputError: The file is missing, is no model file, or is cut within its head. A cut
            payload is not noticed: see `read_whole`.
        OSError: The disk or file server fails.
    """
    found = existing_file(path, "checkpoint")
    try:
        with found.open("rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size, found)
    except OSError as error:
        if storage_fault(error):  # a whole one may not be taken for a damaged one
            raise
        raise InputError(f"cannot be read: {error.strerror}", path=found) from error


def read_whole(path: str | os.PathLike[str], *, resumed: bool = True) -> CheckpointHeader:
    """Read the head of a model file, unless the file ends within an array.

    Args:
        path: The file.
        resumed: The optimizers' state, which is its last part, is needed too.

    Raises:
        InputError: It is seen to be cut, or as for `read_header`.
    """
    header = read_header(path)
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        at, optimizers = header.header_bytes, False
        while True:
            file.seek(at)
            gap = file.read(_LONGEST_GAP + _ARRAY.size)
            found = _next_array(gap)
            optimizers = optimizers or b"Optimizer" in gap[: None if found is None else found[0]]
            if found is None:
                return header
            at += found[0] + _ARRAY.size + found[1]
            if at > size:
                break
    if optimizers and not resumed:
        return header
    raise InputError(
        f"cut short: {at - size} bytes and more are missing at its end; take an earlier checkpoint",
        path=path,
    )


def _next_array(content: bytes) -> tuple[int, int] | None:
    """Return where the head of the first array stands and how many bytes follow it."""
    for offset in range(len(content) - _ARRAY.size + 1):
        if content[offset + 36 : offset + 44] == bytes(8):  # none or empty: the quick way out
            continue
        *dimensions, kind, length = _ARRAY.unpack_from(content, offset)
        is_one = min(dimensions) > 0 and 0 <= kind < len(_ITEM_BYTES)
        if is_one and math.prod(dimensions) * _ITEM_BYTES[kind] == length:
            return offset, length
    return None


def write_header(file: BinaryIO, entries: Mapping[str, str]) -> None:
    """Write the head of a model file; the payload is to follow.

    Args:
        file: Open for writing.
        entries: Values by key, in the order to write; ``epoch`` and ``updates`` are among them.
    """
    _write_text(file, VERSION)
    file.write(_LENGTH.pack(len(entries)))
    for key, value in entries.items():
        _write_text(file, key)
        _write_text(file, value)


def _read(file: BinaryIO, size: int, path: Path) -> CheckpointHeader:
    version = _read_text(file, size, path)
    if not _ANY_VERSION.fullmatch(version):
        raise InputError(_foreign("it does not begin with a version"), path=path)
    count = _read_length(file, size, path)
    if count * 2 * _LENGTH.size > size - file.tell():
        raise InputError(_cut(size), path=path)
    entries: dict[str, str] = {}
    for _ in range(count):
        key = _read_text(file, size, path)
        entries[key] = _read_text(file, size, path)
    for key in ("epoch", "updates"):
        if not _NUMBER.fullmatch(entries.get(key, "")):
            raise InputError(_foreign(f"its head tells no number of {key}"), path=path)
    return CheckpointHeader(version=version, entries=entries, header_bytes=file.tell())


def _read_length(file: BinaryIO, size: int, path: Path) -> int:
    read = file.read(_LENGTH.size)
    if len(read) < _LENGTH.size:
        raise InputError(_cut(size), path=path)
    return int(_LENGTH.unpack(read)[0])


def _read_text(file: BinaryIO, size: int, path: Path) -> str:
    # A length out of a damaged file may be anything: none may ask for more memory than the file.
    length = _read_length(file, size, path)
    if file.tell() == _LENGTH.size and length > 16:
        raise InputError(_foreign("it does not begin with a version"), path=path)
    read = file.read(length) if length <= size - file.tell() else b""
    if len(read) < length:
        raise InputError(_cut(size), path=path)
    return read.decode("utf-8", "surrogateescape")  # paths may be any bytes


def _write_text(file: BinaryIO, text: str) -> None:
    encoded = text.encode("utf-8", "surrogateescape")
    file.write(_LENGTH.pack(len(encoded)) + encoded)


def _foreign(reason: str) -> str:
    return f"is no model file of flashlight: {reason}"


def _cut(size: int) -> str:
    return f"cut short or damaged within its head ({size} bytes); take an earlier checkpoint"
