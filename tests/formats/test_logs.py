"""The log of a training, on excerpts of logs that the real binary wrote."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from w2ltune.formats.logs import (
    LogTail,
    TrainLine,
    parse_train_line,
    read_history,
    read_train_log,
    valid_tags,
    without_prefix,
)

LOGS = Path(__file__).parents[1] / "data" / "logs"

FLASHLIGHT = (
    "epoch:        6 | nupdates:          120 | lr: 0.002000 | lrcriterion: 0.000000 | "
    "scale-factor: 0.000000 | runtime: 01:02:03 | bch(ms): 75.35 | crit-fwd(ms): 1.40 | "
    "loss:    2.95679 | train-TER: 27.74 | train-WER: 78.49 | dev-loss:    5.17002 | "
    "dev-TER: 16.44 | dev-WER: 61.90 | avg-isz: 154 | avg-tsz: 017 | max-tsz: 026 | "
    "avr-batchsz:    8.00 | hrs:    0.07 | thrpt(sec/sec): 163.89 | timestamp: 2026-11-22 16:50:38"
)
WAV2LETTER = (
    "epoch:        2 | nupdates:         5000 | lr: 0.059957 | lrcriterion: 0.059957 | "
    "runtime: 00:23:21 | bch(ms): 280.24 | loss:   65.22172 | train-LER: 705.23 | "
    "train-WER: 741.86 | dev-loss:   53.41069 | dev-LER: 99.99 | dev-WER: 99.97 | avg-isz: 410 | "
    "avg-tsz: 007 | max-tsz: 031 | hrs:  730.53 | thrpt(sec/sec): 1876.51"
)
PREFIXES = (
    "",
    "I20261122 16:50:38.909554 10947 Train.cpp:651] ",
    "I1122 16:50:38.909554 10947 Train.cpp:651] ",
    "I1122 16:50:38.909554   947 Train.cpp:651] ",
)


def parsed(text: str) -> TrainLine:
    line = parse_train_line(text)
    assert line is not None
    return line


def updates(lines: list[TrainLine]) -> list[int]:
    return [line.updates for line in lines]


def report(number: int, *, wer: float = 50.0) -> str:
    return f"epoch: {number} | nupdates: {20 * number} | lr: 0.1 | dev-WER: {wer:.2f} | hrs: 1.00\n"


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_of_flashlight(prefix: str, end: str) -> None:
    line = parsed(prefix + FLASHLIGHT + end)
    assert (line.epoch, line.updates) == (6, 120)
    assert line.rates == pytest.approx(
        {"train-TER": 0.2774, "train-WER": 0.7849, "dev-TER": 0.1644, "dev-WER": 0.619}
    )
    assert line.values == {
        "lr": 0.002,
        "lrcriterion": 0,
        "scale-factor": 0,
        "runtime_seconds": 3723,
        "bch(ms)": 75.35,
        "crit-fwd(ms)": 1.4,
        "loss": 2.95679,
        "dev-loss": 5.17002,
        "avg-isz": 154,
        "avg-tsz": 17,
        "max-tsz": 26,
        "avr-batchsz": 8,
        "hrs": 0.07,
        "thrpt(sec/sec)": 163.89,
    }
    assert valid_tags(line) == ("dev",)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_line_of_wav2letter(prefix: str) -> None:
    line = parsed(prefix + WAV2LETTER)
    assert (line.epoch, line.updates) == (2, 5000)
    assert line.rates["train-WER"] == pytest.approx(7.4186)
    assert line.rates["dev-LER"] == pytest.approx(0.9999)
    assert line.values["runtime_seconds"] == 23 * 60 + 21
    assert valid_tags(line) == ("dev",)


@pytest.mark.parametrize(
    "tag", ["dev", "dev-clean", "/asr/my lists/dev.lst", "a:b", "a: b.lst", "ünï", "x-WER", "lr"]
)
def test_any_name_of_a_validation_list(tag: str) -> None:
    line = parsed(
        f"epoch: 1 | nupdates: 20 | lr: 0.1 | train-WER: 90.00 | {tag}-loss:  1.5 | "
        f"{tag}-TER: 10.00 | {tag}-WER: 25.00 | {tag}-WER-decoded: 20.00 | hrs: 0.07"
    )
    assert valid_tags(line) == (tag,)
    assert line.rates[f"{tag}-WER"] == 0.25
    assert line.rates[f"{tag}-WER-decoded"] == pytest.approx(0.2)
    assert line.values[f"{tag}-loss"] == 1.5


def test_numbers_that_are_none() -> None:
    line = parsed("epoch: 1 | nupdates: 2 | loss: nan | dev-WER: inf | thrpt(sec/sec): n/a")
    assert line.rates == {"dev-WER": math.inf}
    assert math.isnan(line.values["loss"])
    assert "thrpt(sec/sec)" not in line.values


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Epoch 6 started!",
        "I20261122 16:50:30.909554 10947 Train.cpp:1048] Epoch 6 started!",
        "epoch:        6",
        "epoch:        6 | lr: 0.1",
        "epoch:        6 | nupdates: nan | lr: 0.1",
        "epoch: many | nupdates: 1",
        "[Beam-search decoder]   * DM: lmweight=0 WER: 100",
        "\0\0\0\0",
    ],
)
def test_other_lines(text: str) -> None:
    assert parse_train_line(text) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("F20261122 17:09:23.871352 10250 Train.cpp:171] Usage: ", "Usage: "),
        ("W1122 17:09:23.871352 10250 a/b/Train.cpp:171] [x] y", "[x] y"),
        (
            "\x1b[0;31mE1122 16:53:06.326006 64896 Serializer.h:81 \x1b[0mError while loading",
            "Error while loading",
        ),
        ("Error: I1122 no prefix", "Error: I1122 no prefix"),
        ("  what():  I1122 16:50:38.909554 10947 Train.cpp:651] x", None),
        ("", ""),
    ],
)
def test_without_prefix(line: str, expected: str | None) -> None:
    assert without_prefix(line) == (line if expected is None else expected)


def test_reports_more_often_than_epochs() -> None:
    lines = read_train_log(LOGS / "reportiters.log")
    assert [(line.epoch, line.updates) for line in lines] == [(1, 7), (1, 14), (2, 21), (2, 28)]
    assert valid_tags(lines[0]) == ("dev", "tsta")


def test_decoded_rates() -> None:
    (line, _) = read_train_log(LOGS / "with_lm.log")
    assert {name for name in line.rates if name.endswith("-decoded")} == {
        "dev-WER-decoded",
        "tsta-WER-decoded",
    }
    assert valid_tags(line) == ("dev", "tsta")


def test_a_list_without_a_tag_on_stderr() -> None:
    (line,) = read_train_log(LOGS / "valid_slash.log")
    assert valid_tags(line) == ("/asr/lists/dev.lst",)
    assert line.rates["/asr/lists/dev.lst-WER"] == 1


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "001_log"
    assert read_train_log(log) == []
    log.write_text(report(1) + report(2).rstrip())
    assert updates(read_train_log(log)) == [20]
    log.write_text(report(1) + report(2)[:30] + "\n" + report(3))
    assert updates(read_train_log(log)) == [20, 40, 60]  # cut, but with all that is needed


def test_the_history_of_a_real_continued_run() -> None:
    assert updates(read_history(LOGS / "rundir")) == [20, 40, 60, 980, 1000, 1020, 1040]


def test_lost_work_that_was_done_again(tmp_path: Path) -> None:
    (tmp_path / "001_log").write_text("".join(report(number) for number in (1, 2, 3, 4)))
    (tmp_path / "002_log").write_text(report(3, wer=30) + report(4, wer=40) + report(5))
    (tmp_path / "003_log").write_text("")  # began, and reported nothing
    (tmp_path / "004_log").write_text(report(5, wer=10) + report(6)[:9])
    (tmp_path / "004_log.tmp").write_text(report(1))
    (tmp_path / "my_log").write_text(report(1))
    history = read_history(tmp_path)
    assert updates(history) == [20, 40, 60, 80, 100]
    assert [line.rates["dev-WER"] for line in history] == pytest.approx([0.5, 0.5, 0.3, 0.4, 0.1])
    assert read_history(tmp_path / "none") == []


def test_logs_are_merged_by_number(tmp_path: Path) -> None:
    for number in (999, 1000, 2):
        (tmp_path / f"{number:03d}_log").write_text(report(number))
    assert updates(read_history(tmp_path)) == [40, 19980, 20000]


def test_following_a_log(tmp_path: Path) -> None:
    log = tmp_path / "001_log"
    tail = LogTail(log)
    assert tail.read() == []
    log.write_text("one\ntw")
    assert tail.read() == ["one"]
    assert tail.read() == []
    with log.open("a") as file:
        file.write("o\nthree\u2028same\n\n")
    assert tail.read() == ["two", "three\u2028same", ""]
    assert tail.read() == []


def test_following_a_log_that_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "001_log"
    tail = LogTail(log)
    log.write_text(report(1) + report(2))
    assert len(tail.read()) == 2
    log.write_text("")
    assert tail.read() == []
    log.write_text("new\n")
    assert tail.read() == ["new"]
    # Between two looks it is emptied and grows beyond where it was.
    log.write_text("other\n" + report(1))
    assert tail.read() == ["other", report(1).rstrip("\n")]
    log.unlink()
    assert tail.read() == []
    log.write_text("again\n")
    assert tail.read() == ["again"]


def test_following_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "001_log"
    tail = LogTail(log)
    seen: list[str] = []
    for number in range(1, 60):
        with log.open("a") as file:
            file.write(report(number))
        seen += tail.read()
    assert seen == log.read_text().splitlines()


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff\xfe\n" + report(1).encode())
    assert updates(read_train_log(log)) == [20]


def test_all_captured_logs(captures: Path) -> None:
    logs = [*captures.glob("*/*_log"), *captures.glob("*/*.stderr")]
    assert len(logs) > 50
    read = 0
    for log in logs:
        text = log.read_text(encoding="utf-8", errors="replace")
        complete = text[: text.rfind("\n") + 1]
        lines = read_train_log(log)
        assert len(lines) == complete.count("| nupdates:"), log
        for line in lines:
            assert len(line.rates) >= 4
            assert {"lr", "loss", "runtime_seconds", "hrs"} <= line.values.keys()
        read += len(lines)
    assert read > 300
