from __future__ import annotations

import re
from pathlib import Path

import pytest
from rescoringfiles import Files, make_files

from w2ltune.errors import InputError
from w2ltune.formats.lmscores import hash_path, write_hashes
from w2ltune.formats.texthash import hash_texts
from w2ltune.scoring.lmcolumns import check_lm_column, load_lm_column

LOST = "it looks as if one line was lost, here or shortly before"
MANY = "it looks as if there is one line too many, here or shortly before"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_files(tmp_path)


def check(files: Files, ppl: Path) -> str | None:
    dump = files.dump
    return check_lm_column(load_lm_column(ppl), dump, hash_texts(dump.texts))


def message_of(files: Files, ppl: Path) -> str:
    with pytest.raises(InputError) as caught:
        check(files, ppl)
    message = str(caught.value)
    assert "\n" not in message and str(ppl) in message and str(files.hyp) in message
    return message


def test_scores_of_the_dump_are_taken(files: Files, tmp_path: Path) -> None:
    ppl = tmp_path / "dev.ppl"
    scores = files.write_ppl(ppl)
    assert check(files, ppl) is None
    assert load_lm_column(ppl).scores.tolist() == scores


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_of_lines_are_taken_with_a_word(files: Files, tmp_path: Path, first: int) -> None:
    ppl = tmp_path / "dev.ppl"
    numbers = [str(number) for number in range(first, first + len(files.items))]
    files.write_ppl(ppl, numbers)
    assert re.search("numbers its lines .* nothing but their count", check(files, ppl) or "")
    write_hashes(hash_path(ppl), hash_texts(files.dump.texts))
    assert check(files, ppl) is None  # the words tell what the numbers do not
    hash_path(ppl).unlink()
    files.write_ppl(ppl, numbers[:3] + numbers[4:])
    message = message_of(files, ppl)
    assert f"dev.ppl:4: found a score of '{numbers[4]}', expected one of '{numbers[3]}'" in message
    assert LOST in message


def test_every_lost_and_every_extra_line_is_found(files: Files, tmp_path: Path) -> None:
    ppl = tmp_path / "dev.ppl"
    names = [name for name, _ in files.items]
    for row in range(len(names)):
        files.write_ppl(ppl, names[:row] + names[row + 1 :])
        assert LOST in message_of(files, ppl)
        files.write_ppl(ppl, [*names[:row], names[row], *names[row:]])
        assert MANY in message_of(files, ppl)


def test_the_first_differing_lines_are_named(files: Files, tmp_path: Path) -> None:
    files.hyp.write_bytes(b"\n\n" + files.hyp.read_bytes())  # lines are those of the file
    ppl = tmp_path / "dev.ppl"
    names = [name for name, _ in files.items]
    files.write_ppl(ppl, [*names[:5], "other", *names[6:]])
    message = message_of(files, ppl)
    assert message.startswith(f"{ppl}:6: found a score of 'other', expected one of '{names[5]}'")
    assert f"for line 8 of {files.hyp}" in message and LOST not in message and MANY not in message
    files.write_ppl(ppl, names[:-2])
    message = message_of(files, ppl)
    assert f"ends after {len(names) - 2} lines" in message and LOST not in message
    assert f"its line {len(names) + 1}" in message
    files.write_ppl(ppl, [*names, "a", "b"])
    assert f":{len(names) + 1}: found a score of 'a'" in message_of(files, ppl)


def test_scores_of_other_words_are_refused(files: Files, tmp_path: Path) -> None:
    ppl = tmp_path / "dev.ppl"
    files.write_ppl(ppl)
    hashes = hash_texts(files.dump.texts)
    write_hashes(hash_path(ppl), hashes)
    assert check(files, ppl) is None
    text = " ".join(files.items[3][1].words)
    changed = hashes.copy()
    changed[3] += 1
    write_hashes(hash_path(ppl), changed)
    message = message_of(files, ppl)
    assert message.startswith(f"{ppl}:4: ") and f"{text!r} of line 4 of {files.hyp}" in message
    assert "in 1 lines" in message
    write_hashes(hash_path(ppl), hashes[:-1])
    assert f"{len(hashes) - 1} hashes" in message_of(files, ppl)


def test_a_dump_and_scores_that_are_empty_fit(files: Files, tmp_path: Path) -> None:
    files.hyp.write_text("", encoding="utf-8")
    ppl = tmp_path / "dev.ppl"
    ppl.write_text("", encoding="utf-8")
    assert check(files, ppl) is None
    ppl.write_text("u -1\n", encoding="utf-8")
    assert "is empty" in message_of(files, ppl)
