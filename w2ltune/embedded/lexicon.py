"""``w2ltune lexicon``: a lexicon for a model's tokens, letters or word pieces."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from w2ltune import files
from w2ltune.commandline import option, parse_own
from w2ltune.embedded.decoderfiles import read_tokens
from w2ltune.errors import InputError, UsageError, existing_file, run_command
from w2ltune.formats.listfile import read_list
from w2ltune.formats.spelling import PIECE_BEGIN, spell, why_unlike

USAGE = """
usage: w2ltune lexicon --tokens=tokens.txt --words=FILE --out=lexicon.txt [--list=dev.lst]

Spells words by the tokens of a model: letters with the word separator behind, or word pieces as few
as possible. The words are those of a file: an ARPA language model, a lexicon or a word a line; with
--list also those of the references. Words that the tokens cannot spell are counted and left out.
"""

SKIPPED = {"<s>", "</s>", "<unk>", "<UNK>"}


@dataclass(frozen=True, kw_only=True)
class LexiconOptions:
    """The options of lexicon."""

    tokens: Path = option("tokens of the model, a token a line", value="FILE")
    words: Path | None = option("ARPA file, lexicon, or a word a line", None, value="FILE")
    list: Path | None = option("data list whose references' words are wanted too", None)
    out: Path = option("the lexicon", value="FILE")
    wordseparator: str = option("end of a word that is spelled by letters", "|")


def main(arguments: list[str]) -> int:
    """Write a lexicon."""
    options = parse_own(arguments, LexiconOptions, usage=USAGE)
    if options.words is None and options.list is None:
        raise UsageError("no words: give --words=FILE, --list=LIST, or both")
    files.refuse_to_replace(options.out, options.tokens, options.words, options.list)
    if options.out.is_dir():
        raise UsageError(f"--out={options.out}: this is a folder; name the file")
    files.refuse_unwritable(options.out)
    tokens = read_tokens(options.tokens)
    rows, unspelled = [], []
    for word in dict.fromkeys(_words(options)):
        spelling = spell(word, tokens, separator=options.wordseparator)
        if spelling is None:
            unspelled.append(word)
        else:
            rows.append(f"{word}\t{' '.join(spelling)}\n")
    if not rows and not unspelled:
        raise InputError("no words in it", path=options.words or options.list)
    if not rows:
        letters = {letter for word in unspelled for letter in word}
        known = {letter for token in tokens for letter in token}
        lacking = sorted(letters - known)
        why = why_unlike(lacking, known) or f"the tokens lack {', '.join(map(repr, lacking[:5]))}"
        raise InputError(
            f"none of the {len(unspelled)} words can be spelled, as {unspelled[0]!r}"
            f"{f': {why}' if lacking else ''}",
            path=options.tokens,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(options.out, "".join(rows))
    print(f"wrote {options.out}: {len(rows)} words")
    if options.wordseparator not in tokens and not any(t.startswith(PIECE_BEGIN) for t in tokens):
        print(f"spelled without word separators: {options.wordseparator!r} is no token")
    if unspelled:
        shown = ", ".join(map(repr, unspelled[:5]))
        print(f"left out, as the tokens cannot spell them: {len(unspelled)}, as {shown}")
    return 0


def _words(options: LexiconOptions) -> Iterator[str]:
    if options.words is not None:
        existing_file(options.words, "words (--words)")
        yield from (word for word in _read(options.words) if word not in SKIPPED)
    if options.list is not None:
        for utterance in read_list(options.list):
            yield from utterance.reference


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"not UTF-8 text ({error.reason}); expected an ARPA file, a lexicon or words",
                    path=path,
                    line=number,
                ) from None
            if "\0" in text:
                raise InputError("no text but a binary file", path=path, line=number)
            if number == 1 and text.startswith("\ufeff"):
                raise InputError("a byte order mark: save as UTF-8 without it", path=path, line=1)
            yield text


_ARPA_SECTION = re.compile(r"\\(data\\|end\\|\d+-grams:)")
_ANNOUNCED = re.compile(r"ngram\s+1\s*=\s*([0-9]+)")


def _read(path: Path) -> Iterator[str]:
    """Yield the words of an ARPA file, or the first column of any other.

    Raises:
        InputError: It is no text, or has fewer unigrams than it announces.
    """
    section = None  # of an ARPA file
    announced = there = 0
    first: list[str] = []
    for line in _lines(path):
        text = line.strip()
        if _ARPA_SECTION.fullmatch(text):
            if section == "\\1-grams:":
                break
            section = text
            first.clear()  # some toolkits write prose before the sections
        elif section == "\\data\\" and (match := _ANNOUNCED.fullmatch(text)):
            announced = int(match[1])
        elif section == "\\1-grams:":
            there += bool(text)
            columns = text.split("\t") if "\t" in text else text.split()
            if len(columns) > 1:
                yield columns[1].strip()
        elif section is None and text:
            first.append(text.split()[0])
    if there < announced:
        raise InputError(
            f"{announced} unigrams announced, {there} there: the file is cut", path=path
        )
    yield from first


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
