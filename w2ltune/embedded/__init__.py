"""What stands in for the C++ binaries where there are none."""
