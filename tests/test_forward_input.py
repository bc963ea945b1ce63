"""What LM forwarding refuses, and where it puts what: no Ray is started."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from lmtask import hypotheses, write_dump, write_lm
from ngram import estimate, write_arpa

from w2ltune import files, forward
from w2ltune.errors import InputError, run_command
from w2ltune.files import TEMPORARY_MARK
from w2ltune.formats.lmscores import read_hashes, read_lm_scores, write_hashes
from w2ltune.formats.texthash import hash_text
from w2ltune.forward import _why_unknown
from w2ltune.forwardinput import NOTE, list_name, output_paths, prepare
from w2ltune.forwardoptions import ForwardOptions
from w2ltune.runs.shards import ShardFolder
from w2ltune.trials.lmsource import LMSource


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that a command is refused with."""
    capsys.readouterr()
    assert run_command(forward.main, list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("w2ltune: error: ")


def test_mistakes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = write_dump(tmp_path / "dev.lst.hyp", hypotheses(3))
    lm = write_lm(tmp_path / "lm.arpa")
    hyp, good = f"--hyp={dump}", f"--lm={lm}"
    assert error(capsys, good) == "missing --hyp (see --help)"
    assert "give one of --lm, --causal_lm, --command; given: none" in error(capsys, hyp)
    assert "given: --lm and --command" in error(capsys, hyp, good, "--command=x")
    assert "did you mean 'shards'?" in error(capsys, hyp, good, "--shrads=3")
    assert "--shards=0: must be 1 or more" in error(capsys, hyp, good, "--shards=0")
    assert "give one of them" in error(capsys, hyp, good, "--shards=2", "--shard_sentences=2")
    assert "--name='a/b'" in error(capsys, hyp, good, "--name=a/b")
    assert "for n-gram LMs" in error(capsys, hyp, "--command=x", "--unit=letters")
    assert "no such file" in error(capsys, "--hyp=nothing.hyp", good)
    assert "no such file" in error(capsys, hyp, "--lm=nothing.arpa")
    assert "each once" in error(capsys, f"--hyp={dump},{dump}", good)
    assert "neither an ARPA file nor" in error(capsys, hyp, f"--lm={dump}")
    assert "--command is empty" in error(capsys, hyp, "--command= ")
    other = write_dump(tmp_path / "other.hyp", hypotheses(3))
    two = f"--hyp={dump},{other}"
    assert "one file for 2 dumps" in error(capsys, two, good, f"--out={tmp_path}/x.ppl")
    same = write_dump(tmp_path / "dev.hyp", hypotheses(3))
    assert "would be the same file" in error(capsys, f"--hyp={dump},{same}", good)
    dump.write_text("\ufeff" + dump.read_text())
    assert "dev.lst.hyp:1: a byte order mark" in error(capsys, hyp, good)
    dump.write_text("no dump\n")
    assert "dev.lst.hyp:1: " in error(capsys, hyp, good)
    dump.write_text("")
    assert "the beam dump is empty" in error(capsys, hyp, good)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("dev.hyp", "dev.lst.hyp", "lm.arpa", "other.hyp"),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dev-clean.lst.hyp", "dev-clean"), ("dev.hyp", "dev"), ("dev.lst.hyp.gz", "dev"),
     ("a b.lst.hyp", "a b"), ("dump", "dump"), (".hyp", ".hyp")],
)  # fmt: skip
def test_names_of_lists(name: str, expected: str) -> None:
    assert list_name(Path("x.lst", name)) == expected


def test_where_scores_go(tmp_path: Path) -> None:
    def paths(*dumps: str, **options: str) -> list[str]:
        given = ForwardOptions(hyp=",".join(dumps), command="x", **options)
        found = output_paths([Path(dump) for dump in dumps], given)
        return [str(path.relative_to(Path.cwd())) for path in found]

    assert paths("d/dev.lst.hyp", "e/test.hyp.gz") == ["d/dev-tr.ppl", "e/test-tr.ppl"]
    assert paths("d/dev.lst.hyp", name="convlm") == ["d/dev-convlm.ppl"]
    assert paths("d/dev.lst.hyp", "d/test.hyp", out="o") == ["o/dev-tr.ppl", "o/test-tr.ppl"]
    assert paths("d/dev.lst.hyp", out="o/mine.ppl") == ["o/mine.ppl"]


