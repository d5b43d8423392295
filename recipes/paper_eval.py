"""The data of `recipes/paper-eval.sh`: MJHQ-30K's prompts, and stand-ins of everything for a dry run.

python recipes/paper_eval.py mjhq FOLDER > prompts.jsonl
python recipes/paper_eval.py dry FOLDER
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

COUNT = 24  # images and prompts of the stand-ins
COLUMNS = (
    "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip


def mjhq(folder: Path) -> None:
    """Writes the prompts of MJHQ-30K's meta_data.json to stdout as prompt records."""
    path = folder / "meta_data.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, entry in found.items():
            record = {"kind": "prompt", "id": name, "prompt": entry["prompt"], "category": entry["category"]}
            print(json.dumps(record, ensure_ascii=False))
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not MJHQ-30K's meta_data.json ({type(error).__name__})")


def dry(folder: Path) -> None:
    """Writes a small MJHQ and DPG-Bench of the built-in world, and a CLIP and an InceptionV3 with random weights."""
    import numpy as np

    from sanactl.files.images import write_png
    from sanactl.shapes.prompts import load_eval_prompts, scene_for
    from sanactl.shapes.render import render

    images = folder / "mjhq" / "mjhq30k_imgs"
    images.mkdir(parents=True, exist_ok=True)
    prompts = load_eval_prompts()[:: 360 // COUNT]
    about = {}
    for number, prompt in enumerate(prompts):
        write_png(render(scene_for(prompt, np.random.default_rng(number)), 64), images / f"{number:04d}.png")
        about[f"{number:04d}"] = {"category": prompt["tag"], "prompt": prompt["prompt"]}
    (folder / "mjhq" / "meta_data.json").write_text(json.dumps(about))
    with (folder / "dpg_bench.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for number, prompt in enumerate(prompts):
            for place, question in enumerate(questions(prompt), 1):
                start = [f"item{number}", prompt["prompt"], "", place, 0]
                rows.writerow([*start, "entity", "whole", f"entity - whole ({place})", question])
    make_clip(folder / "clip")
    make_inception(folder / "inception.pth")
    (folder / "done").touch()


def questions(prompt: dict[str, Any]) -> list[str]:
    """Whether each object that the prompt asks for is there."""
    return [
        f"Is there a {clause['color'] + ' ' if 'color' in clause else ''}{clause['class']}?"
        for clause in prompt["include"]
    ]


def make_clip(folder: Path) -> None:
    """A CLIP whose tokenizer knows letters."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    letters = [chr(c) for c in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {**shape, **ends, "vocab_size": len(words), "max_position_embeddings": 77}
    vision = {**shape, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)


def make_inception(path: Path) -> None:
    """The first layers of InceptionV3, as far as 64 features need them."""
    import torch

    from sanactl.scoring.distances.inception import InceptionV3

    torch.manual_seed(0)
    state = InceptionV3(64).state_dict()
    # Initial weights are so small that all images would be alike.
    torch.save({name: t * 4 if name.endswith("conv.weight") else t for name, t in state.items()}, path)


if __name__ == "__main__":
    {"mjhq": mjhq, "dry": dry}[sys.argv[1]](Path(sys.argv[2]))
