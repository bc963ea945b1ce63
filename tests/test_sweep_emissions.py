"""Sweeps that begin with an acoustic model: the Test program writes the emissions first."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
from binarytask import (
    ENVIRONMENT,
    Flags,
    arguments,
    counts,
    done,
    make_model,
    refused,
    run,
    wer_of,
)
from conftest import REPOSITORY
from killing import Sweep, sweeps
from runningray import running_ray
from trainingtask import DOUBLES

from w2ltune.commandline import parse
from w2ltune.decodeprogram import emission_sources
from w2ltune.formats.checkpoint import read_header, write_header
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.search.decodespace import build_space
from w2ltune.sweepoptions import SweepOptions

pytestmark = [
    pytest.mark.main(seconds=30),
    pytest.mark.xdist_group("sweeps from models on a running Ray"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Flags:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(trained: Flags, tmp_path: Path) -> Flags:
    """The flags of a sweep with a model, lists and tokens that a test may change."""
    folder = tmp_path / "training"
    shutil.copytree(str(trained["datadir"]), folder)
    am = folder / Path(str(trained["am"])).relative_to(str(trained["datadir"]))
    return {**trained, "datadir": folder, "am": am, "logdir": tmp_path / "sweeps"}


def test_emissions_are_made_once_and_shared(model: Flags, tmp_path: Path) -> None:
    said = done(model, gpu=2)  # there is none: it does without
    assert "emissions of train.lst by fl_asr_test" in said
    assert "in process, as fl_asr_decode decodes" in said
    (made,) = (tmp_path / "sweeps/am/emissions").iterdir()
    assert sorted(p.name for p in made.iterdir()) == ["emissions", "log", "made.json", "train.lst"]
    assert len(list((made / "emissions" / "train.lst").iterdir())) == 40

    # Elsewhere, one more trial and a held-out list: what was made is not made again.
    moved = tmp_path / "elsewhere"
    (tmp_path / "sweeps").rename(moved)
    note = moved / "am/emissions" / made.name / "made.json"
    before = note.stat().st_mtime_ns
    said = done(model, logdir=moved, heldout="other.lst", n=3)
    assert "emissions of other.lst by fl_asr_test" in said
    assert "held-out other.lst" in said
    assert len(counts(moved / "am")) == 3
    said = done(model, prefix="again", emission_cache=moved / "am/emissions")
    assert "emissions of" not in said
    assert note.stat().st_mtime_ns == before
    names = sorted(path.name.rpartition("-")[0] for path in note.parents[1].iterdir())
    assert names == ["other.lst", "train.lst"]

    # Another model of the same name is another sweep.
    path = Path(str(model["am"]))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for program in ({}, {"binary": None, "test_binary": DOUBLES / "fl_asr_test"}):
        assert "--am has changed since" in refused(model, logdir=moved, n=4, **program)
    assert len(list(note.parents[1].iterdir())) == 2


@pytest.mark.slow(seconds=15)
def test_flags_stored_in_the_model_are_in_force(model: Flags, tmp_path: Path) -> None:
    path = Path(str(model["am"]))
    content, header = path.read_bytes(), read_header(path)
    stored = {**header.flags, "beamsize": "3", "silscore": "-4", "smearing": "max"}
    gflags = "".join(f"--{name}={value}\n" for name, value in stored.items())
    with path.open("wb") as file:
        write_header(file, {**header.entries, "gflags": gflags})
        file.write(content[header.header_bytes :])
    said = done(model, beamsize=None)
    assert f"as stored in {path}: " in said
    assert "--beamsize=3 " in said and "--silscore=-4 --smearing=max" in said
    assert said.count("as fl_asr_decode decodes: ") == 2  # before the first trial, of the answer
    study = tmp_path / "sweeps/am"
    _, _, (*errors, words), _ = counts(study)[json.loads(
        (study / "outcome.json").read_text())["choices"][0]["trial"]]  # fmt: skip
    assert wer_of(study / "best.cfg", tmp_path) == pytest.approx(
        100 * sum(errors) / words, abs=1e-3
    )


@pytest.mark.slow(seconds=50)
def test_a_kill_while_emissions_are_made(model: Flags, tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "fl_asr_test"
    slow.parent.mkdir()
    slow.write_text(
        f"#!/bin/sh\nuntil test -e {tmp_path}/go; do sleep 0.1; done\n"
        f'exec {DOUBLES}/fl_asr_test "$@"\n'
    )
    slow.chmod(0o755)
    known: set[Path] = set()
    emissions = tmp_path / "sweeps/am/emissions"
    command = arguments(model, test_binary=slow, cores=1)
    with sweeps(REPOSITORY, tmp_path / "log") as start:

        def making(**more: str) -> Sweep:
            """Start, and wait until emissions are being made, in another folder than before."""
            sweep = start(command, environment={**ENVIRONMENT, **more})
            sweep.wait_for(lambda: set(emissions.glob(".making-*")) - known)
            known.update(emissions.glob(".making-*"))
            return sweep

        sweep = making()
        sweep.kill("everything", random.Random(0))
        sweep.wait()
        assert not list(emissions.glob("train.lst*"))
        sweep = making()
        assert sweep.kill("raylet", random.Random(0))
        assert sweep.wait() == 75, sweep.log.read_text()
        assert sweep.wait_until_gone() == {}
        before = set(known)
        sweep = making(**running_ray())
        sweep.signal(signal.SIGUSR1)
        assert sweep.wait() == 75
        assert set(emissions.glob(".making-*")) <= before
        (tmp_path / "go").touch()
        sweep = start(command, environment={**ENVIRONMENT, **running_ray()})
        assert sweep.wait() == 0, sweep.log.read_text()
    assert len(counts(tmp_path / "sweeps" / "am")) == 2


@pytest.mark.slow(seconds=20)
def test_emissions_that_cannot_be_made(model: Flags, tmp_path: Path) -> None:
    """An earlier run that went well, in whatever log, does not help one that fails."""
    for damage, (body, message) in {
        "missing": (
            f'{DOUBLES}/fl_asr_test "$@" || exit\n'
            "for a; do case $a in --emission_dir=*) "
            'rm "${a#*=}"/train.lst/train-7.bin; esac; done',
            "the program wrote no emission of 'train-7'",
        ),
        "crash": ("kill -SEGV $$", "SIGSEGV"),
        "silent": ("echo all is well", "the program ended well but without its last line"),
    }.items():
        broken = tmp_path / damage / "fl_asr_test"
        broken.parent.mkdir()
        broken.write_text(f"#!/bin/sh\n{body}\n")
        broken.chmod(0o755)
        process = run(model, test_binary=broken, prefix=damage)
        study = tmp_path / "sweeps" / damage
        assert message in process.stderr
        assert process.returncode == 1
        assert process.stderr.count("\n") == 1
        left = list((study / "emissions").iterdir())
        assert [path.name.endswith(".log") for path in left] == [True] * (damage != "missing")
        assert all(str(path) in process.stderr for path in left)
        assert not (study / "sweep.json").exists()


@pytest.mark.slow(seconds=20)
def test_a_program_that_is_killed_while_it_makes_emissions(model: Flags, tmp_path: Path) -> None:
    to_kill = tmp_path / "to_kill"
    deadly = tmp_path / "bin" / "fl_asr_test"
    deadly.parent.mkdir()
    deadly.write_text(
        f"#!/bin/sh\nif test -s {to_kill}; then sed -i 1d {to_kill}; kill -9 $$; fi\n"
        f'exec {DOUBLES}/fl_asr_test "$@"\n'
    )
    deadly.chmod(0o755)
    to_kill.write_text("\n" * 3)
    failed = run(model, test_binary=deadly)
    assert failed.returncode == 1
    assert "killed (SIGKILL), most likely for want of memory" in failed.stderr
    assert failed.stderr.endswith(": 3 times; the same command tries it again\n")
    to_kill.write_text("\n" * 2)
    done(model, test_binary=deadly)
    assert to_kill.read_text() == ""
    assert len(counts(tmp_path / "sweeps" / "am")) == 2


def replace_audio(path: Path, byte: bytes) -> None:
    """Write another audio of the same size and time."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-100] + byte * 100)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def whole(flags: Flags) -> list[bool]:
    """Whether there are emissions of each list already."""
    options, given = parse(arguments(flags), SweepOptions, usage="")
    names = SweepOptions.__dataclass_fields__
    space = build_space(given, script=None, options=names, any_flag=False)
    return [source.whole() for source in emission_sources(options, space.fixed)]


