"""What the programs end of every time is refused at once; the doubles end of it too."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from binarytask import ENVIRONMENT, arguments, make_decoding, write_model
from conftest import REPOSITORY, VOICE_COMMANDS
from test_sweep_input import refused
from trainingtask import DOUBLES, make_training, write_config

from w2ltune import sweep, train
from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import run_command
from w2ltune.formats.beamdump import read_beam_dump
from w2ltune.formats.emissionbin import read_emission_bin
from w2ltune.formats.known_flags import KNOWN_FLAGS

Flags = dict[str, object]
TOKENS = (VOICE_COMMANDS / "tokens.txt").read_text()
LEXICON = (VOICE_COMMANDS / "lexicon.txt").read_text()


@pytest.fixture
def decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flags:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")  # what is not refused fails at once, with 1
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "sweeps").mkdir()
    return make_decoding(tmp_path) | {"n": 1, "lmweight": 1, "wordscore": "uniform(-1,1)"}


def program_ends(folder: Path, flags: Flags, program: str = "fl_asr_decode") -> str:
    """Start the double by itself with a sweep's flags; it must end badly. Return what it says."""
    given = [f"--{n}={v}" for n, v in flags.items() if n in KNOWN_FLAGS and "(" not in str(v)]
    if not {"am", "criterion"} & flags.keys():
        given.append("--criterion=ctc")
    done = subprocess.run(
        [DOUBLES / program, *given, "--logtostderr=1"],
        env={**os.environ, **ENVIRONMENT, "DOUBLE_RETRY_SECONDS": "0"},
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr


def file(name: str, content: str | bytes) -> Callable[[Path], Flags]:
    """Return what writes a file that takes the place of the flag's."""

    def write(folder: Path) -> Flags:
        path = folder / f"{name}.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {name: path}

    return write


def model(**stored: object) -> Callable[[Path], Flags]:
    return lambda folder: {"am": write_model(folder / "model.bin", **stored)}


def nothing(folder: Path) -> Flags:
    return {}


# What is given, more flags, what is said of it, and what the program says.
ENDS = [
    (file("lexicon", "yes\ty e s |\n\n"), {}, "lexicon.txt:2: an empty line in", "Invalid"),
    (file("lexicon", LEXICON + " \t\r\n"), {}, ": an empty line in a lexicon", "Invalid line"),
    (file("lexicon", "yes\ty e s |\nno\n"), {}, "lexicon.txt:2: word 'no' has no", "line: no"),
    (file("tokens", TOKENS + "#\n"), {}, "the token '#' is added", "Duplicate entry in"),
    (file("tokens", TOKENS + "_\n"), {"surround": "$$"}, "--surround=$$: is no token", "'$$'"),
    (
        file("tokens", TOKENS + "<1>\n"),
        {"criterion": "asg", "replabel": 1, "am": "{model}"},
        "the token '<1>' is added to the list by itself (for --replabel)",
        "Duplicate entry in dictionary '<1>'",
    ),
    (nothing, {"criterion": "seq2seq"}, "no 'seq2seq'; it is s2srnn in flashlight", "Invalid"),
    (nothing, {"criterion": "asg"}, "--criterion=asg without --am: the program", "SIGSEGV"),
    (nothing, {"criterion": "s2srnn"}, "--criterion=s2srnn without --am: ", "SIGSEGV"),
    (model(criterion="ctc", wordseparator="_"), {}, "--wordseparator=_: is no token", "'_'"),
    (nothing, {"wordseparator": "▁"}, "--wordseparator=▁: is no token of", "'▁'"),
    (nothing, {"features_type": "mfcc"}, "no release of flashlight can compute mfcc", "'mfcc'"),
    (nothing, {"emission_queue_size": "0x"}, "--emission_queue_size='0x'", "for int32 flag"),
    (nothing, {"beamsize": "3000000000"}, "not a whole number of 32 bits", "for int32 flag"),
    (nothing, {"fl_amp_max_scale_factor": "-1"}, "a whole number from 0 on", "for uint64 flag"),
    (
        nothing,
        {"uselexicon": "false", "decodertype": "tkn", "lexicon": "", "lm": "", "silscore": 1},
        "no --lexicon: the program ends without one",
        "Unknown entry in dictionary: '<unk>'",
    ),
    (file("am", "no model"), {}, "is no model file of flashlight", "Error while loading"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "more", "said", "of_the_program"), ENDS)
def test_what_the_decoder_ends_of(
    decoding: Flags, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Flags], more: Flags, said: str, of_the_program: str,
) -> None:  # fmt: skip
    flags = decoding | more | make(tmp_path)
    if flags.get("am") == "{model}":
        flags["am"] = write_model(tmp_path / "model.bin", criterion="asg")
    if not flags["lexicon"]:
        flags |= {"lmweight": None, "wordscore": None, "silscore": "uniform(-1,1)"}
    for decoder in ("auto", "binary"):
        assert said in refused(arguments(flags, decoder=decoder), capsys)
    assert of_the_program in program_ends(tmp_path, {k: v for k, v in flags.items() if v})


