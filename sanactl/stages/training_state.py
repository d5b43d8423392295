"""What a training run leaves behind when it is stopped: weights, optimizer, average and step, written whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.io.atomic import atomic_dir

if TYPE_CHECKING:
    import torch

__all__ = ["TrainingState"]

KEEP_LAST = 2


class TrainingState:
    """The state of one run, in a hidden folder beside its target.

    Args:
        target: the file that the run will write.
        identity: everything that the run's steps depend on. State of another identity is never loaded.
    """

    def __init__(self, target: Path, identity: dict[str, Any]) -> None:
        self.folder = target.with_name(f".{target.name}.training")
        # Saving more or less often does not change the steps.
        identity = {k: v for k, v in identity.items() if k != "save_every"}
        text = json.dumps(identity, sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()

    def save(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Any) -> None:
        """Writes the state after `step` steps, whole or not at all, and drops all but the last two."""
        import torch
        from safetensors.torch import save_file

        self.folder.mkdir(exist_ok=True)
        target = self.folder / f"step-{step:08d}"
        if target.exists():
            return
        with atomic_dir(target) as folder:
            save_file(model.state_dict(), folder / "model.safetensors")
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
            if average is not None:
                torch.save(average.state_dict(), folder / "average.pt")
            (folder / "state.json").write_text(json.dumps({"step": step, "key": self.key}))
        for old in self._saved()[:-KEEP_LAST]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Any) -> int:
        """Loads the newest state of this identity into its arguments; the number of steps done, or 0."""
        import torch
        from safetensors.torch import load_file

        for folder in reversed(self._saved()):
            try:
                meta = json.loads((folder / "state.json").read_text())
            except (OSError, ValueError):
                continue
            if meta.get("key") != self.key:
                continue
            try:
                device = str(next(model.parameters()).device)
                model.load_state_dict(load_file(folder / "model.safetensors", device=device))
                optimizer.load_state_dict(
                    torch.load(folder / "optimizer.pt", weights_only=True, map_location=device)
                )
                if average is not None:
                    average.load_state_dict(torch.load(folder / "average.pt", weights_only=True))
            except Exception as error:  # a damaged file fails in many ways; all mean the same to the user
                raise InputError(
                    f"{folder}: the saved state cannot be read ({str(error).splitlines()[0]})",
                    hint="delete it, or start again with --restart",
                ) from error
            return int(meta["step"])
        return 0

    def clear(self) -> None:
        """Removes every saved state."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []
