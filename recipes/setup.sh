# Sourced by the other scripts: makes .venv on first use, installs sanactl into it, and puts it on PATH.
#
# With no environment this takes a few minutes, most of it downloads. SANACTL_VENV names another folder.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${SANACTL_VENV:-$root/.venv}
extras=${1:-}
stamp=$venv/.installed${extras:+-${extras//[^a-z]/}}
if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ] || [ "$root/constraints.txt" -nt "$stamp" ]; then
  echo "setting up $venv" >&2
  "${PYTHON:-python3}" -m venv "$venv" >&2
  # torch by its exact version first: a range would take the CUDA build where a CPU build is at hand.
  "$venv/bin/pip" install --quiet --disable-pip-version-check "$(grep '^torch==' "$root/constraints.txt")" \
    -c "$root/constraints.txt" 2>&1 | grep -v '^WARNING: Location' >&2 || true
  "$venv/bin/pip" install --quiet --disable-pip-version-check -c "$root/constraints.txt" -e "$root$extras" \
    2>&1 | grep -v '^WARNING: Location' >&2 || true
  "$venv/bin/python" -c 'import sanactl, torch, diffusers, transformers' || {
    echo "setting up failed: see the lines above; is the network there?" >&2
    exit 1
  }
  touch "$stamp"
fi
PATH=$venv/bin:$PATH
export PATH
