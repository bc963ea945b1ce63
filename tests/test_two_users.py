"""What another user of the group plants in a study's folder is not followed, believed or run."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from w2ltune import files
from w2ltune.cluster import scratch
from w2ltune.cluster.resources import SlurmResources
from w2ltune.cluster.slurm import scripts_folder
from w2ltune.cluster.status import main as status_main
from w2ltune.cluster.submit import submit
from w2ltune.errors import InputError
from w2ltune.formats.distributions import FloatRange
from w2ltune.formats.flagsfile import parse_flagsfile
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.runs.process import Program, start
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.method import NOTE, flags_of
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import open_study, repair_journal

FUNCTIONS = Path(__file__).parents[1] / "slurm" / "functions.bash"
BOB, GROUP = 61002, 61000
PRIVATE = "a secret without an end of line"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")


def as_bob(work: Callable[[], object]) -> None:
    """Do something as another user, of the study's group."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([GROUP])
            os.setgid(GROUP)
            os.setuid(BOB)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for folder in (*tmp_path.parents, tmp_path):
        if folder.is_relative_to("/tmp/") or folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o001)  # bob comes to the study's folder
    folder = tmp_path / "study"
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2775)
    return folder


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "private"
    path.write_text(PRIVATE)
    path.chmod(0o600)
    return path


def test_a_journal_that_is_a_link(study: Path, private: Path) -> None:
    journal = study / "study.journal"
    as_bob(lambda: journal.symlink_to(private))
    with pytest.raises(InputError, match=rf"is a link to '{private}' made by 61002.*remove it"):
        repair_journal(journal)
    lock = StudyLock(study / "lock", this_process())
    with pytest.raises(InputError, match="made by 61002"):
        lock.acquire()
    with pytest.raises(InputError, match="made by 61002"):
        open_study(study, lock)
    assert private.read_text() == PRIVATE
    assert [path.name for path in study.iterdir()] == ["study.journal"]
    as_bob(journal.unlink)
    as_bob(lambda: journal.symlink_to(private.with_name("not yet")))
    with pytest.raises(InputError, match="made by 61002"):
        open_study(study, lock)
    assert not private.with_name("not yet").exists()


def test_a_journal_that_becomes_a_link_while_it_is_written(study: Path, private: Path) -> None:
    lock = StudyLock(study / "lock", this_process())
    lock.acquire()
    found = open_study(study, lock)
    found.ask()
    journal = study / "study.journal"
    as_bob(lambda: (journal.rename(study / "away"), journal.symlink_to(private)))
    with pytest.raises(InputError, match="made by 61002"):
        found.ask()
    lock.release()
    assert private.read_text() == PRIVATE


def test_a_log_that_is_a_link(study: Path, private: Path) -> None:
    log = study / "root.log"
    as_bob(lambda: log.symlink_to(private))
    for program in (
        Program(arguments=("echo", "hello"), log=log),
        Program(arguments=("echo", "hello"), log=study / "other.log", stdout=log),
    ):
        with pytest.raises(InputError, match="made by 61002"):
            start(program)
    assert private.read_text() == PRIVATE


