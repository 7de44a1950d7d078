"""The tables of the benchmark: false alarms by kind, misses by fault, causes, places, confusion."""

import re
from collections import Counter
from typing import Any

from planted.truth import CAUSES, RIVALS

from analyses.statistics.proportions import wilson_interval

MOST_FALSE_ALARMS, MOST_MISSES = 0.02, 0.05
LEAST_CAUSES, MOST_WRONG_CAUSES = 0.90, 0.02
NAMED = ("right", "among", "wrong", "none")
STEPS_OFF = 3  # the first step is right if it is no further from the true one
Row = dict[str, Any]


def share(count: int, total: int) -> str:
    """A count as a percentage with Wilson's 95 % interval."""
    if not total:
        return "none"
    low, high = wilson_interval(count, total)
    return f"{100 * count / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def found(row: Row) -> list[str]:
    """The conditions found in a training, in the order in which they were told."""
    return [one["condition"] for one in row["answers"]["found"]]


def alarms(row: Row) -> list[str]:
    """What was found, but is neither planted nor an effect of it."""
    truth = row["truth"]
    allowed = {*truth["expected"], *truth["effects"]} if truth else set()
    return [one for one in found(row) if one not in allowed and one != "noisy"]


def hit(row: Row) -> dict[str, Any] | None:
    """The first finding that says what was planted; None if it was missed."""
    expected = row["truth"]["expected"]
    return next((one for one in row["answers"]["found"] if one["condition"] in expected), None)


def judged(row: Row, present: list[str]) -> bool:
    """Whether the check could find what was planted, for it has one of the conditions expected."""
    return bool(set(row["truth"]["expected"]) & set(present))


def cause_is(row: Row) -> str:
    """Whether the cause is named: right, among others, wrong, none; "" if the truth has none."""
    cause = row["truth"]["cause"]
    own = hit(row)
    if not cause or own is None:
        return ""
    told = own["cause"].lower()
    if any(re.search(words, told) for words in CAUSES[cause]):
        return "right"
    if any(re.search(words, told) for words in RIVALS.get(cause, ())):
        return "wrong"
    # A condition may name several things that it could be, or that were seen.
    beside = own["otherwise"].lower()
    return "among" if any(re.search(words, beside) for words in CAUSES[cause]) else "none"


def layer_is_right(row: Row) -> bool | None:
    """Whether a true layer is named; None if the fault has no place, or was missed."""
    own, layers = hit(row), row["truth"]["layers"]
    return bool(set(layers) & set(own["layers"])) if own and layers else None


def step_is_right(row: Row) -> bool | None:
    """Whether the first step is named; None if it is the very first, or the fault was missed."""
    own, step = hit(row), row["truth"]["step"]
    if own is None or step is None:
        return None
    return own["step"] is not None and abs(own["step"] - step) <= STEPS_OFF


def healthy_table(rows: list[Row]) -> list[str]:
    """False alarms, and healthy trainings not called so, by kind."""
    lines = [
        "| healthy kind | trainings | not learnt | false alarms | called healthy | found |",
        "|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    for kind in (*kinds, "all kinds"):
        own = [row for row in rows if kind in (row["kind"], "all kinds")]
        kept = [row for row in own if row["kept"]]
        counts = Counter(name for row in kept for name in alarms(row))
        named = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        wrong = sum(bool(alarms(row)) for row in kept)
        called = sum(row["answers"]["healthy"] == "supported" for row in kept)
        lines.append(
            f"| {kind} | {len(kept)} | {len(own) - len(kept)} | {share(wrong, len(kept))} "
            f"| {called} | {named} |"
        )
    return lines


def ill_table(rows: list[Row], present: list[str]) -> list[str]:
    """By fault: misses, causes, layers, first steps, and what else was found."""
    lines = [
        "| fault | condition | trainings | no effect | missed | cause right + among others "
        "| cause wrong | layer right | first step right | also found, wrongly |",
        "|---" * 10 + "|",
    ]
    faults = list(dict.fromkeys(row["fault"] for row in rows))
    for fault in (*faults, "all that can be found"):
        own = [row for row in rows if fault in (row["fault"], "all that can be found")]
        if fault not in faults:
            own = [row for row in own if judged(row, present)]
        kept = [row for row in own if row["kept"]]
        named = ""
        if own and fault in faults:
            named = own[0]["truth"]["expected"][0]
            named += "" if judged(own[0], present) else " (absent)"
        causes = Counter(cause_is(row) for row in kept)
        told = sum(causes[key] for key in NAMED)
        others = Counter(name for row in kept for name in alarms(row))
        layers = [one for row in kept if (one := layer_is_right(row)) is not None]
        steps = [one for row in kept if (one := step_is_right(row)) is not None]
        lines.append(
            f"| {fault} | {named} | {len(kept)} | {len(own) - len(kept)} "
            f"| {sum(hit(row) is None for row in kept)} "
            f"| {causes['right']}+{causes['among']}/{told} "
            f"| {causes['wrong']}/{told} | {sum(layers)}/{len(layers)} "
            f"| {sum(steps)}/{len(steps)} "
            f"| {', '.join(f'{name} {count}' for name, count in others.most_common())} |"
        )
    return lines


def confusion(rows: list[Row], present: list[str]) -> list[str]:
    """Planted conditions by found ones; a training may have several."""
    lines = [
        f"| planted | trainings | {' | '.join(present)} | none | healthy |",
        "|---" * (len(present) + 4) + "|",
    ]
    kept = [row for row in rows if row["kept"]]
    planted = {id(row): row["truth"]["expected"][0] if row["truth"] else "healthy" for row in kept}
    for name in dict.fromkeys(planted.values()):
        own = [row for row in kept if planted[id(row)] == name]
        counts = Counter(one for row in own for one in found(row))
        cells = [str(counts[one] or "") for one in present]
        none = sum(not found(row) for row in own)
        called = sum(row["answers"]["healthy"] == "supported" for row in own)
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} | {none} | {called} |")
    return lines


