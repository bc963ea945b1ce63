"""What the doubles write: log lines, reports, models, further runs in a run directory."""

import re
import struct

import pytest
from fldouble.testing import config, head, log, names, run, stored_flags, updates

HEAD_KEYS = (
    "runPath runIdx timestamp epoch hostname username updates gflags commandline programname"
)


def form(line):
    """The structure of a status line: keys, and values with numbers taken out."""
    items = (item.split(": ", 1) for item in line.split(" | "))
    return [(key, re.sub(r"[\d ]+", "9", value)) for key, value in items]


def test_log_as_captured(train, data, captures):
    more = ("--valid=dev:dev.lst,tsta:dev.lst", "--netoptim=adam", "--logtostderr=1")
    done = train("--iter=9", *more, DOUBLE_UPDATE_SECONDS=0.01)
    own = (data / "run" / "001_log").read_text().splitlines()
    captured = (captures / "train" / "001_log").read_text().splitlines()
    assert [form(line) for line in own] == [form(captured[0])] * 3
    for key in ("epoch", "nupdates", "loss", "dev-loss", "avr-batchsz", "hrs", "avg-tsz"):
        (width,) = {len(line.split(f"{key}: ")[1].split(" |")[0]) for line in own}
        assert width == len(captured[0].split(f"{key}: ")[1].split(" |")[0]), key

    def records(text):
        found = re.findall(r"^I\d{8} [\d:]{8}\.\d{6} +\d+ (Train.cpp:\d+\] [^\d\n]*)", text, re.M)
        return [re.sub(r"/.*|\s+$", "", record) for record in found]

    expected = records((captures / "train" / "01_train.stderr").read_text())
    own_records = records(done.stderr)
    assert own_records[:-1] == expected[: len(own_records) - 1]
    assert own_records[-1] == expected[-1] == "Train.cpp:1257] Finished training"
    assert [line.split("] ", 1)[1] for line in done.stderr.splitlines() if "epoch:" in line] == own
    assert not done.stdout


def test_where_glog_writes(train, data):
    (data / "logs").mkdir()
    assert not train("--logtostderr=0").stderr
    assert not train("--logtostderr=0", f"--log_dir={data}/logs").stderr
    (path,) = (data / "logs").glob("fl_asr_train.*.log.INFO.*")
    assert (data / "logs" / "fl_asr_train.INFO").resolve() == path
    assert "Finished training" in path.read_text()
    assert "Parsing command line flags" not in train().stderr
    assert "Parsing command line flags" in train(GLOG_logtostderr=1).stderr
    assert not train("--minloglevel=2").stderr
    stored = run("continue", data / "run", "--iter=6", "--minloglevel=0")
    assert "Finished training" in stored.stderr  # as the stored --logtostderr has it


def test_tags(train, data):
    train("--datadir=", f"--train={data}/train.lst", f"--valid={data}/dev.lst")
    assert f"{data}/dev.lst-WER" in log(data / "run")[0]
    assert f"001_model_{data}/dev.lst.bin".replace("/", "#") in names(data / "run")


@pytest.mark.parametrize(
    ("flags", "expected", "epochs"),
    [
        (["--iter=6"], [3, 6], [1, 2]),
        (["--iter=4"], [3, 5], [1, 2]),
        (["--iter=7", "--reportiters=2"], [2, 4, 6, 8], [1, 2, 2, 3]),
        (["--iter=6", "--reportiters=4"], [4], [2]),
    ],
)
def test_reports(train, data, flags, expected, epochs):
    train(*flags)
    assert updates(data / "run") == expected
    assert [int(line["epoch"]) for line in log(data / "run")] == epochs
    entries, _ = head(data / "run" / "001_model_last.bin")
    assert (entries["updates"], entries["epoch"]) == (str(expected[-1]), str(epochs[-1]))


