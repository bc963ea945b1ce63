from __future__ import annotations

import gzip
import random
from pathlib import Path

import numpy as np
import pytest
import zstandard

from w2ltune.errors import InputError
from w2ltune.formats.lmscores import (
    _read_carefully,
    _split,
    hash_path,
    read_hashes,
    read_lm_scores,
    write_hashes,
    write_lm_scores,
)


def ppl(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "dev.ppl"
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "u -1.5\nu -2.25\nv 0.5\n",
        "u\t-1.5\nu \t -2.25\r\n v 0.5",
        "u -1.5\nu -225e-2\nv +.5 \n\n \n",
        "u  -1.500000\r\nu -2.250000\r\nv 0.500000\r\n",
    ],
)
def test_ids_and_scores(tmp_path: Path, content: str) -> None:
    ids, scores = read_lm_scores(ppl(tmp_path, content))
    assert ids == ["u", "u", "v"] and scores.tolist() == [-1.5, -2.25, 0.5]
    assert scores.dtype == np.float64


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v nan", "the score 'nan' is no finite number"),
        ("v -inf", "the score '-inf' is no finite number"),
        ("v 1e999", "the score '1e999' is no finite number"),
        ("v 1_5.000000", "the score '1_5.000000' is no finite number"),
        ("v ٣.٥", "no finite number"),
        ("v one", "the score 'one' is no finite number"),
        ("-1.5", r"1 fields, expected 'id score' \(forward_lm.py .*--skip\)"),
        ("v -1.5 -2", "3 fields, expected 'id score'$"),
        ("", "0 fields"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = ppl(tmp_path, f"u -1.500000\n{line}\nu_1 -2.000000\n")
    with pytest.raises(InputError, match=rf"dev\.ppl:2: .*{message}"):
        read_lm_scores(path)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_lm_scores(tmp_path / "dev.ppl")
    path = ppl(tmp_path, "u -1.5\n")
    path.write_bytes(b"u -1.5\nv\xff -2\n")
    with pytest.raises(InputError, match=r"dev\.ppl:2: not UTF-8"):
        read_lm_scores(path)
    for packed, suffix in ((gzip.compress, ".gz"), (zstandard.compress, ".zst")):
        cut = tmp_path / f"dev.ppl{suffix}"
        cut.write_bytes(packed(b"u -1.5\n" * 100)[:-1])
        with pytest.raises(InputError, match="cut or damaged"):
            read_lm_scores(cut)


def test_only_blanks_and_tabs_separate(tmp_path: Path) -> None:
    ids, _ = read_lm_scores(ppl(tmp_path, "a\u00a0b -1.5\n"))
    assert ids == ["a\u00a0b"]


def test_an_empty_file_has_no_scores(tmp_path: Path) -> None:
    ids, scores = read_lm_scores(ppl(tmp_path, "\n"))
    assert ids == [] and scores.shape == (0,)


def test_the_fast_way_gives_what_the_careful_one_gives(tmp_path: Path) -> None:
    rng = random.Random(1)
    fast = 0
    for _ in range(500):
        lines = []
        for _ in range(rng.randrange(1, 8)):
            name = rng.choice((*["u", "u_1", "été", "0"] * 9, "x\u00a0y", "a\x1cb"))
            form = rng.choice(("f", "f", "f", "g", "r", ".2f"))
            value = rng.gauss(0, 100)
            number = repr(value) if form == "r" else format(value, form)
            number = rng.choice((*[number] * 60, "1_5", "nan", "x", "٣"))
            lines.append(
                name + rng.choice((*" " * 20, "\t", "  ", *"\r" * (rng.random() < 0.1))) + number
            )
        content = rng.choice(("\n", "\n", "\r\n")).join(lines)
        path = ppl(tmp_path, content)
        try:
            expected = _read_carefully(path, content.encode())
        except InputError as error:
            with pytest.raises(InputError) as caught:
                read_lm_scores(path)
            assert str(caught.value) == str(error)
            continue
        ids, scores = read_lm_scores(path)
        assert ids == expected[0] and scores.tolist() == expected[1].tolist()
        fast += _split(content.replace("\t", " ").encode()) is not None
    assert fast > 100


@pytest.mark.parametrize("name", ["dev.ppl", "dev.ppl.gz", "dev.ppl.zst"])
def test_scores_come_back_to_the_last_bit(tmp_path: Path, name: str) -> None:
    ids = [f"u{number // 3}" for number in range(100)]
    scores = np.random.default_rng(1).normal(-100, 50, 100)
    write_lm_scores(tmp_path / name, ids, scores)
    found = read_lm_scores(tmp_path / name)
    assert found[0] == ids and np.array_equal(found[1], scores)


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    for ids, scores in ((["a b"], [1.0]), ([""], [1.0]), (["a"], [float("nan")])):
        with pytest.raises(InputError, match=r"dev\.ppl.*cannot be written"):
            write_lm_scores(tmp_path / "dev.ppl", ids, scores)
    with pytest.raises(ValueError, match="shorter"):
        write_lm_scores(tmp_path / "dev.ppl", ["a", "b"], [1.0])
    assert not list(tmp_path.iterdir())


def test_hashes_come_back(tmp_path: Path) -> None:
    path = hash_path(tmp_path / "dev.ppl")
    hashes = np.array([1, 2**64 - 1, 258], dtype=np.uint64)
    write_hashes(path, hashes)
    assert path.name == "dev.ppl.hash" and np.array_equal(read_hashes(path), hashes)
    assert path.read_bytes()[16:] == b"\x02\x01\0\0\0\0\0\0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"dev\.ppl\.hash: 23 bytes are no hashes"):
        read_hashes(path)
    with pytest.raises(InputError, match="no such file"):
        read_hashes(tmp_path / "none.hash")


@pytest.mark.parametrize("before", ["", "u -1.500000\n"])
def test_a_byte_order_mark_is_no_part_of_an_id(tmp_path: Path, before: str) -> None:
    path = ppl(tmp_path, f"{before}\ufeffv -1.500000\nv -2.000000\n")
    line = 2 if before else 1
    with pytest.raises(InputError, match=rf"dev\.ppl:{line}: a byte order mark: save as UTF-8"):
        read_lm_scores(path)
