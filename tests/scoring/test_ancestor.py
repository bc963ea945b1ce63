"""The ancestor's arithmetic, held against its own few lines, written anew for one hypothesis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rescoringfiles import Files, make_files, write_list

from w2ltune.errors import InputError
from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.scoring.ancestor import ancestor_errors, ancestor_lists
from w2ltune.scoring.rescorelists import join

WEIGHTS = {"am": 1.0, "lm": 0.0, "tr": 0.75, "words": 1.25, "letters": 1.25}


def ancestor_wer(files: Files, scores: list[float], *, top: int) -> float:
    """Return the WER in per cent that rescore.py gives for a dump with bars."""
    lists: dict[str, list[tuple[float, float, float]]] = {}
    for line, score in zip(files.hyp.read_text(encoding="utf-8").splitlines(), scores, strict=True):
        data = line.strip().split("|")
        words = data[5].strip().split(" ")
        length = len(words) + len("".join(words))
        total = float(data[2]) + WEIGHTS["tr"] * score + WEIGHTS["words"] * length
        entry = (float(data[1]), total, float(data[4]))
        lists.setdefault(data[0].strip(), []).append(entry)
    errors = reference_words = 0.0
    for name, reference in files.references.items():
        reference_words += len(reference)
        if name in lists:
            best = sorted(lists[name], key=lambda entry: -entry[0])[:top]
            errors += sorted(best, key=lambda entry: -entry[1])[0][2] * len(reference)
    return errors / reference_words


@pytest.mark.parametrize("missing", [0, 3])
@pytest.mark.parametrize("seed", range(10))
def test_wers_are_those_of_the_ancestor(tmp_path: Path, seed: int, missing: int) -> None:
    files = make_files(tmp_path, seed=seed, missing=missing)
    text = files.hyp.read_text(encoding="utf-8")
    # Words with a bar, a second blank, and WERs of another normalisation; none is unknown.
    text = text.replace("cat", "c|at").replace(" sat ", "  sat ").replace("| nan |", "| 0.0 |")
    files.hyp.write_text(text.replace("| 100.000000 |", "| 41.666667 |"), encoding="utf-8")
    scores = files.write_ppl(tmp_path / "a.ppl")
    dump = files.dump
    joined = join(dump, files.data_list, {"tr": tmp_path / "a.ppl"})
    errors = ancestor_errors(joined, dump)
    lists = ancestor_lists(joined, dump)
    assert np.array_equal(lists.nbest.errors, np.rint(errors))
    totals = lists.nbest.features @ [WEIGHTS[name] for name in lists.names]
    for top in (1, 2, 100):
        sum_of_errors = 0.0
        for begin, end in zip(lists.nbest.offsets, lists.nbest.offsets[1:], strict=False):
            sum_of_errors += errors[begin + totals[begin : min(begin + top, end)].argmax()]
        wer = 100 * sum_of_errors / lists.nbest.reference_words.sum()
        assert wer == pytest.approx(ancestor_wer(files, scores, top=top), abs=1e-9)


def test_lengths_of_both_forms(tmp_path: Path) -> None:
    write_list(tmp_path / "dev.lst", {"u": ("a", "b", "c")})
    texts = ["", "a  b", "a|b c", "|", "été"]
    expected = {
        "bar": [(1, 0), (3, 2), (1, 1), (1, 0), (1, 3)],
        "blank": [(0, 0), (3, 2), (2, 4), (1, 1), (1, 3)],
    }
    for form, between in (("bar", "|"), ("blank", " ")):
        path = tmp_path / f"{form}.hyp"
        lines = [between.join(["u", "1", "2", "3", "33.333333", text]) for text in texts]
        path.write_text("\n".join(lines), encoding="utf-8")
        dump = read_dump_columns(path)
        lists = ancestor_lists(join(dump, tmp_path / "dev.lst", {}), dump)
        assert list(map(tuple, lists.nbest.features[:, 2:].tolist())) == expected[form]
        assert lists.nbest.errors.tolist() == [1] * 5
        assert ancestor_errors(lists, dump)[0] == 33.333333 * 3 / 100  # to the last bit


def test_errors_come_to_the_last_bit(tmp_path: Path) -> None:
    write_list(tmp_path / "dev.lst", {"u": ("a",) * 7})
    per_cents = [f"{100 * number / 61:f}" for number in range(80)]
    path = tmp_path / "dev.hyp"
    lines = [f"u|{-number}|1|1|{wer}|a" for number, wer in enumerate(per_cents)]
    path.write_text("\n".join(lines), encoding="utf-8")
    dump = read_dump_columns(path)
    errors = ancestor_errors(join(dump, tmp_path / "dev.lst", {}), dump)
    assert errors.tolist() == [float(wer) * 7 / 100 for wer in per_cents]


def test_a_wer_that_is_not_known_is_refused(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    files.hyp.write_text("u-0 | 2 | 1 | 1 | 0.0 | a\nu-0 | 1 | 1 | 1 | nan | a\n", encoding="utf-8")
    dump = files.dump
    with pytest.raises(InputError, match=r"dev\.hyp:2: this hypothesis has no WER"):
        ancestor_errors(join(dump, files.data_list, {}), dump)
