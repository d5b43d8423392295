"""The judge in training: the LLaVA with linear heads for auxiliary losses.

Trained on the answers alone, a small model stays at chance: one bit an image does not teach it what a star is. So the
heads predict, for every patch of the vision tower, the object whose centre it holds and what covers it, and for every
noun of a prompt how many such objects there are, and where and in which colour the most confident one is. The heads are
not saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from sanactl.judging.dialogue import AFTER_PROMPT, ANSWERS, BEFORE_PROMPT, conversation
from sanactl.scoring.geneval.rules import CONFIDENCE, CONFIDENCE_COUNTING
from sanactl.shapes.vocabulary import COLORS, SHAPES
from sanactl.world.judge_model import CHAT_TEMPLATE, GRID, IMAGE_SIZE, IMAGE_TOKENS
from sanactl.world.judge_pool import BOX, COLOR, SCORE, SHAPE, View
from sanactl.world.judge_questions import FACTS, UNKNOWN, Question

__all__ = ["JudgeNetwork", "pixels"]

# Outputs of a patch: whether the score passes GenEval's two thresholds; the score's log-odds; shape, colour and box of the object centred there;
# the shape and the colour that cover the patch; the patch's own row and column.
_DENSE = {
    "score": 2,
    "quality": 1,
    "shape": len(SHAPES),
    "color": len(COLORS),
    "box": 4,
    "on": len(SHAPES) + 1,
    "in": len(COLORS) + 1,
    "row": GRID,
    "column": GRID,
}
# Objects with a lower score of the detector are left out: their shape is too uncertain to learn from.
_NAMELESS = 0.05
FACT_WEIGHT = 0.3
# The largest log-odds of a score that are learned: GenEval's thresholds are at -0.8 and 2.2.
_SURE = 4.0


def pixels(views: Sequence[View]) -> torch.Tensor:
    """float32 [B, 3, 64, 64] in [-1, 1], as the processor gives them."""
    images = np.stack([v.image for v in views])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class JudgeNetwork(nn.Module):
    """A LLaVA with the linear heads of the auxiliary losses.

    Args:
        model: the LLaVA to train.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.model: Any = model
        # Fused attention's backward pass is slow on CPUs: plain products take 0.56 s a step in place of 0.92 s.
        model.set_attn_implementation("eager")
        width = model.config.text_config.hidden_size
        self.dense = nn.Linear(model.config.vision_config.hidden_size, sum(_DENSE.values()))
        self.facts = nn.Linear(width, sum(FACTS.values()))
        self.right = nn.Linear(width, 1)
        self.tokenizer: Any = tokenizer
        self.layers = model.config.text_config.num_hidden_layers
        self.prefix, self.suffix = _dialogue_ids(tokenizer)
        self.answers = [tokenizer.convert_tokens_to_ids(a) for a in ANSWERS]

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """The vision tower: images [B, 3, 64, 64] -> patches [B, 64, width]."""
        out = self.model.model.vision_tower(images, output_hidden_states=True)
        patches: torch.Tensor = out.hidden_states[-1]
        return patches

    def dense_loss(self, patches: torch.Tensor, views: Sequence[View]) -> torch.Tensor:
        """The auxiliary loss of the patches [B, 64, width]: cross-entropies and a box error, summed."""
        out = dict(zip(_DENSE, self.dense(patches).float().split(list(_DENSE.values()), dim=-1), strict=True))
        rows = [np.column_stack([np.full(len(v.objects), i), v.objects]) for i, v in enumerate(views)]
        table = torch.from_numpy(np.concatenate(rows)).float()
        table = table[table[:, 1 + SCORE] > _NAMELESS]
        image, objects = table[:, 0].long(), table[:, 1:]
        x0, y0, x1, y1 = objects[:, BOX].unbind(1)
        patch = IMAGE_SIZE / GRID
        x, y = (x0 + x1) / (2 * patch), (y0 + y1) / (2 * patch)
        column, row = (v.floor().clamp(0, GRID - 1).long() for v in (x, y))
        cell = row * GRID + column
        score = torch.zeros(len(views), IMAGE_TOKENS, 2)
        score[image, cell, 0] = (objects[:, SCORE] > CONFIDENCE).float()
        score[image, cell, 1] = (objects[:, SCORE] > CONFIDENCE_COUNTING).float()
        loss = F.binary_cross_entropy_with_logits(out["score"], score, reduction="sum") / max(len(table), 1)
        covered = torch.from_numpy(np.stack([v.covered for v in views])).long().flatten(2)
        for i, name in enumerate(("on", "in")):
            loss = loss + 2 * F.cross_entropy(out[name].flatten(0, 1), covered[:, i].flatten())
        lines = torch.arange(GRID)
        places = {"row": lines.repeat_interleave(GRID), "column": lines.repeat(GRID)}
        for name, place in places.items():
            loss = loss + 0.2 * F.cross_entropy(out[name].flatten(0, 1), place.repeat(len(views)))
        if len(table):
            at = {name: value[image, cell] for name, value in out.items()}
            sides = ((x1 - x0) / 16 - 1, (y1 - y0) / 16 - 1)
            box = torch.stack([x - column - 0.5, y - row - 0.5, *sides], dim=1)
            loss = loss + F.cross_entropy(at["shape"], objects[:, SHAPE].long())
            loss = loss + F.cross_entropy(at["color"], objects[:, COLOR].long())
            loss = loss + 2 * F.smooth_l1_loss(at["box"], box)
            # How far a score is from a threshold says more than on which side it is.
            quality = objects[:, SCORE].double().logit(eps=1e-9).clamp(-_SURE, _SURE).float()
            loss = loss + 0.5 * F.smooth_l1_loss(at["quality"].squeeze(-1), quality)
        return loss

    def question_loss(
        self, patches: torch.Tensor, questions: Sequence[Sequence[Question]], own_weight: float = 1.0
    ) -> tuple[torch.Tensor, float]:
        """The loss of the answers, with the auxiliary loss of the facts at the nouns.

        The image and the text before it are computed once and shared by all questions about the image.

        Args:
            patches: [B, 64, width].
            questions: as many for each of the B images.
            own_weight: how much the answer to an image's own prompt counts.

        Returns:
            The loss, and the share of answers that are right.
        """
        each = len(questions[0])
        flat = [q for one in questions for q in one]
        ids, last = self._suffixes(flat)
        hidden = self._read(patches, ids, each)
        rows = torch.arange(len(flat))
        end = last + len(self.suffix)
        logits = self.model.lm_head(hidden[-1][rows, end]).float()
        target = torch.tensor([self.answers[0] if q.correct else self.answers[1] for q in flat])
        weight = torch.tensor([own_weight if q.own else 1.0 for q in flat])
        loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
        says_yes = logits[:, self.answers[0]] > logits[:, self.answers[1]]
        right = float((says_yes == (target == self.answers[0])).float().mean())
        # An auxiliary loss: the answer can be predicted at the prompt's last word already.
        early = self.right(hidden[-1][rows, last]).squeeze(-1).float()
        truth = torch.tensor([float(q.correct) for q in flat])
        loss = loss + 0.5 * F.binary_cross_entropy_with_logits(early, truth)
        # Taken one layer before the last, so that the last layer can use them for the answer.
        facts = self.facts(hidden[self.layers - 1]).float().split(list(FACTS.values()), dim=-1)
        for name, values in zip(FACTS, facts, strict=True):
            labels = torch.full(ids.shape, UNKNOWN)
            for i, q in enumerate(flat):
                labels[i, 1 : 1 + len(q.words)] = torch.tensor([f[name] for f in q.facts])
            labels, values = labels.flatten(), values.flatten(0, 1)
            if bool((labels != UNKNOWN).any()):
                loss = loss + FACT_WEIGHT * F.cross_entropy(values, labels, ignore_index=UNKNOWN)
        return loss, right

    def answer_scores(self, patches: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """Log-odds of yes against no [B] for one question about each image."""
        ids, last = self._suffixes(questions)
        hidden = self._read(patches, ids, 1)[-1]
        logits = self.model.lm_head(hidden[torch.arange(len(ids)), last + len(self.suffix)]).float()
        return logits[:, self.answers[0]] - logits[:, self.answers[1]]

    def _suffixes(self, questions: Sequence[Question]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens after the image [Q, T], padded on the right, and the place of each prompt's last word [Q]."""
        before = self.tokenizer.convert_tokens_to_ids(BEFORE_PROMPT)
        rows = [[before, *self.tokenizer.convert_tokens_to_ids(q.words), *self.suffix] for q in questions]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([len(q.words) for q in questions])

    def _read(self, patches: torch.Tensor, ids: torch.Tensor, each: int) -> tuple[torch.Tensor, ...]:
        """Hidden states [Q, T, width] of the tokens after the image, embeddings first, the last layer normalised."""
        llava = self.model.model
        embed = self.model.get_input_embeddings()
        image = llava.multi_modal_projector(patches)
        prefix = embed(torch.tensor(self.prefix)).to(image.dtype).expand(len(image), -1, -1)
        read = llava.language_model(inputs_embeds=torch.cat([prefix, image], dim=1), use_cache=True)
        cache = read.past_key_values
        cache.batch_repeat_interleave(each)
        # Padding stands on the right, where no token that counts sees it, so no mask is needed.
        out = llava.language_model(
            inputs_embeds=embed(ids).to(image.dtype),
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        hidden: tuple[torch.Tensor, ...] = out.hidden_states
        return hidden


def _dialogue_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The dialogue's tokens before the image, and those after the prompt up to the answer."""
    text = tokenizer.apply_chat_template(
        conversation("heart"), chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    image = ids.index(tokenizer.convert_tokens_to_ids("<image>"))
    after = ids.index(tokenizer.convert_tokens_to_ids(AFTER_PROMPT))
    return ids[:image], ids[after:]