def test_sentences_are_told_apart_by_what_the_lm_sees(tmp_path: Path) -> None:
    rows = [("a", "Yes"), ("b", "yes"), ("a", ""), ("b", "Yes"), ("c", "no  no")]
    one = write_dump(tmp_path / "one.hyp", rows)
    other = write_dump(tmp_path / "o,ther.hyp.gz", [("x", "yes"), ("y", "new")])
    two = write_dump(tmp_path / "two.hyp", [("x", "yes"), ("y", "new")])
    lm = write_lm(tmp_path / "lm.arpa")
    given = prepare(ForwardOptions(hyp=f"{one}", lm=lm))
    assert given.sentences == ["Yes", "yes", "", "no no"]
    (output,) = given.outputs
    assert output.ids == ["a", "b", "a", "b", "c"]
    assert output.rows.tolist() == [0, 1, 2, 0, 3]
    assert len(np.unique(output.hashes)) == 4
    lower = prepare(ForwardOptions(hyp=f"{one}", lm=lm, case="lower", shards=2))
    assert lower.sentences == ["yes", "", "no no"]
    assert [shard.sentences for shard in lower.shards] == [["yes", ""], ["no no"]]
    assert lower.outputs[0].hashes.tolist() == output.hashes.tolist()
    comma = prepare(ForwardOptions(hyp=f"{other}", lm=lm))
    assert comma.sentences == ["yes", "new"]
    both = prepare(ForwardOptions(hyp=f"{one},{two}", lm=lm, case="upper", unit="letters"))
    assert both.sentences == ["YES", "", "NO NO", "NEW"]
    assert both.outputs[1].rows.tolist() == [0, 3]


