"""A double of the C++ binaries for tests: it behaves as they do and trains nothing.

``fl_asr_train``, ``fl_asr_test`` (flashlight v0.3) and ``Train``, ``Test`` (wav2letter v0.2) take
the flags of the binaries, read and write their files, log their lines and die their deaths. What
they do was measured with flashlight v0.3.2. Errors of a training fall with the updates, the
faster the nearer --lr is to 0.01.

Environment, for tests:

=====================  =========================================================================
DOUBLE_UPDATE_SECONDS  what an update takes (0.002)
DOUBLE_START_SECONDS   what reading the data takes before the first epoch (0)
DOUBLE_VALID_SECONDS   what each evaluation takes (0)
DOUBLE_PHASE_FILE      1: keep "starting|training|validating|writing EPOCH UPDATES" in rundir/phase
DOUBLE_PAYLOAD_BYTES   size of a model file after its head (200000)
DOUBLE_WRITE_SECONDS   what writing a model file takes, so that it can be killed within (0)
DOUBLE_RETRY_SECONDS   first wait after a file could not be read or written; doubled each time (1)
DOUBLE_CRASH_AT_UPDATE die of SIGABRT in that update, instead of finishing it
DOUBLE_CRASH_ONCE      a file: crash only if it does not exist, and create it
DOUBLE_HANG_AT_UPDATE  stand still for ever in that update
DOUBLE_HANG_ONCE       a file: hang only if it does not exist, and create it
DOUBLE_HOLD_AT_UPDATE  stand still in that update as long as there is the file DOUBLE_HOLD
DOUBLE_IGNORE_TERM     1: SIGTERM does nothing
DOUBLE_GRANDCHILD      1: leave a sleeping child that ignores SIGTERM; "setsid": in its own session
DOUBLE_PEER_SECONDS    how long after the death of a rank the others abort (0.5)
DOUBLE_PEER_HANG       1: they hang instead
=====================  =========================================================================

glog's files are written to --log_dir, GLOG_log_dir or TMPDIR; unlike glog's, never to /tmp unasked.
"""
