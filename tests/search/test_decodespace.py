"""What a decode sweep's flags come to: those that the model stores, corners, whole flagsfiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2ltune.decodeprogram import with_model_flags
from w2ltune.formats.checkpoint import write_header
from w2ltune.formats.distributions import Choice, FloatRange, IntegerRange
from w2ltune.report.terminal import _for_target
from w2ltune.search.decodespace import sample_settings, standing_alone
from w2ltune.search.space import SearchSpace

STORED = {
    "arch": "a.arch", "beamsize": "3", "beamsizetoken": "250000", "beamthreshold": "25",
    "criterion": "ctc", "lexicon": "words.txt", "lm": "", "lmweight": "2", "logadd": "false",
    "silscore": "-4", "smearing": "max", "tokens": "letters.txt", "unkscore": "-inf",
    "wordscore": "1.5", "wordseparator": "_", "emission_dir": "old", "test": "old.lst",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "001_model_last.bin"
    gflags = "".join(f"--{name}={value}\n" for name, value in STORED.items())
    with path.open("wb") as file:
        write_header(file, {"gflags": gflags, "epoch": "1", "updates": "1"})
    return path


def test_flags_stored_in_the_model_are_defaults(model: Path) -> None:
    space = SearchSpace(
        fixed={"am": str(model), "beamsizetoken": "20", "silscore": "0"},
        distributions={"lmweight": FloatRange(0.0, 5.0)},
    )
    found = dict(with_model_flags(space).fixed)
    assert found == {
        "am": str(model), "beamsizetoken": "20", "silscore": "0",  # as given
        "beamsize": "3", "smearing": "max", "wordscore": "1.5",
        "tokens": "letters.txt", "lexicon": "words.txt", "criterion": "ctc", "wordseparator": "_",
    }  # fmt: skip
    # Without any range the two weights of the usual search are searched, whatever is stored.
    found = dict(with_model_flags(SearchSpace(fixed={"am": str(model)})).fixed)
    assert "wordscore" not in found and "lmweight" not in found
    assert found["silscore"] == "-4"


def test_the_middle_and_corners_of_what_is_searched() -> None:
    space = SearchSpace(
        fixed={"tokens": "t", "lexicon": "l"},
        distributions={
            "lmweight": FloatRange(0.0, 5.0),
            "wordscore": FloatRange(-8.0, 7.0, step=0.5),
            "beamsize": IntegerRange(10, 1000, log=True),
            "smearing": Choice(("none", "max", "logadd")),
        },
    )
    rows = [[flags[name] for name in space.distributions] for flags in sample_settings(space)]
    assert rows == [
        ["2.5", "-0.5", "100", "max"],
        ["0.0", "-8.0", "10", "none"],
        ["5.0", "7.0", "1000", "logadd"],
        ["0.0", "7.0", "10", "logadd"],
        ["5.0", "-8.0", "1000", "none"],
    ]
    one = SearchSpace(fixed=space.fixed, distributions={"lmweight": FloatRange(0.0, 5.0)})
    assert [flags["lmweight"] for flags in sample_settings(one)] == ["2.5", "0.0", "5.0"]
    assert sample_settings(SearchSpace(fixed=space.fixed)) == [space.fixed]
    # Settings that no decoder takes are left out: a word LM needs a lexicon.
    mixed = {
        "uselexicon": Choice(("true", "false")),
        "decodertype": Choice(("wrd", "tkn")),
    }
    found = sample_settings(SearchSpace(fixed=space.fixed, distributions=mixed))
    assert [(flags["uselexicon"], flags["decodertype"]) for flags in found] == [
        ("true", "wrd"), ("false", "tkn"), ("true", "tkn"),
    ]  # fmt: skip


def test_flags_that_need_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "test": "lists/dev.lst", "emission_dir": "em", "tokens": "t.txt", "lexicon": "/x/l.txt",
        "lm": "", "beamsize": "50", "lmweight": "1.5",
    }  # fmt: skip
    here = str(tmp_path)
    found = standing_alone(given)
    assert found["datadir"] == here and found["test"] == "lists/dev.lst"
    assert found["emission_dir"] == f"{here}/em"
    assert (found["tokens"], found["lexicon"], found["lm"]) == (f"{here}/t.txt", "/x/l.txt", "")
    assert (found["criterion"], found["unkscore"], found["smearing"]) == ("ctc", "-inf", "none")
    old = standing_alone({**given, "tokensdir": "tok", "datadir": "data", "am": "m.bin"})
    assert (old["tokensdir"], old["tokens"]) == (f"{here}/tok", "t.txt")
    assert (old["datadir"], old["am"]) == (f"{here}/data", f"{here}/m.bin")
    assert "criterion" not in old  # its model says
    assert "datadir" not in standing_alone({**given, "test": "/a/dev.lst"})


def test_the_flagsfile_of_one_of_several_lists_names_that_list() -> None:
    flags = {"datadir": "data", "test": "dev-clean.lst,other/text,third.lst", "beamsize": "5"}
    assert _for_target(flags, "other")["test"] == "other/text"
    assert _for_target(flags, "third.lst")["test"] == "third.lst"
    assert _for_target(flags, "") == flags  # of all lists together
