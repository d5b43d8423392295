"""The scripts that `bench_surgery` measures besides `cp` and the command line, as text for `python -c`.

They are what people write by hand. Arguments: task, folder of the source, blocks of the result, last blocks to leave
out first (grow), blocks to keep (prune, "0,2,4"), -o, target.
"""

from __future__ import annotations

__all__ = ["DIFFUSERS", "SAFETENSORS", "UNFLUSHED"]

# sanactl itself, without flushing and without direct writes
UNFLUSHED = """
import sys
from sanactl.cli.app import main
from sanactl.files import atomic, direct_io
atomic._sync = lambda path: None
direct_io.DIRECT_FROM = 1 << 62
sys.exit(main(sys.argv[1:]))
"""

_FLUSH = """
def flush(path):
    for file in [path] if path.is_file() else path.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
"""

DIFFUSERS = f"""
import copy, os, sys
from pathlib import Path
import torch
from diffusers import SanaTransformer2DModel
task, source, to, dropped, kept, _, target = sys.argv[1:]
{_FLUSH}
with torch.no_grad():
    model = SanaTransformer2DModel.from_pretrained(source, torch_dtype=torch.bfloat16, low_cpu_mem_usage=True)
    blocks = list(model.transformer_blocks)
    if task == "prune":
        blocks = [blocks[int(number)] for number in kept.split(",")]
    else:
        blocks = blocks[: len(blocks) - int(dropped)]
        while len(blocks) < int(to):
            new = copy.deepcopy(blocks[0])
            for name, parameter in new.named_parameters():
                zero = ("to_out.0", "conv_point", "attn1.to_q.bias", "attn2.to_q.bias", "to_k.bias", "to_v.bias")
                if any(part in name for part in zero):
                    parameter.zero_()
                elif "norm_" in name:
                    parameter.fill_(1)
                else:
                    parameter.normal_(0, 0.2 if "conv_depth" in name else 0.02)
            blocks.append(new)
    model.transformer_blocks = torch.nn.ModuleList(blocks)
    model.register_to_config(num_layers=len(blocks))
    model.save_pretrained(target, max_shard_size="5GB")
flush(Path(target))
"""

SAFETENSORS = f"""
import json, os, re, sys
from pathlib import Path
import torch
from safetensors import safe_open
from safetensors.torch import save_file
task, source, to, dropped, kept, _, target = sys.argv[1:]
{_FLUSH}
numbers = [int(number) for number in kept.split(",")]
tensors, shapes, depth = {{}}, {{}}, 0
with safe_open(Path(source) / "diffusion_pytorch_model.safetensors", "pt") as file:
    blocks = 1 + max(int(name.split(".")[1]) for name in file.keys() if name.startswith("transformer_blocks."))
    for name in file.keys():
        found = re.match(r"transformer_blocks\\.(\\d+)\\.(.*)", name)
        if found is None:
            tensors[name] = file.get_tensor(name)
        elif task == "prune":
            for place, number in enumerate(numbers):
                if number == int(found[1]):
                    tensors[f"transformer_blocks.{{place}}.{{found[2]}}"] = file.get_tensor(name)
        elif int(found[1]) < blocks - int(dropped):
            tensors[name] = file.get_tensor(name)
    if task == "grow":
        first = "transformer_blocks.0."
        for number in range(blocks - int(dropped), int(to)):
            for name in [name for name in tensors if name.startswith(first)]:
                like, rest = tensors[name], name[len(first):]
                zero = "to_out.0" in rest or "conv_point" in rest or (rest.startswith("attn") and rest.endswith("bias"))
                if zero:
                    new = torch.zeros_like(like)
                elif "norm_" in rest:
                    new = torch.ones_like(like)
                else:
                    new = torch.empty_like(like).normal_(0, 0.2 if "conv_depth" in rest else 0.02)
                tensors[f"transformer_blocks.{{number}}.{{rest}}"] = new
save_file(tensors, target, {{"format": "pt"}})
flush(Path(target))
"""
