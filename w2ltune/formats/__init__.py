"""What wav2letter reads and writes, as plain data."""
