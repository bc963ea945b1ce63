import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.runs.trialdir import TrialDirectory, TrialResult, trial_directories

RESULT = TrialResult(
    number=7,
    attempt=2,
    state="COMPLETE",
    value=1 / 3,
    counts=(3, 2, 1, 18),
    interval=(0.25, 0.4),
    interval_unit="speaker (12)",
    params={"lmweight": 0.1 + 0.2, "beamsize": 50, "smearing": "max"},
    flags={"lmweight": "0.30000000000000004", "test": "dév lists/a;b.lst"},
    seconds=1.5,
    work_seconds=1.25,
    missing=1,
    reason="",
)

ATTEMPTS = """
import sys
from pathlib import Path
from w2ltune.runs.trialdir import TrialDirectory

directory = TrialDirectory(Path(sys.argv[1]), 7)
sys.stdin.readline()
print(*(directory.begin_attempt() for _ in range(20)))
"""


@pytest.mark.parametrize(
    "result",
    [
        RESULT,
        TrialResult(number=7, attempt=1, state="FAIL", value=None, reason="it »died«\nbadly"),
        TrialResult(number=7, attempt=1, state="PRUNED", value=0.5, counts=(1, 0, 0, 2)),
    ],
)
def test_a_result_comes_back_as_it_was(tmp_path, result):
    directory = TrialDirectory(tmp_path, 7)
    directory.path.mkdir()
    assert directory.read_result() is None
    directory.write_result(result)
    assert directory.read_result() == result
    assert [path.name for path in directory.path.iterdir()] == ["result.json"]


def test_a_half_written_result_is_no_result(tmp_path):
    directory = TrialDirectory(tmp_path, 7)
    directory.path.mkdir()
    directory.write_result(RESULT)
    whole = directory.result.read_bytes()
    directory.result.unlink()
    # What a process that was killed while it wrote leaves behind.
    with pytest.raises(KeyboardInterrupt), files.replacing(directory.result) as temporary:
        left = Path(temporary.name)
        temporary.write(whole.decode())
        raise KeyboardInterrupt
    for size in range(len(whole)):
        left.write_bytes(whole[:size])
        assert directory.read_result() is None
    directory.write_result(RESULT)
    assert directory.read_result() == RESULT


def test_a_damaged_result_is_named(tmp_path):
    directory = TrialDirectory(tmp_path, 7)
    directory.path.mkdir()
    directory.result.write_text('{"number": 7,')
    with pytest.raises(InputError, match=r"0007/result\.json: damaged"):
        directory.read_result()


def test_attempts_of_several_processes_are_all_different(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ATTEMPTS, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    numbers = [
        list(map(int, process.communicate(timeout=PATIENCE_SECONDS)[0].split()))
        for process in processes
    ]
    assert all(own == sorted(own) for own in numbers)
    assert sorted(number for own in numbers for number in own) == list(range(1, 81))
    assert TrialDirectory(tmp_path, 7).attempt() == 80


def test_attempts_begin_with_one(tmp_path):
    directory = TrialDirectory(tmp_path, 7)
    assert directory.attempt() == 0
    assert directory.begin_attempt() == 1
    assert directory.begin_attempt() == 2
    assert directory.attempt() == 2


def test_a_trial_was_asked_when_its_flags_are_there(tmp_path):
    directory = TrialDirectory(tmp_path, 7)
    directory.path.mkdir()
    assert not directory.was_asked()
    files.write_text(directory.flags, "--lmweight=1\n")
    assert directory.was_asked()


def test_trials_are_listed_by_number_and_strangers_passed_over(tmp_path):
    for name in ("0010", "0002", "10000", "9999", "0002-copy", "notes"):
        (tmp_path / name).mkdir()
    numbers = [directory.number for directory in trial_directories(tmp_path)]
    assert numbers == [2, 10, 9999, 10000]
    assert list(trial_directories(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "content",
    [
        "[]", "3", '"x"', "{}", '{"number": 0}',
        *(
            f'{{"number": 0, "attempt": 1, "state": "COMPLETE", "value": 0.1, {field}}}'
            for field in (
                '"state": "DONE"', '"value": "x"', '"value": [1]', '"number": "0"', '"counts": 3',
                '"counts": [1, 2]', '"interval": ["a", "b"]', '"params": []', '"flags": {"a": 1}',
                '"lists": {"a": [0.5]}', '"seconds": null', '"reason": 5', '"strange": 1',
            )
        ),
        "1" * 5000, "[" * 100_000,
    ],
)  # fmt: skip
def test_a_result_of_another_shape_is_damage(tmp_path, content):
    directory = TrialDirectory(tmp_path, 0)
    directory.path.mkdir()
    directory.result.write_text(content.replace("\n", ""))
    with pytest.raises(InputError, match=r"result\.json: damaged, restore or remove it"):
        directory.read_result()
