"""Sweeps that begin with an acoustic model: the Test program writes the emissions first."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from binarytask import ENVIRONMENT, Flags, arguments, counts, make_model, run
from conftest import REPOSITORY
from killing import Sweep
from trainingtask import DOUBLES

from w2ltune.runs.lock import StudyLock, this_process

pytestmark = pytest.mark.main


@pytest.fixture
def model(tmp_path: Path) -> Flags:
    return make_model(tmp_path)


def test_emissions_are_made_once_and_shared(model: Flags, tmp_path: Path) -> None:
    cache = tmp_path / "all emissions"
    done = run(model, emission_cache=cache)
    assert done.returncode == 0, done.stderr
    assert "emissions of train.lst by fl_asr_test" in done.stdout
    assert "in process, as fl_asr_decode decodes" in done.stdout
    (made,) = cache.iterdir()
    note = (made / "made.json").stat().st_mtime_ns
    assert sorted(p.name for p in made.iterdir()) == ["emissions", "log", "made.json", "train.lst"]
    assert len(list((made / "emissions" / "train.lst").iterdir())) == 40
    done = run(model, emission_cache=cache, prefix="again")
    assert done.returncode == 0, done.stderr
    assert "emissions of" not in done.stdout
    assert (made / "made.json").stat().st_mtime_ns == note
    # Another list: another folder. What the model says of tokens and lexicon is taken from it.
    done = run(model, emission_cache=cache, prefix="dev", test="dev.lst", heldout="other.lst")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name.rpartition("-")[0] for path in cache.iterdir())
    assert names == ["dev.lst", "other.lst", "train.lst"]


def making(tmp_path: Path, sweep: Sweep, known: set[Path]) -> set[Path]:
    """Wait until emissions are being made, in another folder than before."""
    deadline = time.monotonic() + 60
    while not (found := set(tmp_path.glob("sweeps/am/emissions/.making-*")) - known):
        assert time.monotonic() < deadline, sweep.log.read_text()
        time.sleep(0.05)
    return found


def test_a_kill_while_emissions_are_made(model: Flags, tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "fl_asr_test"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nsleep 3\nexec {DOUBLES}/fl_asr_test "$@"\n')
    slow.chmod(0o755)
    sweep = Sweep(
        arguments(model, test_binary=slow), REPOSITORY, tmp_path / "log", environment=ENVIRONMENT
    )
    sweep.start()
    try:
        known = making(tmp_path, sweep, set())
        sweep.kill("everything", random.Random(0))
        sweep.wait(20)
        assert not list(tmp_path.glob("sweeps/am/emissions/train.lst*"))
        sweep.start()
        known |= making(tmp_path, sweep, known)
        assert sweep.kill("raylet", random.Random(0))
        assert sweep.wait(60) == 75, sweep.log.read_text()
        sweep.start()
        making(tmp_path, sweep, known)
        assert sweep.process is not None
        sweep.process.send_signal(signal.SIGUSR1)
        assert sweep.wait(60) == 75
        assert set(tmp_path.glob("sweeps/am/emissions/.making-*")) <= known
        sweep.start()
        assert sweep.wait(120) == 0, sweep.log.read_text()
    finally:
        sweep.kill("everything", random.Random(0))
    assert len(counts(tmp_path / "sweeps" / "am")) == 2


@pytest.mark.parametrize("damage", ["missing", "crash", "silent"])
def test_emissions_that_cannot_be_made(model: Flags, tmp_path: Path, damage: str) -> None:
    """An earlier run that went well, in whatever log, does not help one that fails."""
    body, message = {
        "missing": (
            f'{DOUBLES}/fl_asr_test "$@" || exit\n'
            "for a; do case $a in --emission_dir=*) "
            'rm "${a#*=}"/train.lst/train-7.bin; esac; done',
            "the program wrote no emission of 'train-7'",
        ),
        "crash": ("kill -SEGV $$", "SIGSEGV"),
        "silent": ("echo all is well", "the program ended well but without its last line"),
    }[damage]
    broken = tmp_path / "fl_asr_test"
    broken.write_text(f"#!/bin/sh\n{body}\n")
    broken.chmod(0o755)
    done = run(model, test_binary=broken)
    assert message in done.stderr
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    left = [path.name for path in tmp_path.glob("sweeps/am/emissions/*")]
    assert [name.endswith(".log") for name in left] == [True] * (damage != "missing")
    for path in tmp_path.glob("sweeps/am/emissions/*.log"):
        assert str(path) in done.stderr
    assert not (tmp_path / "sweeps/am/sweep.json").exists()


def replace_audio(path: Path, byte: bytes) -> None:
    """Write another audio of the same size and time."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-100] + byte * 100)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_emissions_are_those_of_the_audio(model: Flags, tmp_path: Path) -> None:
    """Neither equal lists of other audio nor audio that was replaced get what was made before."""
    rows = (tmp_path / "training" / "train.lst").read_text().splitlines()[:12]
    near = [row.replace(f"{tmp_path}/training/", "") for row in rows]
    (tmp_path / "training" / "near.lst").write_text("\n".join(near) + "\n")
    for copy in ("same", "noisy"):
        shutil.copytree(tmp_path / "training", tmp_path / copy)
    audio = tmp_path / "noisy" / "audio" / "train-3.wav"
    replace_audio(audio, b"a")
    flags = model | {"test": "near.lst", "emission_cache": tmp_path / "cache", "n": 1}

    def made_by(folder: str, **changes: object) -> int:
        before = len(list((tmp_path / "cache").glob("near.lst-*")))
        done = run(flags, folder=tmp_path / folder, **{"prefix": folder, **changes})
        assert done.returncode == 0, done.stderr
        return len(list((tmp_path / "cache").iterdir())) - before

    assert made_by("training") == 1
    assert made_by("same") == 0
    assert made_by("noisy") == 1
    assert made_by("noisy") == 0
    # A sweep has one audio and one model from its first trial to its last.
    replace_audio(audio, b"b")
    done = run(flags, folder=tmp_path / "noisy", prefix="noisy", n=2)
    assert done.returncode == 2
    assert "what the emissions of near.lst are made of has changed since" in done.stderr
    assert "emissions of near.lst by" not in done.stdout
    assert made_by("noisy", prefix="another") == 1
    audio.unlink()  # what was made stays good
    assert made_by("noisy", prefix="another", n=2) == 0
    done = run(flags, folder=tmp_path / "noisy", prefix="third")
    assert done.returncode == 2
    assert "utterance 'train-3': cannot open its audio 'audio/train-3.wav'" in done.stderr


