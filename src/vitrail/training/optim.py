"""Optimizers: torch's Adam, AdamW and SGD, and our Muon.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon
"""

# torch's own optimizers stand on torch._foreach_*, which has no public name.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

from vitrail.config import TrainingConfig
from vitrail.models.attention import Attention
from vitrail.models.attention2d import Attention2d
from vitrail.models.layers import AttentionPool

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # chosen by Jordan et al. for the steepest slope at zero
EPSILON = 1e-7

# Modules whose one weight holds several maps of equal shape, one after the other: its name, and how many it holds. The
# name alone does not tell: there are backbones of timm whose query, key and value differ in width.
_FUSED: tuple[tuple[type[nn.Module], str, int], ...] = (
    (Attention, "qkv.weight", 3),
    (Attention2d, "qkv.weight", 3),
    (AttentionPool, "kv.weight", 2),
    (nn.MultiheadAttention, "in_proj_weight", 3),
)
_FUSED_OF_TIMM = {  # by name, as timm need not be imported for other models
    "timm.layers.attention.Attention": ("qkv.weight", 3),
    "timm.layers.attention.AttentionRope": ("qkv.weight", 3),
    "timm.layers.attention_pool.AttentionPoolLatent": ("kv.weight", 2),
    "timm.models.beit.Attention": ("qkv.weight", 3),
    "timm.models.eva.EvaAttention": ("qkv.weight", 3),
    "timm.models.swin_transformer.WindowAttention": ("qkv.weight", 3),
}


def orthogonalize(matrices: Tensor, num_steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end between about 0.7 and 1.2.

    (M, rows, columns) -> the same shape, in `dtype`, by the quintic Newton-Schulz iteration of Jordan et al. 2024.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:  # the iteration costs rows^2 * columns: lay matrices flat
        x = x.transpose(1, 2)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)
    for _ in range(num_steps):
        gram = x @ x.transpose(1, 2)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for the weight matrices between a network's stem and its head.

    As torch.optim.Muon with adjust_lr_fn="match_rms_adamw" (Liu et al. 2025, section 2.2), so a learning rate that
    suits AdamW suits it, and besides: the iteration runs in bfloat16 on CUDA alone, as on the CPU that would cost both
    time and accuracy; convolution kernels are flattened to (out, rest); a group with `num_matrices=3` holds fused
    query-key-value weights, which are three maps and are orthogonalised as three. Equal shapes are done in one batch.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        num_steps: int = 5,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "num_steps": num_steps,
            "num_matrices": 1,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for parameters in by_shape.values():
                self._step_together(parameters, group)
        return loss

    def _step_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers: list[Tensor] = [self.state[p]["momentum_buffer"] for p in parameters]
        momentum: float = group["momentum"]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        nesterov = torch._foreach_lerp(gradients, buffers, momentum)

        shape = parameters[0].shape
        rows, columns = shape[0] // group["num_matrices"], shape[1:].numel()
        matrices = torch.stack(list(nesterov)).view(-1, rows, columns)
        dtype = torch.bfloat16 if matrices.device.type == "cuda" else torch.float32  # not every Mac has bfloat16
        updates = orthogonalize(matrices, group["num_steps"], dtype).to(parameters[0].dtype).reshape(-1, *shape)

        rate: float = group["lr"]
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_add_(parameters, list(updates.unbind(0)), alpha=-rate * 0.2 * max(rows, columns) ** 0.5)


def create_optimizers(model: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of a run, each with the recipe's learning rate in its groups' `lr`; the schedule scales it.

    Weight decay acts on matrices and kernels, not on biases, norms, class tokens and position embeddings. Muon takes
    the matrices between the stem and the head; the stem, the head and vectors stay with AdamW, and so do kernels of
    one channel and matrices of one row, which are no map between spaces.
    """
    rate, decay = config.learning_rate, config.weight_decay
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [(name, p) for name, p in named if _is_matrix(name, p)]
    vectors = [p for name, p in named if not _is_matrix(name, p)]
    if config.optimizer == "sgd":
        groups = [{"params": [p for _, p in matrices], "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        return [torch.optim.SGD(_without_empty(groups), lr=rate, momentum=config.momentum)]
    if config.optimizer == "muon":
        kept = _outer_parameters(model)
        hidden = [(name, p) for name, p in matrices if p not in kept and min(p.shape[:2]) > 1]
        fused = _fused_parameters(model)
        muon_groups = [
            {"params": [p for _, p in hidden if fused.get(p, 1) == number], "num_matrices": number}
            for number in (1, 3, 2)
        ]
        taken = {p for _, p in hidden}
        outer = [p for _, p in matrices if p not in taken]
        optimizers: list[torch.optim.Optimizer] = [
            Muon(_without_empty(muon_groups), lr=rate, momentum=config.momentum, weight_decay=decay)
        ]
    else:
        outer = [p for _, p in matrices]
        optimizers = []
    groups = [{"params": outer, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    optimizers.append(adam(_without_empty(groups), lr=rate, betas=config.betas, fused=True))
    return optimizers


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a layer's matrix or kernel; tokens, position embeddings and factors of channels are none."""
    return parameter.ndim >= 2 and name.endswith("weight")


def _outer_parameters(model: nn.Module) -> set[nn.Parameter]:
    """The parameters of the stem and the head, whatever names they have inside the model."""
    parts = [getattr(model, name, None) for name in ("patch_embed", "head", "head_dist")]
    return {parameter for part in parts if isinstance(part, nn.Module) for parameter in part.parameters()}


def _fused_parameters(model: nn.Module) -> dict[nn.Parameter, int]:
    """The weights that hold several maps, and how many each holds."""
    found: dict[nn.Parameter, int] = {}
    for module in model.modules():
        kind = type(module)
        fused = [(name, number) for known, name, number in _FUSED if isinstance(module, known)]
        fused += filter(None, [_FUSED_OF_TIMM.get(f"{kind.__module__}.{kind.__qualname__}")])
        own = dict(module.named_parameters())
        found |= {own[name]: number for name, number in fused if name in own}
    return found


def _without_empty(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]
