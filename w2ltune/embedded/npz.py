"""Arrays in an ``.npz``: reading them runs no code, and notices a cut or damaged file."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from w2ltune import files
from w2ltune.errors import InputError


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
    file = io.BytesIO(content)
    with files.shaped(path, f"is no {what}"):
        if not zipfile.is_zipfile(file):
            raise ValueError("no zip archive, or one cut short")
        file.seek(0)
        with np.load(file) as archive:
            return {name: archive[name] for name in archive.files}
