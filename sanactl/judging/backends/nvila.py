"""The paper's judge, SaVILA (NVILA-Lite-2B-Verifier), without code of its repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.paths import utf8_name
from sanactl.judging.backends.places import nvila_folder
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.judging.dialogue import open_dialogue
from sanactl.judging.images import check_max_pixels, picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NvilaJudge"]

LICENCE = "CC-BY-NC 4.0"
_IMAGE, _VIDEO = "<image>", "<vila/video>"


class NvilaJudge(VlmJudge):
    """An NVILA with tiles of dynamic number. `VlmJudge` does the rest."""

    notice: str
    # The verifier was trained on one image at a time.
    choose = None  # type: ignore[assignment]

    @classmethod
    def load(  # type: ignore[override]
        cls,
        source: str,
        device: str | None = None,
        dtype: str | None = None,
        *,
        max_pixels: int = 0,
        dialogue: str = "reference",
    ) -> Any:
        """Loads the folder `llm/`, `vision_tower/`, `mm_projector/`, config.json.

        Args:
            source: the folder, or a Hub id `owner/name`.
            device: "cpu", "cuda", "cuda:1"...; by default the GPU if there is one.
            dtype: "fp32", "bf16" or "fp16"; by default bf16 on a GPU and fp32 on a CPU.
            max_pixels: larger images are made smaller before they are cut into tiles; 0 for no limit.
            dialogue: see `sanactl.judging.dialogue.open_dialogue`; by default the one of the reference's script.

        Raises:
            UsageError: no such device, dtype or dialogue.
            InputError: there is no such folder, or it holds another kind of model.
        """
        import numpy as np

        from sanactl.judging.backends.nvila_load import load_nvila
        from sanactl.judging.backends.vlm_load import files_of
        from sanactl.model.conditioning import pick_device
        from sanactl.model.guard import reading
        from sanactl.model.loading import resolve_dtype

        question, limit = open_dialogue(dialogue), check_max_pixels(max_pixels)
        chosen = pick_device(device)
        kind = resolve_dtype(dtype, chosen)
        place = nvila_folder(source)
        with utf8_name(str(place)) as folder:
            model, processor = load_nvila(Path(folder), device=chosen, dtype=kind)
        with reading(f"{source} as a judge"):
            judge = cls(model, processor, source, dialogue=question, max_pixels=limit)
            judge.score([np.zeros((64, 64, 3), dtype=np.uint8)], ["a red circle"])
        judge.identity |= {"files": files_of(place), "license": LICENCE}
        judge.folder = place
        judge.notice = (
            f"{source}: the weights of NVILA's verifier are under {LICENCE}, not for commercial use"
        )
        return judge

    def inputs(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> dict[str, Any]:
        import torch

        tiles = [self.processor.tiles(picture(image, self.max_pixels)) for image in images]
        texts = [
            self.processor.tokenizer(self._dialogue_text(prompt, len(t)), return_tensors="pt").input_ids[0]
            for prompt, t in zip(prompts, tiles, strict=True)
        ]
        return {
            "tiles": torch.cat(tiles).to(self.model.device, self.model.dtype),
            "counts": [len(t) for t in tiles],
            "texts": [ids.to(self.model.device) for ids in texts],
        }

    def _dialogue_text(self, prompt: str, tiles: int) -> str:
        """The dialogue as text, with a line of the image's token for each tile (`generate_content` of the reference)."""
        prompt = prompt.replace(_IMAGE, " ").replace(_VIDEO, " ")
        (turn,) = self.dialogue.conversation(prompt)
        text = ""
        for part in turn["content"]:
            if part["type"] == "image":
                text += (" " if text else "") + f"{_IMAGE}\n" * tiles
            else:
                # Within the paper's sentence there is a space on both sides of the image.
                text += (" " if text and not text.startswith(_IMAGE) else "") + part["text"]
        chat = [{"role": "user", "content": text.strip()}]
        return str(self.processor.tokenizer.apply_chat_template(chat, **self._chat))

    def _next_logits(self, inputs: dict[str, Any]) -> Any:
        logits = self.model.next_logits(**inputs)
        # Rows of the vocabulary beyond the tokenizer's are padding, which the reference cuts off.
        return logits[:, : len(self.processor.tokenizer)]
