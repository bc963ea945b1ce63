"""What the exports of other toolkits write: outputs saved by numpy, and vocabularies.

Files of others may be cut, damaged or something else altogether: each error names the file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from w2ltune import files
from w2ltune.errors import InputError, UsageError, existing_file
from w2ltune.formats import npz
from w2ltune.formats.toolkits import FAIRSEQ


def read_vocabulary(path: Path) -> list[str]:
    """Return the tokens of a toolkit in the order of its columns.

    Args:
        path: A JSON object of token to column or a JSON list; else a token a line, alone; with its
            column, as k2, WeNet and ESPnet have it; with its count, as fairseq has it; or before a
            tab, as in SentencePiece's ``.vocab``.

    Raises:
        InputError: It is missing, empty, not UTF-8, has tokens that are no texts, or its columns
            have holes.
    """
    existing_file(path, "tokens of the toolkit (--vocabulary)")
    text = _text(path)
    if path.suffix == ".json":
        tokens = _json_tokens(text, path)
    else:
        lines = [line.rstrip("\r") for line in text.split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        tokens = _numbered(lines, path) or [line.split("\t")[0] for line in lines]
    if not tokens:
        raise InputError("there is no token in it", path=path)
    return tokens


_SHORT = re.compile("[0-9]{1,9}")
_NUMBERED = re.compile(rf"(.+)[ \t]({_SHORT.pattern})")


def _numbered(lines: Sequence[str], path: Path) -> list[str]:
    """Return the tokens of lines that all end in a number; none where some do not."""
    found = [match.groups() for match in map(_NUMBERED.fullmatch, lines) if match]
    if not lines or len(found) < len(lines):
        return []
    tokens, numbers = [token for token, _ in found], [int(number) for _, number in found]
    first = min(numbers)
    if sorted(numbers) == list(range(first, first + len(numbers))) and first in (0, 1):
        ordered = [token for _, token in sorted(zip(numbers, tokens, strict=True))]
        return ["<blank>", *ordered] if first else ordered  # ESPnet 1 leaves out the blank
    if all(more >= less for more, less in itertools.pairwise(numbers)):
        return [*FAIRSEQ, *tokens]  # how often each token was seen
    raise InputError(
        f"the numbers behind its tokens are neither the columns 0 to {len(numbers) - 1} nor counts "
        "that fall, as in fairseq's dict.txt",
        path=path,
    )


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text ({error.reason} at byte {error.start})", path=path
        ) from None
    if text.startswith("\ufeff"):
        raise InputError("a byte order mark: save as UTF-8 without it", path=path)
    if "\0" in text:
        raise InputError("no text but a binary file", path=path)
    return text


def _json_tokens(text: str, path: Path) -> list[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", path=path) from None
    if isinstance(content, dict):
        for token, column in content.items():
            if type(column) is not int:  # true and false are numbers too
                raise InputError(
                    f"the column of {token!r} is {json.dumps(column)[:40]}, not a whole number",
                    path=path,
                )
        if sorted(content.values()) != list(range(len(content))):
            raise InputError(f"its columns are not 0 to {len(content) - 1}", path=path)
        return sorted(content, key=content.__getitem__)
    if not isinstance(content, list):
        raise InputError(
            f"{json.dumps(content)[:40]}; expected a list of tokens, or token to column", path=path
        )
    for column, token in enumerate(content):
        if not isinstance(token, str):
            raise InputError(
                f"the token of column {column} is {json.dumps(token)[:40]}, not a text", path=path
            )
    return content


def read_lengths(path: Path) -> list[int]:
    """Return the numbers of frames in a ``.npy``, or in a text with blanks or line ends between.

    Raises:
        InputError: It is missing, damaged, or holds other than whole numbers.
    """
    existing_file(path, "frames of each utterance (--lengths)")
    if path.suffix != ".npy":
        words = _text(path).split()
        for word in words:
            if not _SHORT.fullmatch(word):
                raise InputError(f"{word[:40]!r} is no number of frames", path=path)
        return [int(word) for word in words]
    with _opened(path) as loaded:
        values = _array(loaded, path)
    if values.dtype.kind not in "iuf":
        raise InputError(f"{values.dtype} values; expected numbers of frames", path=path)
    for value in values.ravel().tolist():
        if value != value or value in (np.inf, -np.inf) or value != int(value):
            raise InputError(f"{value:g} is no number of frames", path=path)
    return [int(value) for value in values.ravel().tolist()]


def read_outputs(
    path: Path, ids: Sequence[str], lengths: Sequence[int] | None, *, layout: str
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield utterance id and [frames, columns] of saved outputs.

    Args:
        path: A folder of ``<id>.npy``; an ``.npz`` with an array for each utterance by its id; or
            one ``.npy`` [utterances, frames, columns], padded.
        ids: The utterances of a ``.npy``, in order; of the other two, those to take.
        lengths: Frames of each utterance of a ``.npy``; None where none is padded.
        layout: ``tv`` for [frames, columns], ``vt`` for [columns, frames].

    Raises:
        InputError: A file is damaged, an utterance is missing or has no frames, or an array has
            another form or other values than floating-point numbers.
        UsageError: There are lengths where no utterance is padded.
    """
    if path.is_dir():
        _refuse_lengths(lengths)
        for name in ids:
            file = path / f"{name}.npy"
            with _opened(file) as loaded:
                output = _output(loaded, name, file, layout)
            yield name, output
        return
    with _opened(path) as loaded:
        if isinstance(loaded, np.lib.npyio.NpzFile):
            _refuse_lengths(lengths)
            for name in ids:
                if name not in loaded.files:
                    raise InputError(f"no array of the utterance {name!r}", path=path)
                with _damage_named(path):
                    array = npz.read_member(cast(ZipFile, loaded.zip), name)
                yield name, _output(array, name, path, layout)
        else:
            yield from _cut(_array(loaded, path), path, ids, lengths, layout)


