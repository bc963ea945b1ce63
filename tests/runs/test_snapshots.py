import hashlib
import itertools
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from waiting import PATIENCE_SECONDS

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import write_header
from w2ltune.runs.diskbudget import drop_copied_models, make_room, used_bytes
from w2ltune.runs.snapshots import (
    best_snapshot,
    discard,
    prune,
    read_snapshots,
    take_snapshot,
    verify,
)

PAYLOAD_BYTES = 200_000
MIB = 1 << 20


def write_model(path, *, updates, payload_bytes=PAYLOAD_BYTES, seed=0):
    """Write a model file with a real head, whose length varies; return its bytes."""
    generator = random.Random(f"{updates} {seed}")
    entries = {
        "runPath": "r" * generator.randrange(5, 60),
        "runIdx": path.name[:3],
        "gflags": "\n".join(f"--flag{number}={number}" for number in range(200)),
        "epoch": str(updates // 20),
        "updates": str(updates),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_header(file, entries)
        file.write(generator.randbytes(payload_bytes))
    return path.read_bytes()


def take(source, folder, *, value=None, busy=(), ours=True):
    answers = itertools.chain(busy, itertools.repeat(False))
    return take_snapshot(
        source,
        folder,
        value=lambda updates: value,
        is_busy=lambda: next(answers),
        is_ours=lambda: ours,
    )


def fill(folder, values, *, payload_bytes=1000):
    """Take a snapshot for each of {updates: value}, one second older than the next."""
    for age, (updates, value) in enumerate(reversed(values.items())):
        write_model(folder.parent / "m.bin", updates=updates, payload_bytes=payload_bytes)
        snapshot = take(folder.parent / "m.bin", folder, value=value)
        os.utime(snapshot.path, (10_000 - age, 10_000 - age))
    (folder.parent / "m.bin").unlink(missing_ok=True)


def updates_in(folder):
    return [snapshot.updates for snapshot in read_snapshots(folder)]


@pytest.fixture
def source(tmp_path):
    return tmp_path / "run" / "001_model_last.bin"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "snapshots"


def test_a_snapshot_is_the_checkpoint_byte_for_byte(source, folder):
    content = write_model(source, updates=120)
    snapshot = take(source, folder, value=0.25)
    source.write_bytes(b"")
    assert snapshot.path == folder / "00000120.bin"
    assert snapshot.path.read_bytes() == content
    assert (snapshot.epoch, snapshot.updates, snapshot.value) == (6, 120, 0.25)
    assert (snapshot.size_bytes, snapshot.payload_bytes) == (len(content), PAYLOAD_BYTES)
    assert read_snapshots(folder) == [snapshot]
    assert verify(snapshot)
    assert sorted(path.name for path in folder.iterdir()) == ["00000120.bin", "00000120.json"]


def test_snapshots_are_listed_newest_first(source, folder):
    for updates in (20, 123_456_789, 100, 99_999_999):
        write_model(source, updates=updates)
        take(source, folder)
    assert updates_in(folder) == [123_456_789, 99_999_999, 100, 20]
    assert read_snapshots(folder / "nowhere") == []


def test_the_value_is_asked_for_the_updates_that_were_read(source, folder):
    write_model(source, updates=40)
    snapshot = take_snapshot(
        source,
        folder,
        value=lambda updates: updates / 100,
        is_busy=lambda: False,
        is_ours=lambda: True,
    )
    assert snapshot.value == 0.4


@pytest.mark.parametrize("value", [None, math.inf, math.nan])
def test_a_value_that_is_none_is_none(source, folder, value):
    write_model(source, updates=40)
    take(source, folder, value=value)
    assert read_snapshots(folder)[0].value is None


def test_a_good_snapshot_of_the_same_updates_is_kept(source, folder):
    write_model(source, updates=40)
    first = take(source, folder, value=0.1)
    write_model(source, updates=40, seed=1)
    assert take(source, folder, value=0.2) == first
    assert verify(first)


@pytest.mark.parametrize("case", ["missing", "busy", "busy after", "written", "replaced", "theirs"])
def test_no_snapshot_of_what_is_not_at_rest(source, folder, case):
    if case != "missing":
        write_model(source, updates=40)

    def busy():
        yield case == "busy"
        if case == "written":
            with source.open("r+b") as file:  # in place, of the same size
                file.write(b"\x03")
        if case == "replaced":
            state = source.stat()
            write_model(source.with_name("other"), updates=40)
            os.utime(source.with_name("other"), ns=(state.st_atime_ns, state.st_mtime_ns))
            source.with_name("other").replace(source)
        yield case == "busy after"

    assert take(source, folder, busy=busy(), ours=case != "theirs") is None
    assert list(folder.glob("*")) == list(folder.glob(".*")) == []


def test_a_head_cut_anywhere_makes_no_snapshot(source, folder):
    whole = write_model(source, updates=40)
    head_bytes = len(whole) - PAYLOAD_BYTES
    for cut in (0, 1, 7, 8, 11, 19, *range(25, head_bytes, 97), head_bytes - 1, head_bytes):
        source.write_bytes(whole[:cut])
        assert take(source, folder) is None, cut
    source.write_bytes(whole)
    assert take(source, folder) is not None


@pytest.mark.parametrize("witness", ["snapshot", "sibling"])
def test_a_part_that_lies_closed_between_two_tries_at_a_write(source, folder, witness):
    """On a full disk the program closes what it wrote, and waits up to 16 s to write again."""
    if witness == "snapshot":
        write_model(source, updates=20)
        take(source, folder)
    else:
        write_model(source.with_name("001_model_iter_001.bin"), updates=20)
    known = len(updates_in(folder))
    whole = write_model(source, updates=40)
    for cut in range(len(whole) - PAYLOAD_BYTES, len(whole), 9973):
        source.write_bytes(whole[:cut])
        assert take(source, folder) is None, cut
    assert len(updates_in(folder)) == known
    source.write_bytes(whole)
    assert take(source, folder).updates == 40


def test_another_generation_of_payloads(source, folder):
    """A continued training may have another optimiser, with more or less to save."""
    write_model(source, updates=20, payload_bytes=50_000)
    assert take(source, folder).payload_bytes == 50_000
    write_model(source, updates=40, payload_bytes=90_000)
    assert take(source, folder).payload_bytes == 90_000
    write_model(source, updates=60, payload_bytes=70_000)
    assert take(source, folder) is None  # it might be a part
    past = source.stat().st_mtime - 25
    os.utime(source, (past, past))
    assert take(source, folder).payload_bytes == 70_000
    write_model(source, updates=80, payload_bytes=50_000)
    assert take(source, folder).updates == 80
    # What was taken for whole and was not gives way to the whole one of the same updates.
    write_model(source, updates=80, payload_bytes=90_000)
    assert take(source, folder).payload_bytes == 90_000
    assert verify(read_snapshots(folder)[0])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda snapshot: snapshot.path.unlink(),
        lambda snapshot: os.truncate(snapshot.path, 5),
        lambda snapshot: snapshot.path.with_suffix(".json").unlink(),
        lambda snapshot: snapshot.path.with_suffix(".json").write_text(""),
        lambda snapshot: snapshot.path.with_suffix(".json").write_text("[]"),
        lambda snapshot: snapshot.path.with_suffix(".json").write_text('{"format": 1}'),
        lambda snapshot: snapshot.path.with_suffix(".json").write_text('{"format": "x"}'),
    ],
)
def test_only_a_manifest_and_its_file_make_a_snapshot(source, folder, spoil):
    write_model(source, updates=20)
    take(source, folder)
    write_model(source, updates=40)
    spoil(take(source, folder))
    assert updates_in(folder) == [20]
    # The name is free for the checkpoint of the same updates, when it comes again.
    assert verify(take(source, folder))
    assert updates_in(folder) == [40, 20]


