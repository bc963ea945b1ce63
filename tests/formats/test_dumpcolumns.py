"""The fast reader of dumps, held against the careful one, on captured and on random files."""

from __future__ import annotations

import gzip
import math
import random
from pathlib import Path

import numpy as np
import pytest
import zstandard

from w2ltune.errors import InputError
from w2ltune.formats import dumpcolumns
from w2ltune.formats.beamdump import Separator, iterate_numbered
from w2ltune.formats.dumpcolumns import DumpColumns, read_dump_columns

DATA = Path(__file__).parents[1] / "data"
DUMPS = (
    *(DATA / "weak" / name for name in ("beamdump.hyp", "beamdump-2threads.hyp")),
    DATA / "nbest" / "dev.hyp",
)


def rows_of(columns: DumpColumns) -> list[tuple[object, ...]]:
    names = [columns.ids[number] for number in columns.utterance]
    wers = [None if math.isnan(wer) else wer for wer in columns.wer.tolist()]
    arrays = (columns.line, columns.score, columns.am_score, columns.lm_score)
    counts = (columns.words.tolist(), columns.letters.tolist())
    texts = [columns.text(row) for row in range(len(columns))]
    assert [text.decode() for text in columns.texts] == texts
    return list(
        zip(names, *(array.tolist() for array in arrays), wers, *counts, texts, strict=True)
    )


def lengths(words: tuple[str, ...]) -> tuple[int, int]:
    return len(words), len("".join(words))


def careful_rows(path: Path, form: Separator | None = None) -> list[tuple[object, ...]]:
    return [
        (name, line, h.score, h.am_score, h.lm_score, h.wer, *lengths(h.words), " ".join(h.words))
        for line, _, name, h in iterate_numbered(path, form=form)
    ]


def assert_same(path: Path, form: Separator | None = None) -> bool:
    """Hold the readers against each other; return whether the file could be read."""
    try:
        expected = careful_rows(path, form)
    except InputError as error:
        with pytest.raises(InputError) as caught:
            read_dump_columns(path, form=form)
        assert str(caught.value) == str(error)
        return False
    columns = read_dump_columns(path, form=form)
    assert rows_of(columns) == expected
    assert columns.ids == tuple(dict.fromkeys(row[0] for row in expected))
    assert np.signbit(columns.score).tolist() == [math.copysign(1, r[2]) < 0 for r in expected]
    return True


@pytest.fixture
def only_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, form: Separator | None) -> DumpColumns:
        raise AssertionError("the careful reader was called")

    monkeypatch.setattr(dumpcolumns, "_read_carefully", refuse)


@pytest.mark.usefixtures("only_fast")
@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_captured_dumps_are_read_at_once(path: Path, tmp_path: Path) -> None:
    assert assert_same(path) and assert_same(path, "bar")
    for suffix, pack in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        packed = tmp_path / f"packed{suffix}"
        packed.write_bytes(pack(path.read_bytes()))
        assert rows_of(read_dump_columns(packed)) == rows_of(read_dump_columns(path))


@pytest.mark.usefixtures("only_fast")
def test_what_is_unusual_but_clear_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dump.hyp"
    lines = (
        "\r\n  u | 1 | 2.5 | -0.0 | nan | a  b | c \r\n\n"
        "été | 1e3 | +2 | 3 | inf | l'été ß\u3000x\r\n"
        "u | 1.25 | 2.500000 | 3 | 50 |\n"
        "u|-1|2|3|50|a|b"
    )
    blanks = "u 1 2 3 50 a b\n\n  v  1.5 2 3 nan \r\nu 1 2 3 50   l'été  b  \nv -1 2.25 3 0 |"
    for block in (dumpcolumns._BLOCK, 1):
        monkeypatch.setattr(dumpcolumns, "_BLOCK", block)
        for text in (lines, blanks):
            path.write_bytes(text.encode())
            assert assert_same(path)