@pytest.mark.parametrize("name", ["trials", "lock", "sweep.json", "slurm"])
def test_a_link_out_of_the_study_stops_a_command_before_it_writes(
    study: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    as_bob(lambda: (study / name).symlink_to(elsewhere))
    with pytest.raises(InputError, match=rf"study/{name}: is a link to .* made by 61002"):
        StudyLock(study / "lock", this_process()).acquire()
    assert list(elsewhere.iterdir()) == []


def test_links_of_ones_own_and_within_the_study_are_followed(study: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (study / "trials").symlink_to(tmp_path / "disk")
    (study / "model.bin").write_text("")
    as_bob(lambda: (study / "best_model.bin").symlink_to("model.bin"))
    files.refuse_planted(study)


def test_a_link_that_is_put_there_while_a_study_is_written(study: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    lock = StudyLock(study / "lock", this_process())
    lock.acquire()
    trial = TrialDirectory(study / "trials", 0)
    trial.write_flags({"lmweight": "1"})
    trials = study / "trials"
    as_bob(lambda: (trials.rename(study / "away"), trials.symlink_to(elsewhere)))
    for write in (lambda: files.write_text(trial.flags, ""), lambda: trial.begin_attempt()):
        trial.path.mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"study/trials: is a link to .* made by 61002"):
            write()
    lock.release()
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == []


def test_a_second_name_is_not_written(study: Path, private: Path) -> None:
    log = study / "root.log"
    log.hardlink_to(private)  # as others can, where the kernel does not forbid it
    with pytest.raises(InputError, match="has a second name, a hard link"):
        files.open_plain(log, os.O_WRONLY | os.O_TRUNC)
    with open(log, opener=files.open_plain) as file:
        assert file.read() == PRIVATE
    os.chown(log, BOB, GROUP)  # a file of another's, as he likes
    os.close(files.open_plain(log, os.O_WRONLY))


@pytest.mark.parametrize("case", ["as asked", "fixed", "searched", "added", "journal", "baseline"])
def test_flags_of_an_interrupted_trial_are_those_of_command_and_journal(
    study: Path, case: str
) -> None:
    space = SearchSpace(fixed={"lm": "a.arpa"}, distributions={"lmweight": FloatRange(0.0, 4.0)})
    baseline = {"lmweight": "9"}
    trial = TrialDirectory(study / "trials", 0)
    meant = {"lm": "a.arpa", "lmweight": "2.5"}
    params: dict[str, object] = {"lmweight": 2.5}
    note = {}
    changed = {
        "fixed": {"lm": "/bob/evil.arpa"}, "searched": {"lmweight": "3"}, "added": {"arch": "x.so"},
    }.get(case, {})  # fmt: skip
    if case == "journal":
        params["arch"] = changed["arch"] = "x.so"
    if case == "baseline":
        meant, params, note = {"lm": "a.arpa", "lmweight": "9"}, {}, {NOTE: {"how": "baseline"}}
    frozen = SimpleNamespace(params=params, user_attrs=note)
    trial.write_flags(meant | changed)
    assert stat.S_IMODE(trial.flags.stat().st_mode) & 0o022 == 0
    if not changed:
        assert flags_of(trial, frozen, space, baseline) == meant  # type: ignore[arg-type]
        return
    with pytest.raises(InputError, match=rf"of root, is not what .*--{next(iter(changed))}\)"):
        flags_of(trial, frozen, space, baseline)  # type: ignore[arg-type]


def test_flags_of_an_interrupted_trial_are_those_that_a_script_chooses(study: Path) -> None:
    script = study / "space.py"
    script.write_text(
        "def space(trial):\n"
        "    x = trial.suggest_float('x', 0, 4)\n"
        "    return {'lmweight': x, 'beamsize': 10 if x < 2 else trial.suggest_int('wide', 20, 30)}"
    )
    space = SearchSpace(fixed={"lm": "a.arpa"}, script=script)
    trial = TrialDirectory(study / "trials", 0)
    frozen = SimpleNamespace(params={"x": 2.5, "wide": 25}, user_attrs={})
    meant = {"lm": "a.arpa", "lmweight": "2.5", "beamsize": "25"}
    for flags in (meant | {"lm": "/bob/evil.arpa"}, meant):
        trial.write_flags(flags)
        assert flags_of(trial, frozen, space, None) == flags  # type: ignore[arg-type]
        os.chown(trial.flags, BOB, GROUP)
        if flags == meant:
            assert flags_of(trial, frozen, space, None) == meant  # type: ignore[arg-type]
        else:
            with pytest.raises(InputError, match=r"of bob, is not what .*\(--lm\)|of \d+, is not"):
                flags_of(trial, frozen, space, None)  # type: ignore[arg-type]


def test_weights_outside_of_the_space_are_no_trials_of_it(study: Path) -> None:
    script = study / "space.py"
    script.write_text("def space(trial): return {'beamsize': trial.suggest_int('beamsize', 5, 9)}")
    space = SearchSpace(fixed={}, distributions={"lmweight": FloatRange(0.0, 4.0)}, script=script)
    assert space.flags_of({"lmweight": 3.0, "beamsize": 7}) == {"lmweight": "3.0", "beamsize": "7"}
    assert space.flags_of({"lmweight": 9.0, "beamsize": 7}) is None


def test_a_result_of_anothers_does_not_bring_a_program_into_best_cfg(study: Path) -> None:
    trial = TrialDirectory(study / "trials", 0)
    trial.write_flags({})
    evil = TrialResult(
        number=0, attempt=1, state="COMPLETE", value=0.1, flags={"normalize": "/tmp/evil.py"}
    )
    trial.write_result(evil)
    assert stat.S_IMODE(trial.result.stat().st_mode) & 0o022 == 0
    assert trial.read_result() == evil  # one's own
    os.chown(trial.result, BOB, GROUP)
    with pytest.raises(InputError, match=r"result.json: --normalize=/tmp/evil.py is a program"):
        trial.read_result()


def test_a_study_with_a_link_is_not_submitted(study: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    as_bob(lambda: (study / "slurm").symlink_to(elsewhere))
    resources = SlurmResources(nodes=1, needed_nodes=1, gpus_per_node=0, cpus_per_node=1)
    with pytest.raises(InputError, match=r"study/slurm: is a link to .* made by 61002"):
        submit(study, "", user="jane", resources=resources)
    assert list(elsewhere.iterdir()) == []


def test_what_others_can_move(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    private = tmp_path / "mine" / "study"
    private.mkdir(parents=True)
    assert scripts_folder(private) == private / "slurm"
    for way in (study, private, tmp_path / "not yet"):
        assert scripts_folder(way / "x").is_relative_to(tmp_path / "home") == (way == study)
    (tmp_path / "mine").chmod(0o777)
    assert scripts_folder(private) == scripts_folder(private.parent / "study")
    assert scripts_folder(private).parent == tmp_path / "home" / ".w2ltune"
    (tmp_path / "mine").chmod(0o1777)
    assert scripts_folder(private) == private / "slurm"
    os.chown(private, BOB, GROUP)
    assert scripts_folder(private) != private / "slurm"


def test_a_pipe_is_no_file_to_wait_for(study: Path) -> None:
    as_bob(lambda: os.mkfifo(study / "sweep.json"))
    with pytest.raises(InputError, match="is a pipe made by 61002"):
        files.read_json(study / "sweep.json")


@pytest.mark.parametrize("name", ["trials/0003/utterances.tsv", "trials/0003/attempts/0001"])
def test_no_command_begins_with_a_study_that_holds_a_pipe(study: Path, name: str) -> None:
    files.write_json(study / "sweep.json", {})
    (study / name).parent.mkdir(parents=True)
    os.mkfifo(study / name)
    with pytest.raises(InputError, match=rf"{name}: is a pipe made by .*, not a file: remove it"):
        StudyLock(study / "lock", this_process()).acquire()
    with pytest.raises(InputError, match=rf"{name}: is a pipe"):
        status_main([str(study)])


def test_scratch_that_somebody_else_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    name = tmp_path / "w2l-1-1-abcdefgh"
    name.mkdir()
    os.chown(name, BOB, GROUP)
    with scratch.in_use(name) as file, scratch.in_use(name) as again:
        folder = Path(file.name).parent
        assert Path(again.name).parent == folder != name
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(name.iterdir()) == []


def functions(study: Path, code: str) -> str:
    """Return what bash says to the scripts' functions."""
    variables = {
        "W2LTUNE_STUDY": str(study), "W2LTUNE_PYTHON": "python3", "W2LTUNE_USER": "jane",
        "W2LTUNE_SCRATCH": "", "W2LTUNE_INTERFACE": "", "SLURM_JOB_ID": "41",
        "PATH": f"{study.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    command = ["bash", "-c", f". {FUNCTIONS}; {code}"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_job_writes_only_where_nobody_else_can(study: Path, tmp_path: Path) -> None:
    own = study / "slurm" / "of-jane"
    assert functions(study, 'own_folder; echo "$slurm"') == f"{own}\n"
    assert own.stat().st_mode & 0o022 == 0
    as_refused = r"of-jane must be a folder of yours that nobody else may write to"
    own.rmdir()
    (study / "slurm").chmod(0o777)
    as_bob(own.mkdir)
    assert re.search(as_refused, functions(study, "own_folder; echo on"))
    as_bob(own.rmdir)
    as_bob(lambda: own.symlink_to(tmp_path))
    assert re.search(as_refused, functions(study, "own_folder; echo on"))
    assert "on\n" not in functions(study, "own_folder; echo on")


@pytest.mark.parametrize("case", ["own", "written by the group", "another's", "a link"])
def test_a_script_that_others_can_change_is_not_submitted_again(
    study: Path, tmp_path: Path, case: str
) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho taken\n")
    (tmp_path / "sbatch").chmod(0o755)
    script = study / "jane-0001.sbatch"
    if case == "a link":
        as_bob(lambda: script.symlink_to("/etc/passwd"))
    else:
        files.write_script(script, "#!/bin/bash\n")
        assert stat.S_IMODE(script.stat().st_mode) == 0o755
    if case == "written by the group":
        script.chmod(0o775)
    if case == "another's":
        as_bob(lambda: (script.rename(study / "x"), script.write_text("evil")))
    said = functions(study, f"job='   Command={script}'; submit_successor")
    assert ("taken" in said, "is not yours alone" in said) == (case == "own", case != "own")


def test_a_program_that_anothers_flagsfile_names_is_not_run(study: Path) -> None:
    best = study / "best.cfg"
    as_bob(lambda: best.write_text("--lmweight=2\n--normalize=/tmp/evil.py\n"))

    def read() -> list[str]:
        return [flag.value for flag in parse_flagsfile(best, boolean=lambda name: False)]

    with pytest.raises(InputError, match=r"best.cfg:2: --normalize=.* is a program.* 61002's: if"):
        read()
    as_bob(lambda: best.write_text("--lmweight=2\n--normalize=rules.glm\n"))
    assert read() == ["2", "rules.glm"]
    best.unlink()
    best.write_text("--binary=/bin/true\n")
    assert read() == ["/bin/true"]
    os.chown(best, 0, GROUP)
    best.chmod(0o664)
    with pytest.raises(InputError, match="may be written by its group"):
        read()
