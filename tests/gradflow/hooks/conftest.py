"""Fixtures for reference gradients from autograd."""

import pytest
from torch import nn


@pytest.fixture
def keep_outputs():
    """Keeps the outputs of the convolutions and linear layers of a model, with their gradients.

    Called with the model, it gives a dictionary by layer, filled as the model runs.
    """

    def keep_all(model):
        outputs = {}
        for layer, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):

                def keep(_, __, output, layer=layer):
                    output.retain_grad()
                    outputs[layer] = output

                module.register_forward_hook(keep)
        return outputs

    return keep_all
