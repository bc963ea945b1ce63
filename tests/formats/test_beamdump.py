from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest

from w2ltune.errors import InputError
from w2ltune.formats.beamdump import (
    Hypothesis,
    iterate_numbered,
    read_beam_dump,
    write_beam_dump,
)

DATA = Path(__file__).parents[1] / "data"
DUMP = DATA / "weak" / "beamdump.hyp"
TWO_THREADS = DATA / "weak" / "beamdump-2threads.hyp"
WITHOUT_BLANKS = DATA / "nbest" / "dev.hyp"


def items_of(path: Path) -> list[tuple[str, Hypothesis]]:
    return [(row.id, row.hypothesis) for row in iterate_numbered(path)]


def dump(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "dump.hyp"
    path.write_text(content, encoding="utf-8")
    return path


def test_the_captured_dump_is_read() -> None:
    lists = read_beam_dump(DUMP)
    assert len(lists) == 28 and sum(map(len, lists.values())) == 362
    assert lists["tstb-0011"][:2] == [
        Hypothesis(("yes",), 1373.065742, 1377.156859, -3.060744, 0.8),
        Hypothesis((), 1372.633439, 1377.665114, -3.354450, 1.0),
    ]
    for hypotheses in lists.values():
        scores = [hypothesis.score for hypothesis in hypotheses]
        assert scores == sorted(scores, reverse=True)


def test_scores_add_up_as_the_decoder_was_told() -> None:
    for _, hypothesis in items_of(DUMP):  # --lmweight=1.5 --wordscore=0.5
        parts = hypothesis.am_score + 1.5 * hypothesis.lm_score + 0.5 * len(hypothesis.words)
        assert hypothesis.score == pytest.approx(parts, abs=3e-6)


def test_lines_of_several_threads_are_grouped() -> None:
    ids = [name for name, _ in items_of(TWO_THREADS)]
    changes = sum(a != b for a, b in itertools.pairwise(ids))
    assert changes >= len(set(ids))  # they do interleave
    in_order = read_beam_dump(DUMP)
    assert read_beam_dump(TWO_THREADS) == {name: in_order[name] for name in dict.fromkeys(ids)}


def test_the_form_without_blanks_is_read() -> None:
    lists = read_beam_dump(WITHOUT_BLANKS)
    assert list(lists) == ["Mat-001-001", "Mat-001-002", "Mat-001-003"]
    first = lists["Mat-001-001"][0]
    assert (first.score, first.wer) == (-151.8358, 0.3125)
    assert first.words[:4] == ("the", "book", "off", "the")


@pytest.mark.parametrize("name", ["copy.hyp", "copy.hyp.gz"])
def test_a_captured_dump_is_written_again_to_the_byte(tmp_path: Path, name: str) -> None:
    copy = tmp_path / name
    write_beam_dump(copy, items_of(DUMP))
    content = gzip.decompress(copy.read_bytes()) if name.endswith("gz") else copy.read_bytes()
    assert content == DUMP.read_bytes()
    assert read_beam_dump(copy) == read_beam_dump(DUMP)
    first = copy.read_bytes()
    write_beam_dump(copy, items_of(DUMP))
    assert copy.read_bytes() == first


def test_zst_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "copy.hyp.zst"
    write_beam_dump(path, items_of(DUMP))
    assert path.stat().st_size < DUMP.stat().st_size / 2
    assert read_beam_dump(path) == read_beam_dump(DUMP)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"copy\.hyp\.zst: cut or damaged"):
        read_beam_dump(path)


@pytest.mark.parametrize("between", [" | ", " "])
def test_both_forms_come_back(tmp_path: Path, between: str) -> None:
    items = [
        ("a", Hypothesis(("h", "|", "i"), -1.5, -1.0, -0.25, 2.0)),
        ("a", Hypothesis((), 3.0, -1.0, -0.25, 1.0)),
        ("b", Hypothesis(("5", "l'été", "a\u00a0b"), 0.0, 0.0, 0.0, None)),
    ]
    path = tmp_path / "dump.hyp"
    write_beam_dump(path, items)
    rows = [line.split(" | ", 5) for line in path.read_text(encoding="utf-8").split("\n")]
    path.write_text("\n".join(map(between.join, rows)), encoding="utf-8")
    assert items_of(path) == items


