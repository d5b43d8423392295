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
        header: of the saved weights' file; with a checkpoint's (`header_of`) they are one that sanactl can open.

    Attributes:
        history: one entry a step, whatever the caller appends; saved and loaded with the rest.
    """

    def __init__(self, target: Path, identity: dict[str, Any], header: dict[str, str] | None = None) -> None:
        self.folder = target.with_name(f".{target.name}.training")
        # Saving more or less often does not change the steps.
        identity = {k: v for k, v in identity.items() if k != "save_every"}
        text = json.dumps(identity, sort_keys=True, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self.header = header
        self.history: list[dict[str, Any]] = []

    def weights(self, step: int) -> Path:
        """Where the weights after `step` steps lie, if they are saved."""
        return self.folder / f"step-{step:08d}" / "model.safetensors"

    def save(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Any) -> None:
        """Writes the state after `step` steps, whole or not at all, and drops all but the last two."""
        import torch

        from sanactl.diffusion.saving import write_tensors

        self.folder.mkdir(exist_ok=True)
        target = self.weights(step).parent
        if self._key_of(target) == self.key:
            return
        with atomic_dir(target, force=True) as folder:
            write_tensors(model.state_dict(), folder / "model.safetensors", self.header or {"format": "pt"})
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
            if average is not None:
                torch.save(average.state_dict(), folder / "average.pt")
            if self.history:
                (folder / "history.json").write_text(json.dumps(self.history))
            (folder / "state.json").write_text(json.dumps({"step": step, "key": self.key}))
        for old in [f for f in self._saved() if self._key_of(f) == self.key][:-KEEP_LAST]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: Any) -> int:
        """Loads the newest state of this identity into its arguments; the number of steps done, or 0.

        Raises:
            InputError: the newest state is damaged.
        """
        import torch
        from safetensors.torch import load_file

        for folder in reversed(self._saved()):
            if self._key_of(folder) != self.key:
                continue
            try:
                step = int(json.loads((folder / "state.json").read_text())["step"])
                device = str(next(model.parameters()).device)
                model.load_state_dict(load_file(folder / "model.safetensors", device=device))
                optimizer.load_state_dict(
                    torch.load(folder / "optimizer.pt", weights_only=True, map_location=device)
                )
                if average is not None:
                    average.load_state_dict(
                        torch.load(folder / "average.pt", weights_only=True, map_location=device)
                    )
                if (folder / "history.json").exists():
                    self.history = json.loads((folder / "history.json").read_text())
            except Exception as error:  # a damaged file fails in many ways; all mean the same to the user
                first = next(iter(str(error).splitlines()), type(error).__name__)
                raise InputError(
                    f"{folder}: the saved state cannot be read ({first})",
                    hint="delete it, or start again with --restart",
                ) from error
            return step
        return 0

    def clear(self) -> None:
        """Removes every saved state."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key_of(self, folder: Path) -> str | None:
        """The identity of a saved state, or None where there is no whole one."""
        try:
            return str(json.loads((folder / "state.json").read_text())["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []
