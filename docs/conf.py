"""How Sphinx builds the site; see `docs/build.py` for the command.

Nothing is fetched while the site is built or read. Pages of conditions, analyses, probes,
quantities and of the public names come from the registries and docstrings (`site_pages`).
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import site_pages  # noqa: E402 - found by the line above

import gradflow  # noqa: E402

project = "gradflow"
author = "the gradflow maintainers"
copyright = author
version = release = gradflow.__version__
# Without outputs, in seconds: what is checked with every change. See `docs/build.py`.
QUICK = bool(os.environ.get("GRADFLOW_DOCS_QUICK"))

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
]
# The gallery has each script as a notebook too, for download.
exclude_patterns = ["_build", "examples_gallery", "pictures/**.ipynb", "**/.ipynb_checkpoints"]
nitpicky = True
# Names of other libraries, and of types within gradflow that only annotations name.
nitpick_ignore_regex = [(r"py:.*", r".*")]
default_role = "code"

# Docstrings.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_custom_sections = [("Fields", "params_style")]
napoleon_use_rtype = False

# Pages.
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "substitution"]
myst_substitutions = site_pages.facts(HERE.parent)
myst_heading_anchors = 4
nb_execution_mode = "off" if QUICK else "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # would be fetched from elsewhere
nb_merge_streams = True

sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "examples_gallery"),
    "gallery_dirs": "pictures",
    "plot_gallery": not QUICK,
    "reset_modules": ("matplotlib", "seaborn", "site_pages.gallery_style.prepare"),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,  # that page would fetch scripts from elsewhere
    "abort_on_example_error": True,
    "within_subsection_order": "FileNameSortKey",
    "matplotlib_animations": False,
}
# Two of its objects cannot be pickled; nothing depends on them between builds.
suppress_warnings = ["config.cache"]

# The theme; everything that it loads is copied into the site.
html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_title = f"gradflow {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "gradflow"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "navigation_depth": 2,
    "show_nav_level": 1,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
}
html_sidebars = {"index": []}


def setup(app: object) -> None:
    """Write the pages that come from registries, and adapt those that GitHub shows too."""
    site_pages.connect(app)
