"""Vega, the library that draws the explorer's charts, as one script that fetches nothing."""

import atexit
import subprocess
import sys
from functools import cache

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
# The schema version is e.g. "v6.4.1"; the bundle is chosen by "v6.4".
_PROGRAM = (
    "import sys, altair, vl_convert;"
    "version = '.'.join(altair.SCHEMA_VERSION.split('.')[:2]);"
    f"bundle = vl_convert.javascript_bundle({_SNIPPET!r}, vl_version=version);"
    "sys.stdout.buffer.write(bundle.encode())"
)


def begin() -> None:
    """Start making the script in a process of its own: bundling takes more than a second."""
    _process()


@cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed in the versions that the installed altair writes for.

    The script comes from the installed packages, without network access. It is cached for the
    lifetime of the process. It defines only the global name `vegaEmbed`.
    """
    # A script in HTML must not contain the text that closes its element.
    safe = _bundle().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"(() => {{\n{safe}\n}})();"


@cache
def _process() -> "subprocess.Popen[bytes]":
    # Not a thread: other processes are forked from this one meanwhile.
    command = [sys.executable, "-P", "-c", _PROGRAM]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    atexit.register(_end, process)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End `process` if nobody has taken its script: the report failed before."""
    if process.returncode is None:
        process.kill()
        process.communicate()


def _bundle() -> str:
    made, _ = _process().communicate()
    if _process().returncode == 0:
        return made.decode()
    import altair  # noqa: PLC0415 - slow to load, seldom needed
    import vl_convert  # noqa: PLC0415 - the same

    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    return str(vl_convert.javascript_bundle(_SNIPPET, vl_version=version))