BAR = "u | 1 | 2 | 3 | 50 | "


@pytest.mark.parametrize(
    ("line", "words", "wer"),
    [
        ("u | 1 | 2 | 3 | 50 | a | b", ("a", "|", "b"), 0.5),
        ("u|1|2|3|50|a|b", ("a|b",), 0.5),
        ("u | 1 | 2 | 3 | 50 |", (), 0.5),
        ("u|1|2|3|50|", (), 0.5),
        ("u 1 2 3 50 a | b", ("a", "|", "b"), 0.5),
        ("u 1 2 3 50 | | | | | |", ("|",) * 6, 0.5),
        ("u 1 2 3 50", (), 0.5),
        ("u\t1\t2\t3\t50\ta b", ("a", "b"), 0.5),
        (BAR + "a  b \r", ("a", "b"), 0.5),
        ("u | 1 | 2 | 3 | -nan | a", ("a",), None),
        ("u | 1 | 2 | 3 | inf | a", ("a",), float("inf")),
    ],
)
def test_a_line(tmp_path: Path, line: str, words: tuple[str, ...], wer: float | None) -> None:
    path = dump(tmp_path, f"\n{line}\n\n")
    assert items_of(path) == [("u", Hypothesis(words, 1.0, 2.0, 3.0, wer))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("u | 1 | 2 | 3", "'id | score"),
        ("u | 1 | 2 | 3 | 50", "'id | score"),
        ("u | 1 | two | 3 | 50 | a", "'id | score"),
        ("u | nan | 2 | 3 | 50 | a", "the score is nan, with which nothing can be weighed"),
        ("u | 1 | 2 | -inf | 50 | a", "the LM score is -inf"),
        (" | 1 | 2 | 3 | 50 | a", "'id | score"),
        ("u 1 2 3 50 a", "'id | score"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    path = dump(tmp_path, f"{BAR}\n\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_beam_dump(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ") and expected in message
    assert line.strip() in message


def test_a_transcript_file_is_told_from_a_dump() -> None:
    with pytest.raises(InputError, match=r"ref:1: .*--isbeamdump.*'id \| .* or 'id score"):
        read_beam_dump(DATA / "weak" / "decode.ref")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "dump.hyp.gz"
    path.write_bytes(gzip.compress(DUMP.read_bytes())[:1000])
    with pytest.raises(InputError, match="cut or damaged"):
        read_beam_dump(path)
    path.write_bytes(DUMP.read_bytes())
    with pytest.raises(InputError, match="cut or damaged"):
        read_beam_dump(path)
    path = tmp_path / "dump.hyp"
    path.write_bytes(f"{BAR}a\n{BAR}".encode() + b"\xff\n")
    with pytest.raises(InputError, match=r"dump\.hyp:2: no UTF-8 text"):
        read_beam_dump(path)
    with pytest.raises(InputError, match="no such file"):
        read_beam_dump(tmp_path / "none")


def test_an_id_that_could_not_be_read_back_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="separates the fields"):
        write_beam_dump(tmp_path / "x", [("a|b", Hypothesis((), 0.0, 0.0, 0.0))])
    assert not list(tmp_path.iterdir())


def test_an_empty_dump_is_empty(tmp_path: Path) -> None:
    assert read_beam_dump(dump(tmp_path, "")) == {}


@pytest.mark.parametrize("before", ["", "u | 1 | 1 | 1 | 0 | yes\n"])
def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path: Path, before: str) -> None:
    path = dump(tmp_path, f"{before}\ufeffv | 1 | 1 | 1 | 0 | yes\nv | 0 | 0 | 1 | 0 | no\n")
    line = 2 if before else 1
    with pytest.raises(InputError, match=rf"dump\.hyp:{line}: a byte order mark: save as UTF-8"):
        read_beam_dump(path)
