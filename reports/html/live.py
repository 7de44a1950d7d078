"""The live page, served during training: it reloads itself when a newer report is ready."""

from dataclasses import dataclass
from hashlib import sha256

from markupsafe import Markup

from reports.elements import Document
from reports.html.renderer import render_html, style, template_environment
from reports.html.scripts import content_security_policy, read_script


@dataclass(frozen=True)
class LivePage:
    """A page that reloads itself, and its version, which it compares with the server's."""

    page: bytes
    version: str


def live_page(document: Document) -> LivePage:
    """The report as a live page; its version is a hash of the report without the live parts."""
    version = sha256(render_html(document)).hexdigest()[:16]
    return LivePage(render_html(document, live=version), version)


def waiting_page(folder: str) -> LivePage:
    """The page that is served until `folder` has a report; its version is the empty string."""
    follow, sheets = read_script("live.js"), style("report.css", "live.css")
    page = (
        template_environment()
        .get_template("waiting.html.j2")
        .render(
            folder=folder,
            live="",
            style=sheets,
            script=Markup(follow),
            policy=content_security_policy([follow], [sheets], connect=True),
        )
    )
    return LivePage(page.encode("utf-8", errors="replace"), "")
