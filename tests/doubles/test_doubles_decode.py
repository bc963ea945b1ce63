"""The double of the decoder gives what the real program was seen to give."""

import re
import sys
from pathlib import Path

import pytest
from fldouble.testing import names, run

from w2ltune.formats.beamdump import read_beam_dump
from w2ltune.formats.decodelog import find_seconds


def summary(text):
    """How many utterances the last line of a program tells, and its two error rates in per cent."""
    count, wer, other = re.findall(r"\((\d+) samples\).* WER: ([\d.]+)%?, .ER: ([\d.]+)", text)[-1]
    return int(count), float(wer), float(other)


WEAK = {
    "lmtype": "kenlm",
    "lmweight": 1.5,
    "wordscore": 0.5,
    "beamsize": 100,
    "beamthreshold": 60,
    "beamsizetoken": 20,
    "smearing": "max",
    "criterion": "ctc",
    "test": "a.lst,b.lst",
    "logtostderr": 1,
}


@pytest.fixture
def weak(captures, tmp_path):
    """The flags of the captured decodes of a weak model, for files of this machine."""
    data = captures / "data"
    audio = tmp_path / "some.wav"
    audio.touch()
    for name in ("a.lst", "b.lst"):
        rows = [line.split() for line in (data / name).read_text().splitlines()]
        lines = [" ".join([row[0], str(audio), *row[2:]]) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    emissions = tmp_path / "emissions"
    emissions.mkdir()
    (emissions / "a.lst,b.lst").symlink_to(captures / "extra" / "emissions_weak")
    (tmp_path / "out").mkdir()
    return WEAK | {
        "datadir": tmp_path,
        "emission_dir": emissions,
        "tokens": data / "tokens.txt",
        "lexicon": data / "lexicon.txt",
        "lm": data / "lm.arpa",
        "sclite": tmp_path / "out",
    }


def decode(flags, program="fl_asr_decode", **more):
    arguments = [f"--{name}={value}" for name, value in (flags | more).items()]
    return run(*arguments, program=program, DOUBLE_PYTHON=sys.executable)


def rows(path):
    return sorted(path.read_text().splitlines())


def test_the_captured_transcripts_and_summary(weak, captures):
    done = decode(weak, show="true")
    assert done.returncode == 0, done.stderr
    out, captured = Path(weak["sclite"]), captures / "extra" / "sclw" / "d1"
    for ending in ("hyp", "ref"):
        assert rows(out / f"a.lst,b.lst.{ending}") == rows(captured / f"a.lst,b.lst.{ending}")
    assert len(rows(out / "a.lst,b.lst.hyp")) == 28
    stderr = (captures / "extra" / "03_decode_weak.stderr").read_text()
    ours, theirs = summary(done.stderr), summary(stderr)
    assert (ours[0], ours[1]) == (28, theirs[1])
    assert ours[2] == pytest.approx(theirs[2], abs=0.5)  # of the words' letters, not of tokens
    assert find_seconds((out / "a.lst,b.lst.log").read_text().splitlines()) is not None


@pytest.mark.parametrize(("threads", "captured"), [(1, "d2"), (2, "d3")])
def test_the_captured_beam_dumps(weak, captures, threads, captured):
    done = decode(weak, isbeamdump="true", nthread_decoder=threads)
    assert done.returncode == 0, done.stderr
    assert summary(done.stderr)[0] == 0
    ours = read_beam_dump(Path(weak["sclite"]) / "a.lst,b.lst.hyp")
    theirs = read_beam_dump(captures / "extra" / "sclw" / captured / "a.lst,b.lst.hyp")
    assert ours.keys() == theirs.keys()
    assert len(theirs) == 28
    for name, entries in theirs.items():
        assert [entry.words for entry in ours[name]] == [entry.words for entry in entries]
        for one, other in zip(ours[name], entries, strict=True):
            assert one.score == pytest.approx(other.score, abs=2e-6)
            assert one.wer == other.wer


def test_wav2letters_form(weak):
    weak |= {"test": "a.lst"}
    Path(weak["emission_dir"], "a.lst").symlink_to(Path(weak["emission_dir"], "a.lst,b.lst"))
    done = decode(weak, program="Decoder")
    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().rsplit(" -- ", 1)[1].count("%") == 0
    assert ", LER: " in done.stderr
    assert summary(done.stderr)[0] == 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"emission_dir": "", "am": ""}, "Both flags are empty: `-emission_dir` and `-am`"),
        ({"lm": "/none"}, "ErrnoException"),
        ({"lexicon": "/none"}, "Failed to open file for reading: /none"),
        ({"lexicon": ""}, "lexicon shouldn't be empty"),
        ({"tokens": "/none"}, "Invalid dictionary filepath specified"),
        ({"smearing": "foo"}, "Invalid smearing option"),
        ({"sclite": "/none"}, "Error opening hypothesis file: /none/a.lst,b.lst.hyp"),
        ({"sclite": "", "isbeamdump": "true"}, "nowhere to dump the beam"),
        ({"test": "none.lst"}, "Unable to open file"),
        ({"nthread_decoder": 0}, "nthread_decoder"),
    ],
)
def test_what_it_dies_of(weak, changes, said):
    done = decode(weak, **changes)
    assert done.returncode == -6
    assert said in done.stderr


def test_missing_audio_is_missed_even_with_emissions(weak, tmp_path):
    (tmp_path / "some.wav").unlink()
    done = decode(weak)
    assert done.returncode == -6
    assert "could not open file for read" in done.stderr
    assert names(Path(weak["sclite"])) == []
