"""Errors for models, and uses of them, that cannot be traced; each message says why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradflow.errors import TracingError
from gradflow.hooks.wrappers import named_modules
from gradflow.versions import release_of

# Given by name, so that the check need not import torch's distributed packages.
_SHARDED = {"FullyShardedDataParallel"}
# DeepSpeed's marks on a parameter: of stage 3, and of the stages before and bfloat16.
_DEEPSPEED_MARKS = ("ds_id", "_hp_mapping")
_OLDEST_TORCH = (2, 6)


def refuse_old_torch(version: str) -> None:
    """Raise `TracingError` if torch's `version`, such as 2.5.1+cu124, is too old."""
    if release_of(version) < _OLDEST_TORCH:
        needed = ".".join(map(str, _OLDEST_TORCH))
        raise TracingError(f"torch {version} is installed: the tracer needs {needed} or newer")


def refuse_untraceable(model: nn.Module) -> None:
    """Raise `TracingError` if `model` is scripted, replicated over threads, or sharded by FSDP1."""
    if not isinstance(model, nn.Module):
        raise TracingError(
            f"the model is of type {type(model).__name__}: give the tracer the torch.nn.Module"
        )
    for name, module in named_modules(model):
        where = f"its module {name}" if name else "the model"
        bases = {base.__name__ for base in type(module).__mro__}
        if isinstance(module, torch.jit.ScriptModule):
            raise TracingError(
                f"{where} was made by torch.jit, whose layers run without hooks: give the tracer "
                "the Python module it was made from, and train that one"
            )
        if bases & _SHARDED:
            raise TracingError(
                f"{where} is sharded by {type(module).__name__}: each process sees a shard of the "
                "parameters, whose norms would be wrong; shard it with fully_shard (FSDP2) "
                "instead"
            )
        if "DeepSpeedEngine" in bases:
            raise _deepspeed_error(f"{where} is a {type(module).__name__}")
        if isinstance(module, nn.DataParallel):
            raise TracingError(
                f"{where} is a DataParallel, which runs copies of its modules in threads: "
                "trace the module inside it on one device, or use DistributedDataParallel"
            )
        if "DistributedDataParallel" in bases and name:
            raise TracingError(
                f"{where} is a DistributedDataParallel inside the model: give the tracer a model "
                "that is wrapped as a whole"
            )
    for name, parameter in model.named_parameters():
        if any(hasattr(parameter, mark) for mark in _DEEPSPEED_MARKS):
            raise _deepspeed_error(f"the parameter {name} is a partition")


def refuse_partitioning(optimizer: Any) -> None:
    """Raise `TracingError` for an optimizer of DeepSpeed, also within a wrapper."""
    given = list(optimizer.values()) if isinstance(optimizer, Mapping) else optimizer
    for one in given if isinstance(given, list | tuple) else [given]:
        seen: list[Any] = []
        while one is not None and not any(one is other for other in seen):
            seen.append(one)
            if type(one).__module__.split(".")[0] == "deepspeed":
                raise _deepspeed_error(f"the optimizer is a {type(one).__name__}")
            one = getattr(one, "optimizer", None)  # noqa: PLW2901


def _deepspeed_error(found: str) -> TracingError:
    return TracingError(
        f"{found} of DeepSpeed, which keeps gradients in partitions of its own and not in .grad: "
        "for this run use fully_shard (FSDP2) or DistributedDataParallel, or read single gradients "
        "with deepspeed.utils.safe_get_full_grad without the tracer"
    )


def second_thread_message() -> str:
    """Say that the model ran in two threads within a step."""
    return (
        "the model ran in two threads within a step, and the forward passes of the second are not "
        "recorded: run all forward passes of a step in one thread"
    )


def epoch_without_steps_message(epoch: int) -> str:
    """Say that no step ended in `epoch`."""
    return (
        f"epoch {epoch} has no steps, its rows are written with those of the next step: if steps "
        "are not longer than an epoch, give the tracer the optimizer, or call tracer.step() after "
        "each update"
    )


def no_pass_recorded_message() -> str:
    """Say that passes ran back through the model, and none of them belongs to a step."""
    return (
        "no gradient is recorded, since no backward pass fills the .grad of a parameter; if "
        'the training takes its gradients from torch.autograd.grad, give the tracer passes="all"'
    )


