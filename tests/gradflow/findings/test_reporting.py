"""`gradflow.report(...)`: the files of the command, written from Python."""

import inspect

import matplotlib as mpl
import pytest

import gradflow
from gradflow.errors import ConfigurationError


def test_files_are_those_of_the_command(trained, tmp_path, capsys):
    folder = trained("healthy")
    made = gradflow.report(folder, formats="json,md", out=tmp_path / "python", only="health_check")
    assert capsys.readouterr().out == ""
    code = gradflow.report.main(
        [str(folder), "--format", "json,md", "--out", str(tmp_path / "command"), "--only",
         "health_check"]
    )  # fmt: skip
    assert code == 0
    assert sorted(made.files) == ["json", "md"]
    for path in made.files.values():
        assert path.read_bytes() == (tmp_path / "command" / path.name).read_bytes()


def test_html_and_pdf_are_written_beside_the_run_by_default(trained, tmp_path):
    import shutil  # noqa: PLC0415

    folder = shutil.copytree(trained("healthy"), tmp_path / "run")
    made = gradflow.report(folder)
    assert made.files == {"html": folder / "report.html", "pdf": folder / "report.pdf"}
    assert made.files["pdf"].read_bytes().startswith(b"%PDF-")


def test_answers_are_reported_without_asking_again(trained, tmp_path, monkeypatch):
    answers = gradflow.analyze(trained("dead"))
    monkeypatch.setattr("analyses.registry.run_all", None)
    made = gradflow.report(answers, formats=["json"], out=tmp_path, only=["health_check"])
    assert made.files == {"json": tmp_path / "report-health_check.json"}
    assert [one.key for one in made.answers] == ["health_check"]


def test_backend_of_the_notebook_stays_as_it_is(trained, tmp_path):
    before = mpl.get_backend()
    mpl.use("svg")
    try:
        gradflow.report(trained("healthy"), formats="md", out=tmp_path)
        assert mpl.get_backend() == "svg"
    finally:
        mpl.use(before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formats": "word"}, "the format 'word' is unknown: choose from html"),
        ({"formats": ()}, "no format is named"),
        ({"paper": "a3"}, "the paper 'a3' is unknown: choose from a4, letter"),
        ({"only": "helth"}, "there is no analysis 'helth'"),
    ],
)
def test_unknown_options_are_one_sentence(options, said, trained, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        gradflow.report(trained("healthy"), out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_called_module_and_function_have_the_same_arguments():
    from gradflow.findings.reporting import report  # noqa: PLC0415

    called, function = inspect.signature(gradflow.report), inspect.signature(report)
    shapes = [
        [(one.name, one.kind, one.default) for one in each.parameters.values()]
        for each in (called, function)
    ]
    assert shapes[0] == shapes[1]