def said(one: dict[str, Any]) -> str:
    """What was said of a condition, on one line."""
    where = f"{one['value']} at {', '.join(one['layers'][:2])}, step {one['step']}"
    return f"{one['condition']} {where}: {one['cause']} | {one['otherwise']}"


def wrong_answers(rows: list[Row], present: list[str]) -> list[str]:
    """Each training on which the check is wrong, with what it said."""
    lines = []
    for row in rows:
        if not row["kept"]:
            continue
        name = f"{row['kind']} / {row['fault']} / {row['index']} ({row['words']})"
        texts = {one["condition"]: said(one) for one in row["answers"]["found"]}
        lines += [f"- {name}: {one} found: {texts[one]}" for one in alarms(row)]
        if row["truth"] and judged(row, present):
            if hit(row) is None:
                lines.append(
                    f"- {name}: {row['truth']['expected'][0]} missed; found {found(row)}, "
                    f"open {row['answers']['open']}"
                )
            elif cause_is(row) in ("wrong", "none"):
                lines.append(f"- {name}: cause {row['truth']['cause']}: {said(hit(row))}")
    return lines


def mutants_table(rows: list[Row]) -> list[str]:
    """What became of each bug in working scripts."""
    lines = [
        "| bug | scripts | no effect | named | something else found | left open | called healthy |",
        "|---" * 7 + "|",
    ]
    bugs = list(dict.fromkeys(row["fault"] for row in rows))
    for bug in (*bugs, "all bugs"):
        own = [row for row in rows if bug in (row["fault"], "all bugs")]
        kept = [row for row in own if row["kept"]]
        named = sum(hit(row) is not None for row in kept)
        others = sum(hit(row) is None and bool(found(row)) for row in kept)
        called = sum(row["answers"]["healthy"] == "supported" for row in kept)
        lines.append(
            f"| {bug.removeprefix('bug: ')} | {len(own)} | {len(own) - len(kept)} | {named} "
            f"| {others} | {len(kept) - named - others - called} | {called} |"
        )
    return lines


def report(rows: list[Row], present: list[str], *, verbose: bool) -> tuple[list[str], bool]:
    """All tables, and whether the targets are met."""
    well = [row for row in rows if row["truth"] is None]
    bugs = [row for row in rows if row["fault"].startswith("bug: ")]
    ill = [row for row in rows if row["truth"] is not None and row not in bugs]
    lines = [*healthy_table(well), "", *ill_table(ill, present), ""]
    lines += [*confusion([*well, *ill], present), ""]
    lines += [*mutants_table(bugs), ""] if bugs else []
    kept = True
    counted = [row for row in ill if row["kept"] and judged(row, present)]
    sound = [row for row in well if row["kept"]]
    causes = Counter(cause_is(row) for row in counted)
    told = sum(causes[key] for key in NAMED)
    for name, count, total, most in (
        ("false alarms", sum(bool(alarms(row)) for row in sound), len(sound), MOST_FALSE_ALARMS),
        ("missed", sum(hit(row) is None for row in counted), len(counted), MOST_MISSES),
        (
            "called healthy though ill",
            sum(row["answers"]["healthy"] == "supported" for row in counted),
            len(counted),
            MOST_MISSES,
        ),
        ("cause not named", causes["none"] + causes["wrong"], told, 1 - LEAST_CAUSES),
        ("cause wrong", causes["wrong"], told, MOST_WRONG_CAUSES),
        (
            "something else found wrongly in an ill one",
            sum(bool(alarms(row)) for row in counted),
            len(counted),
            MOST_MISSES,
        ),
    ):
        good = count <= most * total
        kept = kept and good
        lines.append(f"{name}: {count} of {total}, {share(count, total)}, target {most:.0%}")
    if verbose:
        lines += ["", *wrong_answers(rows, present)]
    return lines, kept
