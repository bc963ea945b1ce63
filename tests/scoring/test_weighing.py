"""What is weighed, and what weights choose, held against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nbestlists import write_task

from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbestpool import Pool
from w2ltune.scoring.rescorelists import RescoringLists, join
from w2ltune.scoring.significance import clusters_from_ids
from w2ltune.scoring.weighing import RescoreList, choose_rows, ranking, weigh


@pytest.fixture
def lists(tmp_path: Path) -> RescoringLists:
    task = write_task(tmp_path)
    return join(read_dump_columns(task.hyp), task.list, {"tr": task.tr, "convlm": task.convlm})


def test_the_length_is_words_and_letters(lists: RescoringLists) -> None:
    nbest = weigh(lists, ["tr", "len", "words"])
    for row in range(0, nbest.hypotheses, 7):
        words = lists.text(row).split()
        assert nbest.features[row, 2] == len(words) + len("".join(words))
        assert nbest.features[row, 3] == len(words)
    assert np.array_equal(nbest.features[:, 0], lists.nbest.features[:, 0])
    assert np.array_equal(nbest.features[:, 1], lists.nbest.features[:, lists.names.index("tr")])


@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("first_of_equals", [False, True])
def test_choices_are_those_of_a_plain_loop(k: int | None, first_of_equals: bool) -> None:
    draw = np.random.default_rng(3)
    lengths = draw.integers(1, 9, size=40)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = int(offsets[-1])
    nbest = NBest(
        offsets=offsets,
        features=draw.integers(-2, 3, size=(rows, 3)).astype(np.float64),  # many ties
        errors=draw.integers(0, 4, size=rows).astype(np.int32),
        text_hash=draw.integers(1, 99, size=rows).astype(np.uint64),
        reference_words=np.full(40, 5, dtype=np.int32),
    )
    for weights in draw.integers(-2, 3, size=(20, 3)).astype(np.float64):
        found = choose_rows(nbest, weights, k, first_of_equals=first_of_equals)
        order = ranking(nbest, weights, k).tolist()
        for utterance in range(40):
            begin, end = offsets[utterance], offsets[utterance + 1]
            taken = range(begin, end if k is None else min(end, begin + k))
            best = max(float(nbest.features[row] @ weights) for row in taken)
            equal = [row for row in taken if nbest.features[row] @ weights == best]
            if first_of_equals:
                assert found[utterance] == equal[0]
            else:
                assert nbest.errors[found[utterance]] == max(nbest.errors[row] for row in equal)
                own = [row for row in order if begin <= row < end]
                assert sorted(own) == list(taken)
                assert nbest.errors[own[0]] == nbest.errors[found[utterance]]
        if k is None and not first_of_equals:
            assert nbest.errors[found].sum() == Pool(nbest).errors(weights)[0]


def test_kinds_of_errors_add_up(lists: RescoringLists, tmp_path: Path) -> None:
    of = RescoreList(
        name="dev.lst", dump=tmp_path / "dev.lst.hyp", lists=lists, nbest=weigh(lists, ["tr"]),
        clusters=clusters_from_ids(lists.ids, None), units=str.split, as_ancestor=False,
    )  # fmt: skip
    rows = of.chosen([1.0, 0.5], None)
    counts = of.counts(rows)
    assert np.array_equal(counts[:, :3].sum(axis=1), of.errors(rows))
    assert np.array_equal(counts[:, 3], lists.nbest.reference_words)
    assert of.notes == []
