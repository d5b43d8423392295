"""A tiny Mask2Former under mmdet's names, and its forward pass written from mmdet's definition, without transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, DEPTHS, HEADS, WINDOW = 8, (2, 1, 1, 2), (1, 2, 2, 4), 3
FEATURES, DECODER_HEADS, FFN, QUERIES, CLASSES = 32, 4, 24, 10, 80
ENCODER_LAYERS, DECODER_LAYERS = 2, 4


def random_state(seed: int = 0, *, generation: int = 2) -> dict[str, Tensor]:
    """Random weights with the names that mmdet of a generation (2 or 3) gives them."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (size,)

    shapes["backbone.patch_embed.projection.weight"] = (WIDTH, 3, 4, 4)
    shapes["backbone.patch_embed.projection.bias"] = (WIDTH,)
    norm("backbone.patch_embed.norm", WIDTH)
    for stage, depth in enumerate(DEPTHS):
        size = WIDTH * 2**stage
        for block in range(depth):
            at = f"backbone.stages.{stage}.blocks.{block}"
            norm(f"{at}.norm1", size)
            norm(f"{at}.norm2", size)
            shapes[f"{at}.attn.w_msa.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, HEADS[stage])
            shapes[f"{at}.attn.w_msa.relative_position_index"] = (WINDOW**2, WINDOW**2)
            linear(f"{at}.attn.w_msa.qkv", 3 * size, size)
            linear(f"{at}.attn.w_msa.proj", size, size)
            linear(f"{at}.ffn.layers.0.0", 4 * size, size)
            linear(f"{at}.ffn.layers.1", size, 4 * size)
        if stage < 3:
            norm(f"backbone.stages.{stage}.downsample.norm", 4 * size)
            linear(f"backbone.stages.{stage}.downsample.reduction", 2 * size, 4 * size, bias=False)
        norm(f"backbone.norm{stage}", size)
    pixel = "panoptic_head.pixel_decoder"
    for level in range(3):
        shapes[f"{pixel}.input_convs.{level}.conv.weight"] = (FEATURES, WIDTH * 2 ** (3 - level), 1, 1)
        shapes[f"{pixel}.input_convs.{level}.conv.bias"] = (FEATURES,)
        norm(f"{pixel}.input_convs.{level}.gn", FEATURES)
    first = "attentions.0" if generation == 2 else "self_attn"
    ffn = "ffns.0" if generation == 2 else "ffn"
    for layer in range(ENCODER_LAYERS):
        at = f"{pixel}.encoder.layers.{layer}"
        linear(f"{at}.{first}.sampling_offsets", DECODER_HEADS * 24, FEATURES)
        linear(f"{at}.{first}.attention_weights", DECODER_HEADS * 12, FEATURES)
        linear(f"{at}.{first}.value_proj", FEATURES, FEATURES)
        linear(f"{at}.{first}.output_proj", FEATURES, FEATURES)
        linear(f"{at}.{ffn}.layers.0.0", FFN, FEATURES)
        linear(f"{at}.{ffn}.layers.1", FEATURES, FFN)
        norm(f"{at}.norms.0", FEATURES)
        norm(f"{at}.norms.1", FEATURES)
    shapes[f"{pixel}.level_encoding.weight"] = (3, FEATURES)
    shapes[f"{pixel}.lateral_convs.0.conv.weight"] = (FEATURES, WIDTH, 1, 1)
    norm(f"{pixel}.lateral_convs.0.gn", FEATURES)
    shapes[f"{pixel}.output_convs.0.conv.weight"] = (FEATURES, FEATURES, 3, 3)
    norm(f"{pixel}.output_convs.0.gn", FEATURES)
    shapes[f"{pixel}.mask_feature.weight"] = (FEATURES, FEATURES, 1, 1)
    shapes[f"{pixel}.mask_feature.bias"] = (FEATURES,)
    head = "panoptic_head"
    cross, own = ("attentions.0", "attentions.1") if generation == 2 else ("cross_attn", "self_attn")
    for layer in range(DECODER_LAYERS):
        at = f"{head}.transformer_decoder.layers.{layer}"
        for attention in (cross, own):
            shapes[f"{at}.{attention}.attn.in_proj_weight"] = (3 * FEATURES, FEATURES)
            shapes[f"{at}.{attention}.attn.in_proj_bias"] = (3 * FEATURES,)
            linear(f"{at}.{attention}.attn.out_proj", FEATURES, FEATURES)
        linear(f"{at}.{ffn}.layers.0.0", FFN, FEATURES)
        linear(f"{at}.{ffn}.layers.1", FEATURES, FFN)
        for number in range(3):
            norm(f"{at}.norms.{number}", FEATURES)
    norm(f"{head}.transformer_decoder.post_norm", FEATURES)
    shapes[f"{head}.query_embed.weight"] = shapes[f"{head}.query_feat.weight"] = (QUERIES, FEATURES)
    shapes[f"{head}.level_embed.weight"] = (3, FEATURES)
    linear(f"{head}.cls_embed", CLASSES + 1, FEATURES)
    for number in (0, 2, 4):
        linear(f"{head}.mask_embed.{number}", FEATURES, FEATURES)
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("position_index"):
            state[name] = torch.zeros(shape, dtype=torch.int64)
        else:
            spread = 1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.3
            state[name] = torch.randn(shape, generator=rng, dtype=torch.float32) * spread
            if ".norm" in name or ".gn." in name or "post_norm" in name:
                state[name] += float(name.endswith("weight"))
    return state


class MMDet:
    """mmdet's Mask2Former in evaluation, with the names of 2.x, in torch's default dtype."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.s = {name: tensor.to(torch.get_default_dtype()) for name, tensor in state.items()}

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.s[f"{name}.weight"], self.s.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.s[f"{name}.weight"], self.s[f"{name}.bias"])

    def group(self, x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, self.s[f"{name}.weight"], self.s[f"{name}.bias"])

    def ffn(self, x: Tensor, name: str) -> Tensor:
        return x + self.linear(F.relu(self.linear(x, f"{name}.layers.0.0")), f"{name}.layers.1")

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(class logits [batch, queries, classes + 1], mask logits [batch, queries, height / 4, width / 4])."""
        levels = self.swin(images)
        return self.head(*self.pixel_decoder(levels))

    def swin(self, images: Tensor) -> list[Tensor]:
        at = "backbone.patch_embed"
        x = F.conv2d(images, self.s[f"{at}.projection.weight"], self.s[f"{at}.projection.bias"], stride=4)
        size = x.shape[-2:]
        x = self.norm(x.flatten(2).transpose(1, 2), f"{at}.norm")
        out = []
        for stage, depth in enumerate(DEPTHS):
            for block in range(depth):
                at = f"backbone.stages.{stage}.blocks.{block}"
                shift = WINDOW // 2 if block % 2 else 0
                x = x + self.windows(
                    self.norm(x, f"{at}.norm1"), size, f"{at}.attn.w_msa", HEADS[stage], shift
                )
                hidden = F.gelu(self.linear(self.norm(x, f"{at}.norm2"), f"{at}.ffn.layers.0.0"))
                x = x + self.linear(hidden, f"{at}.ffn.layers.1")
            normed = self.norm(x, f"backbone.norm{stage}")
            out.append(normed.transpose(1, 2).reshape(len(x), -1, *size))
            if stage < 3:
                x, size = self.merged(x, size, f"backbone.stages.{stage}.downsample")
        return out

    def merged(self, x: Tensor, size: torch.Size, at: str) -> tuple[Tensor, torch.Size]:
        grid = x.transpose(1, 2).reshape(len(x), -1, *size)
        grid = F.pad(grid, (0, size[1] % 2, 0, size[0] % 2))
        x = F.unfold(grid, kernel_size=2, stride=2).transpose(1, 2)
        halves = torch.Size([grid.shape[-2] // 2, grid.shape[-1] // 2])
        return self.linear(self.norm(x, f"{at}.norm"), f"{at}.reduction"), halves

    def windows(self, x: Tensor, size: torch.Size, at: str, heads: int, shift: int) -> Tensor:
        batch, _, width = x.shape
        grid = x.view(batch, *size, width)
        grid = F.pad(grid, (0, 0, 0, -size[1] % WINDOW, 0, -size[0] % WINDOW))
        high, wide = grid.shape[1:3]
        zones = torch.zeros(1, high, wide, 1)
        if shift:
            grid = torch.roll(grid, (-shift, -shift), (1, 2))
            cuts = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
            for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
                zones[:, rows, columns] = number
        parts, zone = self.cut(grid), self.cut(zones)[..., 0]
        apart = (zone[:, None, :] != zone[:, :, None]).to(x.dtype) * -100.0  # [windows, from, to]
        qkv = self.linear(parts, f"{at}.qkv").reshape(*parts.shape[:2], 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
        step = torch.arange(WINDOW)
        line = (step[:, None] * (2 * WINDOW - 1) + step[None]).reshape(1, -1)
        index = (line + line.T).flip(1)
        bias = self.s[f"{at}.relative_position_bias_table"][index.reshape(-1)]
        scores = scores + bias.view(WINDOW**2, WINDOW**2, heads).permute(2, 0, 1)
        scores = scores + apart.repeat(batch, 1, 1)[:, None]
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(parts.shape)
        mixed = self.linear(mixed, f"{at}.proj")
        mixed = mixed.view(batch, high // WINDOW, wide // WINDOW, WINDOW, WINDOW, width)
        grid = mixed.permute(0, 1, 3, 2, 4, 5).reshape(batch, high, wide, width)
        if shift:
            grid = torch.roll(grid, (shift, shift), (1, 2))
        return grid[:, : size[0], : size[1]].reshape(batch, -1, width)

    @staticmethod
    def cut(grid: Tensor) -> Tensor:
        batch, high, wide, width = grid.shape
        parts = grid.view(batch, high // WINDOW, WINDOW, wide // WINDOW, WINDOW, width)
        return parts.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW**2, width)

    @staticmethod
    def positions(high: int, wide: int) -> Tensor:
        """[1, FEATURES, high, wide]: sine and cosine of the normalised place."""
        half = FEATURES // 2
        rate = 10000.0 ** (2 * (torch.arange(half) // 2) / half)

        def axis(count: int) -> Tensor:
            place = torch.arange(1.0, count + 1.0)
            angle = (place / (place[-1] + 1e-6) * 2 * math.pi)[:, None] / rate
            return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), -1).flatten(1)

        rows = axis(high)[:, None].expand(high, wide, half)
        columns = axis(wide)[None].expand(high, wide, half)
        return torch.cat((rows, columns), -1).permute(2, 0, 1)[None]

    def pixel_decoder(self, levels: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        at = "panoptic_head.pixel_decoder"
        flat, places, points, sizes = [], [], [], []
        for i, level in enumerate(levels[:0:-1]):
            name = f"{at}.input_convs.{i}"
            x = F.conv2d(level, self.s[f"{name}.conv.weight"], self.s[f"{name}.conv.bias"])
            x = self.group(x, f"{name}.gn")
            high, wide = x.shape[-2:]
            place = self.positions(high, wide) + self.s[f"{at}.level_encoding.weight"][i].view(1, -1, 1, 1)
            y, z = torch.meshgrid(torch.arange(high) + 0.5, torch.arange(wide) + 0.5, indexing="ij")
            points.append(torch.stack((z.reshape(-1) / wide, y.reshape(-1) / high), -1))
            flat.append(x.flatten(2).transpose(1, 2))
            places.append(place.flatten(2).transpose(1, 2))
            sizes.append((high, wide))
        x, place, point = torch.cat(flat, 1), torch.cat(places, 1), torch.cat(points)
        for layer in range(ENCODER_LAYERS):
            name = f"{at}.encoder.layers.{layer}"
            x = self.norm(
                x + self.deformable(x, x + place, point, sizes, f"{name}.attentions.0"), f"{name}.norms.0"
            )
            x = self.norm(self.ffn(x, f"{name}.ffns.0"), f"{name}.norms.1")
        memory = [
            part.transpose(1, 2).reshape(len(x), -1, *size)
            for part, size in zip(x.split([h * w for h, w in sizes], 1), sizes, strict=True)
        ]
        side = self.group(
            F.conv2d(levels[0], self.s[f"{at}.lateral_convs.0.conv.weight"]), f"{at}.lateral_convs.0.gn"
        )
        side = side + F.interpolate(memory[-1], size=side.shape[-2:], mode="bilinear", align_corners=False)
        side = F.conv2d(side, self.s[f"{at}.output_convs.0.conv.weight"], padding=1)
        side = F.relu(self.group(side, f"{at}.output_convs.0.gn"))
        return F.conv2d(side, self.s[f"{at}.mask_feature.weight"], self.s[f"{at}.mask_feature.bias"]), memory

    def deformable(
        self, value: Tensor, query: Tensor, point: Tensor, sizes: list[tuple[int, int]], at: str
    ) -> Tensor:
        batch, count, _ = query.shape
        value = self.linear(value, f"{at}.value_proj").view(batch, count, DECODER_HEADS, -1)
        offsets = self.linear(query, f"{at}.sampling_offsets").view(batch, count, DECODER_HEADS, 3, 4, 2)
        weights = (
            self.linear(query, f"{at}.attention_weights").view(batch, count, DECODER_HEADS, 12).softmax(-1)
        )
        scale = torch.tensor([[float(wide), float(high)] for high, wide in sizes])
        places = point[None, :, None, None, None] + offsets / scale[None, None, None, :, None]
        out = torch.zeros(batch, count, DECODER_HEADS, value.shape[-1])
        weights = weights.view(batch, count, DECODER_HEADS, 3, 4)
        for level, (part, size) in enumerate(
            zip(value.split([h * w for h, w in sizes], 1), sizes, strict=True)
        ):
            for head in range(DECODER_HEADS):
                image = part[:, :, head].transpose(1, 2).reshape(batch, -1, *size)
                grid = 2 * places[:, :, head, level] - 1  # [batch, count, 4, 2]
                seen = F.grid_sample(image, grid, align_corners=False)  # [batch, channels, count, 4]
                out[:, :, head] += torch.einsum("bcqp,bqp->bqc", seen, weights[:, :, head, level])
        return self.linear(out.flatten(2), f"{at}.output_proj")

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, at: str) -> Tensor:
        weight, bias = self.s[f"{at}.in_proj_weight"].chunk(3), self.s[f"{at}.in_proj_bias"].chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (DECODER_HEADS, -1)).transpose(1, 2)
            for x, w, b in zip((q, k, v), weight, bias, strict=True)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(mask[:, None], -math.inf)
        return self.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f"{at}.out_proj")

    def head(self, features: Tensor, memory: list[Tensor]) -> tuple[Tensor, Tensor]:
        at, batch = "panoptic_head", len(features)
        levels = self.s[f"{at}.level_embed.weight"]
        keys = [m.flatten(2).transpose(1, 2) + levels[i] for i, m in enumerate(memory)]
        places = [self.positions(*m.shape[-2:]).flatten(2).transpose(1, 2) for m in memory]
        query = self.s[f"{at}.query_feat.weight"][None].repeat(batch, 1, 1)
        place = self.s[f"{at}.query_embed.weight"][None]
        for layer in range(DECODER_LAYERS + 1):
            normed = self.norm(query, f"{at}.transformer_decoder.post_norm")
            classes, embed = self.linear(normed, f"{at}.cls_embed"), normed
            for number in (0, 2, 4):
                embed = self.linear(embed, f"{at}.mask_embed.{number}")
                embed = F.relu(embed) if number < 4 else embed
            masks = torch.einsum("bqc,bchw->bqhw", embed, features)
            if layer == DECODER_LAYERS:
                return classes, masks
            level = layer % 3
            hidden = F.interpolate(masks, memory[level].shape[-2:], mode="bilinear", align_corners=False)
            hidden = hidden.flatten(2).sigmoid() < 0.5
            hidden[hidden.all(-1)] = False
            name = f"{at}.transformer_decoder.layers.{layer}"
            key = keys[level]
            seen = self.attention(
                query + place, key + places[level], key, hidden, f"{name}.attentions.0.attn"
            )
            query = self.norm(query + seen, f"{name}.norms.0")
            seen = self.attention(query + place, query + place, query, None, f"{name}.attentions.1.attn")
            query = self.norm(query + seen, f"{name}.norms.1")
            query = self.norm(self.ffn(query, f"{name}.ffns.0"), f"{name}.norms.2")
        raise AssertionError
