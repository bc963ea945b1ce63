"""One trial as a Ray Tune trainable."""
