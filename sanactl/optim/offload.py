"""An optimizer whose state lies in the machine's memory while the GPU computes gradients.

The step is the optimizer's own, on the GPU, for a few parameters at a time. Their state is copied there before and back
after, and the copies of one part run while another is computed. So the numbers are the same as without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["CHUNKS_THERE", "CHUNK_BYTES", "OffloadedState"]

# State of the parameters that are updated together. At 25 GB/s 256 MB take 10 ms, far more than the launch of a copy.
CHUNK_BYTES = 256 << 20
# Parts of the state on the device at one time: one under way there, one that is used, one on its way back.
CHUNKS_THERE = 3


class OffloadedState:
    """Keeps an optimizer's state on the CPU, in pinned memory where the parameters are on a GPU.

    It is used in place of the optimizer. `state_dict` has the form of the optimizer's own, on the CPU; each loads the
    other's.

    Args:
        optimizer: updates each parameter by itself, and leaves those without a gradient alone, as torch's do. Its state
            may be there already.
        chunk_bytes: about the size of the weights that are updated together, in bytes of fp32.

    A step that raises may have updated some parameters already; the training loop checks the gradients before.
    """

    def __init__(self, optimizer: Optimizer, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.optimizer, self.chunk_bytes = optimizer, chunk_bytes
        # Of each parameter the state's tensors that belong on its device, as they lie on the CPU.
        self._kept: dict[Tensor, dict[str, Tensor]] = {}
        self._copies = _Copies(self._device())
        self._send_all()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        """The optimizer's state, on the CPU once a step is over."""
        self._copies.wait()
        return self.optimizer.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self) -> None:
        """One step of the optimizer, over all parameters that have a gradient."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        gradients = {p: p.grad for p in parameters}
        chunks = list(self._chunks(parameters))
        for p in parameters:
            p.grad = None
        self._copies.begin()
        try:
            ahead = self._fetch(chunks[0]) if chunks else []
            for number, chunk in enumerate(chunks):
                here, ahead = ahead, self._fetch(chunks[number + 1]) if number + 1 < len(chunks) else []
                self._put(here)
                for p in chunk:
                    p.grad = gradients[p]
                self.optimizer.step()
                for p in chunk:
                    p.grad = None
                    self._send(p)
        finally:
            for p in parameters:
                p.grad = gradients[p]

    def state_dict(self) -> dict[str, Any]:
        self._copies.wait()
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state, of this or of the plain optimizer. It is never on the device as a whole."""
        self._copies.wait()
        self._kept.clear()
        self.optimizer.state.clear()
        with _on_cpu(self.optimizer):
            self.optimizer.load_state_dict(state_dict)
        self._send_all()

    def _device(self) -> torch.device:
        return next((p.device for group in self.param_groups for p in group["params"]), torch.device("cpu"))

    def _chunks(self, parameters: list[Tensor]) -> Iterator[list[Tensor]]:
        chunk: list[Tensor] = []
        size = 0
        for p in parameters:
            if chunk and size + 4 * p.numel() > self.chunk_bytes:
                yield chunk
                chunk, size = [], 0
            chunk.append(p)
            size += 4 * p.numel()
        if chunk:
            yield chunk

    def _fetch(self, chunk: list[Tensor]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Begins to copy the state of some parameters to their device."""
        return [(p, self._copies.there(self._kept[p])) for p in chunk if p in self._kept]

    def _put(self, fetched: list[tuple[Tensor, dict[str, Tensor]]]) -> None:
        """Gives the optimizer what was copied; operations from now on wait for the copies."""
        self._copies.ready()
        for p, tensors in fetched:
            self.optimizer.state[p].update(tensors)

    def _send(self, p: Tensor) -> None:
        """Begins to copy the state of a parameter to the CPU, and lets the optimizer hold the copy."""
        state = self.optimizer.state.get(p)
        if not state:
            return
        kept = self._kept.setdefault(p, {})
        for key, value in state.items():
            # Numbers, such as the step's, stay where the optimizer has them.
            if isinstance(value, Tensor) and value.ndim and value is not kept.get(key):
                kept[key] = self._copies.back(value, kept.get(key))
        state.update(kept)

    def _send_all(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self._send(p)
        self._copies.wait()


class _Copies:
    """Copies between the CPU and a device, each direction in a stream of its own where the device has streams."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._there: Any = None
        self._back: Any = None
        if device.type == "cuda":
            self._there, self._back = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def begin(self) -> None:
        """Before a step: what was sent back in the last one is on the CPU before it is copied again."""
        if self._there is not None:
            self._there.wait_stream(self._back)

    def there(self, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        """Begins to copy tensors to the device. They have to be used after `ready` only."""
        if self._there is None:
            return {key: value.to(self.device, copy=True) for key, value in kept.items()}
        with torch.cuda.stream(self._there):
            found = {key: value.to(self.device, non_blocking=True) for key, value in kept.items()}
        for value in found.values():
            # The allocator must not give its memory away before the device's own stream has used it.
            value.record_stream(torch.cuda.current_stream(self.device))
        return found

    def ready(self) -> Any:
        """What is called `there` before is there for all operations after."""
        if self._there is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._there)

    def back(self, value: Tensor, into: Tensor | None) -> Tensor:
        """Begins to copy a tensor to the CPU; what is returned has the numbers after `wait`.

        Args:
            into: a tensor on the CPU from an earlier call, which is used again.
        """
        if into is None:
            into = torch.empty(value.shape, dtype=value.dtype, pin_memory=self._back is not None)
        if self._back is None:
            return into.copy_(value)
        self._back.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._back):
            into.copy_(value, non_blocking=True)
        if value.is_cuda:
            value.record_stream(self._back)
        return into

    def wait(self) -> None:
        """Waits until all that was sent back is there."""
        if self._back is not None:
            self._back.synchronize()


@contextlib.contextmanager
def _on_cpu(optimizer: Optimizer) -> Iterator[None]:
    """Lets an optimizer load a state onto the CPU: it believes that its parameters are there.

    In their place are tensors of their shapes without memory.
    """
    places = [(group, list(group["params"])) for group in optimizer.param_groups]
    stand_ins: dict[Tensor, Tensor] = {}
    for group, parameters in places:
        for p in parameters:
            stand_ins[p] = torch.nn.Parameter(torch.empty((), dtype=p.dtype).expand(p.shape))
        group["params"] = [stand_ins[p] for p in parameters]
    real = {stand_in: p for p, stand_in in stand_ins.items()}
    try:
        yield
    finally:
        # Loading replaces the groups.
        for group in optimizer.param_groups:
            on_device = bool(group.get("fused") or group.get("capturable"))
            group["params"] = [real[p] for p in group["params"]]
            for p in group["params"]:
                loaded = optimizer.state.pop(stand_ins[p], None)
                if loaded is None:
                    continue
                optimizer.state[p] = {
                    key: value.to(p.device)
                    if on_device and isinstance(value, Tensor) and not value.ndim
                    else value
                    for key, value in loaded.items()
                }
