"""A local server that looks at images and speaks OpenAI's protocol, and misbehaves where a test asks for it."""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.chat_server import ChatServer, Handler, serving

__all__ = ["Handler", "Server", "certain", "running", "top_tokens"]


class Server(ChatServer):
    """Answers with what `answer` says of (image, text before it, text after it)."""

    def __init__(self, answer: Callable[[np.ndarray, str], Sequence[tuple[str, float]]]) -> None:
        super().__init__()
        self.answer = answer
        # As vLLM: what is said of (image, text, ids).
        self.answer_ids: Callable[[np.ndarray, str, list[int]], Sequence[tuple[str, float]]] | None = None

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        (turn,) = body["messages"]
        (image,) = (p["image_url"]["url"] for p in turn["content"] if p["type"] == "image_url")
        kind, _, data = image.partition(",")
        assert kind == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        text = "\n".join(p["text"] for p in turn["content"] if p["type"] == "text")
        likely = list(self.answer(pixels, text))
        token, logprob = max(likely, key=lambda answer: answer[1])
        ids: list[int] = body.get("logprob_token_ids", [])
        named = self.answer_ids if ids else None
        answers = likely if named is None else list(named(pixels, text, ids))
        listed = [{"token": t, "logprob": p} for t, p in answers]
        first = {"token": token, "logprob": logprob, "top_logprobs": listed}
        message = {"role": "assistant", "content": token}
        return {"choices": [{"index": 0, "message": message, "logprobs": {"content": [first]}}]}


def running(
    answer: Callable[[np.ndarray, str], Sequence[tuple[str, float]]],
) -> AbstractContextManager[Server]:
    return serving(Server(answer))


def top_tokens(judge: Any) -> Callable[..., list[tuple[str, float]]]:
    """A vision-language judge's 20 likeliest tokens for an image and the paper's dialogue, or the tokens of these ids."""
    lock = threading.Lock()

    def answer(image: np.ndarray, text: str, ids: list[int] | None = None) -> list[tuple[str, float]]:
        prompt = text.split("The given prompt is: ")[1].split(". Please consider")[0]
        with lock, torch.inference_mode():
            inputs = judge.inputs([image], [prompt])
            output = judge.model.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
            every = output.logits[0][0].double().log_softmax(-1)
            if ids is not None:
                values = every[ids].tolist()
                return list(zip(judge.processor.tokenizer.convert_ids_to_tokens(ids), values, strict=True))
            top = every.topk(20)
        tokens = judge.processor.tokenizer.convert_ids_to_tokens(top.indices.tolist())
        return list(zip(tokens, top.values.tolist(), strict=True))

    return answer


def certain(yes: float) -> Callable[[np.ndarray, str], list[tuple[str, float]]]:
    """Always the same answer."""
    return lambda image, text: [("yes", math.log(yes)), ("no", math.log(1 - yes))]