def test_a_manifest_of_the_future_is_not_overlooked(source, folder):
    write_model(source, updates=20)
    manifest = take(source, folder).path.with_suffix(".json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"format": 3, "more": 1}))
    with pytest.raises(InputError, match="newer version"):
        read_snapshots(folder)


def test_changed_bytes_are_found(source, folder):
    write_model(source, updates=20)
    snapshot = take(source, folder)
    with snapshot.path.open("r+b") as file:
        file.seek(100_000)
        file.write(b"w2ltune")
    assert not verify(snapshot)
    assert not verify(replace(snapshot, path=folder / "nowhere"))
    assert discard(snapshot).name == "00000020.bad"
    assert read_snapshots(folder) == []


def test_the_best_is_the_lowest_and_earliest(source, folder):
    fill(folder, {20: None, 40: 0.3, 60: 0.2, 80: 0.2, 100: None})
    assert best_snapshot(read_snapshots(folder)).updates == 60
    assert best_snapshot(read_snapshots(folder)[:1]) is None


@pytest.mark.parametrize(
    ("values", "keep", "protect", "left"),
    [
        ({20: 0.5, 40: 0.1, 60: 0.3, 80: 0.2}, 1, (), [80, 40]),
        ({20: 0.5, 40: 0.1, 60: 0.3, 80: 0.2}, 2, (), [80, 60, 40]),
        ({20: 0.5, 40: 0.1, 60: 0.3, 80: 0.2}, 0, (20,), [80, 40, 20]),
        ({20: None, 40: None, 60: None}, 1, (), [60]),
        ({20: 0.0, 40: None}, 1, (), [40, 20]),
        ({20: 0.5, 40: 0.1}, 9, (), [40, 20]),
        ({}, 1, (), []),
    ],
)
def test_pruning(folder, values, keep, protect, left):
    fill(folder, values)
    prune(folder, keep=keep, protect=protect)
    assert updates_in(folder) == left
    assert len(list(folder.glob("*"))) == 2 * len(left)


def test_pruning_removes_what_dead_takers_left(folder):
    fill(folder, {20: 0.5, 40: 0.1})
    for name in (".00000060.bin.tmp-1-ab", ".00000060.json.tmp-1-ab", "00000060.bin"):
        (folder / name).write_bytes(b"x")
    (folder / "00000040.json").unlink()
    (folder / "00000010.bad").write_bytes(b"x")
    prune(folder, keep=5)
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["00000010.bad", "00000020.bin", "00000020.json"]


@pytest.fixture
def trials(tmp_path):
    """Three trials of which 0 and 1 are finished; each file has a little over a MiB."""
    trials = tmp_path / "trials"
    fill(trials / "0001" / "snapshots", {20: 0.1, 40: 0.5}, payload_bytes=MIB)
    fill(trials / "0000" / "snapshots", {20: None, 60: None}, payload_bytes=MIB)
    own = {20: 0.4, 40: 0.2, 60: 0.3, 80: 0.3, 100: 0.3}
    fill(trials / "0002" / "snapshots", own, payload_bytes=MIB)
    for name in ("0000", "0001"):
        (trials / name / "result.json").write_text("{}")
    return trials


@pytest.mark.parametrize(
    ("budget_mib", "left"),
    [
        (None, [[60, 20], [40, 20], [100, 80, 60, 40, 20]]),
        (10.2, [[60, 20], [40, 20], [100, 80, 60, 40, 20]]),
        (9.2, [[60, 20], [40, 20], [100, 80, 60, 40]]),
        (8.2, [[60, 20], [40, 20], [100, 80, 40]]),
        (7.2, [[60], [40, 20], [100, 80, 40]]),
        (6.2, [[60], [40, 20], [100, 40]]),
        (5.2, [[60], [20], [100, 40]]),
    ],
)
def test_the_oldest_make_room(trials, budget_mib, left):
    budget_bytes = None if budget_mib is None else int(budget_mib * MIB)
    own = trials / "0002" / "snapshots"
    assert make_room(trials, own, needed_bytes=MIB, budget_bytes=budget_bytes) == ""
    assert [updates_in(trials / name / "snapshots") for name in ("0000", "0001", "0002")] == left


def test_no_room_and_nothing_is_removed_in_vain(trials):
    own = trials / "0002" / "snapshots"
    before = sorted(trials.rglob("*"))
    reason = make_room(trials, own, needed_bytes=MIB, budget_bytes=4 * MIB)
    assert reason == (
        f"needs 1.0 MiB, and {trials.parent} takes 9.0 MiB of the 4.0 MiB allowed; allow more "
        "(--disk_budget_gib)"
    )
    enough = 1 << 60
    reason = make_room(trials, own, needed_bytes=enough, budget_bytes=enough * 2)
    assert reason.startswith("No space left on device: needs 1073741824.00 GiB, ")
    assert f"on the disk of {own}; make room there" in reason
    assert sorted(trials.rglob("*")) == before


def test_the_budget_is_of_all_that_lies_in_the_folder(trials):
    """Of the program's models and logs too; what could not be used goes first."""
    own = trials / "0002" / "snapshots"
    (own / "00000010.bad").write_bytes(bytes(MIB))
    for place in (trials.parent / "torn", trials / "0000/run/torn", trials / "0003/run/torn"):
        place.mkdir(parents=True)
        (place / "001_model_last.bin").write_bytes(bytes(MIB))
        (place / "001_log").write_text("a line")
    write_model(trials / "0002" / "run" / "001_model_last.bin", updates=100, payload_bytes=MIB)
    (trials.parent / "log").write_bytes(bytes(MIB))
    assert used_bytes(trials.parent) // MIB == 9 + 6
    assert make_room(trials, own, needed_bytes=MIB, budget_bytes=int(13.2 * MIB)) == ""
    left = sorted(str(path.relative_to(trials)) for path in trials.rglob("torn/*"))
    assert left == [
        "0000/run/torn/001_log",
        *(f"0003/run/torn/001_{name}" for name in ("log", "model_last.bin")),
    ]
    assert [path.name for path in trials.parent.glob("torn/*")] == ["001_log"]
    assert updates_in(own) == [100, 80, 60, 40, 20]
    assert make_room(trials, own, needed_bytes=MIB, budget_bytes=int(12.2 * MIB)) == ""
    assert updates_in(own) == [100, 80, 60, 40]


def test_a_file_with_two_names_is_counted_once(tmp_path):
    write_model(tmp_path / "a" / "m.bin", updates=20)
    size = used_bytes(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "m.bin").hardlink_to(tmp_path / "a" / "m.bin")
    (tmp_path / "b" / "gone").symlink_to("nowhere")
    assert used_bytes(tmp_path, tmp_path / "a") == size + len("nowhere")


def test_the_best_of_each_valid_set_stays(source, folder):
    rates = {20: (0.5, 0.1), 40: (0.1, 0.5), 60: (0.1, math.inf), 80: (0.3, 0.2), 100: (0.3, 0.3)}
    for updates, (dev, other) in rates.items():
        write_model(source, updates=updates, payload_bytes=1000)
        take_snapshot(
            source, folder, value=lambda updates: 1.0 / updates,
            rates=lambda updates, dev=dev, other=other: {"dev-WER": dev, "other-WER": other},
            is_busy=lambda: False, is_ours=lambda: True,
        )  # fmt: skip
    prune(folder, keep=1)
    assert updates_in(folder) == [100, 40, 20]
    trials = folder.parent / "trials"
    (trials / "0000").mkdir(parents=True)
    folder.rename(trials / "0000" / "snapshots")
    (trials / "0000" / "result.json").touch()
    own = trials / "0001" / "snapshots"
    assert "allowed" in make_room(trials, own, needed_bytes=1, budget_bytes=10)
    assert updates_in(trials / "0000" / "snapshots") == [100, 40, 20]


def copied(rundir, folder, name, updates):
    """Write a model and take its snapshot."""
    write_model(rundir / name, updates=updates, payload_bytes=1000)
    assert take(rundir / name, folder).updates == updates
    return rundir / name


def test_models_of_earlier_launches_go_where_there_is_a_snapshot(tmp_path, folder):
    rundir = tmp_path / "run"
    last = copied(rundir, folder, "001_model_last.bin", 40)
    best = copied(rundir, folder, "001_model_dev.bin", 20)
    copied(rundir, folder, "001_model_iter_003.bin", 60)
    copied(rundir, folder, "002_model_last.bin", 80)
    assert drop_copied_models(rundir, folder, newest=1) == []
    assert drop_copied_models(rundir, folder, newest=2) == [best.name, last.name]
    assert sorted(path.name for path in rundir.iterdir()) == [
        "001_model_iter_003.bin", last.name, "002_model_last.bin",
    ]  # fmt: skip
    assert last.read_text().startswith("w2ltune: the model of 40 updates lay here.")
    assert drop_copied_models(rundir, folder, newest=2) == []
    assert updates_in(folder) == [80, 60, 40, 20]


def test_a_full_disk_is_relieved(tmp_path, folder, monkeypatch):
    last = copied(tmp_path / "run", folder, "001_model_last.bin", 40)

    def write_text(path, text):
        if text:
            raise OSError(28, "No space left on device")
        last.write_bytes(b"")

    monkeypatch.setattr(files, "write_text", write_text)
    assert drop_copied_models(last.parent, folder, newest=2) == [last.name]
    assert last.read_bytes() == b""
    assert drop_copied_models(last.parent, folder, newest=2) == []


def test_models_stay_whose_only_copy_they_are(tmp_path, folder):
    """And those that somebody refers to, or has under another name."""
    rundir = tmp_path / "run"
    copied(rundir, folder, "001_model_a.bin", 20).with_name("mine").hardlink_to(
        rundir / "001_model_a.bin"
    )
    named = copied(rundir, folder, "001_model_b.bin", 40)
    linked = copied(rundir, folder, "001_model_c.bin", 60)
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    other = copied(rundir, folder, "001_model_d.bin", 80)
    other.write_bytes(other.read_bytes()[:-1] + b"x")
    copied(rundir, folder, "001_model_e.bin", 100)
    snapshot = folder / "00000100.bin"
    snapshot.write_bytes(snapshot.read_bytes()[:-1] + b"x")  # rotten
    hard = copied(rundir, folder, "001_model_f.bin", 120)
    (folder / "00000120.bin").unlink()
    (folder / "00000120.bin").hardlink_to(hard)  # no snapshot: the program would cut both
    write_model(rundir / "001_model_g.bin", updates=140)
    (rundir / "001_model_h.bin").write_bytes(b"cut")
    before = {path: path.read_bytes() for path in rundir.iterdir()}
    (tmp_path / "best_model.bin").symlink_to(named)
    answer = tmp_path / "best_model.bin"
    assert drop_copied_models(rundir, folder, newest=9, named=[answer, tmp_path]) == []
    assert {path: path.read_bytes() for path in rundir.iterdir()} == before


def test_a_trial_at_work_is_not_robbed(trials):
    (trials / "0001" / "result.json").unlink()
    own = trials / "0003" / "snapshots"
    assert make_room(trials, own, needed_bytes=MIB, budget_bytes=9 * MIB + 99_999) == ""
    assert updates_in(trials / "0000" / "snapshots") == [60]
    assert "allow more" in make_room(trials, own, needed_bytes=MIB, budget_bytes=8 * MIB)
    assert updates_in(trials / "0002" / "snapshots") == [100, 80, 60, 40, 20]


# A program that writes checkpoints in place as fast as it can, and a taker of snapshots. Both are
# killed at any moment, again and again, the program not before there is a new snapshot. Each
# payload ends in its own digest.
CAMPAIGN = """
import hashlib, itertools, os, random, signal, sys, time
from pathlib import Path
from w2ltune.formats.checkpoint import write_header
from w2ltune.runs.snapshots import prune, read_snapshots, take_snapshot

source, folder, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)

def write(updates):
    payload = random.randbytes(300_000)
    payload += hashlib.sha256(payload).digest()
    with source.open("wb") as file:
        head = {"runPath": "r" * random.randrange(9), "epoch": "1", "updates": str(updates)}
        write_header(file, head)
        for start in range(0, len(payload), 50_000):
            file.write(payload[start : start + 50_000])
            file.flush()
            time.sleep(0.0003)
    time.sleep(0.002)

def is_busy(writer):
    for link in Path(f"/proc/{writer}/fd").glob("*"):
        try:
            if link.readlink() == source:
                return True
        except OSError:
            pass
    return False

def fork(work):
    pid = os.fork()
    if not pid:
        random.seed()
        while True:
            work()
    return pid

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

def taking(writer):
    take_snapshot(source, folder, value=lambda updates: random.random(),
                  is_busy=lambda: is_busy(writer), is_ours=lambda: True)
    if random.random() < 0.2:
        prune(folder, keep=3)

def newest():
    return max((one.updates for one in read_snapshots(folder)), default=0)

for _ in range(6):
    # A cut file of a dead program is set aside before the next, as `recover` does.
    source.unlink(missing_ok=True)
    first = newest() + 1
    updates = itertools.count(first)
    writer = fork(lambda: write(next(updates)))
    takers = 0
    while takers < 6 or newest() < first:
        taker = fork(lambda: taking(writer))
        time.sleep(chance.uniform(0.005, 0.1) * (1 + takers // 6))
        kill(taker)
        takers += 1
    kill(writer)
print("done")
"""


@pytest.mark.main
def test_takers_and_programs_killed_at_any_moment(source, folder):
    source.parent.mkdir(parents=True)
    command = [sys.executable, "-c", CAMPAIGN, str(source), str(folder), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (done.stdout, done.stderr) == ("done\n", "")
    snapshots = read_snapshots(folder)
    assert len(snapshots) >= 3
    for snapshot in snapshots:
        assert verify(snapshot)
        payload = snapshot.path.read_bytes()[-snapshot.payload_bytes :]
        assert hashlib.sha256(payload[:-32]).digest() == payload[-32:]
    prune(folder, keep=1)
    assert len(list(folder.iterdir())) <= 4


TAKE = """
import sys
from pathlib import Path
from w2ltune.runs.snapshots import take_snapshot
try:
    take_snapshot(Path(sys.argv[1]), Path(sys.argv[2]), value=lambda updates: None,
                  is_busy=lambda: False, is_ours=lambda: True)
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture(params=["full disk", "file too large"])
def limited(request, tmp_path):
    """A folder where no 3 MiB fit, and what has to be done in a process to feel it."""
    folder = tmp_path / "limited"
    folder.mkdir()
    if request.param == "file too large":
        yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder, None
    subprocess.run(["umount", str(folder)], check=True)


def test_no_room_leaves_what_there_was(source, limited):
    folder, limit = limited
    write_model(source, updates=20)
    take(source, folder)
    write_model(source, updates=40, payload_bytes=3 * MIB)
    before = sorted(folder.iterdir())
    command = [sys.executable, "-c", TAKE, str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.stdout.strip() in ("No space left on device", "File too large"), done.stderr
    assert sorted(folder.iterdir()) == before
    assert verify(read_snapshots(folder)[0])


@pytest.mark.parametrize("file_system", ["btrfs", "xfs"])
def test_blocks_are_shared_where_the_file_system_can(tmp_path, file_system):
    disk, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with disk.open("wb") as file:
        file.truncate(350 * MIB)
    make = shutil.which(f"mkfs.{file_system}")
    mount = ["mount", "-o", "loop", str(disk), str(folder)]
    if not make or subprocess.run([make, "-q", str(disk)]).returncode:
        pytest.skip(f"no mkfs.{file_system}")
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip(f"no {file_system} can be mounted here")
    try:
        source = folder / "run" / "001_model_last.bin"
        content = write_model(source, updates=20, payload_bytes=32 * MIB)
        os.sync()
        before = shutil.disk_usage(folder).free
        snapshot = take(source, folder / "snapshots")
        os.sync()
        assert before - shutil.disk_usage(folder).free < 8 * MIB
        write_model(source, updates=40, payload_bytes=32 * MIB)
        assert snapshot.path.read_bytes() == content
        assert verify(snapshot)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
