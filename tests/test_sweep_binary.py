"""Whole decode sweeps with the binaries, for which doubles stand that hold the real search."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from binarytask import (
    DECODER,
    ENVIRONMENT,
    Flags,
    arguments,
    counts,
    done,
    make_decoding,
    make_model,
    refused,
    run,
    wer_of,
    write_model,
)
from conftest import REPOSITORY, VOICE_COMMANDS
from killing import sweeps
from nodes import Nodes
from trainingtask import DOUBLES

from w2ltune.formats.emissionbin import read_emission_bin
from w2ltune.formats.emissions import write_emission_bin

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sweeps with binaries on a running Ray")]


@pytest.fixture
def decoding(tmp_path: Path) -> Flags:
    return make_decoding(tmp_path)


def write_program(path: Path, body: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_the_binary_gives_what_is_decoded_in_process(decoding: Flags, tmp_path: Path) -> None:
    said = done(decoding)
    assert "in process, as fl_asr_decode decodes: 100 utterances at 5 settings with " in said
    assert "same words, scores within" in said
    said = done(decoding, prefix="binary", decoder="binary")
    assert "decoded by fl_asr_decode: --decoder=binary" in said
    sweeps = tmp_path / "sweeps"
    assert counts(sweeps / "small") == counts(sweeps / "binary")
    assert len(counts(sweeps / "binary")) == 2


def test_the_answer_is_the_programs(decoding: Flags, tmp_path: Path) -> None:
    """Unknown words, too, whose number its dumps do not tell; n-best lists serve both alike."""
    away = tmp_path / "another folder"
    away.mkdir()
    changes: Flags = {
        "unkscore": "uniform(-10, 5)", "lmweight": "uniform(0, 4)", "wordscore": 0,
        "sampler": "nbest", "n": 5,
    }  # fmt: skip
    answers = {}
    for decoder in ("auto", "binary"):
        said = done(decoding, prefix=decoder, decoder=decoder, **changes)
        checked = "as fl_asr_decode decodes: 40 utterances with" in said.partition("best: ")[2]
        assert checked == (decoder == "auto")
        study = tmp_path / "sweeps" / decoder
        best = json.loads((study / "outcome.json").read_text())["choices"][0]
        answers[decoder] = {k: best[k] for k in ("trial", "counts", "oracle")}
        printed = 100 * sum(best["counts"][:3]) / best["counts"][3]
        assert wer_of(study / "best.cfg", away) == pytest.approx(printed, abs=1e-3)
    assert answers["auto"] == answers["binary"]
    rows = [counts(tmp_path / "sweeps" / decoder) for decoder in answers]
    for one, other in zip(*rows, strict=True):  # scores of a dump have six decimals
        assert (one[0], one[2]) == (other[0], other[2])
        assert one[1] == pytest.approx(other[1], abs=1e-5)
    # Beside a silence score they cannot be told apart from frames of silence.
    said = done(decoding, prefix="tpe", decoder="binary",
                **{**changes, "silscore": -0.5, "sampler": "auto", "n": 1})  # fmt: skip
    assert "searched by tpe, not by n-best lists: the beam dumps of the binary do not tell" in said


def test_an_answer_that_is_not_the_programs_is_said(decoding: Flags, tmp_path: Path) -> None:
    program = write_program(
        tmp_path / "bin" / "fl_asr_decode",  # its beam is 1 at one setting only
        f'case "$*" in *--lmweight=1.25*) set -- "$@" --beamsize=1;; esac\nexec {DECODER} "$@"',
    )
    space = {"binary": program, "lmweight": "quniform(0, 5, 1.25)", "sampler": "grid", "n": 5}
    assert "in process, as fl_asr_decode decodes: " in (said := done(decoding, **space))
    note = "Trial {} is NOT as fl_asr_decode decodes: "
    best = json.loads((tmp_path / "sweeps/small/outcome.json").read_text())["choices"][0]
    assert (note.format(best["trial"]) in said) == ("--lmweight=1.25 " in said)
    assert "--lmweight=1.25 " in said
    assert "# NOT as fl_asr_decode decodes: " in (tmp_path / "sweeps/small/best.cfg").read_text()


def test_a_program_that_does_not_decode_fails_its_trials(decoding: Flags, tmp_path: Path) -> None:
    silent = write_program(tmp_path / "Decoder", "echo all is well")
    process = run(decoding, binary=silent, decoder="binary", n=4)
    assert process.returncode == 1
    assert "the first 3 trials failed: Decoder ended with exit code 0 but without its last" in (
        process.stderr
    )


def test_a_program_that_is_killed_is_begun_again(decoding: Flags, tmp_path: Path) -> None:
    """Killed is what decodes with the first trial's weights, in the middle of its work."""
    to_kill, weights = tmp_path / "to_kill", tmp_path / "weights"
    deadly = write_program(
        tmp_path / "bin" / "fl_asr_decode",
        'case "$*" in *--help*) exec ' + f'{DECODER} "$@";; esac\n'
        'mine=$(echo "$*" | grep -o -e "--lmweight=[^ ]*")\n'
        f'test -e {weights} || echo "$mine" >{weights}\n'
        f'if [ "$mine" = "$(cat {weights})" ] && [ -s {to_kill} ]; then\n'
        f"  sed -i 1d {to_kill}; kill -9 $$\n"
        "fi\n"
        f'exec {DECODER} "$@"',
    )
    space = {"binary": deadly, "decoder": "binary", "lmweight": "uniform(0, 5)", "n": 2}
    study = tmp_path / "sweeps/small"
    to_kill.write_text("\n" * 2)
    done(decoding, **space)
    states = [state for state, *_ in counts(study)]
    assert (states, to_kill.read_text()) == (["COMPLETE", "COMPLETE"], "")
    study.rename(tmp_path / "sweeps/undisturbed")
    weights.unlink()
    to_kill.write_text("\n" * 1000)
    done(decoding, **space)
    failed, other = counts(study)
    assert (failed[0], other[0]) == ("FAIL", "COMPLETE")
    reason = json.loads((study / "trials/0000/result.json").read_text())["reason"]
    assert "fl_asr_decode: killed (SIGKILL), most likely for want of memory: 3 times" in reason
    to_kill.write_text("")
    assert "trial 0 was killed from outside, and is tried again" in run(decoding, **space).stderr
    assert counts(study) == counts(tmp_path / "sweeps/undisturbed")
    assert "trial 0" not in run(decoding, **space).stderr


