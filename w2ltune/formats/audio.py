"""Audio files by their first bytes: the programs do not say which one they cannot read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from w2ltune.errors import InputError
from w2ltune.formats.listfile import iterate_list

_BEGINNINGS = (
    *(b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"dns.", b"caff"),
    *(b"NIST", b"Creative", b"ID3", b"\xff\xf3", b"\xff\xfb", b"\xff\xfa"),
)
"""Of what libsndfile reads."""


def first_unreadable(lists: Iterable[Path], folder: Path) -> str:
    """Return in words the first audio file of some lists that cannot be one, or "".

    Args:
        lists: In any format; what cannot be read of them is passed over.
        folder: To which their audio is relative.
    """
    for path in lists:
        try:
            for utterance in iterate_list(path):
                if reason := _why_unreadable(folder / utterance.path):
                    return f"{utterance.path} of {path.name} {reason}"
        except InputError:
            continue
    return ""


def _why_unreadable(sound: Path) -> str:
    try:
        with sound.open("rb") as file:
            head = file.read(12)
    except (OSError, ValueError) as error:
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    if not head:
        return "is empty"
    if not head.startswith(_BEGINNINGS):
        return f"begins with {head!r}, as no audio file does"
    return ""
