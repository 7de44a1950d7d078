"""Inner products of the gradients of single images, layer by layer, without a pass for each image.

With frozen batch-norm statistics the images of a batch do not influence one another. So one forward
and one backward pass of the whole batch are enough: a layer's input and the gradient of its output
give its exact gradients for single images. These are computed one layer at a time, so no more than
one layer's are in memory, and those of deep convolutions never are. On a CPU, `vmap(grad)` of the
whole network takes several times as long as single images one after another, because it turns
convolutions into grouped ones.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional as F

from gradflow.probes.network.calls import ModuleCall, modules_with_parameters, record_calls
from gradflow.probes.probe import NotMeasurableError

# The allowed difference between the squared norm of the summed gradients and that of autograd's
# gradient, as a share of n times the sum of squared norms, its largest possible value.
_TOLERANCE = 1e-3


def gradient_products(model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """<g_i, g_j> for each layer with parameters, float64 [n, n] on the CPU, g_i the gradients of
    the cross-entropy of image i with respect to the layer's own parameters.

    Memory: the inputs and output gradients of all layers with parameters, for n images. In
    addition, for one layer at a time: its unfolded inputs with n gradients, or its inner products
    over positions, whichever is smaller.

    Args:
        model: in evaluation mode; the `grad` of its parameters is overwritten.
        images: [n, 3, H, W].
        targets: int64 [n].

    Raises `NotMeasurableError` if a layer's gradients do not add up to autograd's. Then modules
    share parameters, or a module uses parameters that another one holds.
    """
    model.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    modules = modules_with_parameters(model)
    # A copy of the images, because a network's first layer may work in place.
    calls = record_calls(
        modules, lambda: F.cross_entropy(model(images.clone()), targets, reduction="sum")
    )
    by_module: dict[nn.Module, list[ModuleCall]] = {}
    for call in calls:
        by_module.setdefault(call.module, []).append(call)
    products = {}
    for name, module in modules.items():
        product = _module_products(by_module.pop(module, []), len(images))
        _require_complete(name, module, product)
        products[name] = product
    return products


def _module_products(calls: Sequence[ModuleCall], n: int) -> Tensor:
    """<g_i, g_j> of one module from its calls, float64 [n, n] on the CPU."""
    if not calls:
        return torch.zeros(n, n, dtype=torch.float64)
    for call in calls:
        if len(call.inputs) != n or len(call.gradient) != n:
            raise NotMeasurableError(f"{call.name} mixes the images of a batch")
    module = calls[0].module
    if isinstance(module, nn.Linear) or _is_plain_convolution(module):
        product = _linear_products(calls)
    else:
        gradients = torch.stack([_sample_gradients(call) for call in calls]).sum(0)
        product = gradients @ gradients.T
    return product.double().cpu()


def _is_plain_convolution(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _linear_products(calls: Sequence[ModuleCall]) -> Tensor:
    """<g_i, g_j>, [n, n], of a layer that multiplies its weights [C, K] with columns [K, S].

    g_i is the sum over positions s of d_is a_is^T (a the columns, d the output's gradient), so
    <g_i, g_j> = sum over s, t of <a_is, a_jt> <d_is, d_jt>. With few positions, this avoids
    computing the g_i. Several calls of a layer count as more positions.
    """
    columns = torch.cat([_unfold(call)[0] for call in calls], dim=1)  # [n, S, K]
    gradients = torch.cat([_unfold(call)[1] for call in calls], dim=1)  # [n, S, C]
    n, positions, inputs = columns.shape
    outputs = gradients.shape[2]
    by_position = (n * positions) ** 2 * (inputs + outputs)
    by_gradient = n * inputs * outputs * (positions + n)
    if by_position < by_gradient:
        a, d = columns.reshape(n * positions, inputs), gradients.reshape(n * positions, outputs)
        product = ((a @ a.T) * (d @ d.T)).view(n, positions, n, positions).sum((1, 3))
    else:
        weights = torch.bmm(gradients.transpose(1, 2), columns).flatten(1)
        product = weights @ weights.T
    if calls[0].module.bias is not None:
        biases = gradients.sum(1)
        product = product + biases @ biases.T
    return product


def _unfold(call: ModuleCall) -> tuple[Tensor, Tensor]:
    """The columns that multiply the weights, [n, S, K], and the output's gradient, [n, S, C]."""
    module, n = call.module, len(call.inputs)
    if isinstance(module, nn.Conv2d):
        assert not isinstance(module.padding, str)
        unfolded = F.unfold(
            call.inputs, module.kernel_size, module.dilation, module.padding, module.stride
        )
        return unfolded.transpose(1, 2), call.gradient.flatten(2).transpose(1, 2)
    inputs, outputs = call.inputs.shape[-1], call.gradient.shape[-1]
    return call.inputs.reshape(n, -1, inputs), call.gradient.reshape(n, -1, outputs)


def _sample_gradients(call: ModuleCall) -> Tensor:
    """g_i, [n, P], for a module of any kind, by its own backward pass for each image (vmap)."""
    parameters = {
        name: parameter.detach() for name, parameter in call.module.named_parameters(recurse=False)
    }

    def gradient_of_one(inputs: Tensor, gradient: Tensor) -> Mapping[str, Tensor]:
        def apply(own: dict[str, Tensor]) -> Tensor:
            output: Tensor = functional_call(call.module, own, (inputs[None],))
            return output

        pulled: Mapping[str, Tensor] = vjp(apply, parameters)[1](gradient[None])[0]
        return pulled

    gradients = vmap(gradient_of_one)(call.inputs, call.gradient)
    return torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)


def _require_complete(name: str, module: nn.Module, product: Tensor) -> None:
    """Compare |sum of g_i|^2 with the squared norm of autograd's gradient of the parameters."""
    expected = sum(
        float(parameter.grad.double().square().sum())
        for parameter in module.parameters(recurse=False)
        if parameter.grad is not None
    )
    scale = max(expected, len(product) * float(product.trace()))
    if abs(float(product.sum()) - expected) > _TOLERANCE * scale:
        raise NotMeasurableError(
            f"the parameters of {name} are also used elsewhere, so the gradients of single images "
            "cannot be computed"
        )
