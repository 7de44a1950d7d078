"""The library that draws the explorer's charts in the page, as one script that fetches nothing."""

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
    """Let the script be made while other work is done: bundling it takes more than a second."""
    _bundle()


@cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed in the versions that the installed altair writes for.

    Taken from the installed packages: no network is asked. It is kept as long as the process lives.
    The script leaves `vegaEmbed` behind and no other name.
    """
    # Within an element of HTML no script may hold the text that ends it.
    safe = _bundle().result().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"(() => {{\n{safe}\n}})();"


@cache
def _bundle() -> "Future[str]":
    executor = ThreadPoolExecutor(max_workers=1)
    future = executor.submit(_make)
    executor.shutdown(wait=False)
    return future


def _make() -> str:
    import altair  # noqa: PLC0415 - slow to load: meanwhile others work

    # "v6.4.1" names the schema; the bundle is chosen by its first two numbers.
    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    # vl_convert lets no other thread of its process run, so it gets a process of its own.
    command = [sys.executable, "-c", _PROGRAM, version]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode == 0:
        return made.stdout.decode()
    return str(vl_convert.javascript_bundle(_SNIPPET, vl_version=version))
