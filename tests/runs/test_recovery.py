import os
import random
import shutil
import signal
import subprocess
import sys

import pytest

from w2ltune.errors import InputError
from w2ltune.formats.checkpoint import read_header, write_header
from w2ltune.runs.recovery import Recovery, recover, set_aside_failed
from w2ltune.runs.snapshots import digest_of, read_snapshots, take_snapshot

PAYLOAD_BYTES = 200_000


def model_bytes(path, updates, payload_bytes=PAYLOAD_BYTES):
    """Write a whole model file with a real head, whose length varies; return its bytes."""
    generator = random.Random(f"{path.name} {updates}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        head = {"runPath": "r" * generator.randrange(60), "gflags": "--lr=1\n" * 30}
        write_header(file, {**head, "epoch": str(updates // 20), "updates": str(updates)})
        file.write(generator.randbytes(payload_bytes))
    return path.read_bytes()


class Training:
    """A run directory and its snapshots, and what lies in them."""

    def __init__(self, folder):
        self.rundir = folder / "run"
        self.snapshots = folder / "snapshots"
        self.rundir.mkdir(parents=True)

    def path(self, index):
        return self.rundir / f"{index:03d}_model_last.bin"

    def write(self, index, updates, *, cut=None, payload_bytes=PAYLOAD_BYTES, tag="last"):
        """Write a model of a run index, only its first ``cut`` bytes (negative: but the last)."""
        path = self.rundir / f"{index:03d}_model_{tag}.bin"
        path.write_bytes(model_bytes(path, updates, payload_bytes)[:cut])
        return path

    def save(self, updates, *, payload_bytes=PAYLOAD_BYTES):
        """Take the snapshot of so many updates."""
        path = self.rundir.parent / "source.bin"
        model_bytes(path, updates, payload_bytes)
        return self.save_file(path)

    def save_file(self, path):
        return take_snapshot(
            path,
            self.snapshots,
            value=lambda updates: None,
            is_busy=lambda: False,
            is_ours=lambda: True,
        )

    def recover(self, **options):
        return recover(self.rundir, self.snapshots, **options)

    def loaded(self):
        """Index and updates of what `fl_asr_train continue` loads; (0, 0) for nothing."""
        index = 0
        while self.path(index + 1).exists():
            index += 1
        return (index, read_header(self.path(index)).updates) if index else (0, 0)

    def torn(self):
        return sorted(path.name for path in self.rundir.glob("torn/*"))

    def contents(self):
        """Digests of all model files, wherever they lie."""
        return {digest_of(path) for path in self.rundir.parent.rglob("*.b*") if path.is_file()}


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path)


def standing(recovery):
    return recovery.mode, recovery.index, recovery.updates


def test_nothing_there(training):
    assert training.recover() == Recovery(mode="anew")
    shutil.rmtree(training.rundir)
    assert training.recover() == Recovery(mode="anew")
    assert not training.rundir.exists()


def test_logs_without_a_model_are_left_alone(training):
    (training.rundir / "001_log").write_text("")
    assert training.recover() == Recovery(mode="anew")
    assert (training.rundir / "001_log").exists()


def test_a_checkpoint_with_its_snapshot_is_fine_as_it_is(training):
    training.save_file(training.write(1, 100))
    expected = Recovery(mode="continue", index=1, epoch=5, updates=100)
    assert training.recover() == expected
    assert training.recover(trust_live=True) == expected
    assert training.torn() == []


def test_a_newer_checkpoint_as_long_as_a_snapshot_is_used(training):
    training.save(100)
    live = training.write(1, 120)
    assert training.recover() == Recovery(
        mode="continue", index=1, epoch=6, updates=120, unsaved=live
    )
    assert training.save_file(live).updates == 120
    assert training.recover().unsaved is None


def test_an_older_checkpoint_gives_way_to_the_snapshot(training):
    older = training.write(1, 80).read_bytes()
    training.save(100)
    recovery = training.recover()
    assert standing(recovery) == ("continue", 2, 100)
    assert recovery.notes == ("002_model_last.bin: restored from the snapshot of 100 updates",)
    assert training.path(1).read_bytes() == older
    assert training.loaded() == (2, 100)


def test_a_missing_checkpoint_is_restored(training):
    training.save(80)
    saved = training.save(100)
    assert standing(training.recover()) == ("continue", 1, 100)
    assert training.path(1).read_bytes() == saved.path.read_bytes()
    shutil.rmtree(training.rundir)
    training.rundir.mkdir()
    assert standing(training.recover()) == ("continue", 1, 100)


def test_cut_at_any_byte(training):
    training.save_file(training.write(1, 100))
    whole = training.write(2, 120).read_bytes()
    head_bytes = len(whole) - PAYLOAD_BYTES
    cuts = (0, 1, 7, 8, 11, 19, *range(20, head_bytes, 31), head_bytes, head_bytes + 1)
    for number, cut in enumerate((*cuts, *range(8192, len(whole), 8192), len(whole) - 1)):
        training.write(2, 120, cut=cut)
        recovery = training.recover()
        assert standing(recovery) == ("continue", 2, 100), cut
        assert recovery.unsaved is None
        assert "restored from the snapshot of 100 updates; what lay there" in recovery.notes[0]
        assert training.loaded() == (2, 100)
        assert len(training.torn()) == number + 1
        assert standing(training.recover()) == ("continue", 2, 100)
        assert len(training.torn()) == number + 1
    training.write(2, 120)
    assert training.recover().updates == 120


def test_a_cut_checkpoint_below_does_not_matter(training):
    training.write(1, 80, cut=5000)
    training.save_file(training.write(2, 100))
    assert standing(training.recover()) == ("continue", 2, 100)
    assert training.torn() == []


def test_a_whole_checkpoint_below_is_used_when_newer_than_the_snapshots(training):
    """As when there was no room for snapshots for a while."""
    training.save(40)
    below = training.write(1, 100)
    training.write(2, 120, cut=-1)
    (training.rundir / "002_log").write_text("epoch: 6")
    recovery = training.recover()
    assert (standing(recovery), recovery.unsaved) == (("continue", 1, 100), below)
    assert training.torn() == ["002_log", "002_model_last.bin"]


def test_two_generations_of_payloads(training):
    training.save(80, payload_bytes=100_000)
    training.save(100, payload_bytes=150_000)
    training.write(1, 120, payload_bytes=100_000)
    assert training.recover().updates == 120
    training.write(1, 120, payload_bytes=150_000)
    assert training.recover().updates == 120
    training.write(1, 120, payload_bytes=120_000)
    assert standing(training.recover()) == ("continue", 1, 100)


@pytest.mark.parametrize(
    ("age", "payload_bytes", "cut", "updates"),
    [
        (0, PAYLOAD_BYTES, None, 120),
        (-5, PAYLOAD_BYTES, None, 120),  # the best was written after the last
        (5, PAYLOAD_BYTES, None, 0),  # it may be of an earlier program
        (0, PAYLOAD_BYTES - 1, None, 0),
        (0, PAYLOAD_BYTES, -1, 0),
        (0, PAYLOAD_BYTES, 30, 0),
    ],
)
def test_another_model_of_the_index_is_a_proof(training, age, payload_bytes, cut, updates):
    live = training.write(1, 120)
    beside = training.write(1, 120, tag="dev", payload_bytes=payload_bytes, cut=cut)
    time_ns = live.stat().st_mtime_ns - age * 10**9
    os.utime(beside, ns=(time_ns, time_ns))
    assert training.recover().updates == updates


def test_no_snapshot_and_nothing_known_to_be_whole(training):
    before = training.write(1, 120).read_bytes()
    for name in ("001_log", "001_config", "002_log", "notes.txt", "12_angry.txt"):
        (training.rundir / name).write_text(name)
    recovery = training.recover()
    assert standing(recovery) == ("anew", 0, 0)
    assert recovery.notes == (
        f"not known to be whole, moved to {training.rundir / 'torn'}: 001_model_last.bin",
    )
    assert training.torn() == ["001_config", "001_log", "001_model_last.bin", "002_log"]
    assert (training.rundir / "torn" / "001_model_last.bin").read_bytes() == before
    assert training.recover() == Recovery(mode="anew")
    training.write(1, 140)
    assert training.recover().mode == "anew"
    assert training.torn()[2:4] == ["001_model_last.bin", "001_model_last.bin.2"]


def test_anew_leaves_nothing_that_a_later_continue_would_find(training):
    training.write(2, 100)
    training.write(3, 120, cut=100)
    assert training.recover().mode == "anew"
    assert training.torn() == ["002_model_last.bin", "003_model_last.bin"]


def test_checkpoints_of_equal_payload_prove_each_other(training):
    training.write(1, 60)
    below = training.write(2, 100)
    training.write(3, 140, cut=-5)
    recovery = training.recover()
    assert (standing(recovery), recovery.unsaved) == (("continue", 2, 100), below)
    assert training.torn() == ["003_model_last.bin"]


def test_two_empty_files_prove_nothing(training):
    head_bytes = read_header(training.write(1, 60)).header_bytes
    training.write(1, 60, cut=head_bytes)
    training.write(2, 60, payload_bytes=0)
    assert training.recover().mode == "anew"


def test_trust(training):
    """A run directory of the user: nothing tells whether its only checkpoint is whole."""
    training.write(1, 120)
    recovery = training.recover(trust_live=True)
    assert (standing(recovery), recovery.unsaved) == (("continue", 1, 120), None)
    assert recovery.notes == (
        "001_model_last.bin: nothing tells whether it is whole; used on trust",
    )
    training.write(2, 140, cut=20)
    recovery = training.recover(trust_live=True)
    assert standing(recovery) == ("continue", 1, 120)
    assert training.torn() == ["002_model_last.bin"]
    training.write(1, 120, cut=20)
    assert training.recover(trust_live=True).mode == "anew"


def test_a_gap_is_told_and_what_is_behind_it_left(training):
    training.save_file(training.write(1, 100))
    for index in (3, 4):
        training.write(index, 80)
    recovery = training.recover()
    assert standing(recovery) == ("continue", 1, 100)
    assert recovery.notes == (
        "003_model_last.bin, 004_model_last.bin: not seen by the program, "
        "as 002_model_last.bin is missing",
    )
    assert training.path(4).exists()


@pytest.mark.parametrize(("updates", "cut"), [(80, None), (140, -1), (80, -1)])
def test_a_gap_that_is_closed_does_not_show_what_is_behind_it(training, updates, cut):
    training.write(1, 60)
    training.write(3, updates, cut=cut)
    training.save(100)
    recovery = training.recover()
    assert recovery.updates == 100
    assert training.loaded() == (recovery.index, 100)
    training.write(recovery.index + 1, 120)
    assert training.recover().updates == 120


def test_the_thousandth_continuation(training):
    training.save(100)
    for index in range(1, 1001):
        training.path(index).symlink_to(read_snapshots(training.snapshots)[0].path)
    assert training.recover().index == 1000


def test_a_snapshot_that_changed_on_the_disk_is_skipped(training):
    training.save(80)
    newest = training.save(100)
    with newest.path.open("r+b") as file:
        file.seek(50_000)
        file.write(b"w2ltune")
    training.write(1, 120, cut=-1)
    recovery = training.recover()
    assert standing(recovery) == ("continue", 1, 80)
    assert recovery.notes[0] == (
        "the snapshot of 100 updates has changed on the disk: it is not used, and is now "
        f"{training.snapshots / '00000100.bad'}"
    )
    assert [one.updates for one in read_snapshots(training.snapshots)] == [80]
    # Nor is a changed snapshot missed where it is not needed.
    training.write(1, 120)
    assert training.recover().updates == 120


def test_a_checkpoint_that_could_not_be_loaded(training):
    training.save(60)
    training.save(80)
    training.save_file(training.write(1, 100))
    assert set_aside_failed(training.rundir, 1, training.snapshots, 100) == (
        "001_model_last.bin (100 updates) could not be loaded: its snapshot is now 00000100.bad, "
        f"it is now {training.rundir / 'torn' / '001_model_last.bin'}"
    )
    assert standing(training.recover()) == ("continue", 1, 80)
    set_aside_failed(training.rundir, 1, training.snapshots, 80)
    assert standing(training.recover()) == ("continue", 1, 60)
    set_aside_failed(training.rundir, 1, training.snapshots, 60)
    assert standing(training.recover()) == ("anew", 0, 0)
    assert "it is gone" in set_aside_failed(training.rundir, 1, training.snapshots, 60)


def test_a_snapshot_is_not_blamed_for_another_file(training):
    training.save(100)
    live = training.write(1, 100)
    with live.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"w2ltune")
    assert training.recover().index == 1
    set_aside_failed(training.rundir, 1, training.snapshots, 100)
    assert standing(training.recover()) == ("continue", 1, 100)
    assert training.path(1).read_bytes() == read_snapshots(training.snapshots)[0].path.read_bytes()
    set_aside_failed(training.rundir, 1, training.snapshots, 100)
    assert training.recover().mode == "anew"


def test_a_newer_checkpoint_that_could_not_be_loaded(training):
    training.save(100)
    training.write(1, 120)
    assert training.recover().updates == 120
    set_aside_failed(training.rundir, 1, training.snapshots, 120)
    assert standing(training.recover()) == ("continue", 1, 100)


# For each line a child that recovers, and dies at the step of the given number: before each call
# that changes a folder or opens a file to write. At step 0 it tells how many there are. Printed is
# how it ended.
DIE = """
import os, signal, sys
from pathlib import Path
from w2ltune.runs.recovery import recover, set_aside_failed

def work(step, rundir, snapshots, *failed):
    steps = 0

    def count(event, arguments):
        nonlocal steps
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.link", "fcntl.ioctl")
        if changes or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            steps += 1
            if steps == int(step):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    if failed:
        set_aside_failed(Path(rundir), int(failed[0]), Path(snapshots), int(failed[1]))
    else:
        recover(Path(rundir), Path(snapshots))
    return steps

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 255
        try:
            code = work(*line.rstrip("\\n").split("\\t"))
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def die():
    """Return the exit code of a recovery that is killed, or the number of steps for step 0."""
    with subprocess.Popen(
        [sys.executable, "-c", DIE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def die(training, step, *arguments):
            words = (step, training.rundir, training.snapshots, *arguments)
            print(*words, sep="\t", file=process.stdin, flush=True)
            code = int(process.stdout.readline())
            assert code < 100
            return code

        yield die
        process.stdin.close()


def torn_live(training):
    training.save(80)
    training.save_file(training.write(1, 100))
    training.write(2, 120, cut=-1)
    return 100


def closing_a_gap(training):
    training.write(1, 60)
    training.write(3, 80)
    training.write(4, 140, cut=100)
    training.save(100)
    return 100


def rotten_snapshot(training):
    training.save(80)
    with training.save(100).path.open("r+b") as file:
        file.write(b"w2ltune")
    training.write(1, 120, cut=0)
    return 80


def lower_is_newer(training):
    training.save(40)
    training.write(1, 100)
    training.write(2, 120, cut=-1)
    training.write(2, 110, tag="dev", cut=-7)
    (training.rundir / "002_log").write_text("epoch: 6")
    return 100


def nothing_whole(training):
    training.write(1, 100)
    training.write(1, 100, tag="iter_005", cut=-1)
    training.write(2, 120, cut=-1)
    for index in (1, 2):
        (training.rundir / f"00{index}_log").write_text("epoch: 6")
    return 0


SCENES = [torn_live, closing_a_gap, rotten_snapshot, lower_is_newer, nothing_whole]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_killed_between_any_two_steps(tmp_path, die, scene):
    steps, killed_at = 1, 0
    while killed_at < steps:
        training = Training(tmp_path / f"killed at {killed_at}")
        updates = scene(training)
        before = training.contents()
        code = die(training, killed_at)
        if killed_at:
            assert code == -signal.SIGKILL
        else:
            steps = code + 1
            assert code >= 3
        assert before <= training.contents()
        recovery = training.recover()
        assert recovery.updates == updates
        assert training.loaded() == (recovery.index, updates)
        assert before <= training.contents()
        assert list(training.rundir.glob(".*")) == []
        assert list(training.rundir.glob("*_log")) == []  # of training that is lost
        assert training.recover().updates == updates
        killed_at += 1


def test_killed_while_setting_aside_what_failed(tmp_path, die):
    for step in range(1, 6):
        training = Training(tmp_path / str(step))
        training.save(80)
        training.save_file(training.write(1, 100))
        code = die(training, step, 1, 100)
        if code != -signal.SIGKILL:
            assert step == code + 1
            break
        # The program is started again with what is found, fails again, and so comes down to 80.
        if training.recover().updates == 100:
            set_aside_failed(training.rundir, 1, training.snapshots, 100)
        assert standing(training.recover()) == ("continue", 1, 80)
    else:
        pytest.fail("more steps than are known")


# One of each kind of outcome that the first 150 seeds have, and some more.
SEEDS = (*range(13), 16, 17, 22, 25, 26, 31, 37, 38, 51, 63, 82, 85)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_run_directory(tmp_path, seed):
    """Whatever lies there: nothing is lost, and no fewer updates than the newest snapshot has."""
    chance = random.Random(seed)
    training = Training(tmp_path)
    sizes = [30_000, 40_000][: chance.randint(1, 2)]
    saved = [updates for updates in range(0, 200, 20) if chance.random() < 0.2]
    for updates in saved:
        training.save(updates, payload_bytes=chance.choice(sizes))
    for index in range(1, chance.randint(1, 6)):
        for tag in ("last", "dev"):
            if chance.random() < 0.8:
                cut = chance.choice([None, None, -chance.randrange(1, 30_000)])
                updates, payload_bytes = chance.randrange(0, 240, 20), chance.choice(sizes)
                training.write(index, updates, cut=cut, payload_bytes=payload_bytes, tag=tag)
    taken = max((one.updates for one in read_snapshots(training.snapshots)), default=None)
    before = training.contents()
    recovery = training.recover()
    assert before <= training.contents()
    if recovery.mode == "anew":
        assert taken is None
        assert list(training.rundir.glob("*.bin")) == []
        return
    assert recovery.updates >= (taken or 0)
    assert training.loaded() == (recovery.index, recovery.updates)
    size = training.path(recovery.index).stat().st_size
    assert size - read_header(training.path(recovery.index)).header_bytes in sizes
    again = training.recover()
    assert standing(again) == standing(recovery)
    assert before <= training.contents()


def test_a_manifest_of_the_future_stops_the_start(training):
    training.save(100).path.with_suffix(".json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="newer version"):
        training.recover()
