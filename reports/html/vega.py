"""What the explorer needs of Vega: the library as one script that fetches nothing, and the charts.

Both depend on the installed packages alone, and take two seconds to make: a process of its own
makes them, and they are kept for later reports.
"""

import atexit
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from analyses.showing.keeping import keep, read_kept

_HOME = Path(__file__).resolve().parents[2]
_PROGRAM = (
    f"import sys; sys.path.insert(0, {str(_HOME)!r})\n"
    "from reports.explorer.bundle import bundle\n"
    "sys.stdout.buffer.write(bundle().encode())"
)


@dataclass(frozen=True)
class VegaParts:
    """What the page of an explorer contains besides its data.

    Fields:
        script: Vega, Vega-Lite and vega-embed in the versions that the installed altair writes for.
            It defines only the global name `vegaEmbed`.
        charts: the Vega-Lite specifications of the explorer's charts, as JSON without data.
    """

    script: str
    charts: str


def begin() -> None:
    """Start making the parts in a process of its own, unless they were kept."""
    if read_kept(_name()) is None:
        _process()


@cache
def vega_parts() -> VegaParts:
    """Both parts, from the installed packages, without network access; made once in a process."""
    text = read_kept(_name())
    if text is None:
        text = _made()
        keep(_name(), text)
    bundle = json.loads(text)
    # A script in HTML must not contain the text that closes its element.
    safe = bundle["script"].replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return VegaParts(f"(() => {{\n{safe}\n}})();", bundle["charts"])


@cache
def _name() -> str:
    """The name under which the parts are kept; other packages or charts have another."""
    sources = (_HOME / "reports" / "explorer" / name for name in ("bundle.py", "charts.py"))
    made_of = [version("altair"), version("vl-convert-python")]
    made_of += [source.read_text(encoding="utf-8") for source in sources]
    return f"vega-{sha256(json.dumps(made_of).encode()).hexdigest()[:16]}.json"


@cache
def _process() -> "subprocess.Popen[bytes]":
    # Not a thread: other processes are forked from this one meanwhile.
    command = [sys.executable, "-P", "-c", _PROGRAM]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    atexit.register(_end, process)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End `process` if nobody has taken its output: the report failed before."""
    if process.returncode is None:
        process.kill()
        process.communicate()


def _made() -> str:
    made, _ = _process().communicate()
    if _process().returncode == 0:
        return made.decode()
    from reports.explorer.bundle import bundle  # noqa: PLC0415 - slow to load, seldom needed

    return bundle()
