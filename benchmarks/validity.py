"""Checks whether the verdicts can be trusted: planted faults, simulations, published results.

    python benchmarks/validity.py

Runs these benchmarks one after the other: `planted_faults.py` (is a known condition found, and
a healthy network called healthy?), `kinds/run.py` (the same on kinds of models that people
train, with causes, layers and steps), `null_calibration.py` (how often is a link reported that
does not exist?), `matched_coverage.py` (do the intervals of a matched comparison contain the
truth?) and `published_results.py` (do tracer and probes measure what the papers derive?). Exits
with 1 if a target is missed or a published result is not reproduced.
"""

import subprocess
import sys
from pathlib import Path

PARTS = (
    "planted_faults.py",
    "kinds/run.py",
    "null_calibration.py",
    "matched_coverage.py",
    "published_results.py",
)


def main() -> int:
    """Run every part in its own process; return 1 if one of them failed."""
    failed = []
    for name in PARTS:
        print(f"\n# {name}\n", flush=True)
        path = Path(__file__).parent / name
        if subprocess.run([sys.executable, str(path)], check=False).returncode:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
