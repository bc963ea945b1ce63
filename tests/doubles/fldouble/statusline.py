"""The line that a training logs at each report, and the row of wav2letter's 001_perf."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from fldouble.corpus import Sample
from fldouble.curve import Errors
from fldouble.flags import Flags


class Interval(NamedTuple):
    """What happened since the last report."""

    seconds: float
    updates: int
    samples: tuple[Sample, ...]
    world_size: int


def status_items(
    flags: Flags,
    *,
    epoch: int,
    updates: int,
    interval: Interval,
    train: Errors,
    valid: Mapping[str, Errors],
) -> list[tuple[str, str]]:
    """Return the keys and values of a status line in their order.

    wav2letter v0.2 has no scale factor, batch size and timestamp, and names the token error
    rate by --target.
    """
    is_flashlight = "target" not in flags.values
    token = "T" if is_flashlight else flags["target"][:1].upper()
    milliseconds = 1000 * interval.seconds / max(1, interval.updates)
    items = [
        ("epoch", f"{epoch:8d}"),
        ("nupdates", f"{updates:12d}"),
        ("lr", f"{flags['lr']:.6f}"),
        ("lrcriterion", f"{flags['lrcrit']:.6f}"),
    ]
    if is_flashlight:
        items.append(("scale-factor", f"{0:.6f}"))
    minutes, seconds = divmod(int(interval.seconds), 60)
    items.append(("runtime", f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"))
    shares = {"bch": 1.0, "smp": 0.01, "fwd": 0.3, "crit-fwd": 0.02, "bwd": 0.35, "optim": 0.1}
    items += [(f"{name}(ms)", f"{share * milliseconds:.2f}") for name, share in shares.items()]
    items += _errors("train", train, token)
    for tag in sorted(valid):
        items += _errors(tag, valid[tag], token)
        if is_flashlight and flags["lm"]:
            items.append((f"{tag}-WER-decoded", f"{0.8 * valid[tag].wer:5.2f}"))
    items += _sizes(interval, is_flashlight)
    if is_flashlight:
        items.append(("timestamp", time.strftime("%Y-%m-%d %H:%M:%S")))
    return items


def perf_texts(items: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the header and the row that wav2letter v0.2 writes to 001_perf."""
    header = "\t".join(["# date", "time", *(key for key, _ in items)])
    row = " ".join([time.strftime("%Y-%m-%d %H:%M:%S"), *(value for _, value in items)])
    return header, row


def _errors(tag: str, errors: Errors, token: str) -> list[tuple[str, str]]:
    return [
        ("loss" if tag == "train" else f"{tag}-loss", f"{errors.loss:10.5f}"),
        (f"{tag}-{token}ER", f"{errors.ter:5.2f}"),
        (f"{tag}-WER", f"{errors.wer:5.2f}"),
    ]


def _sizes(interval: Interval, is_flashlight: bool) -> list[tuple[str, str]]:
    samples, count = interval.samples, max(1, len(interval.samples))
    audio_seconds = sum(sample.milliseconds for sample in samples) / 1000 * interval.world_size
    letters = [len(sample.letters) for sample in samples]
    items = [
        ("avg-isz", f"{int(sum(sample.milliseconds for sample in samples) / 10 / count):03d}"),
        ("avg-tsz", f"{sum(letters) // count:03d}"),
        ("max-tsz", f"{max(letters, default=0):03d}"),
    ]
    if is_flashlight:
        items.append(("avr-batchsz", f"{len(samples) / max(1, interval.updates):7.2f}"))
    speed = f"{audio_seconds / interval.seconds:.2f}" if samples and interval.seconds else "n/a"
    return [*items, ("hrs", f"{audio_seconds / 3600:7.2f}"), ("thrpt(sec/sec)", speed)]
