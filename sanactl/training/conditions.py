"""Making a training step's inputs from positions of the data stream: latents, text embeddings and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sanactl.data.components import ENCODERS, component_identity, differing
from sanactl.data.encoded import EncodedData, padded
from sanactl.data.sources import ImageData
from sanactl.errors import InputError
from sanactl.files.progress import Progress
from sanactl.model.conditioning import pixels_per_latent
from sanactl.training.parts import process_parts
from sanactl.training.transfer import sent, to_send

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.data import TrainingData
    from sanactl.data.loader import ReadAhead
    from sanactl.model.cpu import Workers
    from sanactl.model.encoders import Encoders
    from sanactl.training.settings import FinetuneSettings

__all__ = ["Conditions"]


class Conditions:
    """Turns positions of the data stream into latents, text embeddings and masks, on the training device.

    Autoencoder and text encoder are loaded for images only: `EncodedData` needs neither, and they are released once a
    cache is filled. With `workers` a batch is cut into parts for these, see `sanactl.training.parts`.

    Attributes:
        encoders: None where latents and embeddings are there already, from `EncodedData` or in the cache.

    Raises:
        InputError: the data were encoded for another checkpoint.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: TrainingData,
        settings: FinetuneSettings,
        device: Any,
        workers: Workers | None = None,
    ) -> None:
        self.workers = workers
        self.data, self.settings, self.device, self.name = data, settings, device, str(checkpoint.path)
        self.channels, self.factor = int(checkpoint.config["in_channels"]), pixels_per_latent(checkpoint)
        self.patch = int(checkpoint.config.get("patch_size", 1))
        self.encoders: Encoders | None = None
        self.empty: torch.Tensor | None = None
        # Of a filled cache: latents by position, and embeddings by caption, since many images may share one.
        self.cached: dict[int, tuple[torch.Tensor, str]] = {}
        self.texts: dict[str, torch.Tensor] = {}
        self.cached_steps = 0
        self.ahead: ReadAhead | None = None
        if isinstance(data, EncodedData):
            check_encoded(data, checkpoint, settings)
        else:
            from sanactl.model.encoders import Encoders

            self.encoders = Encoders(
                checkpoint,
                max_sequence_length=settings.max_sequence_length,
                complex_human_instruction=settings.complex_human_instruction,
                device=device,
            )
            (self.empty,) = self.encoders.texts([""])

    def step(self, step: int) -> tuple[list[int], tuple[int, int, int]]:
        """Positions of a step's examples in the stream, and the shape [C, h, w] of each one's latents.

        With a cache, steps past its end begin again at its first.
        """
        if self.cached_steps:
            step %= self.cached_steps
        positions, (height, width) = self.data.step(step, self.settings.batch_size)
        if height % (self.factor * self.patch) or width % (self.factor * self.patch):
            raise InputError(
                f"{self.data.name}: images of {width} x {height} are no whole number of {self.name}'s latents"
            )
        return list(positions), (self.channels, height // self.factor, width // self.factor)

    def parts(self, positions: list[int], shape: tuple[int, int, int], state: Any) -> list[list[int]]:
        """The places in a batch that are one process's, in the parts that it computes.

        Args:
            positions, shape: as `step` gives them.
            state: who this process is: `process_index` and `num_processes`.
        """
        tokens = None if self.workers is None else shape[1] * shape[2] // self.patch**2
        mine = range(state.process_index, len(positions), state.num_processes)
        return process_parts(mine, self.settings.accumulate, tokens)

    def read_ahead(self, first: int, accelerator: Accelerator) -> None:
        """Starts `settings.workers` processes that read the images of the steps from `first` on.

        Encoded data are read in this process: that is a copy out of a file.
        """
        from sanactl.data.sources import TableSource

        if self.encoders is None or not isinstance(self.data, TableSource):
            return
        from sanactl.data.loader import ReadAhead, default_workers

        workers = self.settings.workers
        if workers is None:
            workers = default_workers(accelerator.device, accelerator.num_processes)
        if not workers:
            return

        def plan() -> Iterator[list[int]]:
            for step in range(first, self.settings.steps):
                positions, shape = self.step(step)
                for part in self.parts(positions, shape, accelerator):
                    yield [positions[i] for i in part]

        self.ahead = ReadAhead(self.data, plan, workers=workers, pinned=accelerator.device.type == "cuda")

    def long_captions(self) -> str | None:
        """A line about captions that are cut, or None. Those of encoded data were cut when they were encoded."""
        from sanactl.data.long_captions import long_captions_of
        from sanactl.data.sources import TableSource

        if self.encoders is None or not isinstance(self.data, TableSource):
            return None
        return long_captions_of(self.data.examples, self.encoders).note

    def close(self) -> None:
        """Ends the processes that read images."""
        if self.ahead is not None:
            self.ahead.close()
            self.ahead = None

    def fill_cache(self, progress: Progress) -> None:
        """Encodes the examples of the first steps, `settings.cache` of them or a few more, each process its share.

        Examples that the run's steps do not reach are left out. Autoencoder and text encoder are released afterwards.
        Encoded data need no cache.
        """
        import torch

        from sanactl.model.processes import open_processes

        if self.encoders is None:
            return
        processes, batch = open_processes(), self.settings.batch_size
        steps = min(-(-self.settings.cache // batch), self.settings.steps)
        known = {""}

        def read() -> Iterator[_Uncached]:
            for step in range(steps):
                positions = list(self.step(step)[0])[processes.process_index :: processes.num_processes]
                images, captions = self._images(positions)
                yield _Uncached(positions, images, captions, sorted(set(captions) - known))
                known.update(captions)

        progress.start(steps * batch, "encoding images")
        encode, run = partial(_encode, self.encoders), map if self.workers is None else self.workers.map
        for some, latents, texts in run(encode, read()):
            self.texts.update(zip(some.new, texts, strict=True))
            self.cached.update(zip(some.positions, zip(latents, some.captions, strict=True), strict=True))
            progress.advance(batch)
        progress.close()
        assert self.empty is not None
        self.cached_steps, self.encoders, self.empty = steps, None, self.empty.cpu()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def batch(
        self, positions: list[int], dropped: list[bool]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents [B, C, h, w], text [B, T, D] and mask [B, T]; a dropped caption is the empty prompt."""
        return self.read(positions, dropped)()

    def read(
        self, positions: list[int], dropped: list[bool]
    ) -> Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Reads what `batch` needs, in this thread; what is returned computes it, in any thread."""
        if self.encoders is None:
            latents, text, mask = (
                to_send(tensor, self.device) for tensor in self._encoded(positions, dropped)
            )
            return lambda: (sent(latents, self.device), sent(text, self.device), sent(mask, self.device))
        encoders = self.encoders
        images, captions = self._images(positions)

        def compute() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            texts = self._texts(encoders.texts, captions, dropped)
            text, mask = padded(texts, self._length(texts, self.settings.max_sequence_length))
            return encoders.latents(images), text.to(self.device), mask.to(self.device)

        return compute

    def _encoded(
        self, positions: list[int], dropped: list[bool]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `batch` gives, on the CPU, of data that were encoded before."""
        import torch

        if isinstance(self.data, EncodedData):
            return self.data.encoded(positions, dropped, self._length)
        cached = [self.cached[p] for p in positions]
        texts = self._texts(
            lambda captions: [self.texts[c] for c in captions], [c for _, c in cached], dropped
        )
        text, mask = padded(texts, self._length(texts, self.settings.max_sequence_length))
        return torch.stack([latents for latents, _ in cached]), text, mask

    def _images(self, positions: list[int]) -> tuple[NDArray[np.uint8] | torch.Tensor, list[str]]:
        if self.ahead is not None:
            return self.ahead.batch(positions)
        assert isinstance(self.data, ImageData), self.data
        return self.data.batch(positions)

    def _length(self, texts: Sequence[torch.Tensor], most: int) -> int:
        """The tokens that the texts of a part are padded to: the next of `TEXT_LENGTHS`, or all that there may be."""
        from sanactl.model.conditions import TEXT_LENGTHS

        longest = max(len(text) for text in texts)
        if self.settings.text_padding == "full" or not longest:
            return most
        return next((length for length in TEXT_LENGTHS if longest <= length < most), most)

    def _texts(
        self, embed: Callable[[list[str]], list[torch.Tensor]], captions: list[str], dropped: list[bool]
    ) -> list[torch.Tensor]:
        """The embeddings [tokens, D] of captions, by `embed`; a dropped one is the empty prompt."""
        assert self.empty is not None
        full = [c for c, drop in zip(captions, dropped, strict=True) if c and not drop]
        embedded = iter(embed(full) if full else [])
        return [
            next(embedded) if c and not drop else self.empty
            for c, drop in zip(captions, dropped, strict=True)
        ]


class _Uncached(NamedTuple):
    """A step's examples: their positions, images and captions, and those captions that are met for the first time."""

    positions: list[int]
    images: NDArray[np.uint8] | torch.Tensor
    captions: list[str]
    new: list[str]


def _encode(encoders: Encoders, some: _Uncached) -> tuple[_Uncached, torch.Tensor, list[torch.Tensor]]:
    """Latents of the images and embeddings of the new captions, on the CPU."""
    texts = encoders.texts(some.new) if some.new else []
    return some, encoders.latents(some.images).cpu(), [text.cpu() for text in texts]


def check_encoded(data: EncodedData, checkpoint: Checkpoint, settings: FinetuneSettings) -> None:
    """Refuses encoded data that a checkpoint cannot be trained on.

    Raises:
        InputError: they were made with another autoencoder or text encoder, at another size, or otherwise.
    """
    made, path = data.settings, checkpoint.path
    again = f"encode the images again: sanactl encode {path}"
    for part in ENCODERS:
        mine = component_identity(checkpoint, part)
        theirs = made["encoders"].get(part)
        if not isinstance(theirs, dict) or differing(mine, theirs):
            raise InputError(f"{data.name}: made with another {part} than {path} has", hint=again)
    wanted = {
        "resolution": [settings.height, settings.width],
        "factor": pixels_per_latent(checkpoint),
        "channels": int(checkpoint.config["in_channels"]),
        "text_width": int(checkpoint.config["caption_channels"]),
        "max_sequence_length": settings.max_sequence_length,
        "complex_human_instruction": settings.complex_human_instruction,
    }
    for field, value in wanted.items():
        if made[field] != value:
            raise InputError(
                f"{data.name}: made with {field.replace('_', ' ')} {made[field]}, where {path} has {value}",
                hint=again,
            )
