"""Run directories: sharing, scripts, guards, and whose they are."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from w2ltune.errors import InputError, StudyMismatchError, UsageError
from w2ltune.files import write_text
from w2ltune.formats.checkpoint import write_header
from w2ltune.runs.rundir import (
    claim,
    log_path,
    make_shared,
    nearest_sibling,
    refuse_overwriting,
    require_checkpoint,
    require_model,
    user_name,
    write_script,
)
from w2ltune.runs.sharing import make_own, share

HOSTILE = ["a b", "x'y", 'say "no"', "$HOME", "`id`", "; exit 3", "two\nlines", "é", "\\", "*", ""]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    old = os.umask(0o077)
    yield
    os.umask(old)


@pytest.mark.parametrize(
    ("above", "folders", "files"),
    [
        (0o2775, 0o2775, 0o664),  # prepared for a group: it counts, whatever the umask
        (0o2770, 0o2770, 0o660),
        (0o2777, 0o2775, 0o664),
        (0o755, 0o700, 0o600),  # else the umask alone
        (0o775, 0o700, 0o600),
        (0o2755, 0o2700, 0o600),
    ],
)
def test_what_is_shared_follows_the_folder_above(tmp_path, umask, above, folders, files):
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(above)
    folder = root / "project" / "name_lr0.1"
    share(folder)
    make_shared(folder)
    assert [mode(path) for path in (folder, folder.parent)] == [folders] * 2
    write_text(folder / "sweep.json", "")
    assert mode(folder / "sweep.json") == files
    assert mode(root) == above
    folder.chmod(0o750)
    make_shared(folder)
    assert mode(folder) == 0o750


def test_a_worker_opens_no_more_than_the_folder_is(tmp_path, umask):
    os.umask(0o022)  # of who started Ray
    tmp_path.chmod(0o750)
    share(tmp_path)
    write_text(tmp_path / "of the command", "")
    share(tmp_path, worker=True)
    write_text(tmp_path / "of a worker", "")
    assert [mode(tmp_path / f"of {who}") for who in ("the command", "a worker")] == [0o644, 0o640]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make what is another user's")
def test_a_folder_of_ones_own(tmp_path):
    shared = tmp_path / "slurm"
    shared.mkdir()
    shared.chmod(0o2775)
    make_own(shared / "of-jane")
    make_own(shared / "of-jane")
    assert (mode(shared / "of-jane"), mode(shared)) == (0o2755, 0o3775)
    (shared / "of-joe").mkdir()
    os.chown(shared / "of-joe", 50001, 50000)
    (shared / "of-jim").symlink_to(shared / "of-jane")
    (shared / "of-jill").mkdir()
    (shared / "of-jill").chmod(0o775)
    for name in ("of-joe", "of-jim", "of-jill"):
        with pytest.raises(UsageError, match=f"{name} must be a folder of yours that nobody else"):
            make_own(shared / name)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "project").write_text("")
    for folder in (tmp_path / "project", tmp_path / "project" / "name"):
        with pytest.raises(UsageError, match=r"cannot create the folder .*project"):
            make_shared(folder)


def test_a_folder_that_may_only_be_read(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    # Modes do not hold root back, a file system that is read-only does.
    places = (closed, Path("/sys/kernel"), Path("/proc/sys"))
    folder = next((path for path in places if not os.access(path, os.W_OK)), None)
    if folder is None:
        pytest.skip("nothing here is read-only for this user")
    with pytest.raises(UsageError, match=rf"cannot write into the folder {folder}: .*read-only"):
        make_shared(folder)
    with pytest.raises(UsageError, match=rf"cannot create the folder {folder}/new"):
        make_shared(folder / "new")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_below_the_folder_of_another_user_of_the_group():
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        project = Path(root, "project")
        make_shared(project)
        os.chown(project, 50001, 50000)
        project.chmod(0o2775)
        for uid, groups, wanted in ((50002, [50000], 0), (50003, [], 7)):
            child = os.fork()
            if child == 0:
                os.setgroups(groups)
                os.setgid(uid)
                os.setuid(uid)
                try:
                    make_shared(project / f"of{uid}" / "deeper")
                    os._exit(0)
                except UsageError as error:
                    os._exit(7 if "Permission denied" in str(error) else 8)
                except BaseException:
                    os._exit(9)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == wanted
        made = project / "of50002" / "deeper"
        assert (made.stat().st_uid, made.stat().st_gid, mode(made)) == (50002, 50000, 0o2775)


def test_user_name(monkeypatch):
    monkeypatch.setenv("LOGNAME", "DOMAIN\\jane/doe")
    assert user_name().startswith("DOMAIN-jane-doe-")
    assert log_path(Path("run"), "jane") == Path("run/logs/jane.log")
    assert log_path(Path("run"), "../jane").parent == Path("run/logs")


def test_a_script_runs_exactly_what_was_run(tmp_path):
    program = [sys.executable, "-c", "import sys, os; print(ascii((sys.argv[1:], os.getcwd(),"]
    program[-1] += " os.environ['ODD'])))"
    where = tmp_path / "it's here"
    where.mkdir()
    script = write_script(
        tmp_path / "run", "jane", 3, [*program, *HOSTILE], {"ODD": "a'b\n$c"}, directory=where
    )
    assert script == tmp_path / "run" / "scripts" / "jane-0003.sh"
    assert mode(script) == 0o755
    done = subprocess.run([script], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == ascii((HOSTILE, str(where), "a'b\n$c")) + "\n"
    assert [path.name for path in script.parent.iterdir()] == ["jane-0003.sh"]


def test_a_script_can_be_read(tmp_path):
    script = write_script(
        tmp_path, "jane", 1, ["bin/fl_asr_train", "train", "--lr=0.1", "--flagsfile="], {}
    )
    assert script.read_text().splitlines() == [
        "#!/bin/bash",
        "# Attempt 1, started by jane: the same command, to run by hand.",
        f"cd {Path.cwd()} || exit",
        "exec bin/fl_asr_train \\",
        "  train \\",
        "  --lr=0.1 \\",
        "  --flagsfile=",
    ]


def test_a_script_takes_paths_that_are_no_text(tmp_path):
    odd = os.fsdecode(b"/no/\xff")
    script = write_script(tmp_path, "jane", 1, ["cat", odd], {})
    assert b"\xff" in script.read_bytes()


def test_two_projects_of_one_name(tmp_path):
    configs = [tmp_path / who / "librispeech" / "tds.cfg" for who in ("ann", "bob")]
    for config in configs:
        config.parent.mkdir(parents=True)
        config.write_text("")
    rundir = tmp_path / "run"
    rundir.mkdir()
    claim(rundir, configs[0])
    claim(rundir, configs[0])
    assert json.loads((rundir / "config_source.json").read_text())["config"] == str(configs[0])
    with pytest.raises(StudyMismatchError) as caught:
        claim(rundir, configs[1])
    for part in (str(configs[0]), str(configs[1]), "--project=NAME", "config_source.json"):
        assert part in str(caught.value)


def test_the_same_config_by_another_path_is_the_same(tmp_path, monkeypatch):
    rundir, real = tmp_path / "run", tmp_path / "disk1" / "exp"
    rundir.mkdir()
    real.mkdir(parents=True)
    (real / "a.cfg").write_text("")
    link = tmp_path / "home"
    link.symlink_to(tmp_path / "disk1")
    claim(rundir, link / "exp" / "a.cfg")
    claim(rundir, real / "a.cfg")
    monkeypatch.chdir(real)
    claim(rundir, Path("a.cfg"))
    # The home is moved to another disk: its name is still the same.
    shutil.move(tmp_path / "disk1", tmp_path / "disk2")
    link.unlink()
    link.symlink_to(tmp_path / "disk2")
    claim(rundir, link / "exp" / "a.cfg")
    # Moved without a link: refused, until the note is removed as the message says.
    link.unlink()
    with pytest.raises(StudyMismatchError, match="if that config was moved, remove"):
        claim(rundir, tmp_path / "disk2" / "exp" / "a.cfg")
    (rundir / "config_source.json").unlink()
    claim(rundir, tmp_path / "disk2" / "exp" / "a.cfg")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_note(tmp_path, text):
    (tmp_path / "config_source.json").write_text(text)
    with pytest.raises(InputError, match="remove it"):
        claim(tmp_path, Path("a.cfg"))


def test_models_are_not_overwritten(tmp_path):
    refuse_overwriting(tmp_path / "absent")
    (tmp_path / "001_log").write_text("")
    refuse_overwriting(tmp_path)
    (tmp_path / "001_model_dev.bin").write_text("")
    with pytest.raises(UsageError, match=r"001_model_dev.bin"):
        refuse_overwriting(tmp_path)
    for name in ("001_model_last.bin", "002_model_last.bin"):
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=r"002_model_last.bin.*--mode=continue --model_path=.*ext"):
        refuse_overwriting(tmp_path)


def test_nothing_to_continue(tmp_path):
    rundir = tmp_path / "tds_lr0.1"
    rundir.mkdir()
    with pytest.raises(UsageError, match=r"did you mean 'tds_lr0.1'"):
        require_checkpoint(tmp_path / "tds_lr0.01")
    with pytest.raises(UsageError, match="nor the folder"):
        require_checkpoint(tmp_path / "no" / "such")
    with pytest.raises(UsageError, match=r"nothing to continue, no 001_model_last.bin in it;"):
        require_checkpoint(rundir)
    model = rundir / "001_model_last.bin"
    for _ in range(2):  # whether the file exists or not
        with pytest.raises(UsageError, match=rf"takes its folder, --model_path={rundir}; .*fork"):
            require_checkpoint(model)
        model.write_text("")
    with pytest.raises(InputError, match=r"nothing to continue: .*001_model_last.bin: cut short"):
        require_checkpoint(rundir)
    with model.open("wb") as file:
        write_header(file, {"epoch": "3", "updates": "60"})
    require_checkpoint(rundir)
    with pytest.raises(UsageError, match=r"there is one in tds_lr0.1"):
        require_checkpoint(tmp_path)


def test_a_snapshot_is_something_to_continue(tmp_path):
    snapshot = tmp_path / "trials" / "0000" / "snapshots" / "120.bin"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text("")
    require_checkpoint(tmp_path)


def test_what_can_be_forked(tmp_path):
    model = tmp_path / "001_model_dev.bin"
    with pytest.raises(UsageError, match=r"there is no .bin file in it"):
        require_model(tmp_path)
    with model.open("wb") as file:
        write_header(file, {"epoch": "3", "updates": "60"})
    require_model(model)
    with pytest.raises(UsageError, match=r"takes a model: give one of 001_model_dev.bin"):
        require_model(tmp_path)
    with pytest.raises(UsageError, match=r"did you mean '001_model_dev.bin'"):
        require_model(tmp_path / "001_model_div.bin")
    model.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="model"):
        require_model(model)
    require_model(model, generation="wav2letter")
    model.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        require_model(model, generation="wav2letter")


def test_siblings_of_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    assert nearest_sibling(tmp_path / "file" / "x") == ""
