"""Arbitrary arguments and recorded configurations: the command ends without a traceback."""

import io
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradflow import probe, report, train_and_trace
from gradflow.errors import GradflowError
from gradflow.runs import __main__ as check
from gradflow.training.configuration import Configuration
from gradflow.training.resumption import recorded_configuration

COMMANDS = {"train": train_and_trace, "report": report, "probe": probe, "runs": check}
OPTIONS = [
    *("--data", "--models", "--epochs", "--seeds", "--image-size", "--norm", "--out", "--resume"),
    *("--no-augment", "--format", "--only", "--each", "--port", "--probes", "--device", "--repair"),
    *("--", "-", "-h", "check", "--data=", "--epochs=1", "--format=md"),
]
WORDS = st.one_of(
    st.sampled_from(OPTIONS),
    st.sampled_from(["0", "-1", "1e999", "nan", "9" * 5000, "plain20", "all", "nowhere", "a\nb"]),
    st.text(st.characters(exclude_categories=("Cs",)) | st.just("\udcff"), max_size=8).filter(
        lambda word: "\0" not in word  # no system hands one over
    ),
)


class ReplacingOutput(io.TextIOBase):
    """Writes to `stream`, with escapes for characters that it cannot encode."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        return self.stream.write(text.encode("utf-8", "backslashreplace").decode())


@pytest.mark.parametrize("name", COMMANDS)
def test_any_words_are_an_error_without_a_traceback(name, tmp_path, monkeypatch, capsys):
    # Like the standard error of a process, which can print any word.
    monkeypatch.setattr(sys, "stderr", ReplacingOutput(sys.stderr))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_and_trace, "make_plan", refuse)
    lines = st.lists(WORDS, max_size=6)

    @settings(max_examples=100, deadline=None)
    @given(lines)
    def try_words(words):
        try:
            status = COMMANDS[name].main(words)
        except SystemExit as ended:  # of tyro: 2 for what it does not know, 0 for --help
            status = ended.code
        said = capsys.readouterr()
        assert status in ((0, 1, 2) if {"-h", "--help"} & set(words) else (1, 2))
        assert said.out or said.err
        assert "Traceback" not in said.err
        if said.err.startswith("error: "):
            assert said.err.removesuffix("\n").isprintable() or name == "report"

    try_words()
    assert not list(tmp_path.iterdir())


def refuse(*_, **__):
    raise GradflowError("nothing is trained here")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
RECORDED = st.one_of(
    JSON,
    st.dictionaries(st.sampled_from([*Configuration().as_json(), "other"]), JSON, max_size=3),
)


@settings(max_examples=200, deadline=None)
@given(RECORDED, st.sampled_from([1, 2, 0, 10**30, "2", None, True]), st.floats(0, 1))
def test_any_recorded_configuration_is_read_or_refused(tmp_path_factory, recorded, version, kept):
    folder = tmp_path_factory.getbasetemp() / "recorded"
    folder.mkdir(exist_ok=True)
    text = json.dumps({"schema_version": version, "configuration": recorded})
    (folder / "experiment.json").write_text(text[: max(1, round(len(text) * min(1, 2 * kept)))])
    message = "."
    try:
        assert recorded_configuration(folder, Configuration()).out == folder
    except GradflowError as error:
        message = str(error)
    assert message
    assert message.isprintable()