def test_a_disk_without_room_for_the_program_is_no_failure(decoding: Flags, tmp_path: Path) -> None:
    full = tmp_path / "full"
    program = write_program(
        tmp_path / "bin" / "fl_asr_decode",
        'case "$*" in *--help*) exec ' + f'{DECODER} "$@";; esac\n'
        f"test ! -e {full} || exec python3 -c \"open('/dev/full', 'w').write('x' * 9999)\"\n"
        f'exec {DECODER} "$@"',
    )
    full.touch()
    stopped = run(decoding, binary=program, decoder="binary")
    assert stopped.returncode == 75
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("w2ltune: error: fl_asr_decode: disk full (No space left on device)")
    assert counts(tmp_path / "sweeps/small") == []
    full.unlink()
    done(decoding, binary=program, decoder="binary")
    assert [state for state, *_ in counts(tmp_path / "sweeps/small")] == ["COMPLETE"] * 2


def test_the_ancestors_line(decoding: Flags, tmp_path: Path) -> None:
    perturb = tmp_path / "perturb.py"
    perturb.write_text(
        "import random\n\ndef perturb_parameters(args):\n"
        "    args.lmweight = random.uniform(1, 3)\n    args.wordscore = random.uniform(0, 4)\n"
        "    args.eosscore = random.uniform(-8, -2)\n    return args\n"
    )
    given = {n: decoding[n] for n in ("emission_dir", "datadir", "test", "lexicon", "logdir", "lm")}
    given |= {"tokens": Path(str(decoding["tokens"])).name}
    line = [
        f"--binary={DOUBLES / 'Decoder'}", f"--tokensdir={VOICE_COMMANDS}",
        "--prefix=my_experiment",
        "--uselexicon=true", "--decodertype=wrd", "--lmtype=kenlm", "--smearing=max",
        "--beamsize=50", "--beamthreshold=10", "--beamsizetoken=10", "--attentionthreshold=10000",
        "--nthread_decoder=1", "--lm_vocab=", "--lm_memory=5000", "--silscore=0", "--n=120",
        "--maxdecoderoutputlen=200", "--logadd=false", "--gpu=1", "--cpu=10", "--hour=10",
        "--partition=learnfair", "--local", f"--perturb={perturb}",
    ]  # fmt: skip
    assert "in process, as Decoder decodes" in done(given, *line)
    ((state, params, _, missing),) = counts(tmp_path / "sweeps" / "my_experiment")
    assert (state, missing) == ("COMPLETE", 0)
    assert isinstance(params, dict)
    assert 1 <= params["lmweight"] <= 3 and 0 <= params["wordscore"] <= 4


