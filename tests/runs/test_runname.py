"""Names of run directories: readable, one folder each, and never the same for two trainings."""

import itertools
import os
import re
from pathlib import Path

import pytest

from w2ltune.errors import UsageError
from w2ltune.formats.flagsfile import Flag, parse_arguments
from w2ltune.formats.known_flags import is_boolean
from w2ltune.runs.runname import NAME_BYTES, plain_name, run_directory, run_name, suffix

HASH = "-[0-9a-f]{8}"


def flags(text):
    return parse_arguments(text.split(), boolean=is_boolean)


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        ("", ""),
        ("--lr=0.1", "_lr0.1"),
        ("--lr 0.1 --momentum=0.8", "_lr0.1_momentum0.8"),
        ("--momentum=0.8 --lr=0.1", "_momentum0.8_lr0.1"),
        ("--itersave", "_itersave"),
        ("--noitersave", "_noitersave"),
        ("--lr=1e-4 --wordscore=-8", "_lr1e-4_wordscore-8"),
        ("--criterion=seq2seq_transformer", "_criterionseq2seq_transformer"),
        ("--lexicon=", "_lexicon"),
    ],
)
def test_names_as_they_always_were(extra, wanted):
    assert suffix(flags(extra)) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("loguniform(1e-4,1)", "loguniform-1e-4,1"),
        ("loguniform(1e-4, 1)", "loguniform-1e-4,-1"),
        ("/lists/train.lst", "lists-train.lst"),
        ("../../etc", "etc"),
        ("a b", "a-b"),
        ("it's; rm -rf *", "it-s-rm--rf"),
        ('"x"', "x"),
        ("Zoë", "Zoe"),
        ("中文", ""),
        (".hidden", "hidden"),
        ("two\nlines", "two-lines"),
        ("a_lr0.1", "a_lr0.1"),
        ("a_noitersave", "a_noitersave"),
    ],
)
def test_values_that_cannot_stand_as_they_are(value, wanted):
    name = suffix([Flag(name="lm", value=value)])
    assert re.fullmatch(f"_lm{re.escape(wanted)}{HASH}", name), name


def test_a_name_that_reads_as_another_flag():
    assert suffix([Flag(name="lmweight", value="2")]) == "_lmweight2"
    assert re.fullmatch(f"_lmweight2{HASH}", suffix([Flag(name="lm", value="weight2")]))


def test_different_trainings_have_different_names():
    values = ["a/b", "a b", "a-b", "a;b", "a\tb", "á-b", "a\u0301-b", "a-b-", "-a-b", "a--b", "a_b"]
    values += ["", "true", "false", "0.1", "0.10", "x" * 300, "x" * 299 + "y", "x" * 299 + "/"]
    values += ["a_lr0.1", ".a", "..a", "a.", "中", "文", "(1,2)", "(1, 2)", "[1,2]"]
    names = [run_name(Path("p/n.cfg"), [Flag(name="lm", value=value)]) for value in values]
    names.append(run_name(Path("p/n.cfg"), flags("--lm=a --lr=0.1")))
    for one, other in itertools.combinations(names, 2):
        assert one != other
    for name in names:
        assert re.fullmatch(r"[\w.,+=-]+", name, re.ASCII)
        assert len(name.encode()) <= NAME_BYTES


@pytest.mark.parametrize("stem", ["n" * 250, ".hidden", "a b", "é" * 120, "x;y", "-"])
def test_any_config_makes_one_folder(tmp_path, stem):
    folder = tmp_path / run_name(Path("p", f"{stem}.cfg"), flags("--lr=0.1"))
    folder.mkdir()
    assert folder.parent == tmp_path
    assert not folder.name.startswith(".")


def test_the_run_directory_mirrors_the_config(tmp_path, monkeypatch):
    project = tmp_path / "librispeech"
    (project / "old").mkdir(parents=True)
    monkeypatch.chdir(project)
    wanted = Path("runs/librispeech/tds_lr0.1")
    for config in ("tds.cfg", "./tds.cfg", "old/../tds.cfg", project / "tds.cfg"):
        assert run_directory(Path("runs"), Path(config), flags("--lr=0.1")) == wanted
    link = tmp_path / "linked"
    link.symlink_to(project)
    assert run_directory(Path("r"), link / "tds.cfg", []) == Path("r/linked/tds")
    assert run_directory(Path("r"), Path("tds.cfg"), [], project="mine") == Path("r/mine/tds")


@pytest.mark.parametrize("project", ["a/b", "..", ".", "/", ".git", "a b"])
def test_a_project_is_a_plain_name(project):
    with pytest.raises(UsageError, match="--project="):
        run_directory(Path("r"), Path("tds.cfg"), [], project=project)


def test_a_config_in_no_folder():
    with pytest.raises(UsageError, match="--project=NAME"):
        run_directory(Path("r"), Path("/tds.cfg"), [])


def test_text_that_is_no_text():
    assert re.fullmatch(f"a{HASH}", plain_name("a" + os.fsdecode(b"\xff")))
