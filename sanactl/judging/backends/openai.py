"""A judge behind a server that speaks OpenAI's protocol and gives log-probabilities (vLLM, SGLang, llama.cpp, hosted)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sanactl.errors import InputError
from sanactl.files.http import Client
from sanactl.files.server_address import extra_fields, read_address
from sanactl.judging.backends.replies import SPACES, listed_tokens, read_reply
from sanactl.judging.dialogue import ANSWERS, CHOICES, Dialogue, open_dialogue, pair_conversation
from sanactl.judging.images import check_max_pixels, picture
from sanactl.judging.protocol import Pair
from sanactl.judging.tournament import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ServerJudge"]

# OpenAI's and llama.cpp's largest number of listed tokens.
TOP = 20
# vLLM's field for tokens whose log-probabilities are wanted, likely or not (vLLM's pull request 43463). `top_logprobs` stays in
# the request: it bounds how many of them are listed.
TOKEN_IDS = "logprob_token_ids"


class ServerJudge:
    """Asks a server about one image a request, several requests at once.

    Verdicts are placed by their request. A server's answers can differ in late digits from run to run, as it batches
    requests as they come.

    Args:
        client: where requests go.
        model: the server's name of the model.
        dialogue: the question.
        max_pixels: larger images are made smaller; 0 for no limit.
        extra: further fields of each request.
    """

    reads = ("prompt",)

    def __init__(
        self,
        client: Client,
        model: str,
        dialogue: Dialogue,
        max_pixels: int = 0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.client, self.model, self.dialogue, self.max_pixels = client, model, dialogue, max_pixels
        self.extra = dict(extra or {})
        self.name = f"{client.base}#{model}"
        self.named: dict[str, Any] = {}  # the field of requests that names the answers' tokens

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "name": self.name,
            "dialogue": self.dialogue.text,
            "max_pixels": self.max_pixels,
            "extra": self.extra,
            **self.named,
        }

    @classmethod
    def open(
        cls,
        address: str,
        *,
        dialogue: str = "paper",
        max_pixels: int = 0,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        extra: str = "",
    ) -> ServerJudge:
        """Checks the address, and asks the server about an empty image.

        Args:
            address: `http(s)://host[:port]/v1#model`.
            dialogue: see `sanactl.judging.dialogue.open_dialogue`.
            max_pixels: larger images are made smaller before they are sent; 0 for no limit.
            key_env: the environment variable that holds the server's key. Without it no key is sent.
            concurrency: the most requests at a time.
            timeout: seconds without a byte after which a request has failed.
            retries: how often a request is repeated after a 429, a 5xx, a timeout or a broken connection.
            extra: a JSON object with further fields of each request, such as vLLM's `chat_template_kwargs`.

        Raises:
            UsageError: the address has no model or is not one, or an option is out of range.
            InputError: the server does not answer, refuses, or gives no log-probabilities.
        """
        base, model = read_address(address)
        fields = extra_fields(extra)
        client = Client(base, key_env=key_env, concurrency=concurrency, timeout=timeout, retries=retries)
        judge = cls(client, model, open_dialogue(dialogue), check_max_pixels(max_pixels), fields)
        judge._probe()
        return judge

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """One request for each image.

        Raises:
            InputError: the server fails more often than `retries`, refuses a request, or gives no log-probabilities.
        """
        bodies = [self.body(image, r["prompt"]) for image, r in zip(images, records, strict=True)]
        replies = self.client.post_all("chat/completions", bodies)
        return [read_reply(reply, self.name) for reply in replies]

    def choose(self, pairs: Sequence[Pair], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """Which of two images fits the prompt better, one request for each pair; a yes is the first image.

        Raises:
            InputError: as of `judge`; some models take one image alone.
        """
        words = CHOICES[0]
        asked = [pair_conversation(r["prompt"], words) for r in records]
        bodies = [self._request(pair, turn) for pair, (turn,) in zip(pairs, asked, strict=True)]
        for body in bodies:
            body.pop(TOKEN_IDS, None)  # those of yes and no
        replies = self.client.post_all("chat/completions", bodies)
        return [read_reply(reply, self.name, words) for reply in replies]

    def _probe(self) -> None:
        """Asks about an empty image. Where the server takes `logprob_token_ids` (vLLM), each request has it from now on."""
        import numpy as np

        grey = np.full((64, 64, 3), 128, dtype=np.uint8)

        def ask() -> Any:
            # One repetition: the user waits for a server that is not there.
            return self.client.post("chat/completions", self.body(grey, "a red circle"), retries=1)

        read_reply(ask(), self.name)
        if TOKEN_IDS in self.extra:
            return
        self.named = answer_ids(self.client, self.model)
        if not self.named:
            return
        try:
            listed = listed_tokens(ask(), self.name)
        except InputError:
            self.named = {}  # it refuses the field
            return
        # A server that does not know the field gives the likeliest tokens as before.
        answers = [token for token in listed if token.strip(SPACES).lower() in ANSWERS]
        # The token that was chosen is listed, too.
        if len(answers) < len(self.named[TOKEN_IDS]) or len(listed) > len(answers) + 1:
            self.named = {}

    def body(self, image: NDArray[np.uint8], prompt: str) -> dict[str, Any]:
        """The request about an image."""
        (turn,) = self.dialogue.conversation(prompt)
        return {**self._request([image], turn), **self.named}

    def _request(self, images: Sequence[NDArray[np.uint8]], turn: Mapping[str, Any]) -> dict[str, Any]:
        """A turn whose places of images are filled in their order."""
        shown = iter(images)
        content = [
            {"type": "image_url", "image_url": {"url": _data_uri(next(shown), self.max_pixels)}}
            if part["type"] == "image"
            else part
            for part in turn["content"]
        ]
        return {
            "model": self.model,
            "messages": [{"role": turn["role"], "content": content}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
            **self.extra,
        }


def answer_ids(client: Client, model: str) -> dict[str, list[int]]:
    """The request's field with the ids of the tokens that mean yes or no, as vLLM's tokenizer gives them.

    The spellings are those of `sanactl.judging.backends.answers.answer_tokens`. Empty where the server tells no ids, or one of
    the answers is no token of its own.
    """
    path = urlsplit(client.base).path.removesuffix("/v1") + "/tokenize"
    found: dict[str, set[int]] = {answer: set() for answer in ANSWERS}
    for answer in ANSWERS:
        for word in (answer, answer.capitalize(), answer.upper()):
            for text in (word, f" {word}"):
                body = {"model": model, "prompt": text, "add_special_tokens": False}
                try:
                    tokens = client.post(path, body, retries=0)["tokens"]
                except (InputError, TypeError, KeyError, IndexError):
                    return {}
                if isinstance(tokens, list) and len(tokens) == 1 and type(tokens[0]) is int:
                    found[answer].add(tokens[0])
    # An id of both is the one of unknown words.
    yes, no = found["yes"] - found["no"], found["no"] - found["yes"]
    return {TOKEN_IDS: sorted(yes | no)} if yes and no else {}


def _data_uri(image: NDArray[np.uint8], max_pixels: int) -> str:
    stream = io.BytesIO()
    picture(image, max_pixels).save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
