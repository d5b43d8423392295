"""More languages for the built-in world's text encoder, by distillation; English stays exactly as it is.

SANA's text encoder, a Gemma 2, was trained on many languages before it met SANA. The built-in one knows 43 English words.
Here it gets a token for each Chinese word and each emoji of `sanactl.shapes.languages`, and learns from itself: the
features of a translation shall be those of its English prompt (Reimers and Gurevych 2020, "Making Monolingual Sentence
Embeddings Multilingual using Knowledge Distillation"). Only the new tokens' embeddings are trained. All other weights
stay, so the token ids and features of English prompts do not change by a bit.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.paths import utf8_name
from sanactl.files.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from sanactl.shapes.prompts import Record

__all__ = ["add_languages", "learn_languages", "nouns_and_ends"]

BATCH = 32  # prompts of a step, each in every form
LEARNING_RATE = 1e-2


def add_languages(tokenizer: PreTrainedTokenizerFast, encoder: Any) -> int:
    """Adds the tokens of all language forms; each begins as the mean of the English words that it stands for.

    Args:
        tokenizer, encoder: the built-in world's; both are changed.

    Returns:
        The number of tokens before: the ids from there on are new.
    """
    import torch
    from tokenizers import AddedToken

    from sanactl.shapes.languages import foreign_words

    before, words = len(tokenizer), foreign_words()
    # Such tokens are found before the text is cut into words, the longest first: Chinese has no spaces.
    tokenizer.add_tokens([AddedToken(word, normalized=True) for word in words])
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = encoder.get_input_embeddings().weight
    with torch.no_grad():
        for word, english in words.items():
            known = tokenizer.convert_tokens_to_ids(english.split())
            rows[tokenizer.convert_tokens_to_ids(word)] = rows[known].mean(0)
    return before


def nouns_and_ends(tokenizer: PreTrainedTokenizerFast, ids: torch.Tensor) -> torch.Tensor:
    """Where a reader knows something new: mask [B, T] of the tokens that name a shape, and of each text's end.

    A prompt has the same number of them in every form, in the same order.
    """
    import torch

    from sanactl.shapes.languages import foreign_words
    from sanactl.shapes.vocabulary import PLURALS, SHAPES

    nouns = [*SHAPES, *PLURALS.values()]
    nouns += [word for word, english in foreign_words().items() if english.split()[-1] in SHAPES]
    chosen = tokenizer.convert_tokens_to_ids([*nouns, "<eos>"])
    return torch.isin(ids, torch.tensor(chosen))


def learn_languages(
    target: Path,
    *,
    components: str = "builtin:shapes",
    steps: int = 200,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Writes `target`, a folder of components whose text encoder and tokenizer know all language forms.

    Args:
        target: the folder; the autoencoder and the scheduler are copied into it, so `--components` can name it.
        components: the English components: a folder, or the built-in ones.
        steps: updates of the new embeddings.
        seed: of the prompts.
        force: replace a folder that is there.

    Returns:
        For each form but English, the share of the evaluation prompts for which the nearest English prompt (by the
        feature of the end) asks for the same image.

    Raises:
        InputError: a component is missing or cannot be read, does not know the world's words, or knows these forms already.
        OutputExistsError: the target is there and `force` is false.
    """
    import torch

    from sanactl.checkpoint.builtin import asset
    from sanactl.checkpoint.components import component_folder
    from sanactl.checkpoint.given import with_components
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.files.atomic import atomic_dir, check_target
    from sanactl.model.loading import load_components
    from sanactl.model.saving import rewrite_weights
    from sanactl.shapes.languages import FORMS
    from sanactl.shapes.prompts import load_eval_prompts

    check_target(target, force)
    checkpoint = with_components(open_checkpoint(asset("base.st")), components)
    found = load_components(checkpoint, parts=("tokenizer", "text_encoder"))
    tokenizer, encoder = found.tokenizer, found.text_encoder.eval()
    _check_words(tokenizer, components)
    first = add_languages(tokenizer, encoder)
    rows = encoder.get_input_embeddings().weight
    encoder.requires_grad_(False)
    new = rows[first:].clone().requires_grad_(True)
    optimizer = torch.optim.Adam([new], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    forms = FORMS[1:]
    progress.start(steps, "languages")
    for step in range(steps):
        prompts = _prompts(seed, step)
        goal = _features(tokenizer, encoder, prompts, "en", rows)
        weights = torch.cat([rows[:first], new])
        loss = torch.stack(
            [(_features(tokenizer, encoder, prompts, form, weights) - goal).square().mean() for form in forms]
        ).mean()
        loss = loss / goal.var()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.advance(1, loss=f"{loss.item():.4f}")
    progress.close()
    with torch.no_grad():
        rows[first:] = new
        figures = {form: _understood(tokenizer, encoder, load_eval_prompts(), form) for form in forms}
    with atomic_dir(target, force=force) as folder:
        for part in ("vae", "scheduler"):
            shutil.copytree(component_folder(part, checkpoint.components[part]), folder / part)
        encoder.save_pretrained(folder / "text_encoder")
        rewrite_weights(folder / "text_encoder")
        with utf8_name(folder) as place:
            tokenizer.save_pretrained(f"{place}/tokenizer")
    return figures


def _check_words(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Raises InputError unless the tokenizer knows the world's English words and nothing more."""
    from sanactl.errors import InputError
    from sanactl.shapes.languages import foreign_words
    from sanactl.shapes.prompts import words

    known = tokenizer.get_vocab()
    if missing := [word for word in (*words(), "<eos>") if word not in known]:
        raise InputError(
            f"{name}: its tokenizer does not know {missing[0]!r}", hint="it has to be the built-in world's"
        )
    if any(word in known for word in foreign_words()):
        raise InputError(f"{name}: its tokenizer has words of other languages already")


def _prompts(seed: int, step: int) -> list[str]:
    import numpy as np

    from sanactl.shapes.prompts import sample_prompt

    rng = np.random.default_rng([seed, step])
    return [sample_prompt(rng)["prompt"] for _ in range(BATCH)]


def _features(
    tokenizer: Any, encoder: Any, prompts: list[str], form: str, embeddings: torch.Tensor
) -> torch.Tensor:
    """Features [N, D] of the nouns and ends of the prompts in a form, in their order."""
    from torch.nn import functional as F

    from sanactl.shapes.languages import translate
    from sanactl.world.text_model import MAX_TOKENS

    tokens = tokenizer(
        [translate(prompt, form) for prompt in prompts],
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    # What Gemma's own embedding layer does, with other rows; it is scaled there and not in the model.
    scale = getattr(encoder.get_input_embeddings(), "embed_scale", 1.0)
    hidden = encoder(
        inputs_embeds=F.embedding(ids, embeddings) * scale, attention_mask=mask
    ).last_hidden_state
    found: torch.Tensor = hidden[nouns_and_ends(tokenizer, ids)]
    return found


def _understood(tokenizer: Any, encoder: Any, records: list[Record], form: str) -> float:
    """The share of prompts in a form whose nearest English prompt asks for the same."""
    import torch

    from sanactl.model.text import encode_prompts
    from sanactl.shapes.languages import translate
    from sanactl.world.text_model import MAX_TOKENS

    ends = []
    for wanted in ("en", form):
        texts = [translate(record["prompt"], wanted) for record in records]
        features, mask = encode_prompts(tokenizer, encoder, texts, max_sequence_length=MAX_TOKENS)
        ends.append(features[torch.arange(len(texts)), mask.sum(1) - 1])
    nearest = torch.cdist(ends[1], ends[0]).argmin(1).tolist()
    same = [
        records[near]["include"] == record["include"] for near, record in zip(nearest, records, strict=True)
    ]
    return sum(same) / len(same)