def test_scores_of_something_else_are_not_replaced_by_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = write_dump(tmp_path / "dev.lst.hyp", hypotheses(3))
    lm = write_lm(tmp_path / "lm.arpa")
    given = prepare(ForwardOptions(hyp=str(dump), lm=lm))
    (output,) = given.outputs
    output.write(np.zeros(len(given.sentences)), {"hypotheses": len(output.ids)})
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(written) >= {"dev-lm.ppl", "dev-lm.ppl.hash", "dev-lm.ppl.json"}
    again = prepare(ForwardOptions(hyp=str(dump), lm=lm))
    assert (again.outputs, [one.path for one in again.done]) == ([], [output.path])
    assert run_command(forward.main, [f"--hyp={dump}", f"--lm={lm}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "dev-lm.ppl: is there already, of the same dump and LM" in said

    for path in (output.path, tmp_path / "dev-lm.ppl.hash"):
        path.write_bytes(written[path.name][:-5])
        assert "was cut or changed since" in error(capsys, f"--hyp={dump}", f"--lm={lm}")
        path.write_bytes(written[path.name])

    line = error(capsys, f"--hyp={dump}", f"--lm={lm}", "--case=lower")
    assert "dev-lm.ppl: holds other scores (case was keep, is lower); give another" in line
    line = error(capsys, f"--hyp={dump}", "--command=score", "--name=lm")
    assert "command was not given, is ['score']" in line
    write_dump(dump, hypotheses(4))
    assert "(the dump has changed since)" in error(capsys, f"--hyp={dump}", f"--lm={lm}")
    write_lm(lm, seed=9)
    assert "lm state was [" in error(capsys, f"--hyp={dump}", f"--lm={lm}")
    assert prepare(ForwardOptions(hyp=str(dump), lm=lm, replace=True)).done == []
    for name in ("dev-lm.ppl.json", "dev-lm.ppl.hash"):
        (tmp_path / name).unlink()
    assert "was not written by this command" in error(capsys, f"--hyp={dump}", f"--lm={lm}")
    assert (tmp_path / "dev-lm.ppl").read_bytes() == written["dev-lm.ppl"]


def test_a_kill_while_the_files_are_written_costs_no_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dumps = [write_dump(tmp_path / f"{n}.lst.hyp", hypotheses(9, seed=n)) for n in (1, 2)]
    hyp = f"{dumps[0]},{dumps[1]}"
    arguments = [f"--hyp={hyp}", "--command=no_such_program", "--shards=4"]
    given = prepare(ForwardOptions(hyp=hyp, command="no_such_program", shards=4))
    tmp_path.chmod(0o2775)
    shards = ShardFolder(tmp_path / "1-tr/shards", columns=3)
    for shard in given.shards:
        scores = np.zeros((len(shard.sentences), 3))
        scores[:, 0] = [-len(text) for text in shard.sentences]
        shards.keep(shard, scores)
    left = [tmp_path / f".1-tr.ppl{kind}{TEMPORARY_MARK}999999999-1" for kind in (".hash", ".json")]
    for path in left:
        path.touch()
        os.utime(path, (0, 0))
    write_hashes(tmp_path / "1-tr.ppl.hash", given.outputs[0].hashes[:3])
    (tmp_path / "1-tr.ppl").write_text("of an earlier dump")
    before = os.umask(0o077)
    try:
        assert run_command(forward.main, arguments) == 0  # Ray is not even started
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.glob("*-tr.ppl*")}
    assert modes == {0o664}  # the group's, whatever the umask
    assert "4 shards (4 scored before)" in capsys.readouterr().out
    for n in (1, 2):
        rows = hypotheses(9, seed=n)
        ids, scores = read_lm_scores(tmp_path / f"{n}-tr.ppl")
        assert ids == [name for name, _ in rows]
        assert scores.tolist() == [-len(text) for _, text in rows]
        hashes = read_hashes(tmp_path / f"{n}-tr.ppl.hash").tolist()
        assert hashes == [hash_text(text) for _, text in rows]
    assert not (tmp_path / "1-tr").exists()
    for what, stays in ((given.made_from, False), ({"hypotheses": ["of another dump"]}, True)):
        (tmp_path / "1-tr/lock").mkdir(parents=True)  # as a kill at the very end leaves it
        (tmp_path / f"1-tr/lock/.000001.json{TEMPORARY_MARK}999999999-1").touch()
        files.write_json(tmp_path / "1-tr" / NOTE, what)
        shards.keep(given.shards[0], np.zeros((len(given.shards[0].sentences), 3)))
        assert run_command(forward.main, arguments) == 0
        assert (tmp_path / "1-tr").exists() == (shards.read(given.shards[0]) is not None) == stays
    assert not any(path.exists() for path in left)
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_a_record_cut_by_others_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = write_dump(tmp_path / "dev.hyp", hypotheses(3))
    for content in (json.dumps({"format": 1})[:-3], "[]", '{"made_from": 1}'):
        (tmp_path / "dev-tr.ppl.json").write_text(content)
        assert "dev-tr.ppl.json: damaged" in error(capsys, f"--hyp={dump}", "--command=score")


def test_an_id_with_a_blank_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    dump = tmp_path / "dev.lst.hyp"
    dump.write_text("a | 1 | 1 | 1 | 0 | yes\nb c | 1 | 1 | 1 | 0 | no\n")
    lm = write_lm(tmp_path / "lm.arpa")
    options = ForwardOptions(hyp=str(dump), lm=lm)
    with pytest.raises(InputError, match=r"hyp:2: the utterance id 'b c' holds a blank"):
        prepare(options)


@pytest.mark.parametrize(
    ("lm", "text", "unit", "why"),
    [
        ("words", "TURN OFF", "words", ": they differ in the case of the letters"),
        ("words", "quite another", "words", ""),
        ("letters", "so it", "words", ": its words are single letters, so that it needs --unit="),
        ("letters", "SO IT", "letters", ": they differ in the case of the letters"),
    ],
)
def test_why_an_lm_knows_nothing_of_a_text(
    tmp_path: Path, lm: str, text: str, unit: str, why: str
) -> None:
    write_arpa(tmp_path / "words.arpa", estimate([["turn", "off"]], order=2))
    write_arpa(tmp_path / "letters.arpa", estimate([[*"so|it|"]], order=2))
    source = LMSource(kind="kenlm", model=str(tmp_path / f"{lm}.arpa"), unit=unit)
    found = _why_unknown(source, text)
    assert found.startswith(why) and bool(found) == bool(why)
