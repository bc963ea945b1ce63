"""Pieces of work that are kept by what they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from w2ltune.runs.shards import ShardFolder, cut


@pytest.mark.parametrize(("count", "most"), [(0, 3), (1, 3), (3, 3), (4, 3), (100, 7), (100, 1)])
def test_pieces_hold_all_in_order(count: int, most: int) -> None:
    sentences = [str(number) for number in range(count)]
    shards = cut(sentences, most=most, origin={"lm": 1})
    assert [text for shard in shards for text in shard.sentences] == sentences
    assert [shard.number for shard in shards] == list(range(-(-count // most)))
    sizes = [len(shard.sentences) for shard in shards]
    assert all(0 < size <= most for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(sentences[shard.first] == shard.sentences[0] for shard in shards)


def test_names_tell_what_a_piece_was_made_from() -> None:
    def names(texts: list[str], origin: object) -> set[str]:
        return {shard.name for shard in cut(texts, most=2, origin=origin)}

    texts = ["a b", "c", "", "é"]
    assert names(texts, {"lm": [1, 2]}) == names(list(texts), {"lm": [1, 2]})
    assert not names(texts, {"lm": [1, 2]}) & names(texts, {"lm": [1, 3]})
    assert not names(texts, 1) & names(["a", "b c", "\ud800", "è"], 1)


def test_only_whole_pieces_count(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path / "w/shards", columns=2)
    one, other = cut(["a", "b", "c", "d"], most=2, origin=0)
    assert folder.read(one) is None
    scores = np.array([[1.5, 2.0], [-np.pi, 0.0]])
    folder.keep(one, scores)
    assert np.array_equal(folder.read(one), scores)
    assert folder.read(other) is None
    (path,) = (tmp_path / "w/shards").iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:50], b"x" * len(whole)):
        path.write_bytes(damaged)
        assert folder.read(one) is None
    folder.keep(one, scores[:1])  # of other sentences
    assert folder.read(one) is None
    folder.remove()
    assert not (tmp_path / "w/shards").exists()