@pytest.mark.slow(seconds=30)
def test_emissions_are_those_of_the_audio(
    model: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither equal lists of other audio nor audio that was replaced get what was made before."""
    training = tmp_path / "training"
    rows = [line.split(" ") for line in (training / "train.lst").read_text().splitlines()[:12]]
    near = [" ".join([name, f"audio/{Path(path).name}", *rest]) for name, path, *rest in rows]
    (training / "near.lst").write_text("\n".join(near) + "\n")
    for copy in ("same", "noisy"):
        shutil.copytree(training, tmp_path / copy)
    audio = tmp_path / "noisy" / "audio" / "train-3.wav"
    replace_audio(audio, b"a")
    flags = model | {"test": "near.lst", "emission_cache": tmp_path / "cache", "n": 1}

    def made_by(folder: str, **changes: object) -> int:
        before = len(list((tmp_path / "cache").glob("near.lst-*")))
        done(flags, folder=tmp_path / folder, **{"prefix": folder, **changes})
        return len(list((tmp_path / "cache").iterdir())) - before

    assert made_by("training") == 1
    for folder, there in (("training", True), ("same", True), ("noisy", False)):
        monkeypatch.chdir(tmp_path / folder)
        assert whole(flags) == [there]
    assert made_by("noisy") == 1
    assert made_by("noisy") == 0
    # A sweep has one audio and one model from its first trial to its last.
    replace_audio(audio, b"b")
    process = run(flags, folder=tmp_path / "noisy", prefix="noisy", n=2)
    assert process.returncode == 2
    assert "what the emissions of near.lst are made of has changed since" in process.stderr
    assert "emissions of near.lst by" not in process.stdout
    assert made_by("noisy", prefix="another") == 1
    audio.unlink()  # what was made stays good
    assert made_by("noisy", prefix="another", n=2) == 0
    said = refused(flags, folder=tmp_path / "noisy", prefix="third")
    assert "utterance 'train-3': cannot open its audio 'audio/train-3.wav'" in said


@pytest.mark.slow
def test_nobody_makes_emissions_for_a_sweep_that_is_running(model: Flags, tmp_path: Path) -> None:
    (tmp_path / "sweeps/am/lock").mkdir(parents=True)
    lock = StudyLock(tmp_path / "sweeps/am/lock", this_process())
    lock.acquire()
    try:
        assert "running already (process" in refused(model)
    finally:
        lock.release()
    assert not (tmp_path / "sweeps/am/emissions").exists()


@pytest.mark.slow
def test_the_ancestors_tokensdir_and_a_json_list(model: Flags, tmp_path: Path) -> None:
    folder = tmp_path / "training"
    rows = [line.split(" ", 3) for line in (folder / "dev.lst").read_text().splitlines()]
    objects = [
        {"id": name, "audio_filepath": path, "duration": 1.0, "text": words}
        for name, path, _, words in rows
    ]
    (folder / "dev.json").write_text("".join(json.dumps(each) + "\n" for each in objects))
    said = done(
        model, binary=DOUBLES / "Decoder", test="dev.json", tokensdir=folder, tokens="tokens.txt"
    )
    assert "emissions of dev.json by" in said
    assert "in process, as Decoder decodes" in said
    done(model, prefix="lst", test="dev.lst")
    assert counts(tmp_path / "sweeps" / "am") == counts(tmp_path / "sweeps" / "lst")