def test_model_file(train, data):
    train("--itersave", DOUBLE_PAYLOAD_BYTES=1000, HOSTNAME="node7", USER="someone")
    models = ["abc", "dev", "iter_001", "iter_002", "last"]
    assert names(data / "run") == ["001_config", "001_log", *(f"001_model_{x}.bin" for x in models)]
    entries, payload = head(data / "run" / "001_model_last.bin")
    assert list(entries) == HEAD_KEYS.split()
    assert len(payload) == 1000
    assert (entries["hostname"], entries["username"]) == ("node7", "someone")
    assert {**config(data / "run"), "epoch": "2", "updates": "6"} == entries
    assert head(data / "run" / "001_model_iter_001.bin")[1] != payload


def test_model_file_head_as_captured(train, data, captures):
    train()
    captured, _ = head(captures / "rundir_sample" / "001_model_last.bin")
    assert list(head(data / "run" / "001_model_last.bin")[0]) == list(captured)


def test_continue(train, data):
    folder = data / "run"
    train("--lr=0.3")
    assert run("continue", folder).returncode == 0  # nothing left to do
    assert names(folder)[-2:] == ["002_config", "002_log"]
    assert updates(folder, 2) == []
    done = run("continue", folder, "--iter=12", "--lr=0.5")
    assert "Epoch 3 started!" in done.stderr
    assert "Loading architecture" not in done.stderr
    assert updates(folder, 2) == [9, 12]
    assert run("continue", folder, "--iter=15", "--rundir=elsewhere").returncode == 0
    assert updates(folder, 3) == [15]
    assert stored_flags(folder, 3)["rundir"] == "elsewhere"
    (folder / "002_model_last.bin").unlink()  # a hole: the scan stops before it
    (folder / "002_model_dev.bin").unlink()
    assert run("continue", folder, "--iter=9", "--lr=0.5").returncode == 0
    assert updates(folder, 2) == [9]
    # The best is forgotten: a worse one is written as 002's.
    assert float(log(folder, 2)[0]["dev-WER"]) > 0
    assert (folder / "002_model_dev.bin").exists()


def test_a_continued_training_is_the_whole_one(train, data):
    train("--iter=12", f"--rundir={data}/whole")
    train()
    run("continue", data / "run", "--iter=12", "--flagsfile=")
    keys = ("loss", "train-WER", "dev-TER", "abc-WER")
    whole, rest = log(data / "whole")[-1], log(data / "run", 2)[-1]
    assert [whole[key] for key in keys] == [rest[key] for key in keys]


def test_fork(train, data):
    train()
    first = log(data / "run")
    model = data / "run" / "001_model_last.bin"
    done = run("fork", model, f"--rundir={data}/fork", "--lr=0.02")
    assert done.returncode == 0
    assert updates(data / "fork") == [3, 6]
    assert float(log(data / "fork")[0]["dev-WER"]) < float(first[-1]["dev-WER"])
    assert log(data / "run") == first
    assert run("fork", model, "--flagsfile=", "--iter=3").returncode == 0
    assert updates(data / "run") == [3]  # the source's own files are overwritten


def test_train_in_a_used_folder_truncates(train, data):
    train("--itersave", "--iter=9")
    train("--itersave", "--iter=3")
    assert updates(data / "run") == [3]
    assert "001_model_iter_003.bin" in names(data / "run")


def test_errors_fall_fastest_at_the_best_rate(train, data):
    def last(lr, seed=0):
        train(
            f"--lr={lr}", f"--seed={seed}", "--iter=90", "--reportiters=30", DOUBLE_UPDATE_SECONDS=0
        )
        rows = [float(line["dev-WER"]) for line in log(data / "run")]
        assert rows == sorted(rows, reverse=True)
        return rows[-1]

    results = {lr: last(lr) for lr in (0.0001, 0.003, 0.01, 0.04, 0.4)}
    assert min(results, key=results.get) == 0.01
    assert results[0.0001] > results[0.003]
    assert results[0.4] > results[0.04]
    assert results[0.01] == last(0.01) != last(0.01, seed=7)
    assert last(0.6) == 100
    assert last(100) == float("inf")


