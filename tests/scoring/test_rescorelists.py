"""Joined lists, held against a join of one hypothesis at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rescoringfiles import Files, make_files, write_list

from w2ltune.errors import InputError, UsageError
from w2ltune.formats.beamdump import Hypothesis, write_beam_dump
from w2ltune.formats.dumpcolumns import read_dump_columns
from w2ltune.formats.lmscores import hash_path, read_lm_scores, write_hashes, write_lm_scores
from w2ltune.formats.texthash import hash_text, hash_texts
from w2ltune.scoring.rescorelists import RescoringLists, join
from w2ltune.scoring.text import load_normalizer, split_units
from w2ltune.scoring.wer import count_errors


def join_with_scores(files: Files, tmp_path: Path, **options) -> RescoringLists:
    files.write_ppl(tmp_path / "a.ppl")
    return join(files.dump, files.data_list, {"tr": tmp_path / "a.ppl"}, **options)


@pytest.mark.parametrize("missing", [0, 3])
@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_what_a_plain_join_gives(tmp_path: Path, seed: int, missing: int) -> None:
    files = make_files(tmp_path, seed=seed, missing=missing)
    scores = files.write_ppl(tmp_path / "a.ppl")
    ids, other = read_lm_scores(tmp_path / "a.ppl")
    write_lm_scores(tmp_path / "b.ppl", ids, 2 * other)
    columns = {"tr": tmp_path / "a.ppl", "convlm": tmp_path / "b.ppl"}
    lists = join(files.dump, files.data_list, columns)
    assert lists.names == ("am", "lm", "tr", "convlm", "words", "letters")
    assert lists.ids == tuple(files.references)
    assert lists.references == tuple(files.references.values())
    nbest = lists.nbest
    assert nbest.reference_words.tolist() == list(map(len, files.references.values()))
    for number, (name, reference) in enumerate(files.references.items()):
        rows = range(nbest.offsets[number], nbest.offsets[number + 1])
        own = [row for row, (other_name, _) in enumerate(files.items) if other_name == name]
        own.sort(key=lambda row: -files.items[row][1].score)  # stable
        if not own:
            assert number < missing and len(rows) == 1
            assert not nbest.features[rows[0]].any() and nbest.text_hash[rows[0]] == 0
            assert nbest.errors[rows[0]] == len(reference)
            assert lists.text(rows[0]) == "" and lists.dump_rows[rows[0]] == -1
            continue
        assert lists.dump_rows[rows].tolist() == own
        for row, line in zip(rows, own, strict=True):
            entry = files.items[line][1]
            length = len(entry.words), len("".join(entry.words))
            expected = [entry.am_score, entry.lm_score, scores[line], 2 * scores[line], *length]
            assert nbest.features[row].tolist() == expected
            assert nbest.errors[row] == count_errors(reference, entry.words).errors
            assert lists.text(row) == " ".join(entry.words)
            assert nbest.text_hash[row] == hash_text(lists.text(row))
    assert lists.missing == tuple(files.references)[:missing]
    assert lists.extra == () and lists.findings == ()


def test_utterances_of_the_dump_alone_take_no_part(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    whole = join_with_scores(files, tmp_path)
    write_list(files.data_list, {name: files.references[name] for name in ("u-3", "u-0")})
    lists = join_with_scores(files, tmp_path)
    assert lists.ids == ("u-3", "u-0") and lists.missing == ()
    assert set(lists.extra) == set(files.references) - {"u-3", "u-0"}
    last = whole.nbest.features[: whole.nbest.offsets[1]]
    assert np.array_equal(lists.nbest.features[lists.nbest.offsets[1] :], last)


def test_the_decoder_alone_can_be_joined(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    assert join(files.dump, files.data_list, {}).names == ("am", "lm", "words", "letters")


def test_units_are_those_that_are_asked_for(tmp_path: Path) -> None:
    data_list, hyp = tmp_path / "dev.lst", tmp_path / "dev.hyp"
    write_list(data_list, {"u": ("The", "cat")})
    write_beam_dump(hyp, [("u", Hypothesis(("the", "cats"), 1.0, 1.0, 1.0, 1.0))])
    columns = read_dump_columns(hyp)
    assert join(columns, data_list, {}).nbest.errors.tolist() == [2]
    lower = load_normalizer(None, ignore_case=True)
    lists = join(columns, data_list, {}, units=lambda text: split_units(lower(text), "wer"))
    assert lists.nbest.errors.tolist() == [1]
    assert lists.findings == (
        f"{hyp}:1: WER 100.00 % in the dump, but 50.00 % counted (1 errors, 2 reference words), "
        "and likewise 1 of 1 hypotheses: the program counted otherwise, and what is counted here "
        "holds",
    )
    lists = join(
        columns,
        data_list,
        {},
        units=lambda text: split_units(lower(text), "cer"),
        check_wer=False,
    )
    assert lists.nbest.errors.tolist() == [1] and lists.nbest.reference_words.tolist() == [6]
    assert lists.findings == () and lists.references == (("The", "cat"),)


def test_rounded_and_unknown_wers_are_no_finding(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    text = files.hyp.read_text(encoding="utf-8")
    for change in (lambda wer: f"{float(wer):.1f}", lambda wer: "nan"):
        lines = [line.split(" | ") for line in text.splitlines()]
        changed = [" | ".join([*line[:4], change(line[4]), *line[5:]]) for line in lines]
        files.hyp.write_text("\n".join(changed), encoding="utf-8")
        assert join_with_scores(files, tmp_path).findings == ()


def test_without_a_reference_there_is_no_wer_to_compare(tmp_path: Path) -> None:
    write_list(tmp_path / "dev.lst", {"u": (), "v": ("a",)})
    path = tmp_path / "dev.hyp"
    path.write_text("u|1|1|1|inf|a\nv|1|1|1|0.0|a\n", encoding="utf-8")
    lists = join(read_dump_columns(path), tmp_path / "dev.lst", {})
    assert lists.findings == () and lists.nbest.errors.tolist() == [1, 0]


def test_hashes_are_compared(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    hashes = hash_texts(files.dump.texts)
    write_hashes(hash_path(tmp_path / "a.ppl"), hashes)
    join_with_scores(files, tmp_path)
    hashes[7] += 1
    write_hashes(hash_path(tmp_path / "a.ppl"), hashes)
    with pytest.raises(InputError, match=r"a\.ppl:8: a score of other words"):
        join_with_scores(files, tmp_path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    dump = files.dump
    with pytest.raises(UsageError, match=r"cannot be called 'lm': .* am, lm, words, letters"):
        join(dump, files.data_list, {"lm": tmp_path / "a.ppl"})
    files.write_ppl(tmp_path / "a.ppl", ["u-9"] * len(files.items))
    with pytest.raises(InputError, match=r"a\.ppl:1: found a score of 'u-9'"):
        join(dump, files.data_list, {"tr": tmp_path / "a.ppl"})
    write_list(files.data_list, {"v-1": ("a",), "v-2": ()})
    with pytest.raises(InputError, match=r"dev\.lst: none of its 2 utterances is in .*dev\.hyp"):
        join(dump, files.data_list, {})
    write_list(files.data_list, {"u-1": (), "u-2": ()})
    with pytest.raises(InputError, match="no utterance has a reference"):
        join(dump, files.data_list, {})
    write_list(files.data_list, {"u-1": ("{", "a", "/", "b", "}")})
    with pytest.raises(InputError, match="alternatives"):
        join(dump, files.data_list, {})
    files.data_list.write_text("u-1 a 1 x\nu-1 a 1 y\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"dev\.lst:2: id 'u-1' is already on line 1"):
        join(dump, files.data_list, {})
