"""The report as a reader opens it: in a browser, from a file, without a network."""

from reports.document import build_document
from reports.html import render_html


def test_page_opens_without_a_complaint_or_a_request(open_page, tmp_path, experiment, outcomes):
    path = tmp_path / "report.html"
    path.write_bytes(render_html(build_document(experiment, outcomes)))
    page = open_page(path)
    assert page.title() == "Gradient flow in plain34 and resnet34"