def hooks_removed_message(step: int, layers: Sequence[str]) -> str:
    """Say that other code has taken the tracer's hooks off these layers."""
    shown = ", ".join(name or "the model itself" for name in layers[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return (
        f"in step {step} the tracer's hooks on {shown}{more} are gone, so that these layers have "
        "no rows: other code has removed all hooks of the modules, as `_forward_hooks.clear()` "
        "does; let it remove its own, or enter a tracer after it"
    )


def gradients_gone_message(step: int) -> str:
    """Say that the backward pass let go of all gradients of parameters before it had ended."""
    return (
        f"step {step} has no gradients of parameters, for they were gone when its backward pass "
        "had ended: from the next recorded step on they are read as they arrive"
    )


def loss_without_pass_message(step: int, *, training: bool = True) -> str:
    """Say that a loss was given in a step in which nothing has run, as far as is recorded."""
    if not training:
        return (
            f"a loss was given in step {step} while the model is in evaluation mode: it is left "
            'out. Call model.train() before training, or give the tracer modes="all"'
        )
    return (
        f"a loss was given in step {step} before its forward pass, or after the optimizer's step "
        "that ended the step before: it is left out. Call tracer.log(loss=...) between the forward "
        "pass and optimizer.step()"
    )


def no_layer_observed_message(step: int, reasons: str) -> str:
    """Say that no layer was observed in the recorded step `step`, and why."""
    return f"no layer was observed in step {step}: {reasons}"


def scale_of_histograms_message() -> str:
    """Say that magnitudes of gradients cannot be freed of their scale."""
    return (
        "histograms of gradients are left out, since they need loss scales that are powers of two: "
        "give the scaler powers of two as init_scale, growth_factor and backoff_factor"
    )


def run_not_written_message(folder: Path, error: Exception) -> str:
    """Say that nothing is written to the run folder any more."""
    return f"nothing more is written to {folder}, and the training goes on: {error}"


def captured_step_message(step: int, *, in_graph: bool) -> str:
    """That a step was captured in a CUDA graph without the statistics of layers.

    `in_graph` says whether they were to be in it: no step was recorded before the capture.
    """
    to_do = (
        "train one step that is recorded before the capture, so that the graph has the statistics "
        "of layers"
        if in_graph
        else 'give the tracer compiled="in-graph", so that the graph has the statistics of layers, '
        "or train steps without the graph to record them"
    )
    return (
        f"step {step} is captured in a CUDA graph, which runs no hooks when it is replayed: this "
        f"step, and what the graph does when it is replayed, is not recorded; {to_do}"
    )


def captured_loss_message(step: int) -> str:
    """Say that a loss was given that is not computed yet."""
    return (
        f"a loss was given in step {step} while a CUDA graph was captured, where nothing is "
        "computed: it is left out. Call tracer.log(loss=...) after each replay"
    )


def captured_scaler_message() -> str:
    """Say that the scale of the loss in a captured step is not known."""
    return (
        "optimizer.step() is captured in a CUDA graph, and the scale of the loss at its replays is "
        "not known: their gradients are recorded with it. Leave scaler.step(optimizer) and "
        "scaler.update() outside of the graph"
    )


def unseen_pass_message(step: int) -> str:
    """Say that the passes of a step and of the next one were not told apart."""
    return (
        f"step {step} ended when an optimizer stepped again, and not with the forward pass before "
        "that, which ran within a graph and did not show: it has no rows of layers. With "
        "optimizers that take turns, call tracer.begin_pass() before each forward pass or replay"
    )


def replays_without_end_message(step: int) -> str:
    """Say that replays of a whole step run into one another."""
    return (
        f"the CUDA graph captured in step {step} has optimizer.step() in it and was replayed, but "
        "no step has ended since: nothing of the replays is recorded. Call tracer.step() after "
        "each replay"
    )


def overwritten_message(layer: str) -> str:
    """Say that a tensor of `layer` was overwritten before it was reduced."""
    return (
        f"a value of {layer} is missing in one step, for its output or gradient was overwritten "
        "sooner than in the steps before; from then on it is read at once"
    )
