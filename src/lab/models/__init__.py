"""The networks of the thesis, as plain modules that know of no method; Chapter 3's also with their layers shared."""

from .activated import ActivatedResNet, activated_resnet20
from .conv6 import Conv6, conv6
from .mobile import MobileNetV2, ShuffleNet, mobilenetv2, mobilenetv2_narrow, shufflenet, shufflenet_narrow
from .paths import PathCNN, path_cnn, path_scnn
from .resnet import ResNet, resnet20
from .resnet18 import resnet18
from .resnet50 import resnet50
from .transformer import encoder, shared_encoder
from .vgg import VGG, vgg16
from .wrn import WideResNet, swrn, swrn50_2, wrn, wrn50_2

__all__ = [
    "VGG", "ActivatedResNet", "Conv6", "MobileNetV2", "PathCNN", "ResNet", "ShuffleNet", "WideResNet", "activated_resnet20", "conv6", "encoder",
    "mobilenetv2", "mobilenetv2_narrow", "path_cnn", "path_scnn", "resnet18", "resnet20", "resnet50", "shared_encoder", "shufflenet",
    "shufflenet_narrow", "swrn", "swrn50_2", "vgg16", "wrn", "wrn50_2",
]  # fmt: skip
