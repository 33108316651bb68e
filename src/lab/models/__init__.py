"""The networks of the thesis, as plain modules: nothing in them knows of a method."""

from .resnet import ResNet, resnet20

__all__ = ["ResNet", "resnet20"]
