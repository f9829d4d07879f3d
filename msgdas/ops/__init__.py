"""Operations: building blocks of candidates."""

from msgdas.ops.conv import FactorizedReduce, dil_conv, relu_conv_bn, sep_conv, wide_conv
from msgdas.ops.drop import DropBlockIdentity
from msgdas.ops.mbconv import InvertedResidual
from msgdas.ops.partial import PartialChannels
from msgdas.ops.skip import Noise, Projection, Zero

__all__ = [
    "DropBlockIdentity",
    "FactorizedReduce",
    "InvertedResidual",
    "Noise",
    "PartialChannels",
    "Projection",
    "Zero",
    "dil_conv",
    "relu_conv_bn",
    "sep_conv",
    "wide_conv",
]
