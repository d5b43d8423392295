"""What a guard is asked: the policies, and the text around them and the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from sanactl.errors import UsageError

__all__ = ["CONTROL", "POLICIES", "Policy", "PolicySet", "find_policies"]

# ShieldGemma's control tokens around the prompt.
CONTROL = ("<start_of_turn>", "<end_of_turn>")


@dataclass(frozen=True)
class Policy:
    """A policy by its name in records, and its words."""

    name: str
    words: str


@dataclass(frozen=True)
class PolicySet:
    """Policies that are asked one by one, and the text that asks.

    Attributes:
        name: of `--policy`.
        policies: each is asked about alone.
        before, between, after: the text before the prompt, between prompt and policy, and after the policy.
        bullet: the policy as it stands in the text, with `{name}` and `{words}`.
    """

    name: str
    policies: tuple[Policy, ...]
    before: str
    between: str
    after: str
    bullet: str

    def text(self, prompt: str, policy: Policy, *, control: bool = True) -> str:
        """The text that asks whether a prompt violates a policy.

        Args:
            control: with ShieldGemma's control tokens around the prompt; other models have a chat template instead.
        """
        before, between = self.before, self.between
        if not control:
            before = before.replace(f"{CONTROL[0]}\n", "")
            between = between.replace(f"{CONTROL[1]}\n", "")
        words = self.bullet.replace("{name}", policy.name).replace("{words}", policy.words)
        return f"{before}{prompt.strip()}{between}{words}{self.after}"


# The model card of google/shieldgemma-2b: the text of its example that computes scores, and its guidelines for the
# use case "prompt-only content classification". Each is asked alone, as the card advises.
_SHIELDGEMMA = PolicySet(
    "shieldgemma",
    (
        Policy(
            "No Dangerous Content",
            "The prompt shall not contain or seek generation of content that harming oneself and/or others (e.g., accessing "
            "or building firearms and explosive devices, promotion of terrorism, instructions for suicide).",
        ),
        Policy(
            "No Harassment",
            "The prompt shall not contain or seek generation of content that is malicious, intimidating, bullying, or abusive "
            "content targeting another individual (e.g., physical threats, denial of tragic events, disparaging victims of "
            "violence).",
        ),
        Policy(
            "No Hate Speech",
            "The prompt shall not contain or seek generation of content that targeting identity and/or protected attributes "
            "(e.g., racial slurs, promotion of discrimination, calls to violence against protected groups) or "
            "dehumanizing/belittling/vilifying on the bases of race, ethnicity, religion, disability, age, nationality, "
            "veteran status, sexual orientation, gender, gender identity, caste, or any other protected status. We do allow "
            "content that includes a reference to a protected individual or group in a positive manner.",
        ),
        Policy(
            "No Sexually Explicit Information",
            "The prompt shall not contain or seek generation of content that contains references to sexual acts or other lewd "
            "content (e.g., sexually graphic descriptions, content aimed at causing arousal). Medical or scientific terms "
            "related to human anatomy or sex education are permitted.",
        ),
    ),
    before="You are a policy expert trying to help determine whether a user\n"
    "prompt is in violation of the defined safety policies.\n\n<start_of_turn>\nHuman Question: ",
    between="\n<end_of_turn>\n\nOur safety principle is defined in the below:\n\n",
    after="\n\nDoes the human question violate the above principle? Your answer must start\n"
    "with 'Yes' or 'No'. And then walk through step by step to be sure we answer\ncorrectly.\n\n",
    bullet='* "{name}": {words}',
)

# app/safety_check.py of NVlabs/Sana, a copy of hart/utils/safety_check.py of mit-han-lab/hart: one policy, and the
# source code's indentation is part of the text.
_SANA = PolicySet(
    "sana",
    (
        Policy(
            "sana",
            "The prompt must not seek to generate harmful, abusive, hateful, sexually explicit, or otherwise inappropriate "
            "content targeting individuals or protected groups.",
        ),
    ),
    before="You are a policy expert trying to help determine whether a user\n"
    "    prompt is in violation of the defined safety policies.\n\n    <start_of_turn>\n    Human Question: ",
    between="\n    <end_of_turn>\n\n    Our safety principle is defined in the below:\n\n    ",
    after="\n\n    Does the human question violate the above principle? Your answer must start\n"
    "    with 'Yes' or 'No'. And then walk through step by step to be sure we answer\n    correctly.\n    ",
    bullet="{words}",
)

POLICIES = {found.name: found for found in (_SHIELDGEMMA, _SANA)}


def find_policies(name: str | None) -> PolicySet:
    """The policies of `--policy`, by default the model card's.

    Raises:
        UsageError: there are none of this name.
    """
    found = POLICIES.get(_SHIELDGEMMA.name if name is None else name)
    if found is None:
        raise UsageError(f"no policy {name!r}", hint=f"choose one of {', '.join(POLICIES)}")
    return found
