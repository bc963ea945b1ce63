"""The emission file of one utterance, as flashlight's programs write it with ``--emission_dir``.

Little endian, without any padding::

    u64 3, "0.1"; u32 0; u64 n; n float32, frame by frame; u64 length, utterance id;
    i32 frames; i32 tokens

The same layout is in wav2letter v0.2. The values are raw network outputs; the blank of CTC is
the last token.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError
from w2ltune.files import replacing

_HEAD = struct.Struct("<Q3sIQ")  # length of the version, the version, class version, n
_VERSION = (3, b"0.1", 0)
_LENGTH = struct.Struct("<Q")
_SHAPE = struct.Struct("<ii")


def read_emission_bin(path: Path) -> NDArray[np.float32]:
    """Return the emission in a file: float32, C order, [frames, tokens].

    Raises:
        InputError: As for :func:`read_emission_shape`.
    """
    frames, tokens = read_emission_shape(path)
    values = np.fromfile(path, dtype="<f4", count=frames * tokens, offset=_HEAD.size)
    return values.astype(np.float32, copy=False).reshape(frames, tokens)


def read_emission_shape(path: Path) -> tuple[int, int]:
    """Return frames and tokens of a file after checking all but its values.

    Raises:
        InputError: It is cut, of another version, contradicts itself, or holds another
            utterance than its name says.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            *version, count = _HEAD.unpack(file.read(_HEAD.size))
            if tuple(version) != _VERSION:
                raise InputError(
                    "not an emission file of wav2letter or flashlight: it does not begin with "
                    "version '0.1'",
                    path=path,
                )
            tail_start = _HEAD.size + 4 * count
            file.seek(min(tail_start, size))
            tail = file.read(_LENGTH.size + 4096)  # a file name has 255 bytes at most
            (length,) = _LENGTH.unpack_from(tail)
            name = tail[_LENGTH.size : _LENGTH.size + length].decode("utf-8")
            frames, tokens = _SHAPE.unpack_from(tail, _LENGTH.size + length)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    except (struct.error, OverflowError, UnicodeDecodeError) as error:
        raise InputError(
            f"cut or damaged ({size} bytes); write the emissions again", path=path
        ) from error
    expected_size = tail_start + _LENGTH.size + length + _SHAPE.size
    if size != expected_size:
        raise InputError(
            f"{size} bytes where its header tells {expected_size}; write the emissions again",
            path=path,
        )
    if frames < 0 or tokens < 1 or frames * tokens != count:
        raise InputError(f"{frames} frames of {tokens} tokens, but {count} values", path=path)
    if name != path.stem:
        raise InputError(
            f"holds the emission of the utterance {name!r}; name it {name}.bin", path=path
        )
    return frames, tokens


def write_emission_bin(folder: Path, name: str, emission: NDArray[np.floating[Any]]) -> Path:
    """Write the emission of one utterance as flashlight does, to the byte.

    Args:
        folder: The folder to write to, which exists.
        name: The utterance id; the file is ``<name>.bin``.
        emission: [frames, tokens].

    Returns:
        The file written.

    Raises:
        InputError: The id cannot be the name of a file.
    """
    if "/" in name or not name:
        raise InputError(f"utterance id {name!r} cannot be the name of an emission file")
    path = folder / f"{name}.bin"
    encoded = name.encode()
    with replacing(path, binary=True) as file:
        file.write(_HEAD.pack(*_VERSION, emission.size))
        file.write(emission.astype("<f4").tobytes())
        file.write(_LENGTH.pack(len(encoded)) + encoded + _SHAPE.pack(*emission.shape))
    return path
