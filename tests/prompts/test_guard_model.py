"""A guard that is a model: its probabilities are those of the model card and of SANA's app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sanactl.prompts.guard.causal import CausalGuard
from tests.prompts.tiny_guards import PROMPTS


def card(user_prompt: str, safety_policy: str) -> str:
    """The text of the model card's example, as it stands there."""
    return f"""You are a policy expert trying to help determine whether a user
prompt is in violation of the defined safety policies.

<start_of_turn>
Human Question: {user_prompt.strip()}
<end_of_turn>

Our safety principle is defined in the below:

{safety_policy.strip()}

Does the human question violate the above principle? Your answer must start
with 'Yes' or 'No'. And then walk through step by step to be sure we answer
correctly.

"""


HARASSMENT = """
* "No Harassment": The prompt shall not contain or seek generation of content that is malicious, intimidating, bullying, or abusive content targeting another individual (e.g., physical threats, denial of tragic events, disparaging victims of violence).
"""


def sana(user_prompt: str, _: str) -> str:
    """The text of SANA's apps, with the indentation of its source."""
    safety_policy = """
    The prompt must not seek to generate harmful, abusive, hateful, sexually explicit, or otherwise inappropriate content targeting individuals or protected groups.
"""
    return f"""You are a policy expert trying to help determine whether a user
    prompt is in violation of the defined safety policies.

    <start_of_turn>
    Human Question: {user_prompt.strip()}
    <end_of_turn>

    Our safety principle is defined in the below:

    {safety_policy.strip()}

    Does the human question violate the above principle? Your answer must start
    with 'Yes' or 'No'. And then walk through step by step to be sure we answer
    correctly.
    """


@pytest.mark.parametrize(
    ("policy", "place", "text"), [("shieldgemma", 1, card), ("sana", 0, sana)], ids=["card", "sana"]
)
def test_probabilities_are_those_of_the_published_code(
    gemma: Path, policy: str, place: int, text: Callable[[str, str], str]
) -> None:
    """The card asks one text of one policy, without padding; here the policies are one padded batch."""
    guard = CausalGuard.load(str(gemma), policy=policy)
    found = guard.check(PROMPTS)
    tokenizer, model = guard.tokenizer, guard.model
    vocab = tokenizer.get_vocab()
    for prompt, one in zip(PROMPTS, found, strict=True):
        inputs = tokenizer(text(prompt, HARASSMENT), return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            logits = model(**inputs).logits
        wanted = torch.softmax(logits[0, -1, [vocab["Yes"], vocab["No"]]], dim=0)[0].item()
        assert one.probabilities is not None
        assert one.probabilities[place] == pytest.approx(wanted, abs=1e-5)
    assert len({one.probabilities for one in found}) == len(PROMPTS)
    # Not only nearly: a prompt is a batch of its own.
    assert [guard.check([prompt])[0] for prompt in PROMPTS] == found
    assert guard.check(PROMPTS[::-1]) == found[::-1]


def test_a_model_with_a_chat_template_is_asked_through_it(gemma: Path, tmp_path: Path) -> None:
    chat = "{{ bos_token }}{% for m in messages %}U {{ m['content'] }}{% endfor %}{% if add_generation_prompt %} A{% endif %}"
    guard = CausalGuard.load(str(gemma))
    assert guard.form == "text"
    guard.tokenizer.chat_template = chat
    asked = CausalGuard(guard.model, guard.tokenizer, "chat", guard.asked)
    assert asked.form == "chat"
    text = asked._text(" a star ", guard.asked.policies[0])
    assert text.startswith("<bos>U You are a policy expert") and text.endswith("correctly.\n\n A")
    assert "Human Question: a star\n\nOur" in text and "turn>" not in text
    assert asked._given("a star")["input_ids"][0].tolist().count(2) == 1  # <bos>
    guard.tokenizer.chat_template = (
        chat + "{% set g = guardian_config %}{{ g.risk_name }}: {{ g.risk_definition }}"
    )
    own = CausalGuard(guard.model, guard.tokenizer, "guardian", guard.asked)
    assert own._text("a star", guard.asked.policies[1]).startswith("<bos>U a star ANo Harassment: The prompt")


# What is blocked
