"""The line of a training's log, to the letter as fl_asr_train v0.3 writes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from w2ltune.embedded.evaluation import Evaluation
from w2ltune.embedded.training import PHASES, Report

_SHORT = {"sample": "smp", "forward": "fwd", "criterion": "crit-fwd", "backward": "bwd"}


def format_report(
    report: Report,
    validation: Mapping[str, Evaluation],
    *,
    frame_milliseconds: float,
    now: datetime,
) -> str:
    """Return the line: validation lists by their tags, in the order to show."""
    count = len(report.batches)
    utterances = sum(batch.utterances for batch in report.batches)
    frames = sum(batch.frames for batch in report.batches)
    lengths = [length for batch in report.batches for length in batch.target_lengths]
    audio_seconds = frames * frame_milliseconds / 1000
    minutes, seconds = divmod(int(report.seconds), 60)
    fields = {
        "epoch": f"{report.epoch:8d}",
        "nupdates": f"{report.updates:12d}",
        "lr": f"{report.learning_rate:.6f}",
        "lrcriterion": f"{0:.6f}",
        "scale-factor": f"{0:.6f}",
        "runtime": f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}",
        "bch(ms)": f"{1000 * report.seconds / count:.2f}",
    }
    for position, phase in enumerate(PHASES):
        mean = sum(batch.seconds[position] for batch in report.batches) / count
        fields[f"{_SHORT.get(phase, 'optim')}(ms)"] = f"{1000 * mean:.2f}"
    fields |= _errors("", "train-", report.training)
    for tag, evaluation in validation.items():
        fields |= _errors(f"{tag}-", f"{tag}-", evaluation)
    fields |= {
        "avg-isz": f"{frames // utterances:03d}",
        "avg-tsz": f"{sum(lengths) // utterances:03d}",
        "max-tsz": f"{max(lengths):03d}",
        "avr-batchsz": f"{utterances / count:7.2f}",
        "hrs": f"{audio_seconds / 3600:7.2f}",
        "thrpt(sec/sec)": f"{audio_seconds / report.seconds:.2f}" if report.seconds else "n/a",
        "timestamp": f"{now:%Y-%m-%d %H:%M:%S}",
    }
    return " | ".join(f"{key}: {value}" for key, value in fields.items())


def _errors(loss: str, rate: str, evaluation: Evaluation) -> dict[str, str]:
    """Return loss and error rates in per cent; the words before the two kinds of key differ."""
    return {
        f"{loss}loss": f"{evaluation.loss:10.5f}",
        f"{rate}TER": f"{100 * evaluation.token_errors.wer:5.2f}",
        f"{rate}WER": f"{100 * evaluation.word_errors.wer:5.2f}",
    }
