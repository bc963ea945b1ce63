"""Lexicons and token lists by the programs' rules, held against their rules told once more."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from w2ltune.embedded.decoderfiles import (
    added_tokens,
    dictionary_of,
    read_lexicon,
    unknown_spelling,
)
from w2ltune.errors import InputError


def load_words(content: bytes, maxword: int) -> dict[str, list[list[str]]]:
    """What loadWords of flashlight v0.3.2 gives, but for ``<unk>``, which it empties."""
    lexicon: dict[str, list[list[str]]] = {}
    lines = content.split(b"\n")
    if not lines[-1]:  # getline gives no line behind the last line end
        lines.pop()
    while lines and len(lexicon) != maxword:
        fields = [f.decode() for f in re.split(rb"[\t\n\v\f\r ]+", lines.pop(0)) if f]
        if len(fields) < 2:
            raise ValueError("[loadWords] Invalid line")
        lexicon.setdefault(fields[0], []).append(fields[1:])
    lexicon.pop("<unk>", None)
    return lexicon


def as_read(path: Path, maxword: int) -> dict[str, list[list[str]]]:
    lexicon: dict[str, list[list[str]]] = {}
    for _, word, spelling in read_lexicon(path, maxword=maxword):
        lexicon.setdefault(word, []).append(spelling)
    return lexicon


def test_lexicons_as_load_words_reads_them(tmp_path: Path) -> None:
    chance = random.Random(5)
    path = tmp_path / "lexicon.txt"
    refused = 0
    for _ in range(150):
        lines = []
        for _ in range(chance.randint(1, 8)):
            word = chance.choice(["go", "no", "né", "a\u00a0b", "<unk>", "\u3000"])
            parts = [word, *chance.choices(["g", "o", "n", "\u00a0"], k=chance.randint(0, 3) or 2)]
            line = chance.choice([" ", "\t", " \v"]).join(parts)
            lines.append(chance.choice([line] * 12 + [line + " \r", f"  {line}", "", " \t", "go"]))
        content = ("go g o\n" + "\n".join(lines) + chance.choice(["", "\n"])).encode()
        path.write_bytes(content)
        maxword = chance.choice([-1, -1, 1, 2, 3, 9])
        try:
            expected = load_words(content, maxword)
        except ValueError:
            refused += 1
            with pytest.raises(InputError, match=r"lexicon\.txt:\d+: "):
                as_read(path, maxword)
        else:
            assert as_read(path, maxword) == expected
    assert 20 < refused < 130


def test_maxword_counts_words_and_stops_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("a x\na y\nb x\nb y\na z\nc x\n\n")
    assert [line for line, _, _ in read_lexicon(path, maxword=1)] == [1]
    assert [line for line, _, _ in read_lexicon(path, maxword=2)] == [1, 2, 3]
    assert [line for line, _, _ in read_lexicon(path, maxword=3)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InputError, match=r"lexicon\.txt:7: an empty line in a lexicon"):
        list(read_lexicon(path, maxword=4))
    with pytest.raises(InputError, match="--maxword=0 leaves no word"):
        list(read_lexicon(path, maxword=0))
    path.write_text("<unk> x\na x\nb x\n")
    assert [word for _, word, _ in read_lexicon(path, maxword=2)] == ["a"]


def test_a_spelling_of_the_unknown_word_is_said(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("a x\n<unk>x y\nb <unk> x\n")
    assert unknown_spelling(path) == ""
    path.write_text("a x\n <unk>\tx\n")
    assert unknown_spelling(path).startswith(f"{path}:2: the spelling of <unk> is not used")


def test_tokens_that_the_programs_add(tmp_path: Path) -> None:
    def added(criterion: str, replabel: int, **more: object) -> list[str]:
        return added_tokens(criterion, replabel=replabel, **{"generation": "flashlight", **more})  # type: ignore[arg-type]

    assert added("ctc", 0) == ["#"]
    assert added("asg", 2) == ["<1>", "<2>"]
    assert added("s2srnn", 0) == ["$", "<pad>"]
    assert added("asg", 2, generation="wav2letter") == ["1", "2"]
    assert added("seq2seq", 0, generation="wav2letter", eostoken=True) == ["$"]
    path = tmp_path / "tokens.txt"
    path.write_text("|\na A\n<1>\n")
    assert dictionary_of(path, ["#"]) == {"|": 1, "a": 2, "A": 2, "<1>": 3, "#": 0}
    with pytest.raises(InputError, match=r"tokens\.txt:3: the token '<1>' is added .*--replabel"):
        dictionary_of(path, ["<1>"])
