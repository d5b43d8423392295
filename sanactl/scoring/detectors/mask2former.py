"""Mask2Former of transformers as a detector, run as mmdet runs it; colours by CLIP."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.prompts.geneval.vocabulary import OBJECTS
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.geneval.rules import CONFIDENCE

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sanactl.scoring.detectors.mask2former_pixels import Fit, Sizes

__all__ = ["CLIP", "Mask2FormerDetector"]

# What the official scorer tells colours with, in transformers.
CLIP = "openai/clip-vit-large-patch14"
MOST_SIDE = 16_384  # px; a larger picture would not fit into memory


class Mask2FormerDetector:
    """A Mask2Former from a folder (`sanactl convert-detector` makes that of GenEval) or the Hub.

    Objects of a score up to GenEval's confidence of 0.3, which count under none of its rules, are left out. The models
    are loaded when the first image comes. Other images of a batch change an object by float32's rounding at most.

    Args:
        source: a folder or a Hub id.
        device: where it runs; by default a GPU if there is one.
        dtype: fp32 by default, as in the official scorer, on every device.
        colors: the CLIP that tells colours, a folder or a Hub id; "off" for none. By default OpenAI's ViT-L/14.

    Raises:
        UsageError: no source is given, or there is no such device or dtype.
        InputError: there is no such model, or it is of another kind.
    """

    batch_size = 4

    def __init__(
        self,
        source: str = "",
        *,
        device: str | None = None,
        dtype: str | None = None,
        colors: str | None = None,
    ) -> None:
        from sanactl.model.conditioning import pick_device
        from sanactl.model.files import model_files
        from sanactl.model.loading import resolve_dtype
        from sanactl.scoring.detectors.clip_colors import ClipColors

        if not source:
            raise UsageError(
                "the detector mask2former needs a folder or a Hub id: mask2former:DIR",
                hint="sanactl convert-detector makes the folder of GenEval's detector",
            )
        self.files = model_files(source, ("mask2former",), "a detector")
        self.device = pick_device(device)
        self.dtype = resolve_dtype(dtype or "fp32", self.device)
        made = self.files.config.get("sanactl")
        official = isinstance(made, dict) and made.get("official") is True
        self.label = "mask2former-geneval" if official else f"mask2former:{self.files.name} (port)"
        self.digest = self.files.digest
        self.names = class_names(self.files.config)
        self.fit = fit_of(self.files.folder)
        self.classes = frozenset(self.names)
        self._colors = None if colors == "off" else ClipColors(colors or CLIP, self.device)
        self.facts: dict[str, Any] = {"dtype": str(self.dtype).removeprefix("torch.")}
        if self._colors is not None:
            self.facts |= {"colors": self._colors.clip.label, "colors_digest": self._colors.clip.digest}
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model, loaded at first use."""
        if self._model is None:
            from sanactl.model.files import load_model
            from sanactl.scoring.detectors.convert import WITHOUT_WEIGHTS

            self._model = load_model(
                self.files, "AutoModelForUniversalSegmentation", self.device, self.dtype, WITHOUT_WEIGHTS
            )
        return self._model

    def detect(self, images: Sequence[NDArray[np.uint8]], classes: Collection[str]) -> list[list[Detected]]:
        """The objects of each image; see `Detector.detect`."""
        from sanactl.scoring.detectors.mask2former_pixels import objects

        found = []
        for logits, masks, sizes in self.outputs(images):
            seen = objects(logits, masks, sizes, least=CONFIDENCE)
            named = [Detected(self.names[o.label], None, o.score, o.box, o.mask) for o in seen]
            found.append([d for d in named if d.name in classes])
        return found

    def outputs(self, images: Sequence[NDArray[np.uint8]]) -> list[tuple[torch.Tensor, torch.Tensor, Sizes]]:
        """Class logits [queries, classes + 1], mask logits [queries, height / 4, width / 4] and sizes of each image.

        Images of one padded size are computed together.
        """
        import torch

        from sanactl.model.files import exact_fp32
        from sanactl.scoring.detectors.mask2former_pixels import prepare

        model = self.model
        groups: dict[tuple[int, int], list[int]] = {}
        prepared = [prepare(image, self.device, self.fit) for image in images]
        for place, (_, sizes) in enumerate(prepared):
            groups.setdefault(sizes.padded, []).append(place)
        results: dict[int, tuple[torch.Tensor, torch.Tensor, Sizes]] = {}
        with torch.inference_mode(), exact_fp32():
            for places in groups.values():
                pixels = torch.stack([prepared[place][0] for place in places]).to(self.dtype)
                out = model(pixel_values=pixels)
                for row, place in enumerate(places):
                    logits, masks = out.class_queries_logits[row], out.masks_queries_logits[row]
                    results[place] = logits.float(), masks.float(), prepared[place][1]
        return [results[place] for place in range(len(images))]

    def colors(self, image: NDArray[np.uint8], objects: Sequence[Detected], name: str) -> list[str]:
        """The colours of objects; see `ColorClassifier.colors`."""
        if self._colors is None:
            raise UsageError(
                "a prompt asks for a colour, and --colors is off", hint=f"--colors {CLIP} tells colours"
            )
        return self._colors.classify(image, objects, name)

    def probe(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float64]]:
        """Class and mask probabilities of images, and CLIP's vectors of them; see `Checked.probe`."""
        import torch

        outputs = self.outputs(images)
        classes = torch.stack([logits.softmax(-1) for logits, _, _ in outputs])
        masks = torch.stack([masks.sigmoid().flatten(1) for _, masks, _ in outputs])
        found = {"class probabilities": classes.flatten(0, 1), "mask probabilities": masks}
        numbers = {name: tensor.double().cpu().numpy() for name, tensor in found.items()}
        return numbers | ({} if self._colors is None else self._colors.clip.probe(images))

    def moved(self, device: torch.device, dtype: torch.dtype) -> Mask2FormerDetector:
        """The same models elsewhere; see `Checked.moved`."""
        other = copy.copy(self)
        other.device, other.dtype, other._model = device, dtype, None
        if self._colors is not None:
            other._colors = copy.copy(self._colors)
            other._colors.clip = self._colors.clip.moved(device, dtype)
        return other


