"""The networks of the thesis, as plain modules that know of no method; Chapter 3's also with their layers shared."""

from .conv6 import Conv6, conv6
from .resnet import ResNet, resnet20
from .resnet50 import resnet50
from .shortest_paths import PathCNN, path_cnn, path_scnn
from .transformer import encoder, shared_encoder
from .vgg import VGG, vgg16
from .wrn import WideResNet, swrn, swrn50_2, wrn, wrn50_2

__all__ = [
    "VGG", "Conv6", "PathCNN", "ResNet", "WideResNet", "conv6", "encoder", "path_cnn", "path_scnn",
    "resnet20", "resnet50",
    "shared_encoder", "swrn", "swrn50_2", "vgg16", "wrn", "wrn50_2",
]  # fmt: skip