def random_number(rng: random.Random) -> str:
    value = rng.uniform(-1000, 1000) * 10 ** rng.randrange(-6, 7)
    forms = ("f", "f", "f", "f", "f", ".2f", "g", "e", "+f", ".12f", "r")
    form = rng.choice(forms)
    return repr(value) if form == "r" else format(value, form)


def random_line(rng: random.Random, form: str, odd: float) -> str:
    def rarely(usual: str, *others: str) -> str:
        return rng.choice(others) if rng.random() < odd else usual

    name = rarely(f"u{rng.randrange(4)}", "é" * 3, "x" * 70, "a_b", "", "u\u00a01")
    numbers = [
        rarely(random_number(rng), "0.000000", "-0.000000", "1e400", "nan", "x", "1_5", "٣.٥", "")
        for _ in range(3)
    ]
    wer = rarely(f"{rng.uniform(0, 120):f}", "nan", "-nan", "inf", "x", "50")
    words = [
        rarely(
            rng.choice(("a", "the", "yes")), "|", "a|b", "", " ", "l'été", "ß\u3000x", "\t", "\r"
        )
        for _ in range(rng.choice((0, 1, 2, 9)))
    ]
    between = {"bar": " | ", "tight": "|", "blank": " "}[form]
    separated = [rarely(between, "|", "  ", " |", "\t", "\x1c") for _ in range(5)]
    fields = [name, *numbers, wer, " ".join(words)]
    line = "".join(a + b for a, b in zip(fields, [*separated, ""], strict=True))
    return rarely("", " ", "\r", "  \r") + line + rarely("", " ", "\r", " \r", "\n", "\n \n")


@pytest.mark.parametrize("block", [1, 200, 1 << 20])
@pytest.mark.parametrize("form", ["bar", "tight", "blank"])
def test_random_dumps(
    tmp_path: Path, form: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumpcolumns, "_BLOCK", block)
    path = tmp_path / "dump.hyp"
    rng = random.Random(f"{form}{block}")
    read = 0
    for _ in range(150):
        odd = rng.choice((0, 0.01, 0.05, 0.2))
        lines = [random_line(rng, form, odd) for _ in range(rng.choice((0, 1, 3, 12)))]
        ending = rng.choice(("", "\n", "\r\n"))
        path.write_bytes(("\n".join(lines) + ending).encode())
        read += assert_same(path, rng.choice((None, None, "bar", "blank")))
    assert 30 < read < 146


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"u|1|2|3|4|\xff\n",
        b"u|1|2|3|4|a\nu|1|2|3|4\n",
        b"\n\nonly words\n",
        b"u\xc3|1|2|3|4|",
        b"\xef\xbb\xbfu|1|2|3|4|a\nu|1|2|3|4|b\n",
        b"u|1|2|3|4|a\n \xef\xbb\xbfu 1 2 3 4 b\n",
    ],
)
def test_errors_are_those_of_the_careful_reader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dump.hyp"
    path.write_bytes(content)
    assert not assert_same(path)
    path = tmp_path / "dump.hyp.gz"
    for packed in (gzip.compress(content)[:-9], content):
        path.write_bytes(packed)
        assert not assert_same(path)
    path = tmp_path / "dump.hyp.zst"
    path.write_bytes(zstandard.compress(content)[:-1])
    assert not assert_same(path)
    assert not assert_same(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_an_empty_dump_is_empty(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dump.hyp"
    path.write_bytes(content)
    assert assert_same(path)
    assert read_dump_columns(path).ids == ()


def test_texts_can_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "dump.hyp"
    path.write_text("u|1|2|3|4|a  b\nu|1|2|3|4|c\nv|1|2|3|4|\n", encoding="utf-8")
    texts = read_dump_columns(path).texts.take([2, 0, 0])
    assert len(texts) == 3 and list(texts) == [b"", b"a b", b"a b"]
    assert (texts.text(1), texts.raw(1)) == ("a b", "a  b")
