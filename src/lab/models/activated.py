"""ResNet-20 with a module for each of its ReLUs, so that another activation can take its place (5.4.3)."""

from __future__ import annotations

from torch import Tensor, nn

from .resnet import Block, ResNet


class ActivatedResNet(ResNet):
    """:class:`lab.models.ResNet` whose 6n + 1 ReLUs are modules: ``relu``, and ``relus[block][0]`` and ``[1]`` inside
    the blocks.

    Same parameters under the same names, same start, same outputs. Slower on a CPU: a module keeps its own result.
    """

    def __init__(self, blocks: int = 3, classes: int = 10) -> None:
        super().__init__(blocks, classes)
        self.relu: nn.Module = nn.ReLU()
        self.relus = nn.ModuleList(nn.ModuleList([nn.ReLU(), nn.ReLU()]) for _ in self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.conv(x)))
        for block, relus in zip(self.blocks, self.relus, strict=True):
            assert isinstance(block, Block)
            assert isinstance(relus, nn.ModuleList)
            z = block.norm2(block.conv2(relus[0](block.norm1(block.conv1(y)))))
            y = relus[1](z + block.shortcut(y))
        return self.linear(y.mean(dim=(2, 3)))


def activated_resnet20(classes: int = 10) -> ActivatedResNet:
    """The ResNet-20 of Table 5.5."""
    return ActivatedResNet(3, classes)
