import os
import subprocess
from dataclasses import asdict, replace

import pytest

from w2ltune import files
from w2ltune.errors import InputError, StudyMismatchError
from w2ltune.runs import provenance
from w2ltune.runs.provenance import (
    Fingerprint,
    SweepRequest,
    fingerprint,
    fingerprints,
    git_commit,
    read_request,
    require_same,
    settle_request,
    versions,
    write_request,
)

REQUEST = SweepRequest(
    task="decode",
    flags={"lm": "lm.arpa", "beamsize": "50"},
    space={"lmweight": "uniform(0, 5)"},
    scoring={"metric": "wer", "cluster": ""},
    inputs={"lm.arpa": Fingerprint(size=10, sha256="aa")},
    seed=3,
    versions={"optuna": "5.0"},
    commit="abc",
)


def finish(study, state="COMPLETE"):
    """Finish a trial of a study."""
    (study / "trials" / "0000").mkdir(parents=True)
    files.write_json(study / "trials" / "0000" / "result.json", {"state": state})


def content(found):
    return found.size, found.sha256


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file beyond the limit (lowered here) up to which all of it is hashed."""
    monkeypatch.setattr(provenance, "WHOLE_HASH_BYTES", 4096)
    monkeypatch.setattr(provenance, "SAMPLE_BYTES", 16)
    path = tmp_path / "lm.bin"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def test_changed_content_of_the_same_size_is_found(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text("ngram 1=10\n")
    before, changed = fingerprint(path), path.stat().st_mtime_ns
    path.write_text("ngram 1=20\n")
    os.utime(path, ns=(changed, changed))
    after = fingerprint(path)
    assert before.size == after.size
    assert before.sha256 != after.sha256


def test_a_touched_file_is_the_same(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text("ngram 1=10\n")
    before = fingerprint(path)
    os.utime(path, ns=(1, 1))
    after = fingerprint(path)
    assert content(before) == content(after)


@pytest.mark.parametrize("position", [0, 5000, -1])
def test_of_a_large_file_samples_are_compared(large, position):
    before = fingerprint(large)
    os.utime(large, ns=(1, 1))
    assert content(fingerprint(large)) == content(before)
    data = bytearray(large.read_bytes())
    first = position if position >= 0 else len(data) - 1
    data[first : first + 500] = bytes(len(data[first : first + 500]))
    large.write_bytes(data)
    assert fingerprint(large).size == before.size
    assert fingerprint(large).sha256 != before.sha256


def write_emissions(folder, scale):
    folder.mkdir(exist_ok=True)
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(bytes([scale]) * 1000)


def test_a_folder(tmp_path):
    folder = tmp_path / "emissions"
    write_emissions(folder, 1)
    before = fingerprint(folder)
    assert before.size == 2000
    write_emissions(folder, 1)
    assert content(fingerprint(folder)) == content(before)
    (folder / "b.bin").rename(folder / "c.bin")
    assert content(fingerprint(folder)) != content(before)


def test_emissions_of_another_model_in_the_same_folder_are_found(tmp_path):
    # All sizes are those of before: frames times tokens.
    folder = tmp_path / "emissions"
    write_emissions(folder, 1)
    before = fingerprint(folder)
    write_emissions(folder, 2)
    after = fingerprint(folder)
    assert before.size == after.size
    assert before.sha256 != after.sha256


def test_an_input_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read '.*none\.arpa': No such file"):
        fingerprints([tmp_path / "none.arpa"])


def test_a_request_comes_back_as_it_was(tmp_path):
    path = tmp_path / "sweep.json"
    assert read_request(path) is None
    write_request(path, REQUEST)
    assert read_request(path) == REQUEST


def test_a_request_of_an_older_version_is_read(tmp_path):
    path = tmp_path / "sweep.json"
    old = asdict(REQUEST)
    old["inputs"] = {name: {**mark, "mtime_ns": 1} for name, mark in old["inputs"].items()}
    files.write_json(path, old)
    assert read_request(path) == REQUEST


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "sweep.json"
    files.write_json(path, asdict(REQUEST) | {"format": provenance.FORMAT + 1, "new": "field"})
    with pytest.raises(StudyMismatchError, match=r"sweep\.json: format 2 is newer .*use the newer"):
        read_request(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 4},
        {"versions": {"optuna": "6.0"}, "commit": ""},
        {"inputs": {"lm.arpa": Fingerprint(size=10, sha256="aa")}},
    ],
)
def test_what_may_change(tmp_path, changes):
    require_same(REQUEST, replace(REQUEST, **changes), path=tmp_path / "sweep.json")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"task": "train"}, "task was decode, is train"),
        ({"flags": {"lm": "lm.arpa", "beamsize": "60"}}, "--beamsize was 50, is 60"),
        ({"flags": {"lm": "lm.arpa"}}, "--beamsize was 50, is not given"),
        ({"flags": {**REQUEST.flags, "unkscore": "-1"}}, "--unkscore was not given, is -1"),
        (
            {"space": {"lmweight": "uniform(0, 6)"}},
            "--lmweight was uniform(0, 5), is uniform(0, 6)",
        ),
        ({"scoring": {"metric": "cer", "cluster": ""}}, "--metric was wer, is cer"),
        (
            {"inputs": {"lm.arpa": Fingerprint(size=10, sha256="bb")}},
            "lm.arpa has changed since (10 bytes then, 10 now)",
        ),
        (
            {"inputs": {"lm.arpa": Fingerprint(size=11, sha256="bb")}},
            "lm.arpa has changed since (10 bytes then, 11 now)",
        ),
    ],
)
def test_what_must_not_change(tmp_path, changes, line):
    finish(tmp_path)
    with pytest.raises(StudyMismatchError) as caught:
        require_same(REQUEST, replace(REQUEST, **changes), path=tmp_path / "sweep.json")
    head, *lines = str(caught.value).splitlines()
    assert head.startswith(f"{tmp_path / 'sweep.json'}: holds another sweep; use another --prefix")
    assert lines == [f"  {line}"]
    assert caught.value.exit_code == 2


def test_each_difference_has_its_line(tmp_path):
    finish(tmp_path)
    new = replace(
        REQUEST, flags={"lm": "other.arpa", "beamsize": "60"}, space={"wordscore": "uniform(0, 1)"}
    )
    with pytest.raises(StudyMismatchError) as caught:
        require_same(REQUEST, new, path=tmp_path / "sweep.json")
    assert str(caught.value).splitlines()[1:] == [
        "  --beamsize was 50, is 60",
        "  --lm was lm.arpa, is other.arpa",
        "  --lmweight was uniform(0, 5), is not given",
        "  --wordscore was not given, is uniform(0, 1)",
    ]


OTHER = replace(REQUEST, flags={"lm": "lm.arpa", "beamsize": "60"})


@pytest.mark.parametrize("state", ["FAIL", ""])
def test_a_folder_in_which_nothing_was_kept_is_begun_anew(tmp_path, capsys, state):
    path = tmp_path / "sweep.json"
    settle_request(path, REQUEST, keep_seed=True)
    if state:
        finish(tmp_path, state)
    (tmp_path / "study.journal").write_text("of the old one")
    require_same(REQUEST, OTHER, path=path)  # before anything is written
    assert settle_request(path, OTHER, keep_seed=True) == OTHER
    assert read_request(path) == OTHER
    said = capsys.readouterr().err
    assert said.startswith(f"w2ltune: note: nothing was kept of what {tmp_path} was begun for")
    assert "(--beamsize was 50, is 60); what was left of it is in failed-1/" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "trials").exists()
    assert (tmp_path / "failed-1" / "study.journal").read_text() == "of the old one"
    assert (tmp_path / "failed-1" / "trials").exists() == bool(state)
    settle_request(path, OTHER, keep_seed=True)
    settle_request(path, REQUEST, keep_seed=True)
    assert (tmp_path / "failed-2").exists()


@pytest.mark.parametrize(
    "kept",
    [
        "trials/0001/snapshots/00000010.bin",
        "trials/0001/snapshots/00000010.bad",
        "trials/0001/run/001_model_dev.bin",
        "001_model_last.bin",
    ],
)
def test_what_was_kept_is_not_put_aside(tmp_path, kept):
    write_request(tmp_path / "sweep.json", REQUEST)
    finish(tmp_path, "FAIL")
    (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / kept).touch()
    with pytest.raises(StudyMismatchError, match="--beamsize was 50, is 60"):
        settle_request(tmp_path / "sweep.json", OTHER, keep_seed=True)


@pytest.mark.parametrize("state", ["COMPLETE", "PRUNED", None])
def test_a_finished_trial_was_kept(tmp_path, state):
    finish(tmp_path, state)
    write_request(tmp_path / "sweep.json", REQUEST)
    with pytest.raises(StudyMismatchError, match="--beamsize was 50, is 60"):
        settle_request(tmp_path / "sweep.json", OTHER, keep_seed=True)


def test_a_folder_of_another_task_and_a_rescoring_are_left_alone(tmp_path):
    for old, new in (("train", "decode"), ("rescore", "rescore")):
        with pytest.raises(StudyMismatchError):
            require_same(
                replace(REQUEST, task=old), replace(OTHER, task=new), path=tmp_path / "sweep.json"
            )


def test_versions():
    found = versions()
    assert {"w2ltune", "python", "optuna", "numpy", "ray"} <= found.keys()


def test_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == ""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a.cfg").write_text("--lm=\n")
    subprocess.run([*git, "add", "a.cfg"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], check=True)
    commit = git_commit()
    assert len(commit) == 40
    (tmp_path / "a.cfg").write_text("--lm=b\n")
    assert git_commit() == f"{commit}-dirty"
