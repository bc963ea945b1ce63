"""Arrays in ``.npy`` and ``.npz``: reading them runs no code, and no more is unpacked than fits."""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from w2ltune.errors import InputError
from w2ltune.files import shaped
from w2ltune.formats.compressed import require_room


def read_npz(path: Path, what: str) -> dict[str, Any]:
    """Return the arrays of an ``.npz``.

    Args:
        path: The file.
        what: What it should be, as in ``".npz of features"``.

    Raises:
        InputError: It is damaged or something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    return parse_npz(content, path=path, what=what)


def parse_npz(content: bytes, *, path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Return the arrays of an ``.npz`` that was read already; see :func:`read_npz`."""
    with shaped(path, f"is no {what}"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        require_room(sum(member.file_size for member in archive.infolist()), "the arrays")
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        return {name: read_member(archive, name) for name in names}


def read_npy(path: Path) -> NDArray[Any]:
    """Return the array of a ``.npy``.

    Raises:
        ValueError, OSError, …: It is damaged or something else: one of `files.DAMAGE`.
    """
    with path.open("rb") as file:
        read_header(file, os.fstat(file.fileno()).st_size)
        file.seek(0)
        return np.asarray(npy.read_array(file, allow_pickle=False))


def read_member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return an array of an ``.npz`` that is open; raises one of `files.DAMAGE`."""
    member = archive.getinfo(f"{name}.npy")
    require_room(member.file_size, f"the array {name}")
    with archive.open(member) as file:
        read_header(file, member.file_size)
    with archive.open(member) as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))


def read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and type of an array, of whose values nothing is read.

    Args:
        file: Stands where the array begins.
        size: Its bytes with the header.

    Raises:
        ValueError: It is no array of values, or has not that size.
    """
    begin = file.tell()
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"array format {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    values = size - (file.tell() - begin)
    if dtype.hasobject or dtype.names or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} {list(shape)}, neither numbers nor text")
    if math.prod(shape) * dtype.itemsize > values:
        raise ValueError(f"an array of {dtype} {list(shape)} in {values} bytes")
    return shape, fortran_order, dtype