def unlisted_outputs(path: Path, ids: Collection[str]) -> list[str]:
    """Return the utterances of a folder of ``.npy`` or of an ``.npz`` that a list does not have."""
    if path.is_dir():
        return sorted({file.stem for file in path.glob("*.npy")}.difference(ids))
    with _opened(path) as loaded:
        names = loaded.files if isinstance(loaded, np.lib.npyio.NpzFile) else []
        return sorted(set(names).difference(ids))


def _refuse_lengths(lengths: Sequence[int] | None) -> None:
    if lengths is not None:
        raise UsageError("--lengths is for one .npy of all utterances; cut the others yourself")


def _cut(
    array: NDArray[Any],
    path: Path,
    ids: Sequence[str],
    lengths: Sequence[int] | None,
    layout: str,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the utterances of one array [utterances, frames, columns]."""
    if array.ndim != 3:
        raise InputError(f"shape {array.shape}; expected [utterances, frames, tokens]", path=path)
    if len(ids) != len(array):
        raise InputError(f"{len(array)} utterances, but {len(ids)} in --list", path=path)
    if lengths is not None and len(lengths) != len(ids):
        raise InputError(f"{len(ids)} utterances, but {len(lengths)} lengths", path=path)
    for number, name in enumerate(ids):
        output = _output(array[number], name, path, layout)
        frames = len(output) if lengths is None else lengths[number]
        if not 0 < frames <= len(output):
            raise InputError(f"{name!r} has {frames} of {len(output)} frames", path=path)
        yield name, output[:frames]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield what numpy finds in a file; the arrays of an ``.npz`` are read when asked for."""
    existing_file(path, "outputs of the toolkit (--outputs)")
    with path.open("rb") as file:  # numpy itself leaves a damaged one open
        with _damage_named(path):
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                loaded: Any = npz.read_npy(path)
            else:
                file.seek(0)
                loaded = np.load(file, allow_pickle=False)
        yield loaded


def _damage_named(path: Path) -> contextlib.AbstractContextManager[None]:
    return files.shaped(path, "damaged, or neither .npy nor .npz")


def _array(loaded: Any, path: Path) -> NDArray[Any]:
    if not isinstance(loaded, np.ndarray):
        raise InputError("no array of numpy", path=path)
    return loaded


def _output(loaded: Any, name: str, path: Path, layout: str) -> NDArray[np.float32]:
    """Return [frames, columns] of an utterance, after a look at what it is."""
    array = _array(loaded, path)
    if array.dtype.kind != "f":
        raise InputError(
            f"{name!r} holds values of {array.dtype}; expected float16, float32 or float64 (of "
            "bfloat16: save output.float())",
            path=path,
        )
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise InputError(f"{name!r}: shape {array.shape}; expected [frames, tokens]", path=path)
    if not array.size:
        raise InputError(f"{name!r} has no frames; take it out of the list", path=path)
    with np.errstate(over="ignore"):  # float64 may hold more: infinite then, as is told later
        return np.asarray(array.T if layout == "vt" else array, dtype=np.float32)
