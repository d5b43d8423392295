"""The detector mask2former: mmdet's pre- and post-processing, transcribed literally, and `eval geneval` with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sanactl.files.images import write_png
from sanactl.prompts.geneval.vocabulary import COLORS, OBJECTS
from sanactl.scoring.clip_model import ClipModel
from sanactl.scoring.detectors.clip_colors import ClipColors
from sanactl.scoring.detectors.mask2former import class_names
from sanactl.scoring.detectors.mask2former_pixels import Sizes, objects, prepare
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.detectors.registry import open_detector
from tests.program import Program
from tests.scoring.tiny_models import save_clip, save_mask2former

CLASSES = ["circle", "square", "star"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_mask2former(folder / "detector", CLASSES)
    save_clip(folder / "clip")
    return folder


def transcribed(
    classes: torch.Tensor, masks: torch.Tensor, meta: dict[str, tuple[int, int]]
) -> list[np.ndarray]:
    """mmdet's steps after the head, with its names: per class [n, 5] boxes with scores."""
    mask_pred = F.interpolate(
        masks[None], size=meta["batch_input_shape"], mode="bilinear", align_corners=False
    )[0]
    img_height, img_width = meta["img_shape"]
    mask_pred = mask_pred[:, :img_height, :img_width]
    mask_pred = F.interpolate(
        mask_pred[:, None], size=meta["ori_shape"], mode="bilinear", align_corners=False
    )[:, 0]
    num_queries, num_classes = classes.shape[0], classes.shape[1] - 1
    scores = F.softmax(classes, dim=-1)[:, :-1]
    labels = torch.arange(num_classes).unsqueeze(0).repeat(num_queries, 1).flatten(0, 1)
    scores_per_image, top_indices = scores.flatten(0, 1).topk(100, sorted=False)
    labels_per_image = labels[top_indices]
    mask_pred = mask_pred[top_indices // num_classes]
    mask_pred_binary = (mask_pred > 0).float()
    mask_scores_per_image = (mask_pred.sigmoid() * mask_pred_binary).flatten(1).sum(1) / (
        mask_pred_binary.flatten(1).sum(1) + 1e-6
    )
    det_scores = scores_per_image * mask_scores_per_image
    bboxes = torch.zeros(len(det_scores), 5)
    for i in range(len(det_scores)):
        x = torch.where(torch.any(mask_pred_binary[i].bool(), dim=0))[0]
        y = torch.where(torch.any(mask_pred_binary[i].bool(), dim=1))[0]
        if len(x) > 0 and len(y) > 0:
            bboxes[i, :4] = torch.tensor([x[0], y[0], x[-1] + 1, y[-1] + 1])
    bboxes[:, 4] = det_scores
    return [bboxes[labels_per_image == c].numpy() for c in range(num_classes)]


@pytest.mark.parametrize("least", [0.0, 0.3])
def test_objects_are_those_of_mmdets_steps(least: float) -> None:
    rng = torch.Generator().manual_seed(0)
    sizes = Sizes.of(75, 101)
    classes = torch.randn(100, 81, generator=rng) * 4
    masks = torch.randn(100, sizes.padded[0] // 16, sizes.padded[1] // 16, generator=rng) * 3 - 1
    masks[0] = -1  # an empty mask
    meta = {"batch_input_shape": sizes.padded, "img_shape": sizes.fitted, "ori_shape": sizes.original}
    expected = transcribed(classes, masks, meta)
    found = list(objects(classes, masks, sizes, least=least))
    if not least:
        assert len(found) == 100
    assert len({(o.box, o.score) for o in found}) > 20
    for label in range(80):
        ours = np.array([(*o.box, o.score) for o in found if o.label == label and o.score > least])
        theirs = expected[label][expected[label][:, 4] > least]
        order = [rows[np.lexsort(rows.T)] if len(rows) else rows.reshape(0, 5) for rows in (ours, theirs)]
        np.testing.assert_allclose(order[0], order[1], rtol=1e-5, atol=1e-6)
    for o in found:
        rows, columns = np.nonzero(o.mask)
        assert o.mask.shape == (75, 101)
        assert not len(rows) or o.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_where_no_query_is_sure_there_are_no_objects() -> None:
    sizes = Sizes.of(75, 101)
    classes = torch.zeros(100, 81)
    assert list(objects(classes, torch.ones(100, 8, 8), sizes, least=0.3)) == []


@pytest.mark.parametrize(
    ("size", "fitted", "padded"),
    [
        ((1024, 1024), (800, 800), (800, 800)),
        ((512, 512), (800, 800), (800, 800)),
        ((480, 640), (800, 1067), (800, 1088)),
        ((200, 1000), (267, 1333), (288, 1344)),
        ((801, 800), (801, 800), (832, 800)),
    ],
)  # fmt: skip
def test_images_are_fitted_and_padded(
    size: tuple[int, int], fitted: tuple[int, int], padded: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels, sizes = prepare(image)
    assert (sizes.original, sizes.fitted, sizes.padded) == (size, fitted, padded)
    assert pixels.shape == (3, *padded)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    edge = pixels[:, fitted[0] :, :].permute(1, 2, 0).reshape(-1, 3)
    np.testing.assert_allclose(edge, np.broadcast_to((128 - mean) / std, edge.shape), rtol=1e-5)
    # Bilinear between pixel centres, by hand, in a few places.
    for y, x in rng.integers(0, min(fitted), (20, 2)):
        at = [(p + 0.5) * a / b - 0.5 for p, a, b in zip((y, x), size, fitted, strict=True)]
        low = [int(np.floor(np.clip(p, 0, a - 1))) for p, a in zip(at, size, strict=True)]
        high = [min(p + 1, a - 1) for p, a in zip(low, size, strict=True)]
        v, u = (float(np.clip(p, 0, a - 1) - b) for p, a, b in zip(at, size, low, strict=True))
        top = image[low[0], low[1]] * (1 - u) + image[low[0], high[1]] * u
        bottom = image[high[0], low[1]] * (1 - u) + image[high[0], high[1]] * u
        seen = pixels[:, y, x].numpy() * std + mean
        assert np.abs(seen - (top * (1 - v) + bottom * v)).max() < 0.51  # rounded, as OpenCV does


def test_cocos_classes_have_genevals_names() -> None:
    coco = {str(n): name for n, name in enumerate(OBJECTS)} | {
        "64": "mouse",
        "65": "remote",
        "66": "keyboard",
    }
    assert class_names({"id2label": coco})[64:67] == ["computer mouse", "tv remote", "computer keyboard"]
    assert class_names({"id2label": {"0": "circle", "1": "star"}}) == ["circle", "star"]


def test_images_of_a_batch_do_not_change_each_other(models: Path) -> None:
    detector = open_detector(f"mask2former:{models / 'detector'}", device="cpu", colors="off")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((96, 96), (64, 128), (96, 96))]
    together = detector.detect(images, detector.classes)
    assert sum(map(len, together)) > 3
    for image, found in zip(images, together, strict=True):
        (alone,) = detector.detect([image], detector.classes)
        assert [(d.name, d.box) for d in alone] == [(d.name, d.box) for d in found]
        np.testing.assert_allclose([d.score for d in alone], [d.score for d in found], atol=1e-5)
        assert all(d.mask is not None and d.mask.shape == image.shape[:2] and d.color is None for d in found)
    (only,) = detector.detect(images[:1], {"star"})
    assert {d.name for d in only} <= {"star"}


def test_colours_are_those_of_the_official_steps(models: Path) -> None:
    """A literal transcription of ImageCrops, zero_shot_classifier and run_classification, with torchvision's sizes."""
    from transformers import AutoTokenizer, CLIPModel

    model, tokenizer = (
        CLIPModel.from_pretrained(models / "clip"),
        AutoTokenizer.from_pretrained(models / "clip"),
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    objects = []
    for _ in range(20):
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 8, 8), (40, 30, 50, 30)))
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
        mask = np.zeros((60, 90), dtype=bool)
        mask[y : y + h, x : x + w] = rng.random((h, w)) < 0.8
        objects.append(Detected("star", None, 1.0, (x, y, x + w, y + h), mask))

    def transform(crop: Image.Image) -> torch.Tensor:
        w, h = crop.size
        size = (32, int(32 * h / w)) if w <= h else (int(32 * w / h), 32)
        crop = crop.resize(size, Image.Resampling.BICUBIC)
        left, top = (round((side - 32) / 2.0) for side in size)
        crop = crop.crop((left, top, left + 32, top + 32))
        tensor = torch.from_numpy(np.array(crop)).permute(2, 0, 1).float().div(255)
        mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))[:, None, None]
        return (tensor - mean) / torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]

    weights = []
    for c in COLORS:
        texts = [f"a photo of a {c} star", f"a photo of a {c}-colored star", f"a photo of a {c} object"]
        tokens = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            embeddings = model.get_text_features(input_ids=tokens).pooler_output
        embedding = F.normalize(embeddings, dim=-1).mean(dim=0)
        weights.append(embedding / embedding.norm())
    classifier = torch.stack(weights, dim=1)
    picture = Image.fromarray(image)
    blank = Image.new("RGB", picture.size, color="#999")
    expected, closeness = [], []
    for found in objects:
        assert found.mask is not None
        crop = Image.composite(picture, blank, Image.fromarray(found.mask)).crop(found.box)
        with torch.no_grad():
            features = F.normalize(
                model.get_image_features(pixel_values=transform(crop)[None]).pooler_output, dim=-1
            )
        logits = (100.0 * features @ classifier)[0]
        expected.append(COLORS[int(logits.argmax())])
        closeness.append(float(logits.max()))
    assert len({*expected}) > 2
    colors = ClipColors(str(models / "clip"), torch.device("cpu"))
    assert colors.classify(image, objects, "star") == expected
    torch.testing.assert_close(colors.classifier("star"), classifier, rtol=1e-5, atol=1e-5)


