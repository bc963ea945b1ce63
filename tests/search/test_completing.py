"""A journal that is behind its folders: an older copy, one that was cut, emptied or removed."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from w2ltune.errors import InputError, StudyMismatchError
from w2ltune.formats.distributions import Choice, FloatRange, IntegerRange
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.completing import asked
from w2ltune.search.method import NOTE
from w2ltune.search.samplers import make_sampler
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import JOURNAL, counted, open_study, settle, tell

SPACE = SearchSpace(
    fixed={"lm": "lm.arpa"},
    distributions={
        "lmweight": FloatRange(0.0, 4.0),
        "beamsize": IntegerRange(10, 500),
        "smearing": Choice(("none", "max")),
    },
)
STATES = ("COMPLETE", "FAIL", "PRUNED", "", "COMPLETE", "COMPLETE")
"""Of the trials of the study; one of them runs."""


@pytest.fixture
def lock(tmp_path):
    lock = StudyLock(tmp_path / "lock", this_process())
    lock.acquire()
    yield lock
    lock.release()


def ask(study, folder, number, sampler="random"):
    study.sampler = make_sampler(
        sampler, seed=1, number=number, distributions=SPACE.distributions, trial_count=9
    )
    trial, flags = SPACE.ask(study)
    trial.set_user_attr(NOTE, {"how": f"é{number}"})
    directory = TrialDirectory(folder / "trials", trial.number)
    directory.write_flags(flags, asked=asked(study, trial))
    return trial, directory


@pytest.fixture
def whole(tmp_path, lock):
    """A study's folder, and what its journal says of each trial."""
    folder = tmp_path / "whole"
    folder.mkdir()
    study = open_study(folder, lock)
    for number, state in enumerate(STATES):
        trial, directory = ask(study, folder, number, "qmc")
        if state == "PRUNED":
            trial.report(0.75, 2)
            study._storage.set_trial_system_attr(trial._trial_id, "completed_rung_0", 0.75)
        if state:
            value = {"COMPLETE": 0.5 + number, "PRUNED": 0.75}.get(state)
            told = study.get_trials()[number]
            result = directory.write_result(
                TrialResult(
                    number=number, attempt=1, state=state, value=value,
                    reports=told.intermediate_values, rungs=told.system_attrs,
                )
            )  # fmt: skip
            tell(study, number, result)
    return folder, content(study)


def content(study):
    return [
        (
            t.number, t.state, t.values, t.params, t.distributions, t.user_attrs,
            t.intermediate_values, {n: v for n, v in t.system_attrs.items() if "rung" in n},
        )
        for t in study.get_trials()
    ]  # fmt: skip


def results(folder):
    return {path.parent.name: path.read_bytes() for path in folder.glob("trials/*/result.json")}


def journals(whole):
    lines = (whole / JOURNAL).read_bytes().splitlines(keepends=True)
    return [None, *(b"".join(lines[:count]) for count in range(len(lines) + 1))]


def test_a_journal_cut_at_each_line_emptied_or_gone_is_completed(
    tmp_path, lock, whole, capsys, monkeypatch
):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut here
    folder, expected = whole
    before = results(folder)
    points = open_study(folder, lock)
    for journal in journals(folder):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        if journal is None:
            (copy / JOURNAL).unlink()
        else:
            (copy / JOURNAL).write_bytes(journal)
        study = open_study(copy, lock)
        missing = len(STATES) - len(study.get_trials())
        settled = settle(study, copy / "trials")
        assert content(study) == expected
        assert (f"lacked {missing} trials" in capsys.readouterr().err) == bool(missing)
        assert [trial.number for trial in settled.interrupted] == [3]
        assert settled.finished == 5
        # On it goes behind the highest, with the point that would have come anyway.
        trial, _ = ask(study, copy, 6, "qmc")
        assert trial.number == len(STATES)
        assert results(copy) == before
        again = content(open_study(copy, lock))
        assert again[:-1] == expected
        shutil.rmtree(copy)
    assert content(points) == expected
    assert again[-1][3] == ask(points, folder, 6, "qmc")[0].params


