"""What recipes share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SETUP = Path(__file__).parents[2] / "recipes/setup.sh"


def test_paths_are_from_where_a_recipe_was_started(tmp_path: Path) -> None:
    (tmp_path / "two words").mkdir()
    (tmp_path / "file").touch()
    given = {
        "DATA": "two words",
        "DETECTOR": "mask2former:two words",
        "VQA": "mplug:file",
        "MODEL": "owner/name",
        "JUDGE": "nvila:owner/name",
        "PROMPTS": "",
    }
    script = '. "$0"; from_here "$@" UNSET; cd /; for name in "$@"; do printf "%s\\n" "${!name}"; done'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script, str(SETUP), *given],
        cwd=tmp_path,
        env={**os.environ, **given, "SANACTL_VENV": "active", "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path}/two words",
        f"mask2former:{tmp_path}/two words",
        f"mplug:{tmp_path}/file",
        "owner/name",
        "nvila:owner/name",
        "",
    ]
