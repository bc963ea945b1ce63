"""Which audio file of a list cannot be read, where the program does not say it."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from w2ltune.formats.audio import first_unreadable
from w2ltune.runs.explain import explain_exit

SAID = "  what():  loadSoundInfo: unknown format or could not open stream\n"


def make_list(folder: Path, sounds: list[str], name: str = "dev.lst") -> Path:
    (folder / "wav").mkdir(exist_ok=True)
    for sound in sounds:
        with wave.open(str(folder / sound), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(b"\0\1" * 800)
    rows = [f"u{n} {sound} 100 yes\n" for n, sound in enumerate(sounds)]
    (folder / name).write_text("".join(rows))
    return folder / name


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html><head>404", "begins with b'<html><head>', as no audio file does"),
        (b"version https://git-lfs", "begins with b'version http', as no audio file does"),
        (None, "cannot be opened (No such file or directory)"),
    ],
)
def test_the_file_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    sounds = [f"wav/{n}.wav" for n in range(150)]
    good, bad = make_list(tmp_path, sounds[:100], "a.lst"), make_list(tmp_path, sounds)
    assert first_unreadable([good, tmp_path / "none.lst", bad], tmp_path) == ""
    sound = tmp_path / sounds[149]
    sound.unlink()
    if content is not None:
        sound.write_bytes(content)
    assert first_unreadable([good, bad], tmp_path) == f"wav/149.wav of dev.lst {reason}"
    assert explain_exit(-6, SAID, lists=[good, bad], folder=tmp_path) == (
        f"wav/149.wav of dev.lst {reason} (loadSoundInfo: unknown format or could not open stream)"
    )


def test_without_a_cause_only_what_was_said_is_said(tmp_path: Path) -> None:
    good = make_list(tmp_path, ["wav/1.wav"])
    for lists in ([], [good]):
        assert explain_exit(134, SAID, lists=lists, folder=tmp_path) == (
            "an audio file cannot be read (loadSoundInfo: unknown format or could not open stream)"
        )
    (tmp_path / "wav/1.wav").write_bytes(b"")
    assert "wav" not in explain_exit(134, "  what():  other\n", lists=[good], folder=tmp_path)
