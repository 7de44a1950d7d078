"""Weights that hardly move, gradients clipped away, parameters left out of the training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradflow.conditions import bounds
from gradflow.hooks.alerts.rule import (
    LEAST_STEPS,
    Batch,
    Layers,
    Rule,
    Seen,
    counted,
    judged,
    short,
    since,
)
from gradflow.hooks.alerts.windows import Array, Columns, Places, Window, filled, median
from gradflow.runs.format.update_tables import NO_OPTIMIZER


class Stalled(Rule):
    """A layer's weight that hardly moves, and has not moved more before.

    A ratio that rises, as in a warm-up, leaves it open, and so does one that was above the bound
    before: a learning rate that is lowered, or a minimum that is reached. If updates are measured
    in `turns`, the numbers of a weight lie so many recorded steps apart: ten of them decide then,
    not twenty.
    """

    key, name, bound = "stalled", "weights that hardly move", bounds.STALLED

    def __init__(self, turns: int = 1) -> None:
        self._turns = turns
        self._ratios = Window(by_name=turns > 1)
        self._early = Window(max(64, 2 * bounds.MIN_WINDOW * turns))
        self._moved: set[str] = set()
        self._were_well: set[str] = set()
        self._optimizers: set[str] = set()

    def look(self, batch: Batch) -> list[Seen]:
        """Whether the weight that moves least lies below the bound in all the last steps."""
        rows = batch.tables.get("parameters")
        if rows is None:
            return []
        ratios = _with_a_turn(rows, self._optimizers, self._turns)
        self._ratios.add(batch.steps, rows, "parameter", ratios)
        if len(self._early.steps) < bounds.MIN_WINDOW * self._turns:
            self._early.add(batch.steps, rows, "parameter", ratios)
        found = np.ma.getdata(rows["parameter"])
        self._moved |= set(found[ratios > 0].tolist())
        self._were_well |= set(found[ratios >= bounds.STALLED].tolist())
        weights = weights_of(batch.layers)
        names = [name for name in weights if name in self._moved] or weights
        values = self._ratios.of(names)
        if not np.isfinite(values).any():
            return []
        ill = [self._is_stalled(name, values[:, place]) for place, name in enumerate(names)]
        medians = np.array([median(column) for column in values[-bounds.LAST_STEPS :].T])
        worst = int(np.argmin(np.where([one is True for one in ill], medians, np.inf)))
        if not any(ill):
            # A weight that was ill and is open now does not end the alert.
            state = None if any(one is None for one in ill) and not self._were_well else False
            return [Seen(state, batch.steps[-1], names[worst], float(medians[worst]))]
        name, number = names[worst], float(medians[worst])
        began = int(self._early.steps[0])  # it has never moved more
        count = sum(one is True for one in ill)
        does = "does" if count == 2 else "do"
        others = "" if count < 2 else f", and so {does} {counted(count - 1, 'further weight')}"
        said = (
            f"{name} hardly moves since step {began}: its update is {short(number)} of its norm "
            f"in a step{others}"
        )
        return [Seen(True, began, name.removesuffix(".weight"), number, said)]

    def _is_stalled(self, name: str, ratios: Array) -> bool | None:
        if name in self._were_well:
            return False
        known = np.isfinite(ratios)
        with np.errstate(invalid="ignore"):
            least = bounds.LAST_STEPS if self._turns == 1 else LEAST_STEPS
            ill = judged(ratios < bounds.STALLED, known, least)
        if not ill:
            return ill
        value = median(ratios[-bounds.LAST_STEPS :])
        first = self._early.of([name])[:, 0]
        first = first if self._turns == 1 else first[np.isfinite(first)]
        early = median(first[: bounds.MIN_WINDOW])
        growth = value / early if early > 0 else np.inf
        rises = value > 0 and growth > bounds.RISING and value * growth > bounds.STALLED
        return None if rises else True

    def state_dict(self) -> dict[str, Any]:
        """Return the ratios of the last and the first steps, and which weights moved."""
        return {
            "ratios": self._ratios.state_dict(),
            "early": self._early.state_dict(),
            "moved": sorted(self._moved),
            "were_well": sorted(self._were_well),
            "optimizers": sorted(self._optimizers),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._ratios.load_state_dict(state["ratios"])
        self._early.load_state_dict(state["early"])
        self._moved, self._were_well = set(state["moved"]), set(state["were_well"])
        self._optimizers = set(state["optimizers"])


class Clipped(Rule):
    """Clipping that leaves next to nothing of the gradient, while weights do not move as usual."""

    key, name, bound = "clipped", "gradients clipped to next to nothing", bounds.CLIPPED

    def __init__(self, turns: int = 1) -> None:
        self._factors, self._moves = Window(), Window()
        self._updates = WholeUpdates(turns)

    def look(self, batch: Batch) -> list[Seen]:
        """Whether the factor of clipping lies below the bound in the last steps."""
        self._factors.add_one(batch.steps, batch.step_column("clipping_factor"))
        if (rows := batch.tables.get("parameters")) is not None:
            moves = self._updates.ratios(rows, batch.steps, weights_of(batch.layers))
            self._moves.add_one(batch.steps, moves)
        factors = self._factors.values[:, 0]
        known = np.isfinite(factors)
        with np.errstate(invalid="ignore"):
            beyond = factors < bounds.CLIPPED
        ill = judged(beyond, known)
        if ill and median(self._moves.values[-bounds.LAST_STEPS :]) > bounds.MOVING:
            ill = None  # Adam divides a common factor out again
        began = since(self._factors.steps, beyond & known)
        number = median(factors[-bounds.LAST_STEPS :])
        said = f"clipping multiplies the gradient with {short(number)} since step {began}"
        return [Seen(ill, began if ill else batch.steps[-1], "", number, said)]

    def state_dict(self) -> dict[str, Any]:
        """Return the factors of the last steps, and by how much the weights moved in them."""
        return {
            "factors": self._factors.state_dict(),
            "moves": self._moves.state_dict(),
            "weights": self._updates.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._factors.load_state_dict(state["factors"])
        if "moves" in state:  # earlier versions kept none
            self._moves.load_state_dict(state["moves"])
        self._updates.load_state_dict(state.get("weights", {}))


class Extremes:
    """What happened to each parameter at most, since the beginning.

    Fields:
        first: the first recorded step.
        names: of the parameters.
        gradients, updates: the largest norms, nan where there was none: [parameters].
        counts: how many steps measured it.
        optimizers: the last known of each.
    """

    def __init__(self) -> None:
        self.first = -1
        self._places = Places()
        self.gradients = self.updates = np.zeros(0)
        self.counts = np.zeros(0, np.int64)
        self.optimizers = np.zeros(0, object)
        self._taken = -1

    @property
    def names(self) -> list[str]:
        """The names of the parameters."""
        return self._places.names

    def take(self, batch: Batch) -> bool:
        """Take the numbers of a transfer, once; return whether it has any of parameters."""
        rows = batch.tables.get("parameters")
        if rows is None or self._taken == batch.steps[-1]:
            return rows is not None
        self._taken = batch.steps[-1]
        self.first = batch.steps[0] if self.first < 0 else self.first
        at = self._places.of_rows(rows["parameter"])
        new = len(self.names) - len(self.counts)
        self.gradients = np.pad(self.gradients, (0, new), constant_values=np.nan)
        self.updates = np.pad(self.updates, (0, new), constant_values=np.nan)
        self.counts = np.pad(self.counts, (0, new))
        self.optimizers = np.append(self.optimizers, np.full(new, "", dtype=object))
        both = [_norms(rows[name]) for name in ("backward_gradient_norm", "gradient_norm")]
        np.fmax.at(self.gradients, at, np.fmax(*both))
        np.fmax.at(self.updates, at, filled(rows["update_norm"]))
        np.add.at(self.counts, at, 1)
        self.optimizers[at] = np.ma.filled(rows["optimizer"], "")
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the extremes as lists."""
        return {
            "first": self.first,
            "names": list(self.names),
            "gradients": self.gradients.tolist(),
            "updates": self.updates.tolist(),
            "counts": self.counts.tolist(),
            "optimizers": self.optimizers.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.first, self._places = int(state["first"]), Places(state["names"])
        self.gradients, self.updates = np.array(state["gradients"]), np.array(state["updates"])
        self.counts = np.array(state["counts"], np.int64)
        self.optimizers = np.array(state["optimizers"], dtype=object)


def _norms(column: Any) -> Array:
    """Norms; infinite where there is one that is not a number, nan where there is none."""
    norms = np.ma.asanyarray(column).astype(float)
    known = ~np.ma.getmaskarray(norms)
    return np.where(known & np.isnan(norms.data), np.inf, filled(norms))


class _LeftOut(Rule):
    """Parameters that are left out in all recorded steps, of which there are enough."""

    def __init__(self, extremes: Extremes) -> None:
        self._extremes = extremes

    def look(self, batch: Batch) -> list[Seen]:
        """Whether there are such parameters."""
        extremes = self._extremes
        if not extremes.take(batch):
            return []
        long_enough = extremes.counts >= bounds.LAST_STEPS
        ill = [
            extremes.names[place]
            for place in np.flatnonzero(long_enough & self._candidates()).tolist()
            if self._counts(extremes.names[place], batch.layers)
        ]
        if not ill:
            return [Seen(False, batch.steps[-1])]
        joined = " and " if len(ill) == 2 else " to "
        place = f"{ill[0]}{joined}{ill[-1]}" if len(ill) > 1 else ill[0]
        total = counted(len(extremes.names), "trained parameter")
        said = self._said(len(ill), f"{len(ill)} of {total} ({place})")
        return [Seen(True, extremes.first, ill[0], float(len(ill)), said)]

    def _candidates(self) -> NDArray[np.bool_]:
        raise NotImplementedError

    def _counts(self, name: str, layers: Layers) -> bool:
        return True

    def _said(self, count: int, which: str) -> str:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the extremes of each parameter."""
        return self._extremes.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._extremes.load_state_dict(state)


class NotUpdated(_LeftOut):
    """Parameters with gradients that no optimizer has."""

    key, name = "not-updated", "parameters that are never updated"

    def _candidates(self) -> NDArray[np.bool_]:
        found = self._extremes
        homeless = np.asarray(found.optimizers == NO_OPTIMIZER, dtype=bool)
        with_gradient = (found.gradients > 0) & (found.updates == 0)
        return np.asarray(homeless & with_gradient, dtype=bool)

    def _said(self, count: int, which: str) -> str:
        has, them = ("has a gradient", "it") if count == 1 else ("have gradients", "them")
        return f"{which} {has}, but no optimizer given to the tracer has {them}"


class Disconnected(_LeftOut):
    """Parameters of layers that run, which no gradient reaches."""

    key, name = "disconnected", "parameters that no gradient reaches"

    def _candidates(self) -> NDArray[np.bool_]:
        found = self._extremes
        unreached = np.isnan(found.gradients)
        # What no optimizer has either is not to be trained, such as a teacher.
        known = np.asarray(found.optimizers != NO_OPTIMIZER, dtype=bool)
        return np.asarray(unreached & known & (~unreached).any(), dtype=bool)

    def _counts(self, name: str, layers: Layers) -> bool:
        return name.rpartition(".")[0] in layers.layer

    def _said(self, count: int, which: str) -> str:
        run = "its layer runs" if count == 1 else "their layers run"
        return f"no gradient has reached {which}, though {run}"


class WholeUpdates:
    """The norm of the update of all weights together over the norm of these, step by step.

    A weight that starts at 0, as one of a low-rank adapter, makes no large ratio here. If updates
    are measured in `turns`, the squares of those whose turn it was stand for as many as there are
    turns, beside all weights: of a weight without a norm in a step, the last one known counts.
    """

    def __init__(self, turns: int = 1) -> None:
        self._turns = turns
        self._squares: dict[str, float] = {}

    def ratios(self, rows: Columns, steps: Sequence[int], weights: Sequence[str]) -> Array:
        """The ratio in each of `steps`; nan where no update of a weight is known."""
        own = np.isin(np.ma.getdata(rows["parameter"]).astype(str), list(weights))
        at = np.searchsorted(np.asarray(steps), np.ma.getdata(rows["step"])[own])
        columns = [np.ma.asanyarray(rows[name])[own] for name in ("update_norm", "weight_norm")]
        updates, norms = map(filled, columns)
        measured, known = (~np.ma.getmaskarray(column) for column in columns)
        counted = measured if self._turns == 1 else known
        moved = np.bincount(at[measured], updates[measured] ** 2, len(steps)) * self._turns
        sizes: Array = np.bincount(at[counted], norms[counted] ** 2, len(steps)).astype(float)
        if self._turns > 1:
            names = np.ma.getdata(rows["parameter"])[own]
            sizes = sizes + self._of_others(names, norms, at, weights, len(steps))
        has_any = np.bincount(at[measured], minlength=len(steps)) > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(has_any & (sizes > 0), np.sqrt(moved / sizes), np.nan)

    def _of_others(
        self,
        names: Array,
        norms: Array,
        at: NDArray[np.intp],
        weights: Sequence[str],
        count: int,
    ) -> Array:
        """By step, the sum of the squares of those weights whose norm is not in its rows.

        There are some if everything of a parameter has turns. The norms are those last known.
        """
        self._squares = {name: one for name, one in self._squares.items() if name in weights}
        found = np.zeros(count)
        for place in range(count):
            here = dict(zip(names[at == place].tolist(), norms[at == place].tolist(), strict=True))
            found[place] = sum(one for name, one in self._squares.items() if name not in here)
            self._squares |= {name: one**2 for name, one in here.items() if np.isfinite(one)}
        return found

    def state_dict(self) -> dict[str, float]:
        """Return the square of the norm last known of each weight, if that is needed."""
        return dict(self._squares)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self._squares = {str(name): float(square) for name, square in state.items()}


def weights_of(layers: Layers) -> list[str]:
    """The weights of layers that have parameters of their own and do not normalize."""
    found = zip(layers.layer, layers.role, layers.type, layers.parameters, strict=True)
    return [
        f"{layer}.weight"
        for layer, role, kind, count in found
        if count > 0 and role != "normalization" and "Norm" not in kind
    ]


def _with_a_turn(rows: Columns, moved: set[str], turns: int) -> Array:
    """Update-to-weight ratios; nan where the parameter had no turn in the step.

    It had none if it got no gradient, as an expert that was not chosen, or if its optimizer did not
    step while another one did, or while none of another one was measured, if updates are measured
    in `turns`. `moved` are the optimizers that ever did, and gets new ones.
    """
    updates = np.nan_to_num(filled(rows["update_norm"]))
    ratios, weights = filled(rows["update_to_weight"]), filled(rows["weight_norm"])
    optimizers = np.ma.filled(rows["optimizer"], "").astype(str)
    kinds, by_optimizer = np.unique(optimizers, return_inverse=True)
    steps, by_step = np.unique(np.ma.getdata(rows["step"]), return_inverse=True)
    largest = np.zeros((len(steps), len(kinds)))
    np.maximum.at(largest, (by_step, by_optimizer), updates)
    moved |= set(kinds[(largest > 0).any(axis=0)].tolist())
    ever: NDArray[np.bool_] = np.array([kind in moved for kind in kinds])
    still = (largest[by_step, by_optimizer] == 0) & (optimizers != NO_OPTIMIZER)
    elsewhere = largest.max(axis=1) > 0
    if turns > 1:
        known = ~np.ma.getmaskarray(np.ma.asanyarray(rows["update_norm"]))
        measured = np.zeros(largest.shape, dtype=bool)
        measured[by_step[known], by_optimizer[known]] = True
        elsewhere |= (measured.sum(axis=1) == 1) & (len(moved) > 1)
    waits = still & elsewhere[by_step] & ever[by_optimizer]
    without = np.isnan(filled(rows["gradient_norm"])) & (updates == 0)
    return np.where(waits | without | ~(weights > 0), np.nan, ratios)
