"""Operations: building blocks of candidates."""

from msgdas.ops.conv import FactorizedReduce, dil_conv, relu_conv_bn, sep_conv, wide_conv
from msgdas.ops.drop import DropBlockIdentity
from msgdas.ops.skip import Zero

__all__ = ["DropBlockIdentity", "FactorizedReduce", "Zero", "dil_conv", "relu_conv_bn", "sep_conv", "wide_conv"]
