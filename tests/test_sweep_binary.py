"""Whole decode sweeps with the binaries, for which doubles stand that hold the real search."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, VOICE_COMMANDS
from killing import Sweep
from nodes import Nodes
from trainingtask import BINARY, DOUBLES, make_training

from w2ltune.formats.emissionbin import read_emission_bin
from w2ltune.formats.emissions import open_emissions, write_emission_bin

pytestmark = pytest.mark.ray

DECODER = DOUBLES / "fl_asr_decode"
ENVIRONMENT = {
    "DOUBLE_PYTHON": sys.executable,
    "DOUBLE_RETRY_SECONDS": "0.001",
    "DOUBLE_UPDATE_SECONDS": "0.0005",
}
Flags = dict[str, object]


@pytest.fixture
def decoding(tmp_path: Path) -> Flags:
    """The flags of a small sweep whose emissions are files of the binary."""
    data = tmp_path / "data"
    (data / "emissions" / "dev.lst").mkdir(parents=True)
    (data / "some.wav").touch()
    emissions = open_emissions(VOICE_COMMANDS / "emissions" / "dev.npz")
    rows = []
    for line in (VOICE_COMMANDS / "dev.lst").read_text().splitlines()[:40]:
        name, _, *rest = line.split()
        rows.append(" ".join([name, str(data / "some.wav"), *rest]))
        write_emission_bin(data / "emissions" / "dev.lst", name, emissions.emission(name))
    (data / "dev.lst").write_text("\n".join(rows) + "\n")
    return {
        "binary": DECODER,
        "emission_dir": data / "emissions",
        "datadir": data,
        "test": "dev.lst",
        "tokens": VOICE_COMMANDS / "tokens.txt",
        "lexicon": VOICE_COMMANDS / "lexicon.txt",
        "lm": VOICE_COMMANDS / "lm.arpa",
        "smearing": "max",
        "beamsize": 50,
        "beamsizetoken": 20,
        "logdir": tmp_path / "sweeps",
        "prefix": "small",
        "sampler": "random",
        "pruner": "none",
        "probe": "false",
        "seed": 1,
        "n": 2,
    }


@pytest.fixture
def model(tmp_path: Path) -> Flags:
    """The flags of a small sweep that begins with an acoustic model."""
    folder = tmp_path / "training"
    flags = make_training(folder)
    given = [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(
        [BINARY, "train", f"--rundir={folder}/run", *given, "--logtostderr=true"],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        "binary": DECODER,
        "am": folder / "run" / "001_model_last.bin",
        "datadir": folder,
        "test": "train.lst",
        "lmweight": 0,
        "wordscore": "uniform(-1,1)",
        "beamsize": 20,
        "logdir": tmp_path / "sweeps",
        "prefix": "am",
        "sampler": "random",
        "pruner": "none",
        "probe": "false",
        "seed": 1,
        "n": 2,
    }


def arguments(flags: Flags, **changes: object) -> list[str]:
    return [
        f"--{name}={value}" for name, value in {**flags, **changes}.items() if value is not None
    ]


def run(flags: Flags, *more: str, **changes: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "w2ltune.sweep", *arguments(flags, **changes), *more],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=240,
        cwd=REPOSITORY,
    )  # fmt: skip


def counts(study: Path) -> list[tuple[object, ...]]:
    results = [json.loads(p.read_text()) for p in sorted(study.glob("trials/*/result.json"))]
    return [(r["state"], r["params"], r["counts"], r["missing"]) for r in results]


def test_the_binary_gives_what_is_decoded_in_process(decoding: Flags, tmp_path: Path) -> None:
    done = run(decoding)
    assert done.returncode == 0, done.stderr
    assert "in process, as fl_asr_decode decodes: 20 utterances with " in done.stdout
    assert "same words, scores within" in done.stdout
    other = run(decoding, prefix="binary", decoder="binary")
    assert other.returncode == 0, other.stderr
    assert "decoded by fl_asr_decode: --decoder=binary" in other.stdout
    sweeps = tmp_path / "sweeps"
    assert counts(sweeps / "small") == counts(sweeps / "binary")
    assert len(counts(sweeps / "binary")) == 2


def test_a_binary_that_decodes_otherwise_decodes(decoding: Flags, tmp_path: Path) -> None:
    other = tmp_path / "bin" / "fl_asr_decode"
    other.parent.mkdir()
    other.write_text(f'#!/bin/sh\nexec {DECODER} "$@" --wordscore=-7\n')
    other.chmod(0o755)
    done = run(decoding, binary=other, sampler="random")
    assert done.returncode == 0, done.stderr
    assert "decoded by fl_asr_decode, because in process" in done.stdout
    results = counts(tmp_path / "sweeps" / "small")
    assert [state for state, *_ in results] == ["COMPLETE", "COMPLETE"]
    # It is asked, of each trial.
    same = run(decoding, prefix="process", decoder="process", sampler="random")
    assert same.returncode == 0, same.stderr
    assert counts(tmp_path / "sweeps" / "process") != results


def test_a_program_that_does_not_decode_fails_its_trials(decoding: Flags, tmp_path: Path) -> None:
    silent = tmp_path / "Decoder"
    silent.write_text("#!/bin/sh\necho all is well\n")
    silent.chmod(0o755)
    done = run(decoding, binary=silent, decoder="binary", n=4)
    assert done.returncode == 1
    assert "the first 3 trials failed: Decoder ended with exit code 0 but without its last" in (
        done.stderr
    )
    assert run(decoding, binary="/bin/false", prefix="auto").returncode == 0  # in process
    (tmp_path / "data" / "some.wav").unlink()
    done = run(decoding, decoder="binary", prefix="audio")
    assert done.returncode == 2
    assert "the decoder program opens it even where it reads emissions" in done.stderr
    assert not (tmp_path / "sweeps" / "audio").exists()


def test_emissions_are_made_once_and_shared(model: Flags, tmp_path: Path) -> None:
    cache = tmp_path / "all emissions"
    done = run(model, emission_cache=cache)
    assert done.returncode == 0, done.stderr
    assert "emissions of train.lst by fl_asr_test" in done.stdout
    assert "in process, as fl_asr_decode decodes" in done.stdout
    (mark,) = cache.glob("*/train.lst.json")
    made = mark.stat().st_mtime_ns
    assert len(list(mark.with_name("train.lst").iterdir())) == 40
    done = run(model, emission_cache=cache, prefix="again")
    assert done.returncode == 0, done.stderr
    assert "emissions of" not in done.stdout
    assert mark.stat().st_mtime_ns == made
    # Another list: another folder. What the model says of tokens and lexicon is taken from it.
    done = run(model, emission_cache=cache, prefix="dev", test="dev.lst", heldout="other.lst")
    assert done.returncode == 0, done.stderr
    assert len(list(cache.glob("*/*.lst.json"))) == 3
    assert not list(cache.glob("*/.making*"))


def making(tmp_path: Path, sweep: Sweep, known: set[Path]) -> set[Path]:
    """Wait until emissions are being made, in another folder than before."""
    deadline = time.monotonic() + 60
    while not (found := set(tmp_path.glob("sweeps/am/emissions/*/.making-*")) - known):
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
        assert not list(tmp_path.glob("sweeps/am/emissions/*/*.json"))
        sweep.start()
        known |= making(tmp_path, sweep, known)
        assert sweep.kill("raylet", random.Random(0))
        assert sweep.wait(60) == 75, sweep.log.read_text()
        sweep.start()
        making(tmp_path, sweep, known)
        assert sweep.process is not None
        sweep.process.send_signal(signal.SIGUSR1)
        assert sweep.wait(60) == 75
        sweep.start()
        assert sweep.wait(120) == 0, sweep.log.read_text()
    finally:
        sweep.kill("everything", random.Random(0))
    assert len(counts(tmp_path / "sweeps" / "am")) == 2


@pytest.mark.parametrize("damage", ["missing", "crash"])
def test_emissions_that_cannot_be_made(model: Flags, tmp_path: Path, damage: str) -> None:
    wav = next((tmp_path / "training" / "audio").glob("train-3.wav"))
    if damage == "missing":
        broken = tmp_path / "fl_asr_test"
        broken.write_text(
            f'#!/bin/sh\n{DOUBLES}/fl_asr_test "$@" || exit\n'
            "for a; do case $a in --emission_dir=*) "
            'rm "${a#*=}"/train.lst/train-7.bin; esac; done\n'
        )
        broken.chmod(0o755)
        done = run(model, test_binary=broken)
        assert "the program wrote no emission of 'train-7'" in done.stderr
    else:
        wav.unlink()
        done = run(model)
        assert f"the audio file {wav} is missing" in done.stderr
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("sweeps/am/emissions/*/*.json"))
    assert not (tmp_path / "sweeps/am/sweep.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lexicon": "none.txt"}, "lexicon (--lexicon): no such file 'none.txt'"),
        ({"lm": "none.arpa"}, "language model (--lm): no such file 'none.arpa'"),
        ({"sampler": "tp"}, "did you mean 'tpe'?"),
        ({"test": "none.lst"}, "none.lst"),
        ({"am": "none.bin"}, "none.bin"),
    ],
)
def test_mistakes_are_told_before_emissions_are_made(
    model: Flags, tmp_path: Path, changes: Flags, message: str
) -> None:
    done = run(model, **changes)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("program", ["fl_asr_decode", "Decoder"])
def test_the_ancestors_line(decoding: Flags, tmp_path: Path, program: str) -> None:
    perturb = tmp_path / "perturb.py"
    perturb.write_text(
        "import random\n\ndef perturb_parameters(args):\n"
        "    args.lmweight = random.uniform(1, 3)\n    args.wordscore = random.uniform(0, 4)\n"
        "    args.eosscore = random.uniform(-8, -2)\n    return args\n"
    )
    given = {n: decoding[n] for n in ("emission_dir", "datadir", "test", "lexicon", "logdir", "lm")}
    given |= {"tokens": Path(str(decoding["tokens"])).name}
    line = [
        f"--binary={DOUBLES / program}", f"--tokensdir={VOICE_COMMANDS}", "--prefix=my_experiment",
        "--uselexicon=true", "--decodertype=wrd", "--lmtype=kenlm", "--smearing=max",
        "--beamsize=50", "--beamthreshold=10", "--beamsizetoken=10", "--attentionthreshold=10000",
        "--nthread_decoder=1", "--lm_vocab=", "--lm_memory=5000", "--silscore=0", "--n=120",
        "--maxdecoderoutputlen=200", "--logadd=false", "--gpu=1", "--cpu=10", "--hour=10",
        "--partition=learnfair", "--local", f"--perturb={perturb}",
    ]  # fmt: skip
    done = run(given, *line)
    assert done.returncode == 0, done.stderr
    study = tmp_path / "sweeps" / "my_experiment"
    assert f"in process, as {program} decodes" in done.stdout
    ((state, params, _, missing),) = counts(study)
    assert (state, missing) == ("COMPLETE", 0)
    assert isinstance(params, dict)
    assert 1 <= params["lmweight"] <= 3 and 0 <= params["wordscore"] <= 4


def test_asg_is_decoded_by_the_binary_unless_the_transitions_are_given(
    decoding: Flags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = len((VOICE_COMMANDS / "tokens.txt").read_text().splitlines())
    transitions = np.where(np.eye(tokens), 0.5, -0.5).astype(np.float32)
    np.save(tmp_path / "transitions.npy", transitions)
    (tmp_path / "transitions.txt").write_text(" ".join(map(str, transitions.ravel())))
    monkeypatch.setenv("DOUBLE_TRANSITIONS", str(tmp_path / "transitions.txt"))
    emissions = tmp_path / "data" / "emissions" / "dev.lst"
    for file in sorted(emissions.iterdir()):
        write_emission_bin(emissions, file.stem, read_emission_bin(file)[:, :tokens])
    # Without a blank "of" and "off" have the same score: which one wins is chance.
    lines = (VOICE_COMMANDS / "lexicon.txt").read_text().splitlines()
    single = [line for line in lines if not re.search(r" (\S) \1( |$)", line)]
    (tmp_path / "lexicon.txt").write_text("\n".join(single) + "\n")
    decoding |= {"lexicon": tmp_path / "lexicon.txt", "criterion": "asg"}
    done = run(decoding)
    assert done.returncode == 0, done.stderr
    assert "decoded by fl_asr_decode: --criterion=asg needs --transitions" in done.stdout
    other = run(decoding, prefix="process", transitions=tmp_path / "transitions.npy")
    assert other.returncode == 0, other.stderr
    assert "in process, as fl_asr_decode decodes" in other.stdout
    results = counts(tmp_path / "sweeps" / "small")
    assert results == counts(tmp_path / "sweeps" / "process")
    assert len(results) == 2
    refused = run(decoding, prefix="none", binary=None)
    assert refused.returncode == 2
    assert "needs --transitions=FILE.npy" in refused.stderr


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"criterion": "s2srnn", "eosscore": "uniform(-8,-2)"}, "--criterion=s2srnn"),
        ({"lmtype": "convlm", "lm_vocab": "vocab.txt"}, "--lmtype=convlm"),
    ],
)
def test_what_only_the_binary_decodes_reaches_it_flag_by_flag(
    decoding: Flags, tmp_path: Path, changes: Flags, reason: str
) -> None:
    """The double cannot decode these: behind what stands for the program it decodes CTC."""
    program = tmp_path / "bin" / "fl_asr_decode"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" --end >> {tmp_path}/asked\n'
        f'exec {DECODER} "$@" --criterion=ctc --lmtype=kenlm\n'
    )
    program.chmod(0o755)
    done = run(decoding, binary=program, sampler="auto", n=3, **changes)
    assert done.returncode == 0, done.stderr
    assert f"decoded by fl_asr_decode: {reason}" in done.stdout
    asked = [block.split("\n") for block in (tmp_path / "asked").read_text().split("--end\n")]
    for arguments_ in filter(any, asked):
        given = dict(argument.partition("=")[::2] for argument in arguments_)
        for name, value in changes.items():
            if name == "eosscore":
                assert -8 <= float(given["--eosscore"]) <= -2
            else:
                assert given[f"--{name}"] == value
    results = counts(tmp_path / "sweeps" / "small")
    assert [state for state, *_ in results] == ["COMPLETE"] * len(results)
    assert len(results) >= 3 if "eosscore" in changes else results


def test_programs_take_a_gpu_each_where_it_is_asked_for(model: Flags, tmp_path: Path) -> None:
    for name in ("fl_asr_test", "fl_asr_decode"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\necho {name} "$CUDA_VISIBLE_DEVICES" >> {tmp_path}/gpus\n'
            f'sleep 0.5\nexec {DOUBLES / name} "$@"\n'
        )
        program.chmod(0o755)
    nodes = Nodes(tmp_path, head_cores=4, head_gpus=2, **ENVIRONMENT)
    try:
        sweep = Sweep(
            arguments(
                model, binary=tmp_path / "bin" / "fl_asr_decode", gpu=2, decoder="binary",
                heldout="dev.lst",
            ),
            REPOSITORY, tmp_path / "log", mark="fakecluster", environment=nodes.environment,
        )  # fmt: skip
        sweep.start()
        assert sweep.wait(200) == 0, sweep.log.read_text()
    finally:
        nodes.close()
    seen = {tuple(line.split()) for line in (tmp_path / "gpus").read_text().splitlines()}
    programs = ("fl_asr_test", "fl_asr_decode")
    assert seen == {(program, gpu) for program in programs for gpu in "01"}
    # Where there is none the same command does without.
    done = run(model, prefix="none", gpu=2, test="other.lst")
    assert done.returncode == 0, done.stderr
