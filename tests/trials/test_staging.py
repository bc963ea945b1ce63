import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_SECONDS

from w2ltune.trials import staging
from w2ltune.trials.staging import KENLM_BINARY, is_remote, stage


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "far away" / "lm; 'x'.bin"
    path.parent.mkdir()
    path.write_bytes(KENLM_BINARY + b" format version 5\n" + bytes(range(256)) * 4000)
    return path


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_copy_is_made_once(model, scratch):
    copy = stage(model, scratch, mode="always")
    assert copy.parent == scratch
    assert copy.read_bytes() == model.read_bytes()
    made = copy.stat().st_ino
    assert stage(model, scratch, mode="always") == copy
    assert copy.stat().st_ino == made
    assert not list(scratch.glob("*.part"))


def test_another_content_is_another_copy(model, scratch):
    first = stage(model, scratch, mode="always")
    model.write_bytes(model.read_bytes() + b"more")
    assert stage(model, scratch, mode="always") != first


def test_what_stays_where_it_is(model, scratch, tmp_path):
    arpa = tmp_path / "lm.arpa"
    arpa.write_text("\\data\\\n")
    assert stage(arpa, scratch, mode="always") == arpa  # read once, from start to end
    assert stage(model, scratch, mode="never") == model
    assert stage(model, scratch) == model  # it lies on this machine
    assert stage(tmp_path / "none", scratch, mode="always") == tmp_path / "none"
    assert list(scratch.iterdir()) == []


def test_a_full_scratch_leaves_the_original(model, scratch, monkeypatch):
    usage = shutil.disk_usage(scratch)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(staging.shutil, "disk_usage", lambda path: usage)
        assert stage(model, scratch, mode="always") == model

    def full(source, target):
        Path(target).write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(staging.shutil, "copyfile", full)
        assert stage(model, scratch, mode="always") == model
    assert not list(scratch.glob("*.part"))
    assert not list(scratch.glob("*.bin"))


def test_processes_of_a_node_share_one_copy(model, scratch):
    code = (
        "import sys; from pathlib import Path; from w2ltune.trials.staging import stage;"
        "print(stage(Path(sys.argv[1]), Path(sys.argv[2]), mode='always').stat().st_ino)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, model, scratch], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    found = {process.communicate(timeout=PATIENCE_SECONDS)[0] for process in started}
    assert len(found) == 1
    assert {process.returncode for process in started} == {0}


@pytest.mark.parametrize(
    ("line", "remote"),
    [
        ("server:/models /MNT nfs4 rw 0 0", True),
        ("10.0.0.1@tcp:/x /MNT lustre rw 0 0", True),
        ("sshfs /MNT fuse.sshfs rw 0 0", True),
        ("/dev/nvme0n1 /MNT xfs rw 0 0", False),
        ("server:/models /MNTother nfs4 rw 0 0", False),
    ],
)
def test_file_servers_are_known_by_the_mounts(tmp_path, line, remote):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/root / ext4 rw 0 0\n{line.replace('/MNT', str(tmp_path))}\n")
    assert is_remote(tmp_path / "lm.bin", mounts=mounts) is remote


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("Daten/Büro Netz".encode(), "Daten/Büro\\040Netz"),
        ("数据 ß".encode(), "数据\\040ß"),
        (b"latin-\xfc\x85 x", b"latin-\xfc\x85\\040x"),
        (b"tab\tline\nhash#", rb"tab\011line\012hash\043"),
        (rb"back\040slash \n", rb"back\134040slash\040\134n"),
    ],
)
def test_mounts_with_any_name(tmp_path, name, escaped):
    escaped = escaped if isinstance(escaped, bytes) else escaped.encode()
    mounts = tmp_path / "mounts"
    base = os.fsencode(tmp_path)
    mounts.write_bytes(
        b"/dev/root / ext4 rw 0 0\n"
        b"server:/b%s %s/%s nfs4 rw 0 0\n"
        % (escaped, base, escaped)
        + "\\040tmpfs /Daten/Büro\\040Netz tmpfs rw 0 0\n".encode()
    )
    assert is_remote(Path(os.fsdecode(base + b"/" + name + b"/lm.bin")), mounts=mounts)
    assert not is_remote(Path(os.fsdecode(base + b"/" + name + b"2/lm.bin")), mounts=mounts)
    assert not is_remote(tmp_path / "lm.bin", mounts=mounts)
