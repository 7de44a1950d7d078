"""The library that draws the explorer's charts in the page, as one script that fetches nothing."""

from functools import cache

import altair
import vl_convert


@cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed in the versions that the installed altair writes for.

    Taken from the installed packages: no network is asked. It takes about a second, so it is kept
    as long as the process lives. The script leaves `vegaEmbed` behind and no other name.
    """
    # "v6.4.1" names the schema; the bundle is chosen by its first two numbers.
    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    # Within an element of HTML no script may hold the text that ends it.
    safe = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"(() => {{\n{safe}\n}})();"
