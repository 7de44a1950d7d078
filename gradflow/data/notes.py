"""What was noticed while data were read: bad rows and files, and how the source was understood."""

from dataclasses import dataclass, field

from gradflow.errors import DataError

# How many names of a list are shown.
NAMES_SHOWN = 3
_OR_SKIP = "leave it out with --on-bad-data skip"


@dataclass
class _BadItems:
    """Items with one defect: how many, the names of the first, the error if there is just one."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    error: str = ""


@dataclass
class Notes:
    """Collects bad rows and files, and sentences that a user should read before the training.

    Fields:
        skip_bad: whether bad rows and files are left out. If not, `settle` refuses them.
        said: the sentences so far.
    """

    skip_bad: bool = False
    said: list[str] = field(default_factory=list)
    _bad: dict[str, _BadItems] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """Keep `sentence` for the user."""
        self.said.append(sentence)

    def bad(self, defect: str, name: str, error: str) -> None:
        """Note the item `name` with the `defect`; `error` is the message if it is the only one."""
        items = self._bad.setdefault(defect, _BadItems(error=error))
        items.count += 1
        if len(items.names) < NAMES_SHOWN:
            items.names.append(name)

    def settle(self) -> None:
        """Say what was left out.

        Raises `DataError`, which counts the bad items and names the first, unless they are skipped.
        """
        bad, self._bad = self._bad, {}
        if not bad:
            return
        lists = [
            f"{defect}: {items.count:,} ({shown(items.names, items.count)})"
            for defect, items in bad.items()
        ]
        if self.skip_bad:
            self.said += [f"left out, {text}" for text in lists]
        elif sum(items.count for items in bad.values()) == 1:
            raise DataError(f"{next(iter(bad.values())).error}, or {_OR_SKIP}")
        else:
            raise DataError(
                f"{'; '.join(lists)}; correct them, or {_OR_SKIP.replace('it', 'them', 1)}"
            )


def shown(names: list[str], count: int) -> str:
    """The first of `count` names, separated by commas, and how many more there are."""
    first = ", ".join(names[:NAMES_SHOWN])
    more = count - min(len(names), NAMES_SHOWN)
    return f"{first} and {more:,} more" if more else first
