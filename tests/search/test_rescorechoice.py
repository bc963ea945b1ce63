"""Which weights are the answer, on small lists whose errors are set by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nbestlists import write_task

from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.scoring.rescorelists import join
from w2ltune.scoring.significance import clusters_from_ids
from w2ltune.scoring.weighing import RescoreList, weigh
from w2ltune.search.rescorechoice import FEWEST, MIDDLE, NONE, Weighted, by_k, choose, oracle_rate


@pytest.fixture
def of(tmp_path: Path) -> RescoreList:
    task = write_task(tmp_path, utterances=40)
    lists = join(read_dump_columns(task.hyp), task.list, {"tr": task.tr})
    return RescoreList(
        name="dev.lst", dump=task.hyp, lists=lists, nbest=weigh(lists, ["tr"]),
        clusters=clusters_from_ids(lists.ids, None), units=str.split, as_ancestor=False,
    )  # fmt: skip


def made(name: str, k: int, errors: list[int]) -> Weighted:
    return Weighted(
        name=name, vector=np.array([1.0, 0.5]), k=k, errors=np.array(errors, dtype=np.int32)
    )


def test_the_middle_is_the_answer_though_another_has_fewer(of: RescoreList) -> None:
    none, fewest = made(NONE, 1, [3] * 40), made(FEWEST, 12, [1] * 40)
    middle = made(MIDDLE, 12, [1] * 35 + [2] * 5)
    assert choose(of, none=none, fewest=fewest, middles=[middle], height=46.0) == (middle, MIDDLE)
    # But not where it is a hill: higher than its plateau.
    chosen, why = choose(of, none=none, fewest=fewest, middles=[middle], height=44.0)
    assert chosen is fewest
    assert "between valleys" in why


def test_fewer_hypotheses_must_be_clearly_better(of: RescoreList) -> None:
    none, fewest = made(NONE, 1, [3] * 40), made(FEWEST, 12, [1] * 40)
    whole = made(MIDDLE, 12, [2] * 20 + [1] * 20)
    chance = made(MIDDLE, 2, [2] * 10 + [1] * 11 + [2] * 9 + [1] * 10)  # one fewer, ten changed
    clear = made(MIDDLE, 3, [1] * 40)
    for middles, expected in (([chance, whole], whole), ([chance, clear, whole], clear)):
        chosen, _ = choose(of, none=none, fewest=fewest, middles=middles, height=99.0)
        assert chosen is expected


def test_no_rescoring_is_the_answer_where_nothing_is_better(of: RescoreList) -> None:
    none = made(NONE, 1, [1] * 40)
    middle = made(MIDDLE, 12, [1] * 40)
    chosen, why = choose(of, none=none, fewest=middle, middles=[middle], height=99.0)
    assert chosen is none
    assert why == "no weights are better on this list"


def test_rates_by_k(of: RescoreList) -> None:
    vector = np.array([1.0, 0.4])
    rows = list(by_k(of, None, vector, [1, 2, of.depth]))
    words = int(of.nbest.reference_words.sum())
    assert [row.k for row in rows] == [1, 2, of.depth]
    assert rows[0].rate == rows[0].oracle  # of one hypothesis
    assert rows[-1].rate == of.errors(of.chosen(vector, None)).sum() / words
    assert rows[0].oracle > rows[1].oracle > rows[2].oracle == oracle_rate(of)
    assert all(row.test_rate is None for row in rows)
