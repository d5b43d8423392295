# Sourced by the other scripts: makes .venv on first use, installs sanactl into it, and puts it on PATH.
#
# With no environment this takes a few minutes, most of it downloads. SANACTL_VENV names another folder, or `active`:
# the environment that is active is taken as it is;
# sanactl_extras='[dev]', set before, adds what the tests need.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${SANACTL_VENV:-$root/.venv}
extras=${sanactl_extras:-}
stamp=$venv/.installed${extras:+-${extras//[^a-z]/}}

install() { "$venv/bin/pip" install --quiet --disable-pip-version-check -c "$root/constraints.txt" "$@" >&2; }

if [ "$venv" = active ]; then
  command -v sanactl >/dev/null || { echo "SANACTL_VENV=active, and there is no sanactl on PATH" >&2; exit 1; }
elif [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ] || [ "$root/constraints.txt" -nt "$stamp" ]; then
  echo "setting up $venv" >&2
  # torch by its exact version first: a range would take the CUDA build where a CPU build is at hand.
  if "${PYTHON:-python3}" -m venv "$venv" >&2 && install "$(grep '^torch==' "$root/constraints.txt")" &&
    install -e "$root$extras" && "$venv/bin/python" -c 'import sanactl, torch, diffusers, transformers'; then
    touch "$stamp"
  else
    echo "setting up failed: see the lines above (a network and Python 3.10 or newer are needed)" >&2
    exit 1
  fi
fi
[ "$venv" = active ] || PATH=$venv/bin:$PATH
export PATH

# A recipe works in a folder of its own, and paths that it is given are from where it was started.
from_here() { # from_here VARIABLE...: makes paths absolute where they are there, behind mask2former: and mplug: as well
  local variable value prefix
  for variable in "$@"; do
    value=${!variable:-} prefix=
    case $value in mask2former:*|mplug:*) prefix=${value%%:*}: ;; esac
    if [ -e "${value#"$prefix"}" ]; then printf -v "$variable" %s "$prefix$(realpath "${value#"$prefix"}")"; fi
  done
}
