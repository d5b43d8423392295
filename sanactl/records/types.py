"""Records as types, for editors and type checkers: each is a plain dictionary, as JSON has it.

`sanactl.records.fields` checks the same fields where records are read; docs/formats.md says what each means. A field
beside the required ones may be absent or None, and others may be there: a filter keeps what it does not know.
"""

from __future__ import annotations

from typing import Any, Optional, TypedDict

__all__ = [
    "BlockRecord", "CheckpointRecord", "Clause", "Cost", "Curve", "Detection", "ImageRecord", "PromptRecord", "ScoreRecord",
    "TaskScore",
]  # fmt: skip

# `class` is a word of Python's.
Clause = TypedDict("Clause", {"class": str, "count": int, "color": str, "position": list[Any]}, total=False)
Clause.__doc__ = (
    "What an image must show (or, in `exclude`, must not). position: [relation, number of an earlier clause]."
)
Detection = TypedDict(
    "Detection", {"class": str, "color": str, "score": float, "box": list[float]}, total=False
)
Detection.__doc__ = "An object that was found. score: 0 to 1; box: x0, y0, x1, y1 in pixels, y pointing down."


class _Checkpoint(TypedDict):
    kind: str
    path: str


class CheckpointRecord(_Checkpoint, total=False):
    """A checkpoint by reference.

    Attributes:
        path: a file, a folder or a Hub id.
        digest: fingerprint, "sha256:...".
        blocks: transformer blocks.
        parameters: of the transformer.
        bytes: of all tensors.
        lineage: how it was made, oldest step first.
    """

    digest: str
    blocks: int
    parameters: int
    bytes: int
    lineage: list[dict[str, Any]]


class _Block(TypedDict):
    kind: str
    checkpoint: str
    digest: str
    block: int
    importance: float


class BlockRecord(_Block, total=False):
    """The importance of one block (equation 3).

    Attributes:
        checkpoint, digest: what was measured.
        block: its number, from 0.
        importance: 1 - mean cosine similarity of the block's input and output, 0 to 2.
        blocks: how many there are.
        stderr: standard error of the importance over prompts; None for one prompt.
        prompts: how many prompts it was measured with.
        timesteps: of the sampler, in its order; 1000 is noise (of SANA-Sprint's, 1.57 is noise).
        by_timestep: the importance at each of `timesteps`.
    """

    blocks: int
    stderr: Optional[float]
    prompts: int
    timesteps: list[float]
    by_timestep: list[float]


class _OfAPrompt(TypedDict, total=False):
    id: str
    tag: str
    include: list[Clause]
    exclude: list[Clause]
    guard: str
    guard_policy: str
    guard_probability: float
    guard_probabilities: dict[str, float]
    guard_flags: list[str]
    guard_reason: str
    prompt_original: str
    prompt_form: str
    prompt_style: str
    prompt_llm: str
    rewrite_error: str
    rewrite_answer: str


class _Prompt(TypedDict):
    kind: str
    prompt: str


class PromptRecord(_Prompt, _OfAPrompt, total=False):
    """A prompt.

    Attributes:
        prompt: the text.
        id: its name.
        tag: its task, as in GenEval's metadata; with `include` and `exclude` what the image must show.
        guard: name of the guard that checked it; `guard_policy` is the policy with the largest probability,
            `guard_probability` that, `guard_flags` says "non-English", `guard_reason` why it was blocked, and
            `guard_probabilities` has every policy's of a blocked one.
        prompt_original: what `prompt` was before it was rewritten; judges and scores go by it. `prompt_form` is the
            language form that it is in now ("zh"), `prompt_style` how it was rewritten ("detail"), `prompt_llm` by what.
        rewrite_error: why a prompt could not be rewritten; `rewrite_answer` is the last answer that was refused.
    """


class _Image(TypedDict):
    kind: str
    path: str
    prompt: str


