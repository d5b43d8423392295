"""bf16 autocast with SANA's linear attention in fp32."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["keep_attention_fp32"]


class _LinearAttention:
    """diffusers' `SanaLinearAttnProcessor2_0` with its two products in fp32 under autocast.

    They sum over all tokens, relu(Q) (relu(K)^T V), and the second is divided by the sum of the weights: the paper's code
    does that in fp32 (`attn_matmul`). diffusers makes fp32 tensors of Q, K and V, but autocast would take both products to
    bf16 again.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        dtype = hidden_states.dtype
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        with torch.autocast(hidden_states.device.type, enabled=False):
            # [B, heads, dim, tokens]
            query, key, value = (
                x.transpose(1, 2).unflatten(1, (attn.heads, -1)).float() for x in (query, key, value)
            )
            value = torch.nn.functional.pad(value, (0, 0, 0, 1), value=1.0)
            scores = value @ key.relu().transpose(2, 3)
            summed = scores @ query.relu()
            attended = summed[:, :, :-1] / (summed[:, :, -1:] + 1e-15)
        attended = attended.flatten(1, 2).transpose(1, 2).to(dtype)
        output: torch.Tensor = attn.to_out[1](attn.to_out[0](attended))
        return output


def keep_attention_fp32(model: Any) -> None:
    """Keeps the self-attention of every block of a `SanaTransformer2DModel` in fp32 under autocast, as the paper trains."""
    for block in model.transformer_blocks:
        block.attn1.set_processor(_LinearAttention())