def test_asg_is_decoded_by_the_binary_unless_the_transitions_are_given(
    decoding: Flags, tmp_path: Path
) -> None:
    tokens = len((VOICE_COMMANDS / "tokens.txt").read_text().splitlines())
    random = np.random.default_rng(1)  # else many hypotheses have the same score
    transitions = random.normal(np.where(np.eye(tokens), 0.5, -0.5), 0.1).astype(np.float32)
    np.save(tmp_path / "transitions.npy", transitions)
    (tmp_path / "transitions.txt").write_text(" ".join(map(str, transitions.ravel())))
    program = write_program(
        tmp_path / "bin" / "fl_asr_decode",
        f'DOUBLE_TRANSITIONS={tmp_path}/transitions.txt exec {DECODER} "$@"',
    )
    emissions = tmp_path / "data" / "emissions" / "dev.lst"
    for file in sorted(emissions.iterdir()):
        emission = read_emission_bin(file)[:, :tokens]
        noise = random.normal(0, 1e-3, emission.shape).astype(np.float32)
        write_emission_bin(emissions, file.stem, emission + noise)
    # Without a blank "of" and "off" have the same score: which one wins is chance.
    lines = (VOICE_COMMANDS / "lexicon.txt").read_text().splitlines()
    single = [line for line in lines if not re.search(r" (\S) \1( |$)", line)]
    (tmp_path / "lexicon.txt").write_text("\n".join(single) + "\n")
    model = write_model(tmp_path / "asg.bin", criterion="asg")
    flags = {**decoding, "lexicon": tmp_path / "lexicon.txt", "am": model, "binary": program}
    said = done(flags)
    assert "decoded by fl_asr_decode: --criterion=asg needs --transitions" in said
    said = done(flags, prefix="process", transitions=tmp_path / "transitions.npy")
    assert "in process, as fl_asr_decode decodes" in said
    results = counts(tmp_path / "sweeps" / "small")
    assert results == counts(tmp_path / "sweeps" / "process")
    assert len(results) == 2
    assert "needs --transitions=FILE.npy" in refused(flags, prefix="none", binary=None)


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
    program = write_program(
        tmp_path / "bin" / "fl_asr_decode",
        f'printf "%s\\n" "$@" --end >> {tmp_path}/asked\n'
        f'exec {DECODER} "$@" --criterion=ctc --lmtype=kenlm',
    )
    model = write_model(tmp_path / "model.bin", criterion=changes.get("criterion", "ctc"))
    said = done(decoding, binary=program, am=model, sampler="auto", n=3, **changes)
    assert f"decoded by fl_asr_decode: {reason}" in said
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


