"""The files of a decoder: token list, lexicon, and a first look at a language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from w2ltune.errors import InputError, existing_file
from w2ltune.formats.blanks import split_words


def read_tokens(path: Path) -> list[str]:
    """Return the token names of a token list, one line each (the first name of the line).

    Raises:
        InputError: Missing, empty, not UTF-8, an empty line or a repeated token.
    """
    existing_file(path, "token list (--tokens)")
    names: dict[str, int] = {}
    tokens = []
    for number, line in _lines(path):
        entries = split_words(line)
        if not entries:
            raise InputError("empty line in a token list; remove it", path=path, line=number)
        for name in entries:
            if name in names:
                raise InputError(
                    f"token {name!r} stands in line {names[name]} already", path=path, line=number
                )
            names[name] = number
        tokens.append(entries[0])
    if not tokens:
        raise InputError("the token list is empty", path=path)
    return tokens


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
        entries = split_words(line)
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
        with path.open(encoding="utf-8", newline="\n") as file:  # "\r" is a blank
            yield from enumerate(file, 1)
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 text ({error.reason} at byte {error.start})", path=path
        ) from None


def check_lm_head(path: Path) -> None:
    """Refuse at once what cannot be an n-gram LM, before KenLM reads gigabytes of it.

    Raises:
        InputError: Empty, or neither ARPA nor KenLM binary, or an ARPA file cut before its end.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        file.seek(max(0, size - 64))
        tail = file.read()
    if not head:
        raise InputError("the language model is empty", path=path)
    if head.startswith(b"mmap lm http://kheafield.com/code"):
        return
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        raise InputError("the language model is compressed; unpack it first", path=path)
    if b"\\data\\" not in head:
        raise InputError("neither an ARPA file nor a KenLM binary", path=path)
    if b"\\end\\" not in tail:
        raise InputError(
            "the ARPA file has no \\end\\ line; it is cut short: copy it anew", path=path
        )