def test_training_with_a_language_model(train, data):
    (data / "lm.bin").touch()
    done = train(f"--lm={data}/lm.bin")
    assert {"dev-WER-decoded", "abc-WER-decoded"} < set(log(data / "run")[0])
    assert "001_model_dev_decoder.bin" in names(data / "run")
    assert "[Beam-search decoder]   * DM: done with best WER" in done.stderr


def test_wav2letter(train, data):
    (data / "run").mkdir()
    done = train("--runname=first", "--tag=x", "--target=ltr", program="Train")
    folder = data / "run" / "first_x"
    files = ["config", "log", "model_abc.bin", "model_dev.bin", "model_last.bin", "perf"]
    assert names(folder) == [f"001_{name}" for name in files]
    keys = set(log(folder)[0])
    assert not keys & {"scale-factor", "avr-batchsz", "timestamp", "train-TER"}
    assert {"train-LER", "train-WER", "dev-LER", "loss", "thrpt(sec/sec)"} < keys
    header, *rows = (folder / "001_perf").read_text().splitlines()
    assert header.split("\t")[:4] == ["# date", "time", "epoch", "nupdates"]
    assert [row.split()[2:4] for row in rows] == [["1", "3"], ["2", "6"]]
    assert len(rows[0].split()) == len(header.split("\t"))
    assert re.search(r"^I\d{4} \d\d:", done.stderr, re.M)
    assert stored_flags(folder)["filterbanks"] == "40"
    done = run("continue", folder, "--iter=9", program="Train")
    assert updates(folder, 2) == [9]
    for flag, program in (("--features_type=mfsc", "Train"), ("--runname=x", "fl_asr_train")):
        assert "unknown command line flag" in run("train", flag, program=program).stderr


@pytest.mark.parametrize(
    ("program", "rates"),
    [("fl_asr_test", "WER: [0-9.]+%, TER: [0-9.]+%"), ("Test", "WER: [0-9.]+, LER: [0-9.]+")],
)
def test_evaluation(train, data, program, rates):
    train("--iter=30")
    for name in ("sclite", "emissions"):
        (data / name).mkdir()
    done = run(
        f"--am={data}/run/001_model_last.bin",
        "--test=dev.lst",
        f"--sclite={data}/sclite",
        f"--emission_dir={data}/emissions",
        "--show",
        "--flagsfile=",
        program=program,
    )
    assert done.returncode == 0, done.stderr
    summary = r"\] \[Test dev.lst \(12 samples\) in \S+s \(actual decoding time \S+s/sample\) -- "
    assert re.search(summary + rates + r"\]$", done.stderr, re.M)
    assert done.stdout.startswith("|T|: o n e | t w o\n|P|: ")
    assert done.stdout.endswith("progress (thread 0): 100%]\n")
    reference = (data / "sclite" / "dev.lst.viterbi.ref").read_text().splitlines()
    hypotheses = (data / "sclite" / "dev.lst.hyp").read_text().splitlines()
    assert reference[0] == "one two (dev-11)"  # the longest first
    assert len(hypotheses) == len(names(data / "emissions" / "dev.lst")) == 12
    content = (data / "emissions" / "dev.lst" / "dev-11.bin").read_bytes()
    assert struct.unpack_from("<Q3sI", content) == (3, b"0.1", 0)
    (count,) = struct.unpack_from("<Q", content, 15)
    assert content[23 + 4 * count + 8 :][:6] == b"dev-11"
    frames, tokens = struct.unpack("<ii", content[-8:])
    assert (frames * tokens, tokens) == (count, 7)


def test_evaluation_s_flagsfile_has_the_last_word(train, data):
    train("--iter=3")
    (data / "one.lst").write_text((data / "dev.lst").read_text().splitlines()[0] + "\n")
    (data / "test.cfg").write_text("--test=one.lst\n")
    model = f"--am={data}/run/001_model_last.bin"
    done = run(model, "--test=dev.lst", f"--flagsfile={data}/test.cfg", program="fl_asr_test")
    assert "[Test one.lst (1 samples)" in done.stderr
