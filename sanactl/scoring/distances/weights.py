"""The public weights of the FID's InceptionV3: where they may be, and whether they are what they should be."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.files.json_values import shown
from sanactl.files.paths import user_path
from sanactl.files.regular import open_regular

if TYPE_CHECKING:
    from sanactl.scoring.distances.inception import InceptionV3

__all__ = ["InceptionWeights", "find_weights"]

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
# How the sha256 of the public file begins, as its name says.
OFFICIAL = "6726825d"
# torch-fidelity stores the same file under another name.
NAMES = (FILE, "weights-inception-2015-12-05-6726825d.pth")
# The real file has 96 MB.
_MAX_BYTES = 1 << 30
_HASH = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
# Not used by any score: the classifier, and counters of training.
_UNUSED = re.compile(r"fc\.(weight|bias)|.*\.num_batches_tracked|AuxLogits\..*")


@dataclass(frozen=True)
class InceptionWeights:
    """A file of weights.

    Attributes:
        path: the file.
        sha256: of its bytes, in hexadecimal.
        label: "inception-2015-12-05" for the public weights, else "inception:NAME".
    """

    path: Path
    sha256: str
    label: str

    def load(self, features: int) -> InceptionV3:
        """The network in evaluation mode, float32, on the CPU.

        Raises:
            InputError: the file is not a state dict of this network.
        """
        import torch

        from sanactl.model.guard import reading
        from sanactl.scoring.distances.inception import InceptionV3

        with open_regular(self.path, most=_MAX_BYTES, what="weights") as stream, reading(f"{self.path}"):
            stored = torch.load(stream, map_location="cpu", weights_only=True)
        with torch.device("meta"):
            network = InceptionV3(features)
        wanted = {
            name: tensor for name, tensor in network.state_dict().items() if not _UNUSED.fullmatch(name)
        }
        self._check(stored, {name: tuple(tensor.shape) for name, tensor in wanted.items()})
        network.load_state_dict({name: stored[name].float() for name in wanted}, strict=False, assign=True)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.num_batches_tracked = None
        return network.eval().requires_grad_(False)

    def _check(self, stored: Any, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Raises InputError for the first tensor that is missing, not expected, of another shape or not finite."""
        import torch

        hint = f"the public file is {FILE}, {URL}"
        if not isinstance(stored, Mapping) or not all(isinstance(t, torch.Tensor) for t in stored.values()):
            raise InputError(f"{self.path}: not a file of named tensors", hint=hint)
        for name, shape in wanted.items():
            if name not in stored:
                raise InputError(f"{self.path} lacks the tensor {name} of the FID's InceptionV3", hint=hint)
            if tuple(stored[name].shape) != shape:
                has = tuple(stored[name].shape)
                raise InputError(
                    f"{self.path}: {name} has the shape {has}, the FID's has {shape}",
                    hint=f"torchvision's Inception is another network; {hint}",
                )
            if not stored[name].is_floating_point() or not bool(torch.isfinite(stored[name]).all()):
                raise InputError(f"{self.path}: {name} holds values that are no finite numbers", hint=hint)
        for name in stored:
            if name not in wanted and not _UNUSED.fullmatch(str(name)):
                raise InputError(
                    f"{self.path}: the tensor {shown(str(name))} is none of the FID's InceptionV3", hint=hint
                )


def find_weights(given: str | None) -> InceptionWeights:
    """The weights that are named, else those in the cache of torch.hub, where pytorch-fid and torch-fidelity keep them.

    Args:
        given: a file, or the beginning of its sha256 (8 digits and more) for a file of that hash in the cache.

    Raises:
        InputError: there is no such file, or its sha256 is not what its name says.
        UsageError: none is given and none is in the cache.
    """
    import torch

    cache = Path(torch.hub.get_dir()) / "checkpoints"
    if given is None:
        path = next((cache / name for name in NAMES if (cache / name).is_file()), None)
        if path is None:
            raise UsageError(
                f"no weights of InceptionV3: {FILE} is not in {cache}",
                hint=f"download {URL} and give it with --weights FILE",
            )
    elif re.fullmatch("[0-9a-f]{8,64}", given) and not user_path(given).exists():
        found = sorted(cache.glob("*.pth")) if cache.is_dir() else []
        path = next((p for p in found if (m := _HASH.search(p.name)) and given.startswith(m[1])), None)
        if path is None:
            raise InputError(f"no file of the hash {given} is in {cache}", hint="give the file itself")
    else:
        path = user_path(given)
    sha256 = _sha256(path)
    named = _HASH.search(path.name)
    promised = [named[1]] if named is not None else []
    promised += [given] if given is not None and re.fullmatch("[0-9a-f]{8,64}", given) else []
    if not all(sha256.startswith(beginning) for beginning in promised):
        raise InputError(
            f"{path}: its sha256 begins with {sha256[:8]}, and its name says {promised[0][:8]}",
            hint=f"download it again: {URL}",
        )
    official = sha256.startswith(OFFICIAL)
    return InceptionWeights(path, sha256, "inception-2015-12-05" if official else f"inception:{path.stem}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path, most=_MAX_BYTES, what="weights") as stream:
        try:
            while part := stream.read(1 << 20):
                digest.update(part)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()