def test_trials_without_a_folder_keep_their_numbers(tmp_path, lock, whole):
    folder, _ = whole
    shutil.rmtree(folder / "trials/0002")
    (folder / "trials/0004/flags.cfg").unlink()
    (folder / "trials/0009").mkdir()  # a kill came before its flags
    (folder / JOURNAL).write_bytes(b"")
    study = open_study(folder, lock)
    assert settle(study, folder / "trials").finished == 4
    assert len(list(counted(study))) == 5
    assert [trial.state.name for trial in study.get_trials()] == [
        "COMPLETE", "FAIL", "FAIL", "RUNNING", "COMPLETE", "COMPLETE"
    ]  # fmt: skip
    assert ask(study, folder, 6)[0].number == 6


@pytest.mark.parametrize("head", ["", "# asked: {\n", "# asked: [3]\n", '# asked: {"params": 3}\n'])
def test_folders_that_do_not_tell_are_read_with_the_space(tmp_path, lock, whole, head):
    folder, expected = whole
    for path in folder.glob("trials/*/flags.cfg"):
        flags = path.read_text().partition("\n")[2]
        path.write_text(head + flags)
    (folder / JOURNAL).write_bytes(b"")
    study = open_study(folder, lock)
    settle(study, folder / "trials", SPACE)
    assert [row[:5] for row in content(study)] == [row[:5] for row in expected]


def test_a_result_that_is_gone_is_said(lock, whole, capsys):
    folder, expected = whole
    (folder / "trials/0004/result.json").unlink()
    study = open_study(folder, lock)
    settle(study, folder / "trials")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "0004/result.json is gone" in said and "put it back" in said
    assert content(study) == expected


def test_a_folder_that_cannot_be_told_is_refused(lock, whole):
    folder, _ = whole
    path = folder / "trials/0004/result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "value": None}))
    (folder / JOURNAL).unlink()
    with pytest.raises(InputError, match="0004: damaged, restore or remove it"):
        settle(open_study(folder, lock), folder / "trials")


def test_a_finished_trial_is_never_overwritten(tmp_path):
    directory = TrialDirectory(tmp_path, 0)
    directory.write_flags({"lmweight": "1"})
    finished = TrialResult(number=0, attempt=2, state="COMPLETE", value=0.5)
    assert directory.write_result(finished) == finished
    before = directory.result.read_bytes()
    for attempt in (0, 1, 2, 3):
        failed = TrialResult(number=0, attempt=attempt, state="FAIL", value=None)
        assert directory.write_result(failed) == finished
    late = TrialResult(number=0, attempt=1, state="COMPLETE", value=0.25)
    assert directory.write_result(late) == finished
    with pytest.raises(StudyMismatchError, match="is finished already"):
        directory.write_flags({"lmweight": "2"})
    assert directory.result.read_bytes() == before
    assert directory.read_flags() == {"lmweight": "1"}
    counted = replace(finished, counts=(1, 0, 0, 2))  # by another program
    assert directory.write_result(counted) == directory.read_result() == counted


def test_a_newer_launch_is_preferred_to_what_an_overtaken_owner_wrote(tmp_path):
    directory = TrialDirectory(tmp_path, 0)
    directory.write_flags({})
    directory.write_result(TrialResult(number=0, attempt=1, state="FAIL", value=None))
    newer = TrialResult(number=0, attempt=2, state="COMPLETE", value=0.5)
    assert directory.write_result(newer) == newer
    assert directory.read_result() == newer


def test_states_of_the_study_are_those_that_are_meant(whole):
    assert [row[1] for row in whole[1]] == [
        TrialState[state] if state else TrialState.RUNNING for state in STATES
    ]