@pytest.mark.slow(seconds=30)
def test_programs_take_a_gpu_each_where_it_is_asked_for(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    for name in ("fl_asr_test", "fl_asr_decode"):
        write_program(
            tmp_path / "bin" / name,  # each waits for the other one, on the other GPU
            f'touch {tmp_path}/{name}-"$CUDA_VISIBLE_DEVICES"\n'
            f"until test -e {tmp_path}/{name}-0 -a -e {tmp_path}/{name}-1; do sleep 0.1; done\n"
            f'exec {DOUBLES / name} "$@"',
        )
    nodes = Nodes(tmp_path, head_cores=4, head_gpus=2, **ENVIRONMENT)
    flags = arguments(
        model, binary=tmp_path / "bin" / "fl_asr_decode", gpu=2, decoder="binary",
        heldout="dev.lst", concurrent_trials=None,
    )  # fmt: skip
    try:
        with sweeps(REPOSITORY, tmp_path / "log") as start:
            sweep = start(flags, environment=nodes.environment)
            assert sweep.wait() == 0, sweep.log.read_text()
    finally:
        nodes.close()
    seen = {path.name for path in tmp_path.glob("fl_asr_*-*")}
    assert seen == {f"{name}-{gpu}" for name in ("fl_asr_test", "fl_asr_decode") for gpu in "01"}


@pytest.mark.slow(seconds=40)
def test_a_sweep_keeps_its_decoder(decoding: Flags, tmp_path: Path) -> None:
    study = tmp_path / "sweeps" / "small"
    flaky = write_program(
        tmp_path / "bin" / "fl_asr_decode",
        f'test -e {tmp_path}/well && exec {DECODER} "$@" $(cat {tmp_path}/well)',
    )
    flags = decoding | {"binary": flaky}
    said = done(flags)
    assert "in process, NOT held against fl_asr_decode, which is tried again" in said
    kept = (study / "decoder.json").read_text()
    assert json.loads(kept)["decoder"] == "process"
    # When the program is well again it is asked again: what differs is not mixed.
    (tmp_path / "well").write_text("--wordscore=-7")
    said = refused(flags, n=3)
    assert said.count("\n") == 1
    assert "its trials were decoded otherwise" in said
    assert "continue with --decoder=process" in said
    assert (study / "decoder.json").read_text() == kept
    done(flags, decoder="process")
    # Another sweep is decoded by it, and it is asked of each trial.
    said = done(flags, prefix="other")
    assert "decoded by fl_asr_decode, because in process" in said
    other = counts(tmp_path / "sweeps" / "other")
    assert [state for state, *_ in other] == ["COMPLETE", "COMPLETE"]
    assert [params for _, params, *_ in other] == [params for _, params, *_ in counts(study)]
    assert other != counts(study)
    (tmp_path / "well").write_text("")
    said = done(flags, n=3)
    assert "in process, as fl_asr_decode decodes" in said
    assert json.loads((study / "decoder.json").read_text())["compared"]
    said = refused(flags, n=4, decoder="binary")
    assert "now the binary would decode (--decoder=binary)" in said
    assert len(counts(study)) == 3
    # N-best lists of the one decoder tell nothing of the other.
    done(flags, prefix="nbest", sampler="nbest", n=1)
    warm = {"warm_start": tmp_path / "sweeps" / "nbest", "sampler": "nbest", "prefix": "warm"}
    refused(flags, decoder="binary", **warm)
    assert not (tmp_path / "sweeps" / "warm").exists()
    done(flags, n=1, **warm)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_while_decoders_are_compared(
    decoding: Flags, tmp_path: Path, number: signal.Signals
) -> None:
    hangs = write_program(
        tmp_path / "bin" / "fl_asr_decode", f'echo "$$" > {tmp_path}/pid\nexec sleep 1000'
    )
    (tmp_path / "scratch").mkdir()
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path / "scratch")}
    with sweeps(REPOSITORY, tmp_path / "log") as start:
        sweep = start(arguments(decoding, binary=hangs), environment=environment)
        sweep.wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        sweep.signal(number)
        assert sweep.wait() == 75, sweep.log.read_text()
    assert "while decoders were compared; the same command continues" in sweep.log.read_text()
    pid = (tmp_path / "pid").read_text().strip()
    assert not Path("/proc", pid).exists()
    assert not list((tmp_path / "scratch").glob("agreement-*"))
    assert not (tmp_path / "sweeps" / "small" / "sweep.json").exists()
