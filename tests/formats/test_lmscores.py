"""Files of LM scores and the hashes beside them."""

from pathlib import Path

import numpy as np
import pytest

from w2ltune.errors import InputError
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.lmscores import (
    hash_path,
    read_hashes,
    read_lm_scores,
    text_hash,
    write_hashes,
    write_lm_scores,
)
from w2ltune.scoring.nbest import collect


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dev clean-tr.ppl"
    ids = ["a", "b-1", "a", "with blank", "ü"]
    scores = np.array([-1.5, 0.0, -1e6, -0.000001, -123.456789])
    write_lm_scores(path, ids, scores)
    assert path.read_text().splitlines()[0] == "a -1.500000"
    found, read = read_lm_scores(path)
    assert found == ids
    assert read.tolist() == scores.tolist()
    hashes = np.array([1, 2**64 - 1, 5], dtype=np.uint64)
    write_hashes(hash_path(path), hashes)
    assert hash_path(path).name == "dev clean-tr.ppl.hash"
    assert read_hashes(hash_path(path)).tolist() == hashes.tolist()
    assert hash_path(path).read_bytes()[:8] == b"\1" + bytes(7)


def test_the_hash_is_that_of_nbest_lists() -> None:
    texts = ["", "yes", "yes sir", "grün ’ 日本"]
    lists = [
        [Hypothesis(words=tuple(t.split()), score=0.0, am_score=0.0, lm_score=0.0)] for t in texts
    ]
    nbest = collect(lists, [["x"]] * len(texts), str.split)
    assert nbest.text_hash.tolist() == [text_hash(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "line"), [("a -1\nb\n", 2), ("a -1\nb nan\n", 2), (" -3\n", 1), ("a -1 x\n", 1)]
)
def test_a_line_that_is_none_is_named(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "x.ppl"
    path.write_text(text)
    with pytest.raises(InputError, match=f"x.ppl:{line}: "):
        read_lm_scores(path)


def test_cut_hashes(tmp_path: Path) -> None:
    (tmp_path / "x.hash").write_bytes(bytes(15))
    with pytest.raises(InputError, match="15 bytes"):
        read_hashes(tmp_path / "x.hash")
