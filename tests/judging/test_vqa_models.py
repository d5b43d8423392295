"""Models that answer questions, tiny and with random weights, and a server, against computations of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sanactl.errors import InputError, UsageError
from sanactl.files.images import write_png
from sanactl.scoring.questions.protocol import Asked
from sanactl.scoring.questions.registry import open_answerer
from tests.judging.server import running
from tests.judging.tiny_models import qwen25_vl
from tests.program import Program

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[DEC]",
    "[ENC]",
    "is",
    "the",
    "circle",
    "red",
    "?",
    "yes",
    "no",
    "four",
    "4",
    "there",
    "a",
]
SMALL = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 2}
ASKED = [Asked("is the circle red ?", ("yes", "no")), Asked("is there a circle ?", ("four", "Yes"))]


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vqa")


@pytest.fixture(scope="module")
def vlm(folder: Path) -> Path:
    torch.manual_seed(0)
    return qwen25_vl(folder / "tiny-vlm")


def test_a_vision_language_model_gives_the_probability_of_the_first_token(
    vlm: Path, image: NDArray[np.uint8]
) -> None:
    from transformers import AutoModelForImageTextToText

    from sanactl.judging.backends.processors import load_processor

    answerer = open_answerer(str(vlm), device="cpu", options="max_pixels=1000")
    asked = [
        Asked("a photo of a red square", ("yes", "no"), "Please consider the prompt"),
        Asked("a blue heart", ("four", "Yes", "no")),
    ]
    found = answerer.answer(image, asked)
    processor, model = load_processor(str(vlm)), AutoModelForImageTextToText.from_pretrained(vlm)
    scale = math.sqrt(1000 / (40 * 50))
    small = Image.fromarray(image).resize((int(50 * scale), int(40 * scale)), Image.Resampling.LANCZOS)
    for one, probabilities in zip(asked, found, strict=True):
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": one.text}]}]
        text = processor.apply_chat_template(
            turn, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        inputs = processor(text=[text], images=[small], return_tensors="pt")
        with torch.no_grad():
            last = torch.softmax(model(**inputs).logits[0, -1].double(), dim=-1)
        words = {"yes": ["yes", "Yes"], "no": ["no", "No"], "four": ["four"], "Yes": ["yes", "Yes"]}
        ids = [processor.tokenizer.convert_tokens_to_ids(words[answer]) for answer in one.answers]
        assert probabilities == pytest.approx([float(last[i].sum()) for i in ids], rel=1e-4)
    alone = [answerer.answer(image, [one])[0] for one in asked]
    assert alone[0] == pytest.approx(found[0], rel=1e-4)
    assert answerer.label == "tiny-vlm"
    assert answerer.digest is not None and answerer.digest.startswith("sha256:")
    with pytest.raises(InputError, match="tiny-vlm: its tokenizer has no token for the answer 'hot dog'"):
        answerer.answer(image, [Asked("what is it?", ("hot dog",))])
    with torch.no_grad():
        next(answerer.model.model.parameters()).fill_(math.nan)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="gives NaN; run it in float32"):
        answerer.answer(image, asked)


def test_a_model_scores_dpg_through_the_command_line(
    vlm: Path, image: NDArray[np.uint8], sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_png(image, Path("x.png"))
    Path("images.jsonl").write_text('{"kind": "image", "path": "x.png", "prompt": "x", "item_id": "a"}\n')
    header = "item_id,text,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
    Path("table.csv").write_text(f"{header}\na,x,1,0,entity,whole,entity - whole (x),Is it a heart?\n")
    command = ("eval", "dpg", "images.jsonl", "--questions", "table.csv", "--device", "cpu", "--vqa", vlm)
    *_, score = sanactl(*command)
    assert (score["model"], score["dtype"], score["questions"]) == ("tiny-vlm", "float32", 1)
    assert score["model_digest"].startswith("sha256:")
    (line,) = Path("dpg.answers.jsonl").read_text().splitlines()
    yes, no = json.loads(line)["answers"][0][2].values()
    assert score["value"] == (100 if yes > no else 0)
    monkeypatch.setattr("sanactl.judging.vqa.vlm.VlmAnswers.answer", None)
    assert sanactl(*command, "--force")[-1] == score


def save_classes(folder: Path) -> None:
    """A ViLT and a BLIP."""
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForQuestionAnswering,
        BlipImageProcessorPil,
        BlipProcessor,
        ViltConfig,
        ViltForQuestionAnswering,
        ViltImageProcessorPil,
        ViltProcessor,
    )

    tokens = BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)})
    blip = BlipConfig(
        text_config={
            **SMALL, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "bos_token_id": 5, "eos_token_id": 3,
            "sep_token_id": 3, "pad_token_id": 0, "max_position_embeddings": 64,
        },
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )  # fmt: skip
    BlipForQuestionAnswering(blip).save_pretrained(folder / "blip")
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokens).save_pretrained(
        folder / "blip"
    )
    labels = {0: "no", 1: "yes", 2: "4"}
    vilt = ViltConfig(
        **SMALL, vocab_size=len(WORDS), image_size=32, patch_size=8, id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )  # fmt: skip
    ViltForQuestionAnswering(vilt).save_pretrained(folder / "vilt")
    ViltProcessor(ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=8), tokens).save_pretrained(
        folder / "vilt"
    )


def test_vilt_and_blip_give_the_probability_of_an_answer(folder: Path, image: NDArray[np.uint8]) -> None:
    from transformers import AutoProcessor, BlipForQuestionAnswering, ViltForQuestionAnswering

    torch.manual_seed(0)
    save_classes(folder)
    picture = Image.fromarray(image)
    for name, kind in (("vilt", ViltForQuestionAnswering), ("blip", BlipForQuestionAnswering)):
        found = open_answerer(str(folder / name), device="cpu").answer(image, ASKED)
        model, processor = kind.from_pretrained(folder / name), AutoProcessor.from_pretrained(folder / name)
        for one, probabilities in zip(ASKED, found, strict=True):
            inputs = processor(images=picture, text=one.question, return_tensors="pt")
            with torch.no_grad():
                if name == "vilt":
                    row = model(**inputs).logits[0]
                    columns = {"no": [0], "yes": [1], "Yes": [1], "four": [2]}
                else:
                    states = model.vision_model(inputs["pixel_values"])[0]
                    read = model.text_encoder(
                        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                        encoder_hidden_states=states,
                    )[0]  # fmt: skip
                    start = torch.tensor([[model.decoder_start_token_id]])
                    row = model.text_decoder(start, encoder_hidden_states=read).logits[0, -1]
                    place = WORDS.index
                    columns = {
                        "no": [place("no")], "yes": [place("yes")], "Yes": [place("yes")],
                        "four": [place("four"), place("4")],
                    }  # fmt: skip
            expected = torch.softmax(row.double(), dim=-1)
            assert probabilities == pytest.approx(
                [float(expected[columns[a]].sum()) for a in one.answers], rel=1e-4
            )
        with pytest.raises(InputError, match=r"'green' is none of its|no token for the answer 'green'"):
            open_answerer(str(folder / name), device="cpu").answer(image, [Asked("colour?", ("green",))])
    with pytest.raises(UsageError, match="VQA has no option 'quantize'"):
        open_answerer(str(folder / "vilt"), device="cpu", options="quantize=4bit")


def test_a_server_is_asked_each_question(image: NDArray[np.uint8]) -> None:
    def answer(pixels: NDArray[np.uint8], text: str) -> list[tuple[str, float]]:
        if "How many" in text:
            return [(" Four", math.log(0.5)), ("4", math.log(0.25)), ("five", math.log(0.05))]
        return [("Yes", math.log(0.6)), (" yes", math.log(0.1)), ("Well", math.log(0.2))]

    with running(answer) as server:
        answerer = open_answerer(f"{server.address}#tiny", options="concurrency=2")
        assert server.requests == []
        asked = [Asked("How many?", ("four",), "Answer in one word."), Asked("Is it?", ("yes", "no"))]
        found = answerer.answer(image, asked)
        assert found[0] == pytest.approx((0.75,))
        # No is not listed: it is at most as likely as the last of the list, and as what the list leaves.
        assert found[1] == pytest.approx((0.7, 0.1))
        assert answerer.label == f"{server.address}#tiny"
        texts = [
            r["messages"][0]["content"][-1]["text"] for r in server.requests[1:]
        ]  # the first is about an empty image
        assert sorted(texts) == ["How many? Answer in one word.", "Is it?"]
    with pytest.raises(UsageError, match="a server has no option 'dtype'"):
        open_answerer("http://localhost:1/v1#m", dtype="fp32")
    with pytest.raises(UsageError, match="names no model"):
        open_answerer("http://localhost:1/v1")
    with pytest.raises(InputError, match=r"no connection .*see whether the server runs"):
        open_answerer("http://127.0.0.1:1/v1#m", options="retries=0").answer(image, asked)


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("./none", "", "./none: no such folder; --vqa takes a folder with config.json"),
        ("nvila:", "", "no such folder; --vqa takes"),
        (".", "", "no model in this folder"),
        ("shapes", "a=1", "the VQA shapes has no options"),
        ("VLM", "dialogue=paper", "the judge vlm has no option 'dialogue'"),
        ("VLM", "max_pixels=many", "option max_pixels of the judge vlm is 'many'"),
        ("VLM", "max_pixels=1,max_pixels=2", "is given twice"),
    ],
)
def test_a_wrong_model_or_option_is_one_line(
    vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, options: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, UsageError)) as error:
        open_answerer(
            str(vlm) if spec == "VLM" else spec, device="cpu" if spec == "VLM" else None, options=options
        )
    assert said in str(error.value)


def test_an_error_of_a_judges_code_names_the_options_of_eval(
    vlm: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(inputs: Any) -> list[Any]:
        raise MemoryError

    answerer: Any = open_answerer(str(vlm), device="cpu")
    monkeypatch.setattr(answerer.model, "_one_thread_each", False)
    monkeypatch.setattr(answerer.model, "_verdicts", full)
    with pytest.raises(InputError, match=r"not enough memory for one image.*try --vqa-options max_pixels"):
        answerer.answer(image, [Asked("a red heart", ("yes", "no"))])