def test_the_other_generation_has_its_own_criteria(
    decoding: Flags, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = arguments(decoding, binary=DOUBLES / "Decoder", criterion="s2srnn")
    assert "knows no 's2srnn'; it is seq2seq in wav2letter" in refused(flags, capsys)


def test_an_unknown_word_in_a_reference(
    decoding: Flags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data" / "dev.lst"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:-1], f"{rows[-1]} <unk>"]) + "\n")
    assert "has the word <unk>, at which the programs crash" in refused(arguments(decoding), capsys)
    assert "SIGSEGV" in program_ends(tmp_path, decoding)


@pytest.mark.parametrize("maxword", [-1, 61])
def test_a_lexicon_decodes_as_in_the_program(decoding: Flags, tmp_path: Path, maxword: int) -> None:
    """Words with several spellings at each place where it may stop, and <unk> with one."""
    lines = LEXICON.splitlines()
    twice = [f"{line}\n{line.split()[0]}\t{' '.join(line.split()[-2:0:-1])} |" for line in lines]
    (tmp_path / "lexicon.txt").write_text("\n".join([lines[0], "<unk>\ta |", *twice[1:]]) + "\n")
    rows = (tmp_path / "data" / "dev.lst").read_text().splitlines()[:8]
    (tmp_path / "data" / "dev.lst").write_text("\n".join(rows) + "\n")
    (tmp_path / "out").mkdir()
    decoding |= {"lexicon": tmp_path / "lexicon.txt", "maxword": maxword, "wordscore": 1}
    given = [f"--{name}={value}" for name, value in decoding.items() if name in KNOWN_FLAGS]
    given += ["--criterion=ctc", f"--sclite={tmp_path / 'out'}", "--isbeamdump=true"]
    program = [DOUBLES / "fl_asr_decode", *given, "--beamsize=300"]
    subprocess.run(program, env={**os.environ, **ENVIRONMENT}, check=True)
    flags = decoder_flags({n: str(v) for n, v in decoding.items() if n in KNOWN_FLAGS})
    flags = replace(flags, beamsize=300)
    decoder = Decoder(flags)
    dump = read_beam_dump(tmp_path / "out" / "dev.lst.hyp")
    assert len(dump) == 8
    for name, found in dump.items():
        file = tmp_path / "data" / "emissions" / "dev.lst" / f"{name}.bin"
        best = decoder.decode(read_emission_bin(file), flags)[0]
        assert best.score == pytest.approx(found[0].score, abs=1e-5)


def array(*dimensions: int, kind: int = 0) -> bytes:
    """An array of float32 as flashlight writes it."""
    items = int.__mul__(*dimensions)
    return struct.pack("<4qiQ", *dimensions, 1, 1, kind, 4 * items) + bytes(4 * items)


@pytest.mark.parametrize("cut", [1, 100, 399, 900])
def test_a_model_that_is_cut(
    decoding: Flags, tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    path = write_model(tmp_path / "model.bin", criterion="ctc")
    name = b"\x01\x00\x00\x80" + struct.pack("<Q", 14) + b"fl::Sequential" + bytes(21)
    path.write_bytes(path.read_bytes() + name + array(10, 20) + bytes(30) + array(10, 10))
    path.write_bytes(path.read_bytes()[:-cut])
    line = refused(arguments(decoding, am=path), capsys)
    assert "model.bin: cut short: " in line and "bytes and more are missing" in line


def test_what_is_no_model_gives_no_flags(
    decoding: Flags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a model, one day\n" * 9)
    for more in ({"binary": None}, {"decoder": "process"}, {"binary": None, "tokens": None}):
        line = refused(arguments(decoding, am=path, **more), capsys)
        assert "notes.txt: is no model file of flashlight" in line


def test_flags_that_a_sweep_cannot_follow(
    decoding: Flags, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(decoding, maxload=5)
    assert "--maxload=5: a sweep decodes its whole list; make a shorter one" in refused(
        given, capsys
    )
    path = write_model(tmp_path / "model.bin", criterion="ctc", filterbanks=80)
    given = arguments(decoding, am=path, emission_dir=None, filterbanks=40)
    assert refused(given, capsys)
    (tmp_path / "inner.cfg").write_text("--lmweight=2\n")
    (tmp_path / "outer.cfg").write_text(f"--flagsfile={tmp_path}/inner.cfg\n")
    given = arguments(decoding, flagsfile=tmp_path / "outer.cfg")
    assert "outer.cfg:1: --flagsfile=" in refused(given, capsys)


def a_training(folder: Path, **files: str) -> Flags:
    """Make a training, and other files for it."""
    flags: Flags = dict(make_training(folder / "data", rows=4))
    for name, content in files.items():
        path = folder / "data" / f"{name}.txt"
        path.write_text(content.replace("AUDIO", str(folder / "data" / "audio" / "dev-0.wav")))
        flags[name] = path if name not in ("train", "valid") else path.name
    return flags


LETTERS = "|\ne\nf\nh\nn\no\nr\nt\nu\nw\n"
TRAININGS = [
    ({"lexicon": ""}, {}, "no --lexicon: give one", r"Unknown entry in dictionary: '\w+'"),
    ({}, {"lexicon": "one\to n e |\n\n"}, "lexicon.txt:2: an empty line", "Invalid line: $"),
    (
        {},
        {"tokens": LETTERS + "#\n"},
        "tokens.txt:11: the token '#' is added",
        "entry in dictionary",
    ),
    (
        {"criterion": "asg", "replabel": 1},
        {"tokens": LETTERS + "<1>\n"},
        "tokens.txt:11: the token '<1>' is added to the list by itself (for --replabel)",
        "Duplicate entry in dictionary '<1>'",
    ),
    (
        {"usewordpiece": "true", "wordseparator": "_"},
        {"train": "a AUDIO 1000 one tone\n"},
        "the word 'tone' is not in the lexicon, so that it is spelled by letters and the word sep",
        "Unknown entry in dictionary: '_'",
    ),
    ({}, {"train": "a AUDIO 1000 <unk>\n"}, "has the word <unk>, at which the", "SIGSEGV"),
    ({"surround": "_"}, {}, "--surround=_: is no token", "Unknown entry in dictionary: '_'"),
    ({"criterion": "seq2seq"}, {}, "it is s2srnn in flashlight", "unimplemented criterion"),
    ({"criterion": "transformer"}, {}, "it is s2stransformer in", "unimplemented criterion"),
    ({"features_type": "mfcc"}, {}, "no release of flashlight can", "Unsupported feature type"),
    ({"onorm": "tgt"}, {}, "did you mean 'target'?", "invalid onorm option"),
    ({"linseg": 10}, {}, "--linseg=10 with --criterion=ctc", "linseg may only be used"),
    ({"criterion": "asg", "lm": "tokens.txt"}, {}, "decodes in a training with ctc", "Other decod"),
    ({"beamsize": "3000000000"}, {}, "a whole number of 32 bits", "for int32 flag 'beamsize'"),
]


@pytest.mark.parametrize(("more", "files", "said", "of_the_program"), TRAININGS)
def test_what_a_training_ends_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    more: Flags, files: dict[str, str], said: str, of_the_program: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    flags = a_training(tmp_path, **files) | more
    config = write_config(tmp_path, {name: str(value) for name, value in flags.items()})
    command = [f"--config={config}", f"--binary={DOUBLES / 'fl_asr_train'}", f"--root={tmp_path}"]
    searched = ["--task=train", "--extra=--lr=uniform(0.01,0.1)"]
    for main, given in ((train.main, command), (sweep.main, [*command, *searched])):
        assert run_command(main, given) == 2
        line = capsys.readouterr().err
        assert said in line and line.startswith("w2ltune: error: ") and line.count("\n") == 1
    done = subprocess.run(
        [DOUBLES / "fl_asr_train", "train", f"--flagsfile={config}", "--logtostderr=1",
         f"--rundir={tmp_path / 'run'}"],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert re.search(of_the_program, done.stderr, re.MULTILINE), done.stderr
