#!/usr/bin/env bash
# Makes the environment if it is not there, then checks the code and runs the tests. Arguments go to pytest.
set -euo pipefail
sanactl_extras='[dev]'
. "$(dirname "$0")/../recipes/setup.sh"
cd "$root"
ruff check .
ruff format --check .
mypy
# One worker a processor, four at most: many tests start processes of their own.
exec python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal "$@"
