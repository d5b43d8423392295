"""What a training run leaves behind when it is stopped: weights, optimizer, average and step, written whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sanactl.errors import InputError
from sanactl.io.atomic import atomic_dir

if TYPE_CHECKING:
    import torch

__all__ = ["TrainingState", "identity_key"]


def identity_key(identity: dict[str, Any]) -> str:
    """A digest of everything that a run's steps depend on, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


class Stateful(Protocol):
    """What is trained, as a state sees it; a `torch.nn.Module` is one."""

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> Any: ...


@runtime_checkable
class HasExtra(Protocol):
    """One whose `state_dict` is not all that it needs."""

    def extra(self) -> dict[str, torch.Tensor]: ...

    def load_extra(self, extra: Mapping[str, torch.Tensor]) -> None: ...


class TrainingState:
    """The state of one run, in a hidden folder beside its target.

    Args:
        target: the file that the run will write.
        key: of the run, see `identity_key`. State of another key is never loaded.
        header: of the saved weights' file; with a checkpoint's (`header_of`) they are one that sanactl can open.
        keep_last: saved states that stay.

    Nothing in a state depends on the number of processes: any number goes on from it.

    Attributes:
        history: one entry a step, whatever the caller appends; saved and loaded with the rest.
        damaged: a line about each saved state that `load` could not read.
    """

    def __init__(
        self,
        target: Path,
        key: str,
        header: dict[str, str] | None = None,
        *,
        keep_last: int = 2,
    ) -> None:
        self.folder = target.with_name(f".{target.name}.training")
        self.key, self.header, self.keep_last = key, header, keep_last
        self.history: list[dict[str, Any]] = []
        self.damaged: list[str] = []

    def weights(self, step: int) -> Path:
        """Where the weights after `step` steps lie, if they are saved."""
        return self.folder / f"step-{step:08d}" / "model.safetensors"

    def newest(self) -> Path | None:
        """The weights of the newest saved state of this run."""
        saved = [f for f in self._saved() if self._key_of(f) == self.key]
        return saved[-1] / "model.safetensors" if saved else None

    def save(self, step: int, model: Stateful, optimizer: torch.optim.Optimizer, average: Any) -> None:
        """Writes the state after `step` steps, whole or not at all, and drops all but the last `keep_last`.

        What a `HasExtra` model has besides its `state_dict` is saved with it.
        """
        import torch

        from sanactl.diffusion.saving import write_tensors

        self.folder.mkdir(exist_ok=True)
        target = self.weights(step).parent
        if self._key_of(target) == self.key:
            return
        with atomic_dir(target, force=True) as folder:
            write_tensors(model.state_dict(), folder / "model.safetensors", self.header or {"format": "pt"})
            extra = model.extra() if isinstance(model, HasExtra) else {}
            if extra:
                write_tensors(extra, folder / "extra.safetensors", {"format": "pt"})
            torch.save(optimizer.state_dict(), folder / "optimizer.pt")
            if average is not None:
                torch.save(average.state_dict(), folder / "average.pt")
            if self.history:
                (folder / "history.json").write_text(json.dumps(self.history))
            (folder / "state.json").write_text(json.dumps({"step": step, "key": self.key}))
        for old in [f for f in self._saved() if self._key_of(f) == self.key][: -self.keep_last]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, model: Stateful, optimizer: torch.optim.Optimizer, average: Any) -> int:
        """Loads the newest state of this identity that can be read into its arguments; the number of steps done, or 0.

        Raises:
            InputError: there are states, and none can be read.
        """
        import torch

        from sanactl.diffusion.tensors import read_tensors

        for folder in reversed(self._saved()):
            if self._key_of(folder) != self.key:
                continue
            try:
                step = int(json.loads((folder / "state.json").read_text())["step"])
                device = str(next(model.parameters()).device)
                model.load_state_dict(read_tensors(folder / "model.safetensors", device))
                if (folder / "extra.safetensors").exists():
                    assert isinstance(model, HasExtra), model
                    model.load_extra(read_tensors(folder / "extra.safetensors", device))
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
                self.damaged.append(f"{folder}: the saved state cannot be read ({first})")
                continue
            return step
        if self.damaged:
            raise InputError(self.damaged[0], hint="no other is there; start again with --restart")
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
