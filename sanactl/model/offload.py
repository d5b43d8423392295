"""Models that wait in the CPU's memory and come to a GPU for their work, by the hooks of accelerate and diffusers.

Results are bit for bit the same.

What decides the details, in diffusers' and accelerate's sources:

- Their hooks are in a module's `forward`. The autoencoder decodes by `decode`, not by its `forward`. For whole modules that is
  no matter, because `decode` asks for accelerate's hook. For groups, the hooks have to be those of its decoder, whose
  `forward` is called for each image or tile. On the autoencoder itself, the hook that learns the order of the layers would
  wait for a call that never comes: nothing would be copied ahead, and its list would grow with each image.
- With a stream, a group keeps its weights in page-locked memory of the CPU for as long as it lives. So going back costs
  nothing, but this memory cannot be swapped, and torch keeps it for itself until its cache is emptied
  (`sanactl.model.memory.free_memory`). Only what computes is given groups; the autoencoder's encoder stays as it is.
- A group's hook cannot be compiled with its block: a compiled block would be left and entered again for each copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["OFFLOADS", "Offload", "check_offload", "compute_device"]

OFFLOADS = ("none", "model", "group")


def check_offload(offload: str, device: torch.device, *, compile: bool = False) -> None:
    """Refuse what does not exist, has no effect on a device, or excludes compiled blocks.

    Raises:
        UsageError: says what to do.
    """
    if offload not in OFFLOADS:
        raise UsageError(f"--offload takes none, model or group, not {offload}")
    if offload != "none" and device.type == "cpu":
        raise UsageError(
            f"--offload {offload} has no effect on a CPU",
            hint="leave it out; on a CPU the text encoder is freed before the transformer is loaded",
        )
    if offload == "group" and compile:
        raise UsageError(
            "--offload group and --compile exclude each other, since each block waits for its weights",
            hint="leave out --compile, or take --offload model",
        )


def compute_device(module: torch.nn.Module) -> torch.device:
    """The device on which a module computes. Its weights may be elsewhere until then."""
    found: torch.device | None = getattr(module, "sanactl_compute_device", None)
    return next(module.parameters()).device if found is None else found


class Offload:
    """Where a run's modules wait.

    Args:
        kind: of `OFFLOADS`. "model": a whole module comes to the device for its work, and goes back before the next one
            comes. "group": each block comes for its own work; on CUDA, the next one is copied meanwhile.
        device: where they compute.
    """

    def __init__(self, kind: str, device: torch.device) -> None:
        self.kind, self.device = kind, device
        self._here: Any = None  # accelerate's hook of the module that came last

    @property
    def load_on(self) -> torch.device:
        """The device to load a module on, before `place`."""
        import torch

        return self.device if self.kind == "none" else torch.device("cpu")

    def place(self, module: Any, *, blocks: bool = False, inside: str | None = None) -> Any:
        """The module with its hooks.

        Args:
            blocks: whether its layers are in a ModuleList, each for one group.
            inside: the name of the submodule that does all the work, if the module's own `forward` is not called.
        """
        if self.kind == "none":
            return module
        object.__setattr__(module, "sanactl_compute_device", self.device)
        if self.kind == "model":
            from accelerate import cpu_offload_with_hook

            module, hook = cpu_offload_with_hook(module, self.device)
            object.__setattr__(module, "sanactl_hook", hook)
            return module
        from diffusers.hooks import apply_group_offloading

        how: dict[str, Any] = {"offload_type": "leaf_level"}
        if blocks:
            how = {"offload_type": "block_level", "num_blocks_per_group": 1}
        apply_group_offloading(
            module if inside is None else getattr(module, inside),
            onload_device=self.device,
            use_stream=self.device.type == "cuda",
            **how,
        )
        return module

    def make_room(self, module: Any = None) -> None:
        """To be called before this module works: the one that worked before goes back to the CPU.

        Without a module it is for one that has no hooks, and needs the device for itself.
        """
        if module is None and self._here is not None:
            self._here.offload()
            self._here = None
        hook = getattr(module, "sanactl_hook", None)
        if hook is not None and hook is not self._here:
            if self._here is not None:
                self._here.offload()
            self._here = hook

    def forget(self, module: Any) -> None:
        """To be called when a module is freed."""
        if getattr(module, "sanactl_hook", None) is self._here:
            self._here = None
