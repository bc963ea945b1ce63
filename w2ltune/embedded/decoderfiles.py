"""The files of a decoder: token list, lexicon, and a first look at a language model."""

from __future__ import annotations

import contextlib
import gzip
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from w2ltune.errors import InputError, existing_file
from w2ltune.formats.compressed import DAMAGE

_PIECE = 65536


def read_tokens(path: Path) -> list[str]:
    """Return the token names of a token list, one line each (the first name of the line).

    Raises:
        InputError: Missing, empty, not UTF-8 or a repeated token.
    """
    existing_file(path, "token list (--tokens)")
    names: dict[str, int] = {}
    tokens = []
    for number, line in _lines(path):
        entries = line.split()
        if not entries:  # which flashlight passes over too
            continue
        for name in entries:
            if name in names:
                raise InputError(
                    f"token {name!r} stands in line {names[name]} already{_as_in_a_lexicon(path)}",
                    path=path,
                    line=number,
                )
            names[name] = number
        tokens.append(entries[0])
    if not tokens:
        raise InputError("the token list is empty", path=path)
    return tokens


def _as_in_a_lexicon(path: Path) -> str:
    """Say so where the lines of a token list are words with their spellings."""
    widths = [len(line.split()) for _, line in _lines(path)]
    spelled = sum(width > 2 for width in widths)
    if 2 * spelled <= len(widths):
        return ""
    return (
        f"; {spelled} of its {len(widths)} lines are a word and a spelling, as in a lexicon "
        "(--lexicon), and a token list (--tokens) has a token a line"
    )


def read_lexicon(path: Path, *, maxword: int = -1) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line number, word, spelling in tokens) of a lexicon.

    Args:
        path: Lines of a word, white space and its tokens; a word may have several lines.
        maxword: Stop after that many different words; -1 reads all (flag ``--maxword``).

    Raises:
        InputError: Missing, empty, not UTF-8 or a word without a spelling.
    """
    existing_file(path, "lexicon (--lexicon)")
    words: set[str] = set()
    for number, line in _lines(path):
        entries = line.split()
        if not entries:
            continue
        if len(entries) < 2:
            raise InputError(
                f"word {entries[0]!r} has no spelling; write the word and its tokens",
                path=path,
                line=number,
            )
        if entries[0] not in words and len(words) == maxword:
            break
        words.add(entries[0])
        yield number, entries[0], entries[1:]
    if not words:
        raise InputError("the lexicon is empty", path=path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from enumerate(file, 1)
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text ({error.reason} at byte {error.start})", path=path
        ) from None


def check_lm_head(path: Path) -> None:
    """Refuse at once what cannot be an n-gram LM, before KenLM reads gigabytes of it.

    As for KenLM, an ARPA file may have blank lines before and behind it, comments before, and be
    packed by gzip.

    Raises:
        InputError: Empty, or neither ARPA nor KenLM binary, or an ARPA file cut before its end.
    """
    try:
        with open_lm(path) as file:
            wrong = _what_is_wrong(file)
    except DAMAGE as error:
        wrong = f"cut or damaged: {error}"
    if wrong:
        raise InputError(wrong, path=path)


def open_lm(path: Path) -> BinaryIO:
    """Open a language model, packed by gzip or not, whatever its name is."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def _what_is_wrong(file: BinaryIO) -> str:
    first = _first_line(file)
    if not first:
        return "the language model is empty"
    if first.startswith(b"mmap lm http://kheafield.com/code"):
        return ""
    if first.startswith((b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "the language model is compressed otherwise than by gzip; unpack it first"
    if first != b"\\data\\":
        if b"\\data\\" not in first + file.read(_PIECE):
            return "neither an ARPA file nor a KenLM binary"
        return (
            f"{first[:40].decode(errors='replace')!r} stands where an ARPA file begins with "
            "\\data\\, and KenLM does not take it; remove what stands before"
        )
    if isinstance(file, gzip.GzipFile):  # whose end is hours away
        return ""
    end = _last_text(file)
    if end.endswith(b"\\end\\"):
        return ""
    if b"\n\\end\\" in end:
        return "lines stand behind \\end\\, and KenLM does not take them; remove them"
    return "the ARPA file has no \\end\\ line; it is cut short: copy it anew"


def _first_line(file: BinaryIO) -> bytes:
    """Return the first line that is neither blank nor a comment."""
    while line := file.readline(_PIECE):
        text = line.strip()
        if text and not text.startswith(b"#"):
            return text
    return b""


def _last_text(file: BinaryIO) -> bytes:
    """Return the end of a file without the blanks behind it."""
    end = file.seek(0, 2)
    while end > 0:
        begin = max(0, end - _PIECE)
        file.seek(begin)
        if text := file.read(end - begin).rstrip():
            file.seek(max(0, begin + len(text) - _PIECE))
            return file.read(_PIECE).rstrip()
        end = begin
    return b""


def missing_ngrams(path: Path) -> str:
    """Return which n-grams an ARPA file announces and does not hold, or ""."""
    announced: dict[bytes, int] = {}
    held: Counter[bytes] = Counter()
    section = b""
    with open_lm(path) as file, contextlib.suppress(*DAMAGE):
        if _first_line(file) != b"\\data\\":
            return ""
        for line in file:
            text = line.strip()
            if text.startswith(b"\\"):
                section = text[1:].partition(b"-grams:")[0]
            elif section:
                held[section] += bool(text)
            elif count := re.fullmatch(rb"ngram (\d+)=(\d+)", text):
                announced[count[1]] = int(count[2])
    wrong = [
        f"{count} {order.decode()}-grams, and {held[order]} are there"
        for order, count in announced.items()
        if held[order] != count
    ]
    return f"it announces {', '.join(wrong)}" if wrong else ""
