"""Draws initial weights parameter by parameter, so that networks of one seed share their weights.

Each parameter's values depend only on the seed and its qualified name. So a plain and a residual
network of one seed start from identical weights in all layers they share, and PyTorch's global
random state is neither read nor advanced.
"""

import math

import torch
from torch import Tensor, nn

from gradflow.seeding import derived_seed


def initialize(network: nn.Module, *, kaiming: bool, seed: int) -> None:
    """Fill every parameter and buffer of a network of convolutions, norms and linear layers.

    With `kaiming`: convolutions normal with variance 2 / fan_out (He et al. 2015b), linear
    weights N(0, 0.01), biases zero. Otherwise PyTorch's own defaults: weights and biases uniform
    within 1 / sqrt(fan_in). Normalizations start at weight 1 and bias 0 either way.
    """
    for name, module in network.named_modules():
        match module:
            case nn.Conv2d() | nn.Linear():
                _initialize_weights(module, name, kaiming=kaiming, seed=seed)
            case nn.BatchNorm2d() | nn.GroupNorm():
                module.reset_parameters()


def _initialize_weights(
    module: nn.Conv2d | nn.Linear, name: str, *, kaiming: bool, seed: int
) -> None:
    weight, bias = module.weight, module.bias
    generator = _generator(seed, f"{name}.weight")
    if not kaiming:
        # gain sqrt(2 / (1 + 5)) and bound sqrt(3) gain / sqrt(fan_in), i.e. 1 / sqrt(fan_in)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=generator)
    else:
        nn.init.normal_(weight, 0.0, 0.01, generator=generator)
    if bias is None:
        return
    if kaiming:
        nn.init.zeros_(bias)
    else:
        bound = 1 / math.sqrt(_fan_in(weight))
        nn.init.uniform_(bias, -bound, bound, generator=_generator(seed, f"{name}.bias"))


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _generator(seed: int, parameter: str) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(seed, parameter))
