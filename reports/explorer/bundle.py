"""The library Vega and the explorer's charts as one text; slow to load and to make."""

import json

import altair
import vl_convert

from reports.explorer.charts import charts_json

_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def bundle() -> str:
    """JSON: `script`, Vega in the version that altair writes for, and `charts`."""
    # The schema version is e.g. "v6.4.1"; the bundle is chosen by "v6.4".
    version = ".".join(altair.SCHEMA_VERSION.split(".")[:2])
    script = vl_convert.javascript_bundle(_SNIPPET, vl_version=version)
    return json.dumps({"script": script, "charts": charts_json()})
