r"""Soft parameter sharing (Chapter 3): search over topology by gradient descent.

The discrete problem (3.9) asks which of ``k`` weight tensors each of ``L`` layers executes: one row of
:math:`\alpha \in \{e_1, \dots, e_k\}^L` a layer. Let the rows be any vectors of :math:`\mathbb{R}^k` (3.10), and each
layer's weight is a mixture of shared templates (3.11). Where two rows end up parallel, one layer can do the work of
both: :func:`principled.fold` then executes it again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantize import check_finite
from .relax import Relaxed, Where, is_spatial_convolution, select
from .reweighted import Weights, owned_parameters
from .templates import Templates, draw, from_weights, mix
from .variables import OwnVariables, at_least_float32


def layer_similarity(alpha: Tensor) -> Tensor:
    r"""The layer similarity matrix (3.13), :math:`S_{l,l'} = |\langle\alpha_l, \alpha_{l'}\rangle| /
    \|\alpha_l\|\|\alpha_{l'}\|`.

    ``alpha`` is ``(..., L, k)``, one row a layer; the result ``(..., L, L)``, symmetric, between 0 and 1, with an exact
    1 on its diagonal. A row of zeros has no direction: its layer counts as similar (1) to itself and to no other (0).
    Differentiable, with gradient 0 at such a row.
    """
    unit = F.normalize(alpha, dim=-1)
    similarity = (unit @ unit.mT).abs().clamp(max=1)
    return torch.where(torch.eye(alpha.shape[-2], dtype=torch.bool, device=alpha.device), 1.0, similarity)


def recurrence(alpha: Tensor) -> Tensor:
    r"""How recurrent a group is: :math:`\sum_{l,l'} S_{l,l'}(\alpha)` for ``alpha`` ``(L, k)``, a 0-d tensor between L
    and L².

    The regulariser (3.19) subtracts it, times lambda, from the loss: as lambda grows the group becomes one layer in a
    loop.
    """
    return layer_similarity(alpha).sum()


def groupings(similarity: Tensor) -> list[tuple[float, list[int]]]:
    """Every grouping of a dendrogram, from all layers apart to all in one: ``[(level, groups), ...]``, L entries.

    ``similarity`` is ``(L, L)``. ``groups[l]`` is the group of layer l, counted from 0 in order of first appearance.
    ``level`` is the lowest similarity between two layers of one group (complete linkage), so it falls along the list,
    and a grouping's groups are unions of those before it. Among equal similarities the earliest layers merge first.

    Raises:
        ValueError: not a square matrix of finite numbers.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not similarity.numel():
        raise ValueError(f"a similarity matrix is (L, L), not {tuple(similarity.shape)}; see layer_similarity")
    if similarity.is_meta or not similarity.isfinite().all():
        raise ValueError("a similarity matrix holds numbers between 0 and 1; this one has entries that are not finite")
    linkage = similarity.detach().to("cpu", torch.float64, copy=True).fill_diagonal_(-1.0)
    layers = len(linkage)
    groups = list(range(layers))
    found = [(1.0, groups)]
    for _ in range(layers - 1):
        a, b = divmod(int(linkage.argmax()), layers)  # symmetric, so the first maximum has a < b
        level = float(linkage[a, b])
        linkage[a] = linkage[:, a] = torch.minimum(linkage[a], linkage[b])
        linkage[a, a] = linkage[b] = linkage[:, b] = -1.0  # b lives on in a
        groups = [a if g == b else g for g in groups]  # a group is called after its first layer
        found.append((level, [sorted(set(groups)).index(g) for g in groups]))
    return found


def group_layers(similarity: Tensor, threshold: float) -> list[int]:
    """Group the layers whose similarities are *all* at least ``threshold``: the group of each, ``[0, 1, 0, 1, 2]``.

    ``similarity`` is ``(L, L)``; ``threshold`` between 0 (one group) and 1 (only layers of equal direction, where equal
    means up to the rounding of the matrix's dtype). Groups are counted from 0 in order of first appearance, and a lower
    threshold only ever joins groups: see :func:`groupings`.

    Raises:
        ValueError: ``threshold`` outside [0, 1], or no similarity matrix.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a similarity between 0 and 1, not {threshold}")
    levels = groupings(similarity)
    tolerance = 64 * torch.finfo(similarity.dtype).eps
    return [groups for level, groups in levels if level >= threshold - tolerance][-1]


def reparameterize(
    alpha: Tensor, templates: Tensor, groups: Sequence[int], signed: bool = True
) -> tuple[Tensor, Tensor]:
    r"""Templates that each serve one group of layers (Proposition 3.1): ``(alpha', templates')``.

    Args:
        alpha: ``(L, k)`` coefficients.
        templates: ``(k, *shape)``; with ``torch.eye(k)`` the second result is the matrix B of (3.14) and (3.18) itself.
        groups: ``groups[l]`` is the group of layer l, 0 to n - 1, as :func:`group_layers` gives it.
        signed: each row of ``alpha'`` holds the layer's ratio to its group's template, sign and scale included, so that
            layers of equal direction are reproduced exactly. ``False`` is the thesis's text to the letter: ratios of 1,
            which changes the network unless the coefficients of a group are equal (its own example's are not).

    Returns:
        ``alpha'`` ``(L, n)`` with one entry a row, at the layer's group, and ``templates'`` ``(n, *shape)``. The first
        layer of a group has ratio 1 (should its coefficients be next to nothing, the first that are more).

    The ratios are the best there are: with them :math:`B^\top = \alpha\alpha'^\top(\alpha'\alpha'^\top)^{-1}` is the
    closest (least-squares) one direction a group to its coefficients. A row of zeros gets ratio 0, so it stays a layer
    of zeros.

    Raises:
        ValueError: shapes that do not fit each other, or groups that are not 0 to n - 1.
    """
    if alpha.ndim != 2 or len(templates) != alpha.shape[1] or len(groups) != len(alpha):
        raise ValueError(
            f"reparameterize takes alpha (L, k), templates (k, ...) and L groups, "
            f"not {tuple(alpha.shape)}, {tuple(templates.shape)} and {len(groups)}"
        )
    n = max(groups, default=-1) + 1
    if set(groups) != set(range(n)):
        raise ValueError(f"groups must be numbered 0 to n - 1 without gaps, not {sorted(set(groups))}")
    exact = alpha.detach().double()
    ratios = exact.new_zeros(len(alpha), n)  # alpha' of the thesis, transposed like alpha
    basis = exact.new_zeros(n, alpha.shape[1])  # B
    for g in range(n):
        members = [layer for layer, group in enumerate(groups) if group == g]
        rows = exact[members]
        c = exact.new_ones(len(members))
        if signed and rows.any():
            c = rows @ torch.linalg.svd(rows, full_matrices=False)[2][0]
            c = c / c[(c.abs() >= 0.01 * c.abs().max()).nonzero()[0]]
        ratios[members, g] = c
        basis[g] = c @ rows / (c @ c)  # row g of B: the least-squares solution of step 3
    mixed = (basis @ templates.detach().double().flatten(1)).view(n, *templates.shape[1:])
    return ratios.to(alpha.dtype), mixed.to(templates.dtype)


class SoftSharing(OwnVariables):
    r"""Groups of layers draw their weights from shared templates: :math:`W_l = \sum_i \alpha_{l,i} T_i` (3.11).

    Args:
        groups: which weights share, ``{"stage1": ["stages.0.1.conv1.weight", ...], ...}`` with parameter names in the
            order of the rows of alpha; or ``"auto"``: of the weights that ``where`` selects, those that could stand in
            for each other, two or more. They are equal in shape and dtype, and their modules in type and in every
            setting (stride, padding, dilation, groups, heads ...). Such a group is called after its shape,
            ``"64x64x3x3"``, then ``"64x64x3x3-2"``.
        templates: k, how many templates a group has; a dict gives each group its own; None, the default, gives it as
            many as it has layers: no parameter is saved then, and the similarity matrix starts as the identity.
        where: what ``"auto"`` looks at, as for :class:`ContinuousMask`. Default: convolutions with a kernel larger than
            1x1.
        start: ``"new"``, the thesis's: whatever the layers were trained to, templates and coefficients are drawn.
            ``"from weights"`` takes those that come nearest to the network's own weights
            (:func:`principled.templates.from_weights`): it goes on computing the same, up to rounding, where k is the
            group's size, and the nearest in least squares below.

    Attributes:
        alpha: ``alpha[group]`` is ``(L, k)``, a Parameter, float32 at least; new ones have orthonormal columns (rows,
            if k > L).
        templates: ``templates[group]`` is ``(k, *shape)``, a Parameter; new ones are Kaiming-normal over the fan-in.
        groups: after binding, ``{group: names}`` in the order of alpha's rows.
        start_error: with ``start="from weights"``, ``{group: error}``: the norm of what the mixtures left out of the
            group's weights, over the norm of the weights; 0 is nothing.

    The weights that share are dropped from the network. ``relaxed.parameters()`` counts the templates once and them not
    at all; ``print(relaxed)`` says what each group saves, and the error that it starts with. The penalty is
    :math:`-\sum S` over all groups, so that adding ``lam * net.penalty()`` to the loss is (3.19). Give alpha no weight
    decay: :func:`decay_groups`. A mask on top works on each layer's own mixture.

    Raises:
        ValueError: k below 1, a group of unequal shapes, dtypes or devices, a weight named twice or unknown, nothing
            that could be shared; weights to start from that are all zero or not finite; a ``state_dict`` of other
            groups.

    Source: Section 3.2; Savarese and Maire, "Learning Implicitly Recurrent CNNs Through Parameter Sharing", 2019.
    """

    replaces = True

    def __init__(
        self,
        groups: Literal["auto"] | Mapping[str, Iterable[str]] = "auto",
        templates: int | Mapping[str, int] | None = None,
        where: Where | None = None,
        start: Literal["new", "from weights"] = "new",
    ) -> None:
        super().__init__()
        if start not in ("new", "from weights"):
            raise ValueError(f'start must be "new" or "from weights", not {start!r}')
        if groups != "auto" and not isinstance(groups, Mapping):
            raise ValueError(f'groups is "auto" or a dict {{group: [weight names]}}, not {groups!r}')
        self._asked = "auto" if isinstance(groups, str) else {group: tuple(names) for group, names in groups.items()}
        self._k = templates
        self.where: Where = is_spatial_convolution if where is None else where
        self.groups: dict[str, tuple[str, ...]] = {}
        self.start, self.start_error = start, dict[str, float]()
        self.alpha = nn.ParameterDict()
        self.templates = Templates()

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Find the groups, and draw templates and coefficients for each."""
        groups = _alike(net, select(net, self.where)) if isinstance(self._asked, str) else self._asked
        _check_groups(net, groups, weights)
        for group, names in groups.items():
            k = self._k.get(group) if isinstance(self._k, Mapping) else self._k
            k = len(names) if k is None else k
            if k < 1:
                raise ValueError(f"group {group!r} cannot have {k} templates; the least is 1, a single loop")
            if self.start == "new":
                self.templates[group], self.alpha[group] = draw(weights[names[0]], len(names), k)
            else:
                self._take(group, {name: weights[name] for name in names}, k)
        self.groups = dict(groups)
        self.names = tuple(name for names in groups.values() for name in names)
        self._first = {group: alpha.detach().clone() for group, alpha in self.alpha.items()}

    def _take(self, group: str, weights: Weights, k: int) -> None:
        for name, weight in weights.items():
            if weight.is_meta:
                raise ValueError(f"{name} is on the meta device and has no numbers to start from: build it on a device")
            check_finite(weight, name)
        if not any(bool(weight.any()) for weight in weights.values()):
            raise ValueError(f"group {group!r}: all weights are 0, which is no start: load the trained ones before")
        self.templates[group], self.alpha[group], self.start_error[group], rank = from_weights([*weights.values()], k)
        if rank < min(k, len(weights)):
            equal = "are equal up to their scale" if rank == 1 else f"have rank {rank}"
            warnings.warn(
                f"group {group!r}: its {len(weights)} weights {equal}, so {rank} of {k} templates reproduce them and "
                f"the others start at coefficient 0; templates={rank} saves them",
                stacklevel=4,
            )

    def forward(self, weights: Weights) -> Weights:
        """Effective weights (3.11): one matrix product a group, each layer's weight a view of its result."""
        mixed: Weights = {}
        for group, names in self.groups.items():
            rows = mix(self.alpha[group], self.templates[group]).unbind()
            mixed |= zip(names, rows, strict=True)
        return mixed

    def penalty(self) -> Tensor:
        """Minus the sum of all groups' similarities (3.19), a 0-d tensor."""
        return -torch.stack([recurrence(alpha) for alpha in self.alpha.values()]).sum()

    def options(self) -> dict[str, Any]:
        """Which weights are the rows of which group's coefficients."""
        return super().options() | {"groups": self.groups}

    def extra_repr(self) -> str:
        """What sharing saves in each group, and that the network's own weights are not where training starts."""
        origin = "new templates: the weights that its layers had are dropped"
        lines = [f"starts from {'the weights that its layers had' if self.start_error else origin}"]
        for group, names in self.groups.items():
            k, size = len(self.templates[group]), self.templates[group][0].numel()
            trained, own = k * (size + len(names)), len(names) * size
            saved = f"{1 - trained / own:.0%} of their weights saved" if trained < own else "nothing is saved"
            error = f", {self.start_error[group]:.2g} of their norm left out at the start" if self.start_error else ""
            lines.append(f"{group}: {len(names)} layers, {k} templates: {saved}{error}")
        return "\n".join(lines)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SoftSharing:
        self.alpha._apply(at_least_float32(fn), recurse)  # type: ignore[no-untyped-call]
        self.templates._apply(fn, recurse)  # these are the weights
        return self

    def trained(self) -> bool:
        """Whether coefficients say which layers are alike: taken from weights, or moved since they were drawn."""
        if self.start_error:
            return True
        pairs = ((self._first[group].cpu(), alpha.detach().cpu()) for group, alpha in self.alpha.items())
        return any(first.is_meta or not torch.equal(first, now) for first, now in pairs)


def decay_groups(net: Relaxed, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: ``weight_decay`` for weights, templates, biases and BatchNorm, none for alpha (3.3.3).

    Variables of other relaxations (a mask's ``s``) get none either. Every trainable parameter is in one of the two
    groups.
    """
    sharing = (r for r in net.relaxations if isinstance(r, SoftSharing))
    templates = {id(t) for r in sharing for t in r.templates.values()}
    free = {id(p) for p in net.relaxations.parameters()} - templates
    parameters = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) not in free], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in free], "weight_decay": 0.0},
    ]


def _alike(net: nn.Module, chosen: Mapping[str, nn.Parameter]) -> dict[str, tuple[str, ...]]:
    """Group weights that could stand in for each other."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, module, weight in owned_parameters(net):
        if name in chosen:
            # extra_repr is where a module states its settings (a convolution its stride); attention states none
            heads = getattr(module, "num_heads", None)
            key = (type(module), module.extra_repr(), heads, name.rpartition(".")[2], weight.shape, weight.dtype)
            found.setdefault(key, []).append(name)
    groups: dict[str, tuple[str, ...]] = {}
    for key, names in found.items():
        if len(names) > 1:
            label = shape = "x".join(map(str, key[4]))
            count = 1
            while label in groups:
                count += 1
                label = f"{shape}-{count}"
            groups[label] = tuple(names)
    if not groups:
        raise ValueError(
            f"no two of the {len(chosen)} selected weights of {type(net).__name__} are alike in shape, dtype "
            "and settings; "
            'select more with where=..., or name them: groups={"mine": [...]}'
        )
    return groups


def _check_groups(net: nn.Module, groups: Mapping[str, tuple[str, ...]], weights: Mapping[str, Tensor]) -> None:
    if not groups:
        raise ValueError('groups is empty: name at least one, {"mine": ["0.weight", "2.weight"]}')
    of: dict[str, str] = {}
    for group, names in groups.items():
        if not names:
            raise ValueError(f"group {group!r} is empty: name the weights that share")
        if "." in group or not group or hasattr(nn.ParameterDict(), group):
            raise ValueError(f"{group!r} cannot name a group: no dot, no attribute of a module; try 'stage1'")
        for name in names:
            if name not in weights:
                raise ValueError(f"group {group!r}: {type(net).__name__} has no parameter named {name!r}")
            if name in of:
                raise ValueError(f"{name!r} is named twice, in group {of[name]!r} and in {group!r}")
            of[name] = group
            shape, first = tuple(weights[name].shape), tuple(weights[names[0]].shape)
            if shape != first:
                raise ValueError(
                    f"group {group!r} has unequal shapes: {names[0]!r} is {first}, {name!r} is {shape}; split the group"
                )
            dtype, other = weights[names[0]].dtype, weights[name].dtype
            if dtype != other:
                raise ValueError(
                    f"group {group!r} has unequal dtypes: {names[0]!r} is {dtype}, {name!r} is {other}; cast "
                    "one, or split the group"
                )
            devices = weights[names[0]].device, weights[name].device
            if devices[0] != devices[1]:
                raise ValueError(
                    f"group {group!r} has unequal devices: {names[0]!r} is on {devices[0]}, {name!r} on {devices[1]}; "
                    "move one, or split the group"
                )
            if len(shape) < 2:
                raise ValueError(f"group {group!r}: {name!r} is {shape}; only weights of two or more dimensions share")
