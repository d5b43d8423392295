"""`python -m sanactl`, so that `accelerate launch -m sanactl ...` and `torchrun -m sanactl ...` work."""

import sys

from sanactl.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
