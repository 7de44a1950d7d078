"""Whether the verdicts can be trusted: planted faults, null calibration, published results.

    python benchmarks/validity.py

Runs, one after the other, what can also be run apart: `planted_faults.py` (is a known condition
found, and a healthy network left alone), `null_calibration.py` (how often a link is called that is
not there), `matched_coverage.py` (do the intervals of a matched comparison hold the truth) and
`published_results.py` (do the instruments give what the papers derive). Exits with 1 where a target
is missed or a published result is not met.
"""

import subprocess
import sys
from pathlib import Path

PARTS = (
    "planted_faults.py",
    "null_calibration.py",
    "matched_coverage.py",
    "published_results.py",
)


def main() -> int:
    """Run every part in a process of its own; 1 where one of them failed."""
    failed = []
    for name in PARTS:
        print(f"\n# {name}\n", flush=True)
        path = Path(__file__).with_name(name)
        if subprocess.run([sys.executable, str(path)], check=False).returncode:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
