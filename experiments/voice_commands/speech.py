"""Synthetic speech with noise, and its log-mel features."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 22050  # of espeak-ng's voices
HOP_SECONDS = 0.016
WINDOW_SECONDS = 0.032
FFT_LENGTH = 1024
BANDS = 20
LOWEST_HERTZ, HIGHEST_HERTZ = 80.0, 8000.0
LEVELS_PER_NAT = 4  # features are stored as 128 + 4 * (log energy - mean over the utterance)


@dataclass(frozen=True, kw_only=True)
class Voices:
    """The speakers of a list.

    Attributes:
        accents: Voices of espeak-ng.
        variants: Its voice variants (vocal tract and timbre).
        words_per_minute: Slowest and fastest speed.
        pitch: Lowest and highest base pitch, 0 to 99.
    """

    accents: tuple[str, ...]
    variants: tuple[str, ...]
    words_per_minute: tuple[int, int]
    pitch: tuple[int, int]


def speak(text: str, voices: Voices, random: np.random.Generator) -> np.ndarray:
    """Let espeak-ng say a text with a voice drawn at random.

    Returns:
        Samples, float64, standard deviation 1.
    """
    command = [
        "espeak-ng",
        "--stdout",
        f"-v{random.choice(voices.accents)}+{random.choice(voices.variants)}",
        f"-s{random.integers(*voices.words_per_minute)}",
        f"-p{random.integers(*voices.pitch)}",
        text,
    ]
    audio = subprocess.run(command, check=True, capture_output=True).stdout
    # Written to a pipe, the header's length is not right: the samples start after "data" + size.
    samples = np.frombuffer(audio[audio.index(b"data") + 8 :], dtype="<i2").astype(np.float64)
    return samples / samples.std()


def noise(
    kind: str, length: int, talkers: list[np.ndarray], random: np.random.Generator
) -> np.ndarray:
    """Return ``length`` samples of noise with standard deviation 1.

    Args:
        kind: ``white``, ``pink`` (power falls with 1/frequency) or ``babble`` (four talkers).
        length: Number of samples.
        talkers: Speech for babble.
        random: Source of randomness.
    """
    if kind == "babble":
        chosen = random.choice(len(talkers), 4, replace=False)
        samples = sum(
            np.resize(np.roll(talkers[i], random.integers(SAMPLE_RATE)), length) for i in chosen
        )
    else:
        samples = random.standard_normal(length)
    if kind == "pink":
        spectrum = np.fft.rfft(samples)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        samples = np.fft.irfft(spectrum, length)
    return samples / samples.std()


def mix(speech: np.ndarray, disturbance: np.ndarray, ratio_decibel: float) -> np.ndarray:
    """Add noise to speech at a signal-to-noise ratio; both have standard deviation 1."""
    return speech + disturbance * 10 ** (-ratio_decibel / 20)


def mel_filters() -> np.ndarray:
    """Return triangular filters, equally spaced on the mel scale, [bands, FFT bins]."""
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (LOWEST_HERTZ, HIGHEST_HERTZ))
    corners = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(FFT_LENGTH, 1 / SAMPLE_RATE)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.maximum(
        0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    )


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return log mel energies of every 16 ms, uint8 [frames, bands], mean 128 in each band."""
    hop, window = round(HOP_SECONDS * SAMPLE_RATE), round(WINDOW_SECONDS * SAMPLE_RATE)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, FFT_LENGTH)) ** 2
    energies = np.log(power @ mel_filters().T + 1e-3)
    levels = 128 + LEVELS_PER_NAT * (energies - energies.mean(0))
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)