class ImageRecord(_Image, _OfAPrompt, total=False):
    """An image.

    Attributes:
        path: the file.
        prompt: the text that it was drawn for. All other fields of its prompt's record are here, too.
        prompt_id: the prompt's `id`.
        index, samples: number of the image, from 0; how many its prompt has.
        seed: the image's own, below 2^53.
        checkpoint, digest: what drew it.
        steps, guidance_scale, height, width: settings; sizes in pixels.
        flops: floating-point operations of drawing it (a multiply-add counts as two); `judge_flops` of judging it.
        draft_path, draft_score, draft_steps, draft_samples, draft_flops: of the draft that it was redrawn from: its file,
            the judge's score, steps, the number of images that the judge chose from, the cost of one of them.
        round, drawn, stopped: of `scale`: the round that drew it, from 1; images drawn for its prompt; why no more were
            drawn ("enough", "futile", "max" or "budget").
        judge: name of the judge; `judge_settings` has the digest of its weights and dialogue. `verdict` is "yes" or
            "no", `yes_logprob` and `no_logprob` the natural logarithms of both answers' probabilities, `answer_mass`
            their sum, `calibrated` the probability that the image is right by a calibration, `judge_score` the
            probability of the verdict, negative for a no, and `rank` the place within the prompt, 0 the best.
        correct: whether GenEval's rules hold; `reason` has a line for each fault, `detector` found the `detections`.
    """

    prompt_id: str
    index: int
    samples: int
    seed: int
    checkpoint: str
    digest: str
    steps: int
    guidance_scale: float
    flops: float
    draft_path: str
    draft_score: float
    draft_steps: int
    draft_samples: int
    draft_flops: float
    round: int
    drawn: int
    stopped: str
    height: int
    width: int
    negative_prompt: str
    complex_human_instruction: bool
    instruction: str
    judge_flops: float
    judge: str
    judge_settings: dict[str, Any]
    verdict: str
    yes_logprob: float
    no_logprob: float
    answer_mass: float
    verdicts: list[dict[str, Any]]
    calibrated: float
    judge_score: float
    rank: int
    correct: bool
    reason: str
    detector: str
    detections: list[Detection]


class TaskScore(TypedDict, total=False):
    """A part of a score: its value, 95 % interval (None below five prompts) and number of images."""

    value: float
    ci: Optional[list[float]]
    images: int


class Cost(TypedDict, total=False):
    """What a prompt costs."""

    images: float
    flops: float
    seconds: float


class Curve(TypedDict, total=False):
    """A point of a curve: where on the axis, the value there, its 95 % interval, and what it costs.

    Attributes:
        gain, gain_ci: the difference to one image, and its interval by a paired bootstrap over prompts.
        success: of a search for a right image, the share of prompts for which it ends before its images do.
        cost: images, flops and seconds per prompt, as far as they are known.
    """

    at: float
    value: float
    ci: Optional[list[float]]
    gain: float
    gain_ci: Optional[list[float]]
    success: float
    cost: Cost


class _Score(TypedDict):
    kind: str
    metric: str


class ScoreRecord(_Score, total=False):
    """A score, of whatever metric.

    Attributes:
        metric: its name.
        value, unit: the score and its unit.
        ci: 95 % interval, [low, high]; None where fewer than five prompts were measured.
        tasks: parts of the score, by name.
        axis, curves: scores along an axis, by the curve's name.
        protocol: the rules; scores of different protocols do not compare.
        detector, detector_digest, model, model_digest: what measured, with version and weights.
        images, prompts: how many were measured.
        benchmark: which prompts these are, such as "120 of GenEval's 553 prompts".
        prompts_rewritten: where images were drawn for rewritten prompts: forms, styles and by what, with their numbers.
        checkpoint, digest: what drew the images.
        prompts_digest: a fingerprint of the prompts.
        judge, selection: who picked the images, and from how many.
        steps: of sampling. top: how many images were kept. round: images of a round.
        budget, chosen, cost, blocks, n, held_out, runner_up: of a choice for a budget (`sanactl.budget`).
        step, loss, lr, grad_norm, images_per_second: of a step of training.
    """

    value: Optional[float]
    unit: str
    ci: Optional[list[float]]
    tasks: dict[str, TaskScore]
    axis: str
    curves: dict[str, list[Curve]]
    protocol: str
    detector: str
    detector_digest: str
    model: str
    model_digest: str
    images: int
    prompts: int
    benchmark: str
    prompts_rewritten: str
    checkpoint: str
    digest: str
    prompts_digest: str
    judge: str
    selection: str
    steps: int
    top: int
    round: int
    budget: float
    chosen: bool
    cost: Cost
    blocks: int
    n: int
    held_out: float
    runner_up: dict[str, Any]
    step: int
    loss: float
    lr: float
    grad_norm: float
    images_per_second: float