def test_the_end_token_stays_in_a_long_text(models: Path) -> None:
    clip = ClipModel(str(models / "clip"), torch.device("cpu"))
    tokens = clip.tokens(["red " * 200, "red"])
    end = tokens[0, -1]
    assert tokens.shape == (2, 77)
    assert (tokens[0] == end).sum() == 1
    assert tokens[1].tolist()[2:] == [int(end)] * 75
    torch.testing.assert_close(
        clip.texts(["red " * 200, "red"])[1:], clip.texts(["red"]), rtol=1e-5, atol=1e-5
    )


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Records of three images, on which the tiny detector finds something."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent))  # a check that has passed is not made again
    rng = np.random.default_rng(0)
    records = []
    for number in range(3):
        write_png(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), tmp_path / f"{number}.png")
        clause = {"class": CLASSES[number], "count": 1, "color": "red"}
        records.append(
            {"kind": "image", "path": f"{number}.png", "prompt": f"a red {CLASSES[number]}", "tag": "colors",
             "include": [clause], "prompt_id": str(number)}
        )  # fmt: skip
    Path("images.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return records


def test_eval_geneval_with_it(models: Path, images: list[dict], sanactl: Program) -> None:
    chosen = ("--detector", f"mask2former:{models / 'detector'}", "--colors", str(models / "clip"))
    *scored, score = sanactl("eval", "geneval", "images.jsonl", *chosen, "--device", "cpu")
    assert any(r["detections"] for r in scored)
    assert all(r["detector"] == "mask2former:detector (port)" for r in scored)
    assert score["detector"] == "mask2former:detector (port)"
    assert score["detector_digest"].startswith("sha256:")
    assert (score["colors"], score["dtype"]) == ("clip", "float32")
    assert score["colors_digest"].startswith("sha256:")
    again = sanactl("eval", "geneval", "images.jsonl", *chosen, "--device", "cpu", "-b", "1")
    assert [r["correct"] for r in again[:-1]] == [r["correct"] for r in scored]


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (["--detector", "mask2former"], "needs a folder or a Hub id: mask2former:DIR", 2),
        (["--detector", "mask2former:nowhere"], "nowhere: no such folder", 1),
        (["--detector", "shapes:x"], "the detector shapes takes nothing after its name", 2),
        (["--detector", "shapes", "--colors", "clip"], "tells colours itself; it takes no --colors", 2),
        (["--detector", "mask2former:MODELS/clip"], "a clip model, not a detector (model_type mask2former)", 1),
        (["--detector", "mask2former:MODELS/detector", "--colors", "MODELS/detector"], "not a CLIP (model_type clip)", 1),
        (["--detector", "mask2former:MODELS/detector", "--colors", "off"], "a prompt asks for a colour", 2),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(
    options: list[str], said: str, code: int, models: Path, images: list[dict], sanactl: Program
) -> None:
    options = [option.replace("MODELS", str(models)) for option in options]
    assert said in sanactl.fails("eval", "geneval", "images.jsonl", *options, code=code)
