"""Hyperparameter sweeps for wav2letter / flashlight speech recognition."""

__version__ = "0.1.0"
