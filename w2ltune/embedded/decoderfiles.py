"""The files of a decoder: token list, lexicon, and a first look at a language model."""

from __future__ import annotations

import contextlib
import gzip
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from w2ltune.errors import InputError, existing_file
from w2ltune.formats.blanks import split_words
from w2ltune.formats.compressed import DAMAGE
from w2ltune.formats.known_flags import Generation

UNKNOWN_WORD = "<unk>"
BLANK_TOKEN = "#"

_SPELLED_UNKNOWN = re.compile(rb"^[ \t]*<unk>[ \t]", re.MULTILINE)

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
        entries = split_words(line)
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
    widths = [len(split_words(line)) for _, line in _lines(path)]
    spelled = sum(width > 2 for width in widths)
    if 2 * spelled <= len(widths):
        return ""
    return (
        f"; {spelled} of its {len(widths)} lines are a word and a spelling, as in a lexicon "
        "(--lexicon), and a token list (--tokens) has a token a line"
    )


def read_lexicon(path: Path, *, maxword: int = -1) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line number, word, spelling in tokens) of a lexicon, as the programs' loadWords.

    A spelling of ``<unk>`` is left out, as there; see `unknown_spelling`.

    Args:
        path: Lines of a word, white space and its tokens; a word may have several lines.
        maxword: Stop as soon as so many words are known, behind the first spelling of the last of
            them; below 0 reads all (flag ``--maxword``).

    Raises:
        InputError: Missing, no words, not UTF-8, or a line that is no word and its spelling, at
            which the programs end.
    """
    existing_file(path, "lexicon (--lexicon)")
    words: set[str] = set()
    for number, line in _lines(path) if maxword else ():
        entries = split_words(line)
        if len(entries) < 2:
            problem = (
                f"word {entries[0]!r} has no spelling; write the word and its tokens"
                if entries
                else "an empty line in a lexicon, at which the programs end; remove it"
            )
            raise InputError(problem, path=path, line=number)
        words.add(entries[0])
        if entries[0] != UNKNOWN_WORD:
            yield number, entries[0], entries[1:]
        if len(words) == maxword:
            break
    if not words:
        problem = "the lexicon is empty" if maxword else "--maxword=0 leaves no word of the lexicon"
        raise InputError(problem, path=path)


def unknown_spelling(path: Path) -> str:
    """Say that a lexicon spells ``<unk>``, or return ""."""
    content = path.read_bytes()
    found = _SPELLED_UNKNOWN.search(content)
    if found is None:
        return ""
    line = content.count(b"\n", 0, found.end()) + 1
    return f"{path}:{line}: the spelling of {UNKNOWN_WORD} is not used, the programs drop it too"


def added_tokens(
    criterion: str, *, replabel: int, generation: Generation, eostoken: bool = False
) -> list[str]:
    """Return the tokens that the programs add behind those of the token list.

    Args:
        criterion: Of the model.
        replabel: Flag ``--replabel``.
        generation: Of the program.
        eostoken: Flag ``--eostoken`` of wav2letter.
    """
    form = "<{}>" if generation == "flashlight" else "{}"
    added = [form.format(number) for number in range(1, replabel + 1)]
    added += [BLANK_TOKEN] if criterion == "ctc" else []
    added += ["$", "<pad>"] if criterion in ("s2srnn", "s2stransformer") else []
    return added + ["$"] * (generation == "wav2letter" and eostoken)


def dictionary_of(path: Path, added: Collection[str]) -> Mapping[str, int]:
    """Return the names of all tokens: of the list, with their lines, and those added to it.

    Raises:
        InputError: As `read_tokens`, or a token that is added stands in the list too.
    """
    read_tokens(path)
    names = {name: number for number, line in _lines(path) for name in split_words(line)}
    for token in added:
        if token in names:
            raise InputError(
                f"the token {token!r} is added to the list by itself (for "
                f"{_added_for(token)}), and may not stand in it: remove it",
                path=path,
                line=names[token],
            )
    return names | dict.fromkeys(added, 0)


def _added_for(token: str) -> str:
    if token == BLANK_TOKEN:
        return "the blank of --criterion=ctc"
    return "the end and the padding" if token in ("$", "<pad>") else "--replabel"


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
