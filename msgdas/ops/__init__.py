"""Operations: building blocks of candidates."""

from msgdas.ops.conv import relu_conv_bn
from msgdas.ops.drop import DropBlockIdentity
from msgdas.ops.skip import Zero

__all__ = ["DropBlockIdentity", "Zero", "relu_conv_bn"]
