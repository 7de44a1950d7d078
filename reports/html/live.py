"""The page as it is served while training goes on: it follows, unlike one opened from a file."""

from dataclasses import dataclass
from hashlib import sha256

from markupsafe import Markup

from reports.elements import Document
from reports.html.renderer import render_html, style, template_environment
from reports.html.scripts import content_security_policy, read_script


@dataclass(frozen=True)
class LivePage:
    """A page that follows, and the version by which it knows that there is a newer one."""

    page: bytes
    version: str


def live_page(document: Document) -> LivePage:
    """The report as a page that follows; the version is that of what is to be read on it."""
    version = sha256(render_html(document)).hexdigest()[:16]
    return LivePage(render_html(document, live=version), version)


def waiting_page(folder: str) -> LivePage:
    """What is served before there is a report on `folder`; its version is the empty string."""
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
