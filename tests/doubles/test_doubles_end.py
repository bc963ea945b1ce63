"""How the doubles end: damaged files, full disks, signals, crashes, lost ranks."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from fldouble.testing import log, names, run, start, updates
from waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.main


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda content: content[:-50], "Failed to read [0-9]+ bytes from input stream! Read "),
        (lambda content: content[:300], "Failed to read [0-9]+ bytes from input stream! Read "),
        (lambda content: b"", "Failed to read 8 bytes from input stream! Read 0"),
        (lambda content: bytes(range(8, 255)) * 9, "std::bad_alloc"),
        (lambda content: content[:-999] + b"x" + content[-998:], "std::bad_alloc"),
    ],
    ids=["cut", "cut in the head", "empty", "random", "a byte changed"],
)
def test_damaged_model(train, data, damage, text):
    train("--iter=3")
    path = data / "run" / "001_model_last.bin"
    path.write_bytes(damage(path.read_bytes()))
    done = run("continue", data / "run", "--flagsfile=")
    assert done.returncode == -6
    pattern = (
        rf'^\x1b\[0;31mE\d{{4}} .* Serializer.h:81 \x1b\[0mError while loading "{path}": {text}'
    )
    assert len(re.findall(pattern, done.stderr, re.M)) == 6
    assert re.search(rf"what\(\):  {text}", done.stderr)
    assert "002_log" not in names(data / "run")


def test_kill_in_a_write_tears_the_model(train, data):
    train("--iter=3")
    path = data / "run" / "001_model_last.bin"
    whole = path.stat().st_size
    never = data / "never"
    process = start("train", f"--flagsfile={data}/train.cfg", DOUBLE_WRITE_AFTER=never)
    wait_for(lambda: 0 < path.stat().st_size < whole)
    process.kill()
    process.communicate()
    assert path.stat().st_size < whole  # the same inode: a hard link would be torn too
    assert updates(data / "run") == [3]  # the line was there before the model
    assert run("continue", data / "run").returncode == -6


def test_disk_full(data):
    (data / "run").mkdir()
    (data / "run" / "001_model_last.bin").symlink_to("/dev/full")
    done = run("train", f"--flagsfile={data}/train.cfg")
    assert done.returncode == -6
    failed = r'E.* Serializer.h:64 .*Error while saving ".*": Failed to write \d+ bytes to output'
    assert len(re.findall(failed, done.stderr)) == 6
    assert re.search(r"F.* Error while saving models: Failed to write \d+ bytes", done.stderr)
    assert updates(data / "run") == [3]


def test_disk_full_for_a_while(data):
    path = data / "run" / "001_model_last.bin"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    process = start("train", f"--flagsfile={data}/train.cfg", DOUBLE_RETRY_SECONDS=1)
    assert any("Error while saving" in line for line in process.stderr)  # up to the first one
    path.unlink()
    assert process.wait(PATIENCE_SECONDS) == 0
    assert updates(data / "run") == [3, 6]
    assert path.stat().st_size > 3000


def start_waiting(data, name, **switches):
    """Start a training that stands still after its first epoch, in a folder of its own."""
    (data / "leave").write_text("3")
    process = start(
        "train", f"--flagsfile={data}/train.cfg", f"--rundir={data}/{name}",
        DOUBLE_LEAVE_FILE=data / "leave", **switches,
    )  # fmt: skip
    wait_for(lambda: (data / name / "001_model_abc.bin").exists())
    return process


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "KILL"])
def test_signals(data, name):
    process = start_waiting(data, "run")
    number = signal.Signals[f"SIG{name}"]
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == -number
    told = (
        rf"\*\*\* SIGTERM \(@0x\w+\) received by PID {process.pid} \(TID .*; stack trace: \*\*\*\n"
    )
    assert bool(re.search(told, stderr)) == (name == "TERM")
    assert ("*** Aborted at" in stderr) == (name == "TERM")
    assert "Finished" not in stderr


def test_ignoring_term(data):
    process = start_waiting(data, "run", DOUBLE_IGNORE_TERM=1)
    process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.kill()
    process.communicate()
    assert process.returncode == -9


@pytest.mark.parametrize("wanted", ["1", "setsid"])
def test_grandchild(data, wanted):
    process = start("train", f"--flagsfile={data}/train.cfg", DOUBLE_GRANDCHILD=wanted)
    pid = int(process.stdout.readline().removeprefix("grandchild "))
    try:
        process.wait(PATIENCE_SECONDS)
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        os.kill(pid, signal.SIGTERM)
        assert (os.getsid(pid) == pid) == (wanted == "setsid")
    finally:
        os.kill(pid, signal.SIGKILL)


def test_empty_train_list_never_ends(data):
    process = start("train", f"--flagsfile={data}/train.cfg", "--train=empty.lst")
    wait_for(lambda: (data / "run" / "001_log").exists() and len(log(data / "run")) > 3)
    process.kill()
    process.communicate()
    assert set(updates(data / "run")) == {0}
    assert log(data / "run")[2]["epoch"].strip() == "3"
    assert log(data / "run")[2]["thrpt(sec/sec)"] == "n/a"
    assert "001_model_last.bin" in names(data / "run")


def test_empty_valid_saves_nothing(data):
    done = run("train", f"--flagsfile={data}/train.cfg", "--valid=")
    assert done.returncode == -11
    assert names(data / "run") == ["001_config", "001_log"]


def test_missing_audio_ends_at_its_batch(data):
    rows = (data / "train.lst").read_text() + "zz /no/audio.wav 1000 one\n" * 4
    (data / "train.lst").write_text(rows)
    done = run("train", f"--flagsfile={data}/train.cfg", "--batchsize=1", "--reportiters=1")
    assert done.returncode == -6
    assert updates(data / "run")
    (data / "dev.wav").unlink()
    (data / "train.lst").write_text((data / "dev.lst").read_text().replace("dev.wav", "train.wav"))
    done = run("train", f"--flagsfile={data}/train.cfg", f"--rundir={data}/other")
    assert f"could not open file for read {data}/dev.wav" in done.stderr
    assert updates(data / "other") == []


@pytest.mark.parametrize("what", ["CRASH", "HANG"])
def test_crash_and_hang(data, what):
    at, once = {f"DOUBLE_{what}_AT_UPDATE": 5}, {f"DOUBLE_{what}_ONCE": data / "once"}
    for folder, switches in ((data / "first", at), (data / "second", {**at, **once})):
        process = start("train", f"--flagsfile={data}/train.cfg", f"--rundir={folder}", **switches)
        if what == "HANG":
            wait_for((folder / "001_model_abc.bin").exists)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.terminate()
        _, stderr = process.communicate()
        assert process.returncode == (-6 if what == "CRASH" else -15)
        assert ("crash in update 5" in stderr) == (what == "CRASH")
        assert updates(folder) == [3]
    assert (data / "once").exists()
    assert run("continue", folder, **at, **once).returncode == 0
    assert updates(folder, 2) == [6]


def start_ranks(data, size, *flags, **switches):
    (data / "rendezvous").mkdir(exist_ok=True)
    common = [f"--flagsfile={data}/train.cfg", "--enable_distributed=true", *flags]
    common += [f"--world_size={size}", f"--rndv_filepath={data}/rendezvous"]
    return [
        start("train", *common, f"--world_rank={rank}", **switches)
        for rank in reversed(range(size))
    ][::-1]


def test_ranks(data):
    processes = start_ranks(data, 2, "--max_devices_per_node=2", CUDA_VISIBLE_DEVICES="4,7")
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for rank, (stdout, _) in enumerate(outputs):
        assert f"rank {rank} of 2 on device {rank}, CUDA_VISIBLE_DEVICES=4,7\n" in stdout
    assert "Initialized NCCL" in outputs[0][0]
    assert updates(data / "run") == [2, 4, 6]  # 3 batches make 2 updates an epoch
    assert "Experiment path" in outputs[0][1]
    assert "Number of classes" in outputs[1][1]
    assert not re.search("Experiment path|Epoch|epoch:|Finished", outputs[1][1])
    again = start_ranks(data, 2)
    for process in again:
        _, stderr = process.communicate()
        assert "file already exists: " in stderr
        assert process.returncode == -6


def test_without_the_flag_every_process_is_rank_0(train, data):
    done = train("--world_rank=1", "--world_size=2", f"--rndv_filepath={data}/nowhere")
    assert updates(data / "run") == [3, 6]
    assert not done.stdout
    done = train("--enable_distributed=true")
    assert done.stdout == "Initialized Gloo successfully!\n"
    mpirun = {"OMPI_COMM_WORLD_RANK": 0, "OMPI_COMM_WORLD_SIZE": 2}
    done = run("train", f"--flagsfile={data}/train.cfg", "--enable_distributed=true", **mpirun)
    assert done.returncode == -6
    assert "allReduceMultiple is not yet supported for Gloo" in done.stderr


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_dies(data, killed):
    processes = start_ranks(
        data, 2, "--iter=99999", DOUBLE_UPDATE_SECONDS=0.02, DOUBLE_PEER_SECONDS=0.05
    )
    wait_for(lambda: (data / "run" / "001_model_last.bin").exists())
    processes[killed].kill()
    _, stderr = processes[1 - killed].communicate(timeout=PATIENCE_SECONDS)
    assert processes[1 - killed].returncode == -6
    assert "NCCL error" in stderr


def test_a_rank_dies_and_the_others_hang(data):
    processes = start_ranks(data, 2, "--iter=99999", DOUBLE_UPDATE_SECONDS=0.02, DOUBLE_PEER_HANG=1)
    wait_for(lambda: (data / "run" / "001_model_last.bin").exists())
    processes[1].kill()
    with pytest.raises(subprocess.TimeoutExpired):
        processes[0].wait(0.6)
    processes[0].terminate()
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [-15, -9]
    for process in processes:
        process.communicate()


def test_a_rank_without_its_device(data):
    processes = start_ranks(data, 2, CUDA_VISIBLE_DEVICES="3", DOUBLE_PEER_SECONDS=0.05)
    _, stderr = processes[1].communicate()
    assert processes[1].returncode == -6
    assert "invalid device ordinal" in stderr
    assert processes[0].poll() is None  # it waits for ever
    processes[0].kill()
