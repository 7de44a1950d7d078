"""Of a table with too many rows to read, those with the largest and smallest values."""

import pandas as pd

from analyses.result import Table

MOST_ROWS = 60
KEPT = 20  # rows of a longer table


def extreme_rows(key: str, title: str, frame: pd.DataFrame, column: str) -> Table:
    """`frame` as a table, in its order; of more than `MOST_ROWS` the extremes of `column`.

    These are the `KEPT` / 2 rows with its largest values and as many with its smallest; the title
    says so, and of how many rows. Rows without a value are not among them.
    """
    if len(frame) <= MOST_ROWS:
        return Table(key, title, frame)
    numbered = frame.reset_index(drop=True)
    ranked = numbered[column].astype(float).dropna().sort_values(kind="stable").index
    half = KEPT // 2
    kept = sorted({*ranked[:half], *ranked[-half:]})
    words = f"{title}: the {half} lowest and {half} highest of {len(frame):,} by {column}"
    return Table(key, words, numbered.loc[kept].reset_index(drop=True))
