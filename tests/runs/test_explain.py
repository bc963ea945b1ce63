"""Why programs ended, on excerpts of what the real binaries printed as they died."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2ltune.errors import KilledError, StorageError, TrialFailedError
from w2ltune.runs.explain import LONGEST, TAIL_BYTES, explain_exit, failure, load_failure
from w2ltune.runs.process import STARTED

EXITS = Path(__file__).parents[1] / "data" / "logs" / "exits"

INFO = "I20261122 17:10:37.996492 11020 Train.cpp:1048] Epoch 1 started!\n"
REPORT = "epoch: 1 | nupdates: 20 | lr: 0.1 | dev-WER: 50.00 | hrs: 1.00\n"
NO_LOAD = 'E1122 17:12:34.162448 10272 Serializer.h:81 Error while loading "/m.bin": no luck\n\n'
THROWN = "terminate called after throwing an instance of 'std::runtime_error'\n  what():  {}\n"
FRAMES = (
    "*** Aborted at 1599733111 (unix time) ***\nPC: @     0x7ff03490ff47 gsignal\n"
    "*** SIGABRT (@0x3e800001023) received by PID 4131 (TID 0x7ff08f581f40); stack trace: ***\n"
    "    @     0x5618b1a91348 fl::detail::ncclCheck()\n"
)

CAPTURED = {
    "dec-e01_missing_lm": (134, "the file /no/lm.bin is missing, or may not be read"),
    "dec-e02_trunc_lm": (
        134,
        "the language model cannot be read: Binary file has size 20000 but the headers say it "
        "should be at least 74596",
    ),
    "dec-e04_wrong_tokens_short": (
        134,
        "'t' is not in the tokens file (a token of lexicon, --wordseparator or --surround), or it "
        "is a word and there is no --lexicon",
    ),
    "dist-02_mpirun2": (
        134,
        "contiguous allReduceMultiple is not yet supported for Gloo backend",
    ),
    "dist-p3_rankkill": (137, "rank 1 was killed (SIGKILL), most likely for want of memory"),
    "err-t02_badsubcmd": (134, "its arguments are wrong: it printed its usage"),
    "err-t03_missing_flagsfile": (1, "the file /nonexistent.cfg is missing"),
    "err-t04_missing_list": (
        134,
        "the list /asr/lists/nolist.lst is missing, or may not be read",
    ),
    "err-t05_bad_flag_cmdline": (1, "unknown command line flag 'nosuchflag'"),
    "err-t07_bad_flag_value": (1, "illegal value 'abc' specified for int64 flag 'iter'"),
    "err-t08_rundir_parent_missing": (
        134,
        "the folder /asr/run/no/such/dir cannot be made: its parent is missing or closed",
    ),
    "err-t11_norundir": (134, "'runpath' specified by --rundir, --runname cannot be empty"),
    "err-t12_missing_tokens": (134, 'the tokens file "/nonexistent" is missing'),
    "err-t13_missing_lexicon": (134, "the file /nonexistent is missing, or may not be read"),
    "err-t15_bad_arch": (
        134,
        "the architecture file has a line that is not known: 'XX 1 2 3'",
    ),
    "err-t16_valid_empty": (
        139,
        "crashed (SIGSEGV) after its first epoch, as it does without a validation list; give "
        "--valid",
    ),
    "err-t17_missing_audio": (
        134,
        "the audio file /no/audio.wav is missing, or may not be read",
    ),
    "err-t18_short_row": (
        134,
        "the list /asr/lists/shortrow.lst has a row of less than 3 columns (id, audio, duration): "
        "'onlyid path'",
    ),
    "err-t21_continue_nodir": (
        134,
        "could not load /asr/run/nosuchdir/000_model_last.bin: no such file, or it may not be read",
    ),
    "err-t23_continue_noarg": (139, "crashed (SIGSEGV), and it said nothing"),
    "err-t24_continue_truncated": (
        134,
        "could not load /asr/run/corr1/001_model_last.bin: it is cut short (Failed to read 107520 "
        "bytes from input stream! Read 15627)",
    ),
    "err-t25_continue_random": (
        134,
        "could not load /asr/run/corr2/001_model_last.bin: it is damaged (std::bad_alloc)",
    ),
    "err-t26_continue_zero": (
        134,
        "could not load /asr/run/corr3/001_model_last.bin: it is cut short (Failed to read 8 "
        "bytes from input stream! Read 0)",
    ),
    "misc-08_disk_full": (
        134,
        "disk full while writing /asr/run/tiny/r/001_model_last.bin (Failed to write 442368 bytes "
        "to output stream! Wrote 26347); make room and start it again",
    ),
    "sig-KILL": (-9, "killed (SIGKILL), most likely for want of memory"),
    "sig-TERM": (143, "ended by SIGTERM, which a scheduler or a person sent"),
    "sig-USR1": (-10, "ended by the signal SIGUSR1"),
    "test-15_slash_in_id": (
        134,
        "the file /asr/run/emi/slashid.lst/dir/x-1.bin may not be written",
    ),
}

WRITTEN = [
    (0, INFO, "it ended well"),
    (-9, "", "killed (SIGKILL), most likely for want of memory"),
    (-9, INFO + NO_LOAD, "killed (SIGKILL), most likely for want of memory"),
    (3, "", "exit code 3, and it said nothing"),
    (3, INFO + "\x1b[1mdone?\x1b[0m\n\n", "exit code 3; its last line: done?"),
    (-11, INFO + REPORT, f"crashed (SIGSEGV); its last line: {REPORT.strip()}"),
    (-6, "", "aborted (SIGABRT), and it said nothing"),
    (-64, "", "ended by the signal SIGRTMAX"),
    (-7, "", "crashed (SIGBUS), as when the disk is full or a file that it uses is cut, and it "
     "said nothing"),
    (2, "w2ltune: error: --lr=-1: give one above 0\n", "--lr=-1: give one above 0"),
    (-9, "w2ltune: error: launch 2 is at work; this was launch 1, and ends\n",
     "launch 2 is at work; this was launch 1, and ends"),
    (1, "Traceback (most recent call last):\n  File \"x.py\", line 1\nValueError: no\n",
     "ValueError: no"),
    (1, "Traceback (most recent call last):\n  File \"x.py\", line 1\nMemoryError\n",
     "out of memory"),
    (1, "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device\n",
     "disk full (No space left on device)"),
    (127, "t: error while loading shared libraries: libaf.so.3: cannot open shared object file\n",
     "a library is missing: libaf.so.3: cannot open shared object file"),
    (-6, THROWN.format("std::bad_alloc") + FRAMES, "out of memory"),
    (-6, "Failed to allocate memory of size 152.00 MiB (Device: 0, Capacity: 14.75 GiB) with error "
     "'ArrayFire Exception (Device out of memory:101):\n"
     + THROWN.format("ArrayFire Exception (Unknown error:999):"),
     "out of GPU memory 152.00 MiB; take a smaller --batchsize"),
    (-6, THROWN.format("ArrayFire Exception (Device out of memory:101):\nIn function x"),
     "out of GPU memory; take a smaller --batchsize"),
    (-6, THROWN.format("ArrayFire Exception (Driver not available or incompatible:102):"),
     "no usable GPU (Driver not available or incompatible:102)"),
    (-6, THROWN.format("unhandled system error") + FRAMES,
     "NCCL, which connects the GPUs, failed: unhandled system error; NCCL_DEBUG=INFO says more"),
    (-6, "F1122 17:10:37.996492 11020 Train.cpp:900] Loss has NaN values. Samples - a1,b2\n",
     "the loss is not a number; take a smaller --lr or --maxgradnorm (utterances: a1,b2)"),
    (1, "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0.\n",
     "out of memory: SLURM ended it at the job's limit"),
    (143, "slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-11-22 DUE TO TIME LIMIT ***\n",
     "ended by SLURM: TIME LIMIT"),
    # A load that went well in the end is not the reason.
    (-6, NO_LOAD + INFO + THROWN.format("other"), "other"),
    (-6, NO_LOAD + INFO + THROWN.format("no luck"), "could not load /m.bin: no luck"),
    # A checkpoint that was written in the end is not the reason either.
    (-6, 'Error while saving "/m.bin": Failed to write 9 bytes\n' + INFO + THROWN.format("other"),
     "other"),
    (-6, THROWN.format("Read error: Connection reset by peer") + THROWN.format("mine"), "mine"),
    (-6, THROWN.format("Connection closed by peer"), "Connection closed by peer"),
    (-6, THROWN.format("Unknown entry in dictionary: '<unk>'"),
     "it was given no --lexicon, or one that cannot be read"),
    (-6, THROWN.format("Duplicate entry in dictionary '<1>'"),
     "the token '<1>' stands twice in the tokens file, or is one that the program adds by itself"),
    (-6, THROWN.format("[loadWords] Invalid line: "), "the lexicon has an empty line"),
    (-6, THROWN.format("[loadWords] Invalid line: a"),
     "the lexicon has a line without a spelling: 'a'"),
    (1, f"w2ltune: error: old\n{STARTED}now: t\nsh: 1: x: not found\n",
     "exit code 1; its last line: sh: 1: x: not found"),
]  # fmt: skip


def test_every_excerpt_has_its_explanation() -> None:
    assert {path.stem for path in EXITS.iterdir()} == set(CAPTURED)


@pytest.mark.parametrize("name", CAPTURED)
def test_what_the_binaries_died_of(name: str) -> None:
    code, expected = CAPTURED[name]
    assert explain_exit(code, EXITS / f"{name}.txt") == expected
    by_subprocess = code if code < 128 else 128 - code
    assert explain_exit(by_subprocess, EXITS / f"{name}.txt") == expected


@pytest.mark.parametrize(("code", "text", "expected"), WRITTEN)
def test_other_ends(code: int, text: str, expected: str) -> None:
    assert explain_exit(code, text) == expected


@pytest.mark.parametrize("name", CAPTURED)
def test_load_failure(name: str) -> None:
    folder = {
        "err-t21_continue_nodir": "/asr/run/nosuchdir/000_model_last.bin",
        "err-t24_continue_truncated": "/asr/run/corr1/001_model_last.bin",
        "err-t25_continue_random": "/asr/run/corr2/001_model_last.bin",
        "err-t26_continue_zero": "/asr/run/corr3/001_model_last.bin",
    }.get(name)
    assert load_failure(EXITS / f"{name}.txt") == (Path(folder) if folder else None)


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        (NO_LOAD, True),  # killed while it waited for its next try
        (NO_LOAD + NO_LOAD + THROWN.format("no luck") + FRAMES, True),
        (NO_LOAD + INFO, False),
        (NO_LOAD + INFO + THROWN.format("other"), False),
        ("", False),
    ],
)
def test_a_load_that_went_well_in_the_end(text: str, failed: bool) -> None:
    assert load_failure(text) == (Path("/m.bin") if failed else None)


def test_the_longest_explanation_is_one_line_of_300() -> None:
    text = THROWN.format("word\t" * 200)
    explained = explain_exit(-6, text)
    assert len(explained) <= LONGEST
    assert explained.endswith("…")
    assert "\n" not in explained
    assert "\t" not in explained


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"w2ltune: error: old\n" + b"\xff" * TAIL_BYTES + b"\nERROR: new\n")
    assert explain_exit(1, log) == "new"


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert explain_exit(1, tmp_path / "none") == "exit code 1, and it said nothing"
    assert load_failure(tmp_path / "none") is None


def test_all_captured_deaths_are_explained(captures: Path) -> None:
    for path in captures.glob("err/t*.rc"):
        code = int(path.read_text())
        if code:
            explained = explain_exit(code, path.with_suffix(".stderr"))
            assert explained
            assert len(explained) <= LONGEST
            assert "SIGABRT" not in explained  # the reason stands in the log


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (-9, "", KilledError),
        (-15, INFO, KilledError),
        (137, "", KilledError),  # below a shell, as in a container
        (-9, "slurmstepd: error: Detected 1 oom-kill event(s)\n", KilledError),
        (-11, "", TrialFailedError),
        (1, "Traceback (most recent call last):\nOSError: [Errno 28] No space left on device\n",
         StorageError),
        (1, "Traceback (most recent call last):\nOSError: [Errno 116] Stale file handle: 'a'\n",
         StorageError),
        (75, "w2ltune: error: a.tsv: Input/output error; nothing finished is lost: …\n",
         StorageError),
        (-7, "", TrialFailedError),  # it may have been the disk
        (1, "no\n", TrialFailedError),
    ],
)  # fmt: skip
def test_whose_failure_it_is(tmp_path, code, text, kind):
    (tmp_path / "log").write_text(text)
    found = failure(code, tmp_path / "log", name="fl_asr_decode", kept=tmp_path / "kept")
    assert type(found) is kind
    assert str(found).startswith("fl_asr_decode: ")
    assert f"(log: {tmp_path}/kept)" in str(found)
    assert str(found).count("nothing finished is lost") == (kind is StorageError)
