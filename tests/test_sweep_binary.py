"""Whole decode sweeps with the binaries, for which doubles stand that hold the real search."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from binarytask import (
    DECODER,
    ENVIRONMENT,
    Flags,
    arguments,
    counts,
    make_decoding,
    make_model,
    run,
)
from conftest import REPOSITORY, VOICE_COMMANDS
from killing import Sweep
from nodes import Nodes
from trainingtask import DOUBLES

from w2ltune.formats.emissionbin import read_emission_bin
from w2ltune.formats.emissions import write_emission_bin

pytestmark = pytest.mark.main


@pytest.fixture
def decoding(tmp_path: Path) -> Flags:
    return make_decoding(tmp_path)


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


def test_what_the_binary_decodes_is_looked_at_before(decoding: Flags, tmp_path: Path) -> None:
    """A blank in the wrong place and missing emissions are told at once, whatever decodes."""
    folder = tmp_path / "data" / "emissions" / "dev.lst"
    for path in folder.iterdir():
        emission = read_emission_bin(path)
        write_emission_bin(folder, path.stem, np.ascontiguousarray(np.roll(emission, 1, axis=1)))
    done = run(decoding, decoder="binary")
    assert done.returncode == 2
    assert "these emissions do not spell the references" in done.stderr
    for name in ("dev-0001", "dev-0002"):
        (folder / f"{name}.bin").unlink()
    for more in ({}, {"criterion": "seq2seq"}):
        done = run(decoding, decoder="binary", **more)
        assert done.returncode == 2
        assert "2 of the list's 40 utterances have no emission: dev-0001, dev-0002" in done.stderr
    assert not (tmp_path / "sweeps").exists()


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


def test_programs_take_a_gpu_each_where_it_is_asked_for(tmp_path: Path) -> None:
    model = make_model(tmp_path)
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


def test_a_sweep_keeps_its_decoder(decoding: Flags, tmp_path: Path) -> None:
    study = tmp_path / "sweeps" / "small"
    flaky = tmp_path / "bin" / "fl_asr_decode"
    flaky.parent.mkdir()
    flaky.write_text(
        f'#!/bin/sh\ntest -e {tmp_path}/well && exec {DECODER} "$@" $(cat {tmp_path}/well)\n'
    )
    flaky.chmod(0o755)
    flags = decoding | {"binary": flaky}
    done = run(flags)
    assert done.returncode == 0, done.stderr
    assert "in process, NOT held against fl_asr_decode, which is tried again" in done.stdout
    kept = (study / "decoder.json").read_text()
    assert json.loads(kept)["decoder"] == "process"
    # When the program is well again it is asked again: what differs is not mixed.
    (tmp_path / "well").write_text("--wordscore=-7")
    done = run(flags, n=3)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "its trials were decoded otherwise" in done.stderr
    assert "continue with --decoder=process" in done.stderr
    assert (study / "decoder.json").read_text() == kept
    done = run(flags, n=3, decoder="process")
    assert done.returncode == 0, done.stderr
    (tmp_path / "well").write_text("")
    done = run(flags, n=3)
    assert "in process, as fl_asr_decode decodes" in done.stdout
    assert json.loads((study / "decoder.json").read_text())["compared"]
    done = run(flags, n=4, decoder="binary")
    assert done.returncode == 2
    assert "now the binary would decode (--decoder=binary)" in done.stderr
    assert len(counts(study)) == 3
    # N-best lists of the one decoder tell nothing of the other.
    done = run(flags, prefix="nbest", sampler="nbest", n=1)
    assert done.returncode == 0, done.stderr
    warm = {"warm_start": tmp_path / "sweeps" / "nbest", "sampler": "nbest", "prefix": "warm"}
    done = run(flags, decoder="binary", **warm)
    assert done.returncode == 2
    assert not (tmp_path / "sweeps" / "warm").exists()
    done = run(flags, n=1, **warm)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_while_decoders_are_compared(
    decoding: Flags, tmp_path: Path, number: signal.Signals
) -> None:
    hangs = tmp_path / "bin" / "fl_asr_decode"
    hangs.parent.mkdir()
    hangs.write_text(f'#!/bin/sh\necho "$$" > {tmp_path}/pid\nexec sleep 1000\n')
    hangs.chmod(0o755)
    (tmp_path / "scratch").mkdir()
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path / "scratch")}
    sweep = Sweep(
        arguments(decoding, binary=hangs), REPOSITORY, tmp_path / "log", environment=environment
    )
    sweep.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline, sweep.log.read_text()
        time.sleep(0.05)
    assert sweep.process is not None
    sweep.process.send_signal(number)
    assert sweep.wait(20) == 75, sweep.log.read_text()
    assert "while decoders were compared; the same command continues" in sweep.log.read_text()
    pid = (tmp_path / "pid").read_text().strip()
    assert not Path("/proc", pid).exists()
    assert not list((tmp_path / "scratch").glob("agreement-*"))
    assert not (tmp_path / "sweeps" / "small" / "sweep.json").exists()
