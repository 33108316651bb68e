"""What a CUDA graph does, on a CPU: tensor operations recorded without an effect, then done again without executing
Python.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class Tape(TorchDispatchMode):
    """``tape(body)`` records ``body``, undoes what it did, and gives back what replays it: a
    :data:`lab.training.cuda_graph.Recorder`.

    As in a graph, an operation is done again on the very tensors that it was recorded with, its results written where
    they were before; all else that Python does in ``body`` is forgotten. ``replays`` counts.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.before, self.made, self.replays = [], {}, set(), 0

    def __call__(self, body):
        chance = torch.get_rng_state()
        self.operations = []
        with self:
            body()
        for storage, content in self.before.values():
            storage.copy_(content)
        self.before, self.made = {}, set()
        torch.set_rng_state(chance)
        return self.replay

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = {t.untyped_storage()._cdata: t for t in tensors((args, kwargs))}
        if (
            func._schema.is_mutable or "batch_norm" in func.name()
        ):  # which does not admit that it writes running averages
            for key, tensor in given.items():
                if key not in self.made and key not in self.before:
                    storage = tensor.untyped_storage()
                    self.before[key] = storage, storage.clone()
        results = func(*args, **kwargs)
        fresh = [t for t in tensors(results) if t.untyped_storage()._cdata not in given]
        self.made |= {t.untyped_storage()._cdata for t in fresh}
        self.operations.append((func, args, kwargs, results, given.keys()))  # keeps every tensor alive, at its place
        return results

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        for func, args, kwargs, results, given in self.operations:
            for place, value in zip(tensors(results), tensors(func(*args, **kwargs)), strict=True):
                if place.untyped_storage()._cdata not in given:  # neither a view nor written in place
                    place.copy_(value.view(place.shape))  # it may have been squeezed in place since
