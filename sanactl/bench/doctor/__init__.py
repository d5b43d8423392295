"""What this machine can do, and whether its results can be trusted: the checks of `sanactl doctor`."""
