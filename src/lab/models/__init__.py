"""The networks of the thesis, as plain modules that know of no method; Chapter 3's also with their layers shared."""

from .paths import PathCNN, path_cnn, path_scnn
from .resnet import ResNet, resnet20
from .transformer import encoder, shared_encoder
from .wrn import WideResNet, swrn, swrn50_2, wrn, wrn50_2

__all__ = [
    "PathCNN", "ResNet", "WideResNet", "encoder", "path_cnn", "path_scnn", "resnet20", "shared_encoder", "swrn", "swrn50_2",
    "wrn", "wrn50_2",
]  # fmt: skip
