"""Model files: the head as the binary writes it, and a payload that tells when it is damaged.

A file is a head (u64 lengths and strings, little endian) and a payload: a type tag, how far the
training came (f64), an array as flashlight's (i64 dimensions[4], i32 type, u64 length, that many
bytes), and a checksum of all these (u32).
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fldouble.gate import wait_in_write
from fldouble.log import CppError, serializer_error

VERSION = "0.1"
KEYS = (
    "runPath",
    "runIdx",
    "timestamp",
    "epoch",
    "hostname",
    "username",
    "updates",
    "gflags",
    "commandline",
    "programname",
)
TAG = b"\x01\x00\x00\x80" + struct.pack("<Q", 14) + b"fl::Sequential"
TRIES = 6
WRITES = 16
ABSURD_BYTES = 2**40

Result = TypeVar("Result")


def save_model(path: Path, config: dict[str, str], progress: float) -> None:
    """Write a model file in place.

    Args:
        path: The file.
        config: The values of the head.
        progress: How far the training came.

    Raises:
        CppError: It could not be written in six tries; a part of it may be there.
    """
    payload_bytes = int(os.environ.get("DOUBLE_PAYLOAD_BYTES", "200000"))
    save_bytes(path, _head(config) + _payload(progress, payload_bytes), config["updates"])


def save_bytes(path: Path, content: bytes, updates: str = "") -> None:
    """Write a file in place: the old content is gone when the new one begins.

    Raises:
        CppError: It could not be written in six tries; a part of it may be there.
    """
    retry("saving", 64, path, lambda: _write(path, content, updates))


def load_config(path: Path) -> dict[str, str]:
    """Return the values in the head of a model file.

    Raises:
        CppError: It could not be read in six tries.
    """
    return retry("loading", 81, path, lambda: _Reader(path).config())


def load_progress(path: Path) -> float:
    """Return how far the training in a model file came; all of the file is read and checked.

    Raises:
        CppError: It could not be read in six tries.
    """
    return retry("loading", 81, path, lambda: _Reader(path).progress())


def retry(doing: str, line: int, path: Path, work: Callable[[], Result]) -> Result:
    wait = float(os.environ.get("DOUBLE_RETRY_SECONDS", "1"))
    tries = 0
    while True:
        try:
            return work()
        except CppError as error:
            serializer_error(line, f'Error while {doing} "{path}": {error}')
            tries += 1
            if tries == TRIES:
                raise
        time.sleep(wait)
        wait *= 2


def _head(config: dict[str, str]) -> bytes:
    strings = [text for key in KEYS for text in (key, config[key])]
    head = _string(VERSION) + struct.pack("<Q", len(KEYS))
    return head + b"".join(map(_string, strings))


def _string(text: str) -> bytes:
    content = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(content)) + content


def _payload(progress: float, size: int) -> bytes:
    body_bytes = max(1, size - len(TAG) - 8 - len(_array_head(0)) - 4)
    block = b"".join(struct.pack("<I", zlib.crc32(f"{progress} {i}".encode())) for i in range(64))
    body = (block * (body_bytes // len(block) + 1))[:body_bytes]
    content = TAG + struct.pack("<d", progress) + _array_head(body_bytes) + body
    return content + struct.pack("<I", zlib.crc32(content))


def _array_head(size: int) -> bytes:
    """Before the bytes of an array of ArrayFire's type u8, number 7."""
    return struct.pack("<4qiQ", size, 1, 1, 1, 7, size)


def _write(path: Path, content: bytes, updates: str) -> None:
    pause = float(os.environ.get("DOUBLE_WRITE_SECONDS", "0")) / WRITES
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError:
        text = f"failed to open file for writing: {path}"
        raise CppError("std::runtime_error", text) from None
    step = len(content) // WRITES + 1
    try:
        for start in range(0, len(content), step):
            wanted = min(step, len(content) - start)
            try:
                written = os.write(file, content[start : start + wanted])
            except OSError:
                written = 0
            if written < wanted:
                text = f"Failed to write {wanted} bytes to output stream! Wrote {written}"
                raise CppError("cereal::Exception", text)
            if pause:
                time.sleep(pause)
            if start == WRITES // 2 * step:
                wait_in_write(updates)
    finally:
        os.close(file)


class _Reader:
    """Takes a model file apart."""

    def __init__(self, path: Path) -> None:
        try:
            self.content = path.read_bytes()
        except OSError:
            text = f"failed to open file for reading: {path}"
            raise CppError("std::runtime_error", text) from None
        self.at = 0

    def config(self) -> dict[str, str]:
        self.string()
        return {self.string(): self.string() for _ in range(self.number())}

    def progress(self) -> float:
        self.config()
        start = self.at
        self.take(len(TAG))
        (progress,) = struct.unpack("<d", self.take(8))
        self.take(len(_array_head(0)) - 8)
        self.take(self.number())
        checksum = zlib.crc32(self.content[start : self.at])
        if struct.unpack("<I", self.take(4)) != (checksum,):
            raise CppError("std::bad_alloc", "std::bad_alloc")
        return float(progress)

    def string(self) -> str:
        return self.take(self.number()).decode("utf-8", "surrogateescape")

    def number(self) -> int:
        (number,) = struct.unpack("<Q", self.take(8))
        if number > ABSURD_BYTES:
            raise CppError("std::bad_alloc", "std::bad_alloc")
        return int(number)

    def take(self, size: int) -> bytes:
        part = self.content[self.at : self.at + size]
        if len(part) < size:
            text = f"Failed to read {size} bytes from input stream! Read {len(part)}"
            raise CppError("cereal::Exception", text)
        self.at += size
        return part
