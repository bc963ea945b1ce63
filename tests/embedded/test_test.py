from __future__ import annotations

import re

import numpy as np
import pytest

from w2ltune.embedded.runfiles import read_checkpoint
from w2ltune.embedded.test import main
from w2ltune.errors import run_command
from w2ltune.formats.emissions import check_emissions, locate_emissions, open_emissions
from w2ltune.formats.listfile import read_list
from w2ltune.scoring.wer import count_list

SUMMARY = (
    r"I.* test\.py:\d+\] \[Test {lists} \({count} samples\) in [\d.e-]+s \(actual decoding time "
    r"[\d.e-]+s/sample\) -- WER: ([\d.]+)%, TER: ([\d.]+)%\]$"
)


@pytest.fixture
def model(training, run_train, tmp_path):
    done = run_train("train", *training(iter=30, lr=0.02, hidden=32))
    assert done.returncode == 0, done.stderr
    return tmp_path / "run" / "001_model_last.bin"


def test_emissions_and_transcripts_are_written(model, tmp_path, capsys):
    for name in ("emissions", "sclite"):
        (tmp_path / name).mkdir()
    arguments = [
        f"--am={model}",
        "--test=dev.lst,test.lst",
        f"--emission_dir={tmp_path / 'emissions'}",
        f"--sclite={tmp_path / 'sclite'}",
        "--show",
    ]
    assert run_command(main, arguments) == 0
    shown = capsys.readouterr()
    found = re.search(SUMMARY.format(lists=r"dev\.lst,test\.lst", count=14), shown.err)
    assert found, shown.err
    utterances = read_list(tmp_path / "dev.lst") + read_list(tmp_path / "test.lst")
    # A sweep finds the emissions by the same name of the list.
    path = locate_emissions(tmp_path / "emissions", "dev.lst,test.lst")
    emissions = open_emissions(path)
    names = [utterance.id for utterance in utterances]
    check_emissions(emissions, names, token_count=28, path=path)
    assert set(emissions.ids) == set(names)
    for name in names:
        assert np.exp(emissions.emission(name)).sum(-1) == pytest.approx(1, abs=1e-4)
    _, state = read_checkpoint(model)
    assert emissions.token_count == state.model.architecture.outputs
    # The transcripts give the error rate of the summary.
    texts = {}
    for suffix in (".hyp", ".viterbi.ref"):
        lines = (tmp_path / "sclite" / f"dev.lst,test.lst{suffix}").read_text().splitlines()
        rows = [re.fullmatch(r"(.*) \(([\w-]+)\)", line).groups() for line in lines]
        texts[suffix] = {name: words.split() for words, name in rows}
    assert texts[".viterbi.ref"] == {one.id: list(one.reference) for one in utterances}
    matrix = count_list(texts[".viterbi.ref"], texts[".hyp"]).matrix.sum(0)
    assert float(found[1]) == pytest.approx(100 * matrix[:3].sum() / matrix[3], rel=1e-5)
    blocks = shown.out.splitlines()
    assert len(blocks) == 3 * 14
    assert blocks[0].startswith("|T|: ")
    assert blocks[1].startswith("|P|: ")
    last = (
        rf"\[sample: {names[-1]}, WER: [\d.]+%, TER: [\d.]+%, total WER: {found[1]}%, "
        rf"total TER: {found[2]}%, progress \(thread 0\): 100%\]"
    )
    assert re.fullmatch(last, blocks[-1])


def test_the_log_of_the_training_and_the_test_agree(model, tmp_path, capsys):
    assert run_command(main, [f"--am={model}", "--test=dev.lst"]) == 0
    found = re.search(SUMMARY.format(lists=r"dev\.lst", count=8), capsys.readouterr().err)
    last = (tmp_path / "run" / "001_log").read_text().splitlines()[-1]
    assert f"dev-TER: {float(found[2]):5.2f} | dev-WER: {float(found[1]):5.2f} |" in last


MISTAKES = [
    (["--test=dev.lst"], 2, "no --am: give a model file"),
    (["--am=MODEL"], 2, "no --test: give a list"),
    (["--am=MODEL", "--test=dev.lst", "--lexcion=x"], 1, "ERROR: unknown command line flag"),
    (["--am=MODEL", "--test=dev.lst", "--sclite=MODEL"], 2, "a file is in the way"),
    (["--am=none.bin", "--test=dev.lst"], 134, 'Error while loading "none.bin"'),
]


def test_mistakes(model, capsys, monkeypatch):
    monkeypatch.setenv("W2LTUNE_RETRY_SECONDS", "0")
    for arguments, code, message in MISTAKES:
        arguments = [argument.replace("MODEL", str(model)) for argument in arguments]
        assert run_command(main, arguments) == code, arguments
        assert message in capsys.readouterr().err