def class_names(config: dict[str, Any]) -> list[str]:
    """The name of each class by index: those of the config's id2label, and for COCO's 80 classes GenEval's.

    COCO's classes are known by their number and the first of them. Models on the Hub spell some of the others
    differently ("aeroplane"), in the same order.
    """
    names = config.get("id2label") or {}
    # transformers leaves out the names where they are LABEL_0 and LABEL_1.
    count = len(names) or int(config.get("num_labels") or 2)
    if count == len(OBJECTS) and names.get("0", OBJECTS[0]) in (OBJECTS[0], "LABEL_0"):
        return [*OBJECTS]
    return [str(names.get(str(number), f"LABEL_{number}")) for number in range(count)]


def fit_of(folder: Path) -> Fit:
    """What a detector's images are fitted into: `size` of its preprocessor_config.json, if that names the longer and
    the shorter side; else the official detector's 1333 x 800 px.

    Raises:
        InputError: the file is damaged, or the size makes no sense.
    """
    from sanactl.model.guard import read_json
    from sanactl.scoring.detectors.mask2former_pixels import OFFICIAL_FIT, Fit

    path = folder / "preprocessor_config.json"
    size = read_json(path).get("size") if path.is_file() else None
    if not isinstance(size, dict) or not {"longest_edge", "shortest_edge"} <= size.keys():
        return OFFICIAL_FIT
    long, short = size["longest_edge"], size["shortest_edge"]
    if not all(type(side) is int and 0 < side <= MOST_SIDE for side in (long, short)):
        raise InputError(
            f"{path}: size must be two whole numbers of 1 to {MOST_SIDE:,} px", hint="write the folder again"
        )
    return Fit(long, short)
