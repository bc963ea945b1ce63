"""``w2ltune lexicon``: a lexicon for a model's tokens, letters or word pieces."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune import files
from w2ltune.commandline import option, parse_own
from w2ltune.embedded.decoderfiles import read_tokens
from w2ltune.errors import InputError, UsageError, existing_file, run_command
from w2ltune.formats.blanks import BLANKS, split_words
from w2ltune.formats.listfile import read_list
from w2ltune.formats.spelling import piece_mark, speller

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
    spell = speller(tokens, separator=options.wordseparator)
    rows, unspelled = [], []
    others: set[str] = set()
    for word in dict.fromkeys(_words(options, others)):
        spelling = spell(word)
        if spelling is None:
            unspelled.append(word)
        else:
            rows.append(f"{word}\t{' '.join(spelling)}\n")
    if not rows and not unspelled:
        raise InputError("no words in it", path=options.words or options.list)
    if not rows:
        raise InputError(
            f"none of the {len(unspelled)} words can be spelled, as {unspelled[0]!r}"
            f"{_why(unspelled, spell, tokens)}",
            path=options.tokens,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    replaced = options.out.exists() and options.out.read_bytes() != "".join(rows).encode()
    files.write_text(options.out, "".join(rows))
    print(f"wrote {options.out}: {len(rows)} words{', in place of others' if replaced else ''}")
    odd = [other for other in others if other.isalpha() and other not in tokens]
    if 2 * len(odd) > len(others):
        print(f"the first word of each row is taken; the others, as {min(odd)!r}, are no tokens")
    if options.wordseparator not in tokens and not piece_mark(tokens):
        print(f"spelled without word separators: {options.wordseparator!r} is no token")
    if unspelled:
        shown = ", ".join(map(repr, unspelled[:5]))
        why = _why(unspelled, spell, tokens)
        print(f"left out, as the tokens cannot spell them: {len(unspelled)}, as {shown}{why}")
    return 0


def _why(
    words: Sequence[str], spell: Callable[[str], list[str] | None], tokens: Sequence[str]
) -> str:
    """Return what keeps most words from being spelled, if it can be seen, or ""."""
    changes: dict[str, Callable[[str], str]] = {
        "in lower case": str.lower,
        "in upper case": str.upper,
    }
    some = words[:200]
    if 2 * len(set(some).intersection(tokens)) > len(some):
        return "; they are tokens: those of an LM over tokens are decoded without a lexicon"
    for how, change in changes.items():
        if 2 * sum(change(word) != word and spell(change(word)) is not None for word in some) > len(
            some
        ):
            return f"; {how} they can"
    letters = Counter(letter for word in some for letter in set(word) - set("".join(tokens)))
    lacking = ", ".join(repr(letter) for letter, _ in letters.most_common(5))
    return f"; no token has {lacking}" if lacking else ""


def _words(options: LexiconOptions, others: set[str]) -> Iterator[str]:
    if options.words is not None:
        existing_file(options.words, "words (--words)")
        yield from (word for word in _read(options.words, others) if word not in SKIPPED)
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


def _read(path: Path, others: set[str]) -> Iterator[str]:
    """Yield the words of an ARPA file, or the first column of any other; others are added up."""
    section = None  # of an ARPA file
    announced = there = 0
    first: list[str] = []
    for line in _lines(path):
        text = line.strip(BLANKS)
        if _ARPA_SECTION.fullmatch(text):
            if section == "\\1-grams:":
                break
            section = text
            first.clear()  # some toolkits write prose before the sections
            others.clear()
        elif section == "\\data\\" and (match := _ANNOUNCED.fullmatch(text)):
            announced = int(match[1])
        elif section == "\\1-grams:":
            there += bool(text)
            columns = text.split("\t") if "\t" in text else split_words(text)
            if len(columns) > 1:
                yield columns[1].strip(BLANKS)
        elif section is None and text:
            word, *more = split_words(text)
            first.append(word)
            others.update(more)
    if there < announced:
        raise InputError(
            f"{announced} unigrams announced, {there} there: the file is cut", path=path
        )
    yield from first


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
