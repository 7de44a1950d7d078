"""After the first evaluation the model stays in evaluation mode."""

from pathlib import Path

from small_training import perceptron, train
from torch import nn


def ill(folder: Path) -> Path:
    """Evaluation without a way back: no batch norm is updated any more."""
    return train(perceptron(norm=nn.BatchNorm1d), folder, after_epoch=evaluate_only)


def mended(folder: Path) -> Path:
    """With model.train() after the evaluation."""
    return train(perceptron(norm=nn.BatchNorm1d), folder, after_epoch=evaluate)


def evaluate_only(model: nn.Module) -> None:
    """Evaluate; nothing puts the mode back."""
    model.eval()


def evaluate(model: nn.Module) -> None:
    """Evaluate, and go on to train."""
    model.eval()
    model.train()
