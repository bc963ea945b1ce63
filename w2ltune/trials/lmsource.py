"""Where LM scores come from: KenLM, a neural causal LM, or a program of the user's."""

from __future__ import annotations

import math
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from w2ltune.embedded.causallm import CausalLM
from w2ltune.embedded.kenlm import SentenceLM
from w2ltune.errors import TrialFailedError, UsageError
from w2ltune.runs.explain import failure
from w2ltune.runs.process import Program, start
from w2ltune.trials.staging import stage

COLUMNS = 3
"""Of scores: log probability, unknown units, units (words, letters or tokens; 0 of a program)."""

Scorer: TypeAlias = Callable[[Sequence[str]], npt.NDArray[np.float64]]
"""Takes sentences, returns float64 [sentences, COLUMNS]."""

LAST_LINES = 3
LAST_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class LMSource:
    """How sentences are scored; small, and sent to each worker.

    Attributes:
        kind: What scores.
        model: The file, the model's name, or the command line.
        unit: What KenLM takes as its words.
        word_boundary: The letter that follows each word; "" for none.
        batch_tokens: Tokens of a batch of the causal LM.
        cores: Of a worker.
        folder: Where the program runs.
    """

    kind: Literal["kenlm", "causal", "command"]
    model: str
    unit: str = "words"
    word_boundary: str = "|"
    batch_tokens: int = 4096
    cores: int = 1
    folder: str = "."

    def origin(self) -> dict[str, Any]:
        """Return all that the scores depend on besides the sentences, fit for JSON.

        Raises:
            UsageError: The command line cannot be read.
        """
        if self.kind == "command":
            words = command_words(self.model)
            found = {*words, *(word.partition("=")[2] for word in words)} - {"", "."}
            places = {word: _state(Path(self.folder, word)) for word in sorted(found)}
            files = {word: state for word, state in places.items() if state}
            return {"command": words, "files": files}
        state = _state(Path(self.model))
        # A folder may be moved with all that is in it.
        origin = {"model": Path(self.model).name if state else self.model, "state": state}
        if self.kind == "causal":
            return {"causal_lm": origin}
        if self.unit == "letters":
            return {"lm": origin, "unit": self.unit, "word_boundary": self.word_boundary}
        return {"lm": origin, "unit": self.unit}

    def units(self, sentence: str) -> list[str]:
        """Return what KenLM takes as the words of a sentence.

        Example:
            >>> LMSource(kind="kenlm", model="lm.arpa", unit="letters").units("so it")
            ['s', 'o', '|', 'i', 't', '|']
        """
        words = sentence.split(" ") if sentence else []
        if self.unit == "words":
            return words
        end = [self.word_boundary] if self.word_boundary else []
        return [letter for word in words for letter in (*word, *end)]

    def vocabulary(self, sentences: Iterable[str]) -> list[str]:
        """Return all that a worker must know of the sentences before it scores some of them."""
        if self.kind != "kenlm":
            return []
        return list(dict.fromkeys(unit for text in sentences for unit in self.units(text)))

    def load(self, vocabulary: Sequence[str], scratch: Path) -> Scorer:
        """Load the LM.

        Args:
            vocabulary: As `vocabulary` returned it.
            scratch: A folder of this node.

        Raises:
            UsageError: It cannot be loaded.
        """
        if self.kind == "causal":
            causal = CausalLM(self.model, batch_tokens=self.batch_tokens, threads=self.cores)
            return causal.score
        if self.kind == "kenlm":
            model = SentenceLM(stage(Path(self.model), scratch), vocabulary)
            return lambda sentences: model.score([self.units(text) for text in sentences])
        return lambda sentences: run_command(self, sentences, scratch)


def command_words(command: str) -> list[str]:
    """Split a command line as a shell would; no shell ever sees it.

    Raises:
        UsageError: It is empty, or a quote is not closed.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command={command!r}: {error}") from None
    if not words:
        raise UsageError("--command is empty; give a program and its arguments")
    return words


def run_command(
    source: LMSource, sentences: Sequence[str], scratch: Path
) -> npt.NDArray[np.float64]:
    """Let the user's program score sentences.

    Args:
        source: The command, which may hold ``{input}`` and ``{output}``.
        sentences: One a line.
        scratch: A folder of this node.

    Raises:
        UsageError: The program is missing, or may not be run.
        TrialFailedError: It failed, or did not give one score for each sentence.
        StorageError: It found no room, or the disk failed.
    """
    with tempfile.TemporaryDirectory(prefix="lm-", dir=scratch) as name:
        folder = Path(name)
        texts, scores, log = folder / "sentences.txt", folder / "scores.txt", folder / "log"
        texts.write_text("".join(f"{text}\n" for text in sentences), encoding="utf-8", newline="\n")
        words = command_words(source.model)
        reads = any("{input}" in word for word in words)
        writes = any("{output}" in word for word in words)
        program = Program(
            arguments=tuple(
                word.replace("{input}", str(texts)).replace("{output}", str(scores))
                for word in words
            ),
            log=log,
            folder=Path(source.folder),
            environment={"OMP_NUM_THREADS": str(source.cores)} if source.cores > 1 else {},
            stdin=None if reads else texts,
            stdout=None if writes else scores,
        )
        with start(program) as child:
            code = child.wait() or 0
        if code:
            fault = failure(code, log, name=words[0])
            raise type(fault)(f"{fault}{_last_lines(log) or _last_lines(scores, skip=0)}")
        found = np.zeros((len(sentences), COLUMNS))
        found[:, 0] = _read_scores(scores, sentences, log)
        return found


def _read_scores(path: Path, sentences: Sequence[str], log: Path) -> list[float]:
    """Return the last field of each line."""
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise TrialFailedError(
            f"the program wrote no scores to {{output}} ({error.strerror}){_last_lines(log)}"
        ) from None
    lines = content.removesuffix("\n").split("\n") if content else []
    if len(lines) != len(sentences):
        empty = sum(not text for text in sentences)
        note = f" ({empty} of them empty, which take a score too)" if empty else ""
        raise TrialFailedError(
            f"the program gave {len(lines)} lines for {len(sentences)} sentences{note}; it must "
            f"give one for each, the score last{_last_lines(log)}"
        )
    scores = []
    for number, (line, sentence) in enumerate(zip(lines, sentences, strict=True), start=1):
        try:
            scores.append(float(line.split()[-1]))
            if not math.isfinite(scores[-1]):
                raise ValueError
        except (ValueError, IndexError):
            raise TrialFailedError(
                f"line {number} of the program's answer, {line[:60]!r}, does not end with a finite "
                f"score (the sentence is {sentence[:60]!r})"
            ) from None
    return scores


def _last_lines(log: Path, *, skip: int = 1) -> str:
    """Return the last words of a program; the first line of its log is ours."""
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[skip:]
    said = " / ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip())
    return f"; it said last: {said[-LAST_CHARACTERS:]}" if said else ""


def _state(path: Path) -> list[int]:
    """Return size and time of a file, or of the files of a folder; nothing for anything else."""
    try:
        if path.is_file():
            stats = [path.stat()]
        elif path.is_dir():
            stats = [entry.stat() for entry in os.scandir(path) if entry.is_file()]
        else:
            return []
    except OSError:
        return []
    return [sum(stat.st_size for stat in stats), max((s.st_mtime_ns for s in stats), default=0)]
