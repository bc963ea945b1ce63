"""The emissions of a whole list in one ``.npz``.

Its arrays are ``ids`` [utterances], ``frames`` [utterances] and ``emissions`` [sum of frames,
tokens] in float16 or float32, utterance after utterance in the order of ``ids``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from w2ltune.errors import InputError
from w2ltune.files import replacing, shaped
from w2ltune.formats.npz import read_header, read_member

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of its name and extra field


def map_npz(path: Path, scratch: Path | None) -> tuple[list[str], list[int], NDArray[Any]]:
    """Return utterance ids, frames of each, and the rows of all [sum of frames, tokens].

    numpy does not map members of an ``.npz``, so this finds where in the file the array begins.
    A compressed one is unpacked to ``scratch`` once for all processes of the node, else read.

    Raises:
        InputError: It is cut or damaged, or its arrays do not fit each other.
    """
    with shaped(path, "not an .npz file, or cut or damaged"), zipfile.ZipFile(path) as archive:
        try:
            ids = read_member(archive, "ids")
            frames = read_member(archive, "frames")
            member = archive.getinfo("emissions.npy")
        except KeyError as error:
            raise InputError(
                f"{error.args[0]}; an .npz of emissions holds the arrays ids, frames and emissions",
                path=path,
            ) from error
        with archive.open(member) as file:
            shape, _, dtype = read_header(file, member.file_size)
        if wrong := _what_is_wrong(ids, frames, np.broadcast_to(np.empty((), dtype), shape)):
            raise InputError(wrong, path=path)
        return ids.tolist(), frames.tolist(), _map_emissions(archive, member, path, scratch)


def _what_is_wrong(ids: NDArray[Any], frames: NDArray[Any], rows: NDArray[Any]) -> str | None:
    if ids.dtype.kind != "U" or ids.ndim != 1 or not ids.size:
        return f"the array ids is {ids.dtype} {list(ids.shape)}; it must hold utterance ids as text"
    if len(np.unique(ids)) != len(ids):
        return "an utterance comes twice in the array ids"
    if frames.dtype.kind not in "iu" or frames.shape != ids.shape or frames.min() < 0:
        return (
            f"the array frames is {frames.dtype} {list(frames.shape)}; it must hold the number of "
            f"frames of each of the {len(ids)} utterances"
        )
    if rows.dtype.kind != "f" or rows.dtype.itemsize > 4 or rows.ndim != 2 or not rows.shape[1]:
        return (
            f"the array emissions is {rows.dtype} {list(rows.shape)}; it must be float16 or "
            "float32 [sum of frames, tokens]"
        )
    if int(frames.sum()) != len(rows):
        return f"the array frames adds up to {frames.sum()}, but emissions has {len(rows)} rows"
    return None


def _map_emissions(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, scratch: Path | None
) -> NDArray[Any]:
    """Return the array ``emissions`` without reading it, where that is possible."""
    if member.compress_type == zipfile.ZIP_STORED:
        mapped, start = path, member.header_offset
        with path.open("rb") as file:
            file.seek(start)
            start += 30 + sum(_LOCAL_HEADER.unpack(file.read(30)))
    elif scratch is not None:
        mapped, start = _unpack_once(archive, member, path, scratch), 0
    else:
        return read_member(archive, "emissions")
    with mapped.open("rb") as file:
        file.seek(start)
        shape, fortran_order, dtype = read_header(file, member.file_size)
        offset = file.tell()
    if 0 in shape:
        return np.empty(shape, dtype)  # nothing to map
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    return np.asarray(np.memmap(mapped, dtype, "r", offset, shape, order))


def _unpack_once(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, scratch: Path
) -> Path:
    """Unpack a member into ``scratch``, unless a process of this node has done so."""
    status = path.stat()
    identity = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    unpacked = scratch / f"emissions-{digest[:16]}.npy"
    scratch.mkdir(parents=True, exist_ok=True)
    with unpacked.with_suffix(".lock").open("a") as lock:
        # Where locks are not to be had, several may unpack it, each to a name of its own.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            if member.file_size > (free := shutil.disk_usage(scratch).free):
                raise ValueError(
                    f"it unpacks to {member.file_size} bytes, and {scratch} has {free} free"
                )
            with archive.open(member) as source, replacing(unpacked, binary=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return unpacked


def write_emissions(
    path: Path,
    items: Iterable[tuple[str, NDArray[np.floating[Any]]]],
    *,
    dtype: DTypeLike = np.float16,
) -> None:
    """Write an ``.npz`` that can be mapped, one utterance in memory at a time.

    Args:
        path: The file to replace.
        items: Utterance id and emission [frames, tokens] of each utterance.
        dtype: float16, or float32 for values that float16 does not hold.

    Raises:
        InputError: There is no utterance, an id comes twice, the numbers of tokens differ, or a
            value is too large for float16.
    """
    stored = np.dtype(dtype).newbyteorder("<")
    frame_counts: dict[str, int] = {}
    tokens = 0
    # How many rows there will be is told before the rows, but known after them.
    with tempfile.TemporaryFile(dir=path.parent) as rows:
        for name, emission in items:
            tokens = tokens or emission.shape[1]
            if name in frame_counts:
                raise InputError(f"the utterance {name!r} comes twice", path=path)
            if emission.shape[1] != tokens:
                raise InputError(
                    f"the emission of {name!r} has {emission.shape[1]} tokens, not {tokens} as "
                    "those before it",
                    path=path,
                )
            frame_counts[name] = len(emission)
            try:
                with np.errstate(over="raise"):
                    rows.write(emission.astype(stored).tobytes())
            except FloatingPointError as error:
                raise InputError(
                    f"the emission of {name!r} has values beyond {stored.name}; write float32",
                    path=path,
                ) from error
        if not frame_counts:
            raise InputError("there is no emission to write", path=path)
        rows.seek(0)
        with replacing(path, binary=True) as file, zipfile.ZipFile(file, "w") as archive:
            for array_name, values in (
                ("ids", np.array(list(frame_counts))),
                ("frames", np.array(list(frame_counts.values()), dtype="<i8")),
            ):
                with archive.open(zipfile.ZipInfo(f"{array_name}.npy"), "w") as member:
                    npy.write_array(member, values, allow_pickle=False)
            info = zipfile.ZipInfo("emissions.npy")
            with archive.open(info, "w", force_zip64=True) as member:
                shape = (sum(frame_counts.values()), tokens)
                descr = npy.dtype_to_descr(stored)
                npy.write_array_header_1_0(
                    member, {"shape": shape, "fortran_order": False, "descr": descr}
                )
                shutil.copyfileobj(rows, member, 1 << 20)