def test_another_model_of_the_same_name_is_another_sweep(model: Flags, tmp_path: Path) -> None:
    done = run(model, sampler="tpe")
    assert done.returncode == 0, done.stderr
    path = Path(str(model["am"]))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for program in ({}, {"binary": None, "test_binary": DOUBLES / "fl_asr_test"}):
        done = run(model, sampler="tpe", n=4, **program)
        assert done.returncode == 2
        assert "--am has changed since" in done.stderr
    assert len(list((tmp_path / "sweeps/am/emissions").iterdir())) == 1


def test_nobody_makes_emissions_for_a_sweep_that_is_running(model: Flags, tmp_path: Path) -> None:
    (tmp_path / "sweeps/am/lock").mkdir(parents=True)
    lock = StudyLock(tmp_path / "sweeps/am/lock", this_process())
    lock.acquire()
    try:
        done = run(model)
    finally:
        lock.release()
    assert done.returncode == 2
    assert "running already (process" in done.stderr
    assert not (tmp_path / "sweeps/am/emissions").exists()


def test_the_folder_moves_and_a_list_comes_later(model: Flags, tmp_path: Path) -> None:
    done = run(model)
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "sweeps/am/emissions").iterdir()
    # Elsewhere, one more trial and a held-out list: what was made is not made again.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sweeps/am").rename(tmp_path / "elsewhere/am")
    note = tmp_path / "elsewhere/am/emissions" / made.name / "made.json"
    before = note.stat().st_mtime_ns
    done = run(model, logdir=tmp_path / "elsewhere", heldout="other.lst", n=3)
    assert done.returncode == 0, done.stderr
    assert "emissions of other.lst by fl_asr_test" in done.stdout
    assert "held-out other.lst" in done.stdout
    assert note.stat().st_mtime_ns == before
    assert len(counts(tmp_path / "elsewhere" / "am")) == 3


@pytest.mark.parametrize("program", ["fl_asr_decode", "Decoder"])
def test_the_ancestors_tokensdir_and_a_json_list(
    model: Flags, tmp_path: Path, program: str
) -> None:
    folder = tmp_path / "training"
    rows = [line.split(" ", 3) for line in (folder / "dev.lst").read_text().splitlines()]
    objects = [
        {"id": name, "audio_filepath": path, "duration": 1.0, "text": words}
        for name, path, _, words in rows
    ]
    (folder / "dev.json").write_text("".join(json.dumps(each) + "\n" for each in objects))
    done = run(
        model, binary=DOUBLES / program, test="dev.json", tokensdir=folder, tokens="tokens.txt"
    )
    assert done.returncode == 0, done.stderr
    assert "emissions of dev.json by" in done.stdout
    assert f"in process, as {program} decodes" in done.stdout
    other = run(model, prefix="lst", test="dev.lst")
    assert other.returncode == 0, other.stderr
    sweeps = tmp_path / "sweeps"
    assert counts(sweeps / "am") == counts(sweeps / "lst")


def test_lists_that_the_program_cannot_read_are_refused(model: Flags, tmp_path: Path) -> None:
    folder = tmp_path / "training"
    (folder / "text").write_text("dev-0 one two\n")
    (folder / "blank.json").write_text('{"id": "dev-0", "audio": "a b.wav", "text": "one"}\n')
    (folder / "odd.json").write_text('{"id": "dev-0", "audio": "a\\u0000.wav", "text": "one"}\n')
    done = run(model, test="odd.json")
    assert done.returncode == 2
    assert "cannot open its audio" in done.stderr
    for name, path in (("text", "''"), ("blank.json", "'a b.wav'")):
        done = run(model, test=name)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"needs a path without blanks to it, not {path}" in done.stderr
    assert not (tmp_path / "sweeps").exists()
