"""What a training run saves so that it can be resumed: weights, optimizer, average and step, written whole.

A damaged state (`sanactl.training.saved`) is never loaded, and does not count among those that are kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.files.atomic import atomic_dir
from sanactl.files.content import json_digest
from sanactl.model.processes import broadcast, open_processes
from sanactl.training.saved import Saved, checksum, list_saved, set_aside

if TYPE_CHECKING:
    import torch

    from sanactl.training.stored import Stateful

__all__ = ["TrainingState", "identity_key", "state_folder"]


def identity_key(identity: dict[str, Any]) -> str:
    """A digest of everything that a run's steps depend on, 64 hexadecimal digits."""
    return json_digest(identity)


class TrainingState:
    """The state of one run, in a hidden folder beside its target.

    Args:
        target: the file that the run will write.
        key: of the run, see `identity_key`. State of another key is never loaded.
        header: of the saved weights' file; with a checkpoint's (`header_of`) they are one that sanactl can open.
        keep_last: how many saved states are kept. Only good ones count.

    Nothing in a state depends on the number of processes: any number goes on from it.

    Attributes:
        history: one entry a step, whatever the caller appends; saved and loaded with the rest.
        damaged: a line about each saved state that was found damaged and set aside.
    """

    def __init__(
        self,
        target: Path,
        key: str,
        header: dict[str, str] | None = None,
        *,
        keep_last: int = 2,
    ) -> None:
        self.folder = state_folder(target)
        self.key, self.header, self.keep_last = key, header, keep_last
        self.history: list[dict[str, Any]] = []
        self.damaged: list[str] = []

    def weights(self, step: int) -> Path:
        """Where the weights after `step` steps lie, if they are saved."""
        return self.folder / f"step-{step:08d}" / "model.safetensors"

    def newest(self) -> Path | None:
        """The weights of the newest good saved state of this run."""
        good = self._good()
        return self.weights(good[-1].step) if good else None

    def save(self, step: int, model: Stateful, optimizer: torch.optim.Optimizer, average: Any) -> None:
        """Writes the state after `step` steps, whole or not at all, and drops all but the last `keep_last` good ones.

        What a `HasExtra` model has besides its `state_dict` is saved with it. If the model is sharded, every process calls
        this and the first one writes, with one tensor after the other.
        """
        from sanactl.training.sharding import any_sharded
        from sanactl.training.stored import write_parts

        sharded = any_sharded(model.parameters())
        writes = not sharded or open_processes().is_main_process
        if sharded:
            if broadcast(writes and self._is_there(step)):
                return
        elif self._is_there(step):
            return
        if not writes:
            write_parts(None, model, optimizer, average, {})
            return
        self.folder.mkdir(exist_ok=True)
        target = self.weights(step).parent
        if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
            set_aside(target)  # another program's file with the name of a state
        with atomic_dir(target, force=True) as folder:
            write_parts(folder, model, optimizer, average, self.header or {"format": "pt"})
            if self.history:
                (folder / "history.json").write_text(json.dumps(self.history))
            files = {path.name: [path.stat().st_size, checksum(path)] for path in sorted(folder.iterdir())}
            about = {"step": step, "key": self.key, "files": files}
            (folder / "state.json").write_text(json.dumps(about))
        for old in self._good()[: -self.keep_last]:
            shutil.rmtree(old.folder, ignore_errors=True)

    def _is_there(self, step: int) -> bool:
        return any(saved.step == step for saved in self._good())

    def find(self) -> int:
        """The step of this run's newest saved state that is not damaged; 0 if there is none. All its bytes are checked.

        Newer states that are damaged are renamed, so that they are not found again, and listed in `damaged`.

        Raises:
            InputError: there are states, and all are damaged. They are not renamed.
        """
        bad: list[tuple[Saved, str]] = []
        for saved in reversed(list_saved(self.folder)):
            if saved.key not in (self.key, None):
                continue
            fault = saved.fault(whole=True)
            if fault is None:
                for each, what in bad:
                    aside = set_aside(each.folder)
                    self.damaged.append(
                        f"{each.folder} is damaged ({what}) and was set aside as {aside.name}"
                    )
                return saved.step
            bad.append((saved, fault))
        if bad:
            saved, fault = bad[0]
            raise InputError(
                f"{saved.folder}: the saved state is damaged ({fault})",
                hint="no other is there; start again with --restart",
            )
        return 0

    def load(
        self, model: Stateful, optimizer: torch.optim.Optimizer, average: Any, step: int | None = None
    ) -> int:
        """Loads a saved state into its arguments; the number of steps done, or 0.

        Args:
            step: of the state, as `find` gave it, which is asked by default; 0 loads none.

        Raises:
            InputError: as of `find`; or the state does not fit its arguments.
        """
        import torch

        from sanactl.training.stored import read_parts

        step = self.find() if step is None else step
        if not step:
            return 0
        folder = self.weights(step).parent
        try:
            read_parts(folder, model, optimizer, average)
            if (folder / "history.json").exists():
                self.history = json.loads((folder / "history.json").read_text())
        except torch.OutOfMemoryError:
            raise
        except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(
                f"{folder}: the saved state does not fit this run ({first})",
                hint="start again with --restart",
            ) from error
        return step

    def clear(self) -> None:
        """Removes every saved state and whatever else is in the folder.

        The folder itself stays for `TargetLock`, which has it locked and removes it at the end.
        """
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(self.folder)):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)

    def _good(self) -> list[Saved]:
        """The states of this run whose files are there in full length, oldest first."""
        return [
            saved
            for saved in list_saved(self.folder)
            if saved.key == self.key and saved.fault(whole=False) is None
        ]


def state_folder(target: Path) -> Path:
    """Where the state of the run that makes `target` lies until it is done."""
    return target.with_name(f".{target.name}.training")
