"""Looks up every installed distribution in a database of known vulnerabilities.

    pip install pip-audit && python .ci/audit.py

The databases are services on the network. Ends with 0 where every distribution was looked up and
none is known to be vulnerable, 1 where one is, and 3 where not all could be looked up: pip-audit
itself says "No known vulnerabilities found" and ends with 0 even where it could look up none.
"""

import json
import subprocess
import sys

# pip-audit's names: the index's own records, then a database that gathers several.
SERVICES = ("pypi", "osv")
SKIPPED_ON_PURPOSE = "distribution marked as editable"
COMPLETE, VULNERABLE, INCOMPLETE = 0, 1, 3


def ask(service: str) -> dict | None:
    """What pip-audit says of this environment, as its JSON; None where it could not ask."""
    options = ["--skip-editable", "--progress-spinner", "off", "--timeout", "30"]
    found = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--format", "json", "-s", service, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return json.loads(found.stdout)
    except json.JSONDecodeError:
        reason = found.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        print(f"pip-audit could not ask {service}: {reason[0]}")
        return None


def judge(report: dict) -> tuple[int, list[str]]:
    """The exit code for a report, and the lines that say why."""
    mine = [one for one in report["dependencies"] if one.get("skip_reason") != SKIPPED_ON_PURPOSE]
    unknown = [one["name"] for one in mine if "skip_reason" in one]
    lines = [
        f"{one['name']} {one['version']}: {known['id']}, mended in "
        f"{', '.join(known['fix_versions']) or 'no version yet'}"
        for one in mine
        for known in one.get("vulns", [])
    ]
    code = VULNERABLE if lines else INCOMPLETE if unknown or not mine else COMPLETE
    if unknown:
        lines.append(f"not found there: {', '.join(unknown)}")
    return code, [*lines, f"{len(mine) - len(unknown)} of {len(mine)} distributions were looked up"]


def audit() -> int:
    """Ask the services until one knows every distribution; print what was found."""
    codes = []
    for service in SERVICES:
        report = ask(service)
        if report is None:
            continue
        code, lines = judge(report)
        print(f"pip-audit, {service}:", *lines, sep="\n  ")
        codes.append(code)
        if code == COMPLETE:
            break
    if VULNERABLE in codes:
        return VULNERABLE
    if COMPLETE in codes:
        return COMPLETE
    print("NOT AUDITED: not every distribution could be looked up; run this with a network.")
    return INCOMPLETE


if __name__ == "__main__":
    sys.exit(audit())
