"""The templates of a group of layers: how they are mixed, drawn anew, or taken from the layers' own weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .variables import variable_dtype


class Templates(nn.ParameterDict):
    """Group to ``(k, *shape)``. What ``.to(...)`` does to a weight of the network, it does to each template."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Templates:
        def on_stack(stack: Tensor) -> Tensor:
            """``fn`` of a stack seen as 4-d: memory_format=channels_last holds for weights, and a stack of them has 5
            dimensions.
            """
            return torch.unflatten(fn(stack.flatten(0, 1)), 0, stack.shape[:2])

        super()._apply(on_stack, recurse)  # type: ignore[no-untyped-call]
        return self


def _order(tensor: Tensor) -> list[int]:
    """Its dimensions as they lie in memory, the slowest first."""
    strides = tensor.stride()
    return sorted(range(tensor.ndim), key=lambda d: -strides[d])


def mix(alpha: Tensor, templates: Tensor) -> Tensor:
    """``(L, k)`` times ``(k, *shape)`` is ``(L, *shape)``: one matrix product, without a copy whatever the memory
    layout.
    """
    order = [d for d in _order(templates) if d]
    flat = templates.permute(0, *order).flatten(1)
    mixed = torch.unflatten(alpha.to(flat.dtype) @ flat, 1, [templates.shape[d] for d in order])
    return mixed.permute(0, *(1 + order.index(d) for d in range(1, templates.ndim)))


def draw(like: Tensor, layers: int, k: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Templates (k, *shape) with the memory layout of ``like``, and coefficients (layers, k)."""
    drawn = torch.empty(k, *like.shape, dtype=like.dtype, device=like.device)
    for template in drawn:
        nn.init.kaiming_normal_(template)
    layout = (0, *(d + 1 for d in _order(like)))
    templates = torch.empty_permuted(drawn.shape, layout, dtype=like.dtype, device=like.device).copy_(drawn)
    alpha = torch.empty(layers, k, dtype=variable_dtype([like]), device=like.device)
    return nn.Parameter(templates), nn.Parameter(nn.init.orthogonal_(alpha))


@torch.no_grad()
def from_weights(weights: list[Tensor], k: int) -> tuple[nn.Parameter, nn.Parameter, float, int]:
    r"""Templates and coefficients whose mixtures are as near to ``weights`` as k templates allow, and how near.

    One singular value decomposition, of the layers' flattened weights as rows, :math:`W = U \Sigma V^\top`: the first k
    columns of :math:`U \Sigma / c` are the coefficients, of :math:`c V` the templates, with c the root mean square of
    the layers' norms. No k templates leave a smaller squared error (Eckart and Young); where k is at least the rank
    they leave none. A layer's row has then about unit norm, a template a layer's size, and two rows the similarity
    (3.13) of the weights that they stand for. Templates beyond the rank are drawn as :func:`draw` draws them, at
    coefficient 0.

    Args:
        weights: L tensors of one shape and dtype, all finite and not all zero.
        k: number of templates.

    Returns:
        Templates ``(k, *shape)`` in the weights' memory layout, coefficients ``(L, k)``; the norm of what all mixtures
        leave out over that of all weights, as computed in the weights' dtype; and the rank of W in that dtype.
    """
    templates, alpha = draw(weights[0], len(weights), k)
    rows = torch.stack([weight.flatten() for weight in weights]).double()
    u, sigma, v = torch.linalg.svd(rows, full_matrices=False)
    rank = int((sigma > sigma[0] * max(rows.shape) * torch.finfo(weights[0].dtype).eps).sum())
    kept, size = min(k, rank), (sigma.square().sum() / len(rows)).sqrt()
    alpha.zero_()[:, :kept] = u[:, :kept] * (sigma[:kept] / size)
    templates[:kept] = (v[:kept] * size).view(kept, *weights[0].shape).to(templates.dtype)
    left = mix(alpha, templates).flatten(1).double() - rows
    return templates, alpha, float(left.norm() / rows.norm()), rank
