"""Pictures of the pixels that a prediction depends on, one number per pixel, made by captum.

Integrated gradients (Sundararajan et al. 2017, Axiomatic attribution for deep networks, equation
1) add up to the logit of the image minus that of the baseline. Grad-CAM (Selvaraju et al. 2017,
equations 1 and 2) weights the feature maps of one layer by their mean gradients and keeps the
positive part.
"""

import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam
from torch import Tensor, nn

from gradflow.probes.network.blocks import Block, find_blocks

MIN_MAP_SIDE = 4  # in pixels: a smaller Grad-CAM map cannot show a place in the image
MAX_POINTS_PER_PASS = 96


def integrated_gradients(
    model: nn.Module, images: Tensor, baseline: Tensor, targets: Tensor, steps: int
) -> Tensor:
    """Integrated gradients of the logits `targets` [N], summed over color: [N, H, W], in logits.

    `images` and `baseline` are [N, 3, H, W]; the integral is a midpoint sum of `steps` terms.
    """
    attributions: Tensor = IntegratedGradients(model).attribute(
        _with_gradient(images),
        baseline,
        target=targets,
        n_steps=steps,
        method="riemann_middle",
        internal_batch_size=max(MAX_POINTS_PER_PASS, len(images)),
    )
    return attributions.detach().sum(1)


def grad_cam(model: nn.Module, images: Tensor, targets: Tensor, layer: nn.Module) -> Tensor:
    """Grad-CAM of the logits `targets` [N] at `layer`, resized bilinearly: [N, H, W], in logits.

    `images` are [N, 3, H, W]; the output of `layer` is [N, C, H', W'].
    """
    maps = LayerGradCam(model, layer).attribute(
        _with_gradient(images), target=targets, relu_attributions=True
    )
    resized: Tensor = LayerAttribution.interpolate(maps.detach(), images.shape[-2:], "bilinear")
    return resized[:, 0]


def layer_for_grad_cam(model: nn.Module, image: Tensor) -> Block:
    """The last block whose output for `image` [3, H, W] has at least 4 x 4 pixels.

    The usual choice is the network's last block, but for a small image its output is 1 x 1 pixel.
    If no block has 4 x 4 pixels, the first block is taken. `model` must have blocks.
    """
    blocks = find_blocks(model)
    sides: dict[str, int] = {}
    hooks = [
        block.module.register_forward_hook(
            lambda module, inputs, output, name=block.name: sides.update(
                {name: min(output.shape[-2:])}
            )
        )
        for block in blocks
    ]
    try:
        with torch.no_grad():
            model(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    large = [block for block in blocks if sides[block.name] >= MIN_MAP_SIDE]
    return large[-1] if large else blocks[0]


def _with_gradient(images: Tensor) -> Tensor:
    """A copy that requires gradients. Without it captum would warn and switch them on itself."""
    return images.detach().clone().requires_grad_()
