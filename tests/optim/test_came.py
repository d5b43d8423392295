"""CAME and CAME-8bit as optimizers: the same numbers as came-pytorch and as the reference, and hard inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sanactl.errors import TrainingError, UsageError
from sanactl.optim import CAME, CAME8bit
from sanactl.optim.blockwise import SCHEMES, Quantized, Scheme
from sanactl.optim.reference import Hyper, came8bit_step, came_step

SHAPES = [(160, 130), (130, 160, 1, 1), (24, 1, 3, 3), (40,), (2, 3), (1, 1), (1,), ()]


def params(seed: int = 0, dtype: torch.dtype = torch.float32, shapes: Any = SHAPES) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def set_grads(ps: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in ps:
        size = 10 ** torch.randn((), generator=generator)
        p.grad = (torch.randn(p.shape, generator=generator) * size).to(p.device, p.dtype)


def test_matches_came_pytorch_step_by_step() -> None:
    theirs_module = pytest.importorskip("came_pytorch")
    shapes = [(160, 130), (3, 200), (40,), (1,)]
    ours, theirs = params(shapes=shapes), params(shapes=shapes)
    a = CAME(ours, lr=1e-2, weight_decay=0.01)
    b = theirs_module.CAME(theirs, lr=1e-2, weight_decay=0.01)
    for step in range(30):
        set_grads(ours, step)
        set_grads(theirs, step)
        a.step()
        # came-pytorch holds 1-D parameters to the same rule as we do: no factors, no confidence.
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=2e-5, atol=2e-6)
    for p, q in zip(ours, theirs, strict=True):
        for key, value in a.state[p].items():
            if key != "step":
                torch.testing.assert_close(value, b.state[q][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_came_is_its_reference(weight_decay: float) -> None:
    for shape in SHAPES:
        (p,) = params(shapes=[shape])
        optimizer = CAME([p], lr=1e-2, weight_decay=weight_decay)
        flat = (lambda t: t[:, :, 0, 0]) if len(shape) == 4 and shape[3] == 1 else (lambda t: t)
        wanted, state = flat(p.detach().clone()), None
        for step in range(5):
            set_grads([p], step)
            assert p.grad is not None
            if state is None:
                state = dict.fromkeys(("exp_avg", "exp_avg_sq"), torch.zeros(wanted.shape))
                if wanted.ndim == 2:
                    rows, cols = torch.zeros(wanted.shape[0]), torch.zeros(wanted.shape[1])
                    state = {"exp_avg": torch.zeros(wanted.shape)}
                    state |= {
                        f"exp_avg_{s}_{d}": t
                        for s in ("sq", "res")
                        for d, t in (("row", rows), ("col", cols))
                    }
            wanted, state = came_step(wanted, flat(p.grad), state, Hyper(1e-2, weight_decay=weight_decay))
            optimizer.step()
            torch.testing.assert_close(flat(p.detach()), wanted, rtol=1e-5, atol=1e-5)


CONVOLUTIONS = [
    nn.Conv1d(20, 24, 1), nn.Conv2d(20, 24, 1), nn.Conv3d(20, 24, 1), nn.Conv1d(20, 24, 3), nn.Conv2d(6, 8, 5),
    nn.Conv2d(6, 8, (1, 7)), nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 12, 1, groups=4), nn.Conv2d(12, 12, 1, groups=12),
    nn.Conv3d(4, 4, (1, 3, 3), groups=2), nn.ConvTranspose2d(6, 8, 1), nn.ConvTranspose2d(6, 8, 4),
]  # fmt: skip


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_convolutions_of_any_kernel_and_groups(layer: Any) -> None:
    """A kernel of one position is a matrix; any other has an unfactored second moment and no confidence term."""
    p = nn.Parameter(layer.weight.detach().clone())
    optimizer = CAME8bit([p], lr=1e-2, min_8bit_size=10, block_size=64)
    matrix = all(side == 1 for side in p.shape[2:])
    flat = p.detach().flatten(1) if matrix else p.detach()
    wanted, zero = flat.clone(), torch.zeros_like(flat)
    state = {"exp_avg": zero, "exp_avg_sq": zero}
    if matrix:
        sides = {"row": zero[:, 0], "col": zero[0]}
        state = {"exp_avg": zero, **{f"exp_avg_{s}_{d}": t for s in ("sq", "res") for d, t in sides.items()}}
    set_grads([p], 0)
    assert p.grad is not None
    wanted, state = came_step(wanted, p.grad.view_as(flat), state, Hyper(1e-2))
    optimizer.step()
    torch.testing.assert_close(p.detach(), wanted.view_as(p), rtol=1e-5, atol=1e-5)
    assert ("exp_avg_codes" in optimizer.state[p]) == matrix
    assert ("exp_avg_sq" in optimizer.state[p]) == (not matrix)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("blocking", ["paper", "rows"])
@pytest.mark.parametrize("shape", [(160, 130), (300, 64), (17, 999)])
def test_came8bit_is_its_reference(scheme: Scheme, blocking: str, shape: tuple[int, int]) -> None:
    (p,) = params(shapes=[shape])
    block = 16 * shape[1] if blocking == "rows" else 16
    optimizer = CAME8bit([p], lr=1e-2, scheme=scheme, blocking=blocking, block_size=16, min_8bit_size=100)
    zeros = {"row": torch.zeros(shape[0]), "col": torch.zeros(shape[1])}
    state = {f"exp_avg_{s}_{d}": t for s in ("sq", "res") for d, t in zeros.items()}
    blocks = -(-p.numel() // block)
    m = Quantized(torch.zeros(shape, dtype=torch.uint8), torch.zeros(blocks), torch.zeros(blocks))
    wanted = p.detach().clone()
    for step in range(4):
        set_grads([p], step)
        assert p.grad is not None
        wanted, state, m = came8bit_step(
            wanted, p.grad, state, m, Hyper(1e-2), block_size=block, scheme=scheme
        )
        optimizer.step()
    # A value on the edge between two codes may fall on either side, and then its next step differs by a level.
    close = torch.isclose(p.detach(), wanted, rtol=1e-5, atol=1e-5)
    assert close.float().mean() > 0.99
    torch.testing.assert_close(p.detach(), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", [CAME, CAME8bit])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_bad_gradient_is_refused_before_anything_changes(kind: type[CAME], bad: float) -> None:
    ps = params()
    names = [f"layer{i}.weight" for i in range(len(ps))]
    optimizer = kind(list(zip(names, ps, strict=True)), lr=1e-2)
    set_grads(ps, 0)
    optimizer.step()
    before = [p.detach().clone() for p in ps]
    states = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in ps]
    for at in (0, 2, 6):
        set_grads(ps, 1)
        assert ps[at].grad is not None
        ps[at].grad.view(-1)[0] = bad
        with pytest.raises(TrainingError, match=rf"layer{at}\.weight.*nothing was changed"):
            optimizer.step()
        for p, old, state in zip(ps, before, states, strict=True):
            assert torch.equal(p, old)
            assert all(torch.equal(v, optimizer.state[p][k]) for k, v in state.items())


def test_unnamed_parameters_are_named_by_place_and_shape() -> None:
    (p,) = params(shapes=[(3, 2)])
    p.grad = torch.full((3, 2), torch.inf)
    with pytest.raises(TrainingError, match=r"parameter 0 of group 0 \[3, 2\] contains inf or NaN"):
        CAME([p]).step()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-25, 1e10, 1e14 / 200])
def test_extreme_gradients_stay_finite(scheme: Scheme, size: float) -> None:
    """Zero, denormal and huge gradients, in every order, with dead rows and columns beside them."""
    (p,) = params(shapes=[(160, 130)])
    optimizer = CAME8bit([p], lr=1e-3, scheme=scheme)
    for gradient in (size, 1.0, size, 0.0, size):
        p.grad = torch.full_like(p, gradient)
        p.grad[7], p.grad[:, 9], p.grad[0, 0] = 0, 0, 1e-20
        optimizer.step()
        assert torch.isfinite(p).all()
        assert all(torch.isfinite(v.float()).all() for v in optimizer.state[p].values())


def test_empty_parameters_and_missing_gradients_are_passed_over() -> None:
    ps = params(shapes=[(0,), (0, 5), (5, 0), (3, 4)])
    for p in ps[:3]:
        p.grad = torch.zeros_like(p)
    optimizer = CAME8bit(ps)
    optimizer.step()
    assert not optimizer.state
    CAME([ps[3]]).step()


def test_sparse_gradients_are_refused() -> None:
    embed = nn.Embedding(5, 3, sparse=True)
    embed(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match=r"'weight'.*sparse=False"):
        CAME8bit(embed.named_parameters()).step()


@pytest.mark.parametrize("kind", [CAME, CAME8bit])
def test_memory_layout_does_not_matter(kind: type[CAME]) -> None:
    x = torch.randn(160, 130, generator=torch.Generator().manual_seed(3))
    straight, turned = nn.Parameter(x.clone()), nn.Parameter(x.t().contiguous().t())
    conv = nn.Parameter(x[:, :, None, None].clone(memory_format=torch.channels_last))
    optimizers = [kind([p], lr=1e-2) for p in (straight, turned, conv)]
    for step in range(3):
        set_grads([straight], step)
        assert straight.grad is not None
        turned.grad = straight.grad.t().contiguous().t()
        conv.grad = straight.grad[:, :, None, None].clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(straight, conv[:, :, 0, 0])
    torch.testing.assert_close(straight, turned, rtol=1e-5, atol=1e-6)


def test_closure_groups_and_schedulers() -> None:
    ps = params()
    optimizer = CAME8bit(ps[:1], lr=1e-2)
    optimizer.add_param_group({"params": ps[1:], "lr": 1e-3, "min_8bit_size": 10**9, "scheme": "dynamic"})
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sum((p.square().sum() for p in ps), torch.zeros(()))
        loss.backward()
        return loss

    first = optimizer.step(closure)
    scheduler.step()
    second = optimizer.step(closure)
    assert second < first
    assert "exp_avg_codes" in optimizer.state[ps[0]]
    assert "exp_avg" in optimizer.state[ps[1]]
    assert optimizer.param_groups[1]["lr"] == 5e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr is -1"),
        ({"betas": (0.9, 0.999)}, "three numbers"),
        ({"betas": (0.9, 1.0, 0.9999)}, "three numbers"),
        ({"betas": 0.9}, "betas are 0.9"),
        ({"betas": "0.9"}, "three numbers"),
        ({"eps": (0, 1e-16)}, "eps is"),
        ({"eps": 0}, "eps is 0"),
        ({"eps": (1e-30, None)}, "two numbers"),
        ({"clip_threshold": 0}, "clip_threshold"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"scheme": "fp8"}, "unknown quantization scheme 'fp8'"),
        ({"blocking": "columns"}, "unknown blocking"),
        ({"block_size": 0}, "block_size is 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CAME8bit(params(), **options)
    optimizer = CAME8bit(params(), lr=1e-3)
    with pytest.raises(UsageError, match=message):
        optimizer.add_param_group({"params": params(1), **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", [CAME, CAME8bit])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float64])
def test_parameters_of_other_kinds_are_refused(kind: type[CAME], dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match=rf"{dtype}.*fp32, bf16 and fp16"):
        kind([nn.Parameter(torch.zeros(3, 3, dtype=dtype))])


def test_weight_decay_shrinks_what_has_no_gradient() -> None:
    p = nn.Parameter(torch.ones(200, 100))
    p.grad = torch.zeros_like(p)
    CAME8bit([p], lr=0.1, weight_decay=0.5).step()
    assert torch.allclose(p, torch.tensor(0.95))


@pytest.mark.parametrize(("kind", "options"), [(CAME, {}), *((CAME8bit, {"scheme": c}) for c in SCHEMES)])
@pytest.mark.parametrize("by_group", [False, True])
def test_maximize_goes_up_the_gradient(kind: type[CAME], options: dict[str, Any], by_group: bool) -> None:
    down, up = params(), params()
    a = kind(down, lr=1e-2, **options)
    b = kind(
        [{"params": up, "maximize": True}] if by_group else up, lr=1e-2, **options, maximize=not by_group
    )
    for step in range(3):
        set_grads(down, step)
        for p, q in zip(down, up, strict=True):
            assert p.grad is not None
            q.grad = -p.grad
        a.step()
        b.step()
    for p, q in zip(down, up, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_the_reference_maximizes_too() -> None:
    (p,) = params(shapes=[(20, 30)])
    optimizer = CAME([p], lr=1e-2, maximize=True)
    set_grads([p], 0)
    assert p.grad is not None
    state = {"exp_avg": torch.zeros(20, 30)}
    state |= {
        f"exp_avg_{s}_{d}": torch.zeros(n) for s in ("sq", "res") for d, n in (("row", 20), ("col", 30))
    }
    wanted, _ = came_step(p.detach().clone(), p.grad, state, Hyper(1e-2, maximize=True))
    optimizer.step()
    torch.testing.assert_close(p.detach(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("option", ["amsgrad", "nesterov", "differentiable"])
def test_options_of_other_optimizers_are_not_passed_over(option: str) -> None:
    (p,) = params(shapes=[(20, 30)])
    with pytest.raises(UsageError, match=option):
        CAME8bit([{"params": [p], option: True}])
    CAME8bit([{"params": [p], option: False, "lr": 1e-3, "name": "mine"}])
    with pytest.raises(UsageError, match="CAME has no option scheme"):
        CAME([{"params": [p], "scheme": "zero"}])
