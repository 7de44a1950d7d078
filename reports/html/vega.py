"""Vega, the library that draws the explorer's charts, as one script that fetches nothing."""

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import vl_convert

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_PROGRAM = (
    "import sys, vl_convert;"
    f"bundle = vl_convert.javascript_bundle({_SNIPPET!r}, vl_version=sys.argv[1]);"
    "sys.stdout.buffer.write(bundle.encode())"
)


def begin() -> None:
    """Start making the script in the background: bundling takes more than a second."""
    _bundle()


@cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed in the versions that the installed altair writes for.

    The script comes from the installed packages, without network access. It is cached for the
    lifetime of the process. It defines only the global name `vegaEmbed`.
    """
    # A script in HTML must not contain the text that closes its element.
    safe = _bundle().result().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"(() => {{\n{safe}\n}})();"


@cache
def _bundle() -> "Future[str]":
    executor = ThreadPoolExecutor(max_workers=1)
    future = executor.submit(_make)
    executor.shutdown(wait=False)
    return future


def _make() -> str:
    import altair  # noqa: PLC0415 - slow to load: other threads work meanwhile

    # The schema version is e.g. "v6.4.1"; the bundle is chosen by "v6.4".
    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    # vl_convert blocks all threads of its process, so it runs in a separate process.
    command = [sys.executable, "-c", _PROGRAM, version]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode == 0:
        return made.stdout.decode()
    return str(vl_convert.javascript_bundle(_SNIPPET, vl_version=version))
