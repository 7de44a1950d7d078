"""Errors for models, and uses of them, that cannot be traced; each message says why."""

import torch
from torch import nn

from gradflow.errors import TracingError

# Given by name, so that the check need not import torch's distributed packages.
_SHARDED = {"FullyShardedDataParallel"}


def refuse_untraceable(model: nn.Module) -> None:
    """Raise `TracingError` if `model` is compiled, replicated over threads, or sharded by FSDP1."""
    for name, module in model.named_modules():
        where = f"its module {name}" if name else "the model"
        bases = {base.__name__ for base in type(module).__mro__}
        if "OptimizedModule" in bases or module._compiled_call_impl is not None:
            raise TracingError(
                f"{where} is compiled and runs no hooks: give the tracer the model "
                "before torch.compile, and train that one uncompiled"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise TracingError(
                f"{where} was made by torch.jit, whose layers run without hooks: give the tracer "
                "the Python module it was made from, and train that one"
            )
        if bases & _SHARDED:
            raise TracingError(
                f"{where} is sharded by {type(module).__name__}: each process sees a shard of the "
                "parameters, whose norms would be wrong; shard it with fully_shard (FSDP2) instead"
            )
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


def refuse_in_processes(*, histograms: bool, budget: bool) -> None:
    """Raise `TracingError` for options that do not work with several processes."""
    if histograms:
        raise TracingError(
            "histograms of magnitudes are not joined over processes: leave them out, or train in "
            "one process"
        )
    if budget:
        raise TracingError(
            "a budget lets each process record other steps: with several processes, give the "
            "tracer a schedule of steps"
        )


def wrong_thread_error() -> TracingError:
    """Return the error for a forward pass in a thread that did not enter the tracer."""
    return TracingError(
        "the model ran in another thread than the one that entered the tracer: "
        "enter the tracer in the thread that trains, and train in no other"
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


def no_layer_observed_message(step: int) -> str:
    """Say that no layer was observed in the recorded step `step`."""
    return (
        f"no layer was observed in step {step}: call the traced model itself, not a copy, in "
        "training mode (model.train()), with gradients enabled and uncompiled; torch.compile runs "
        "no hooks that were added after it"
    )
