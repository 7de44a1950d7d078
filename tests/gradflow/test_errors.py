"""An error is one line of letters, whatever the names in it hold."""

from gradflow.errors import DataError, printable


def test_what_would_steer_a_terminal_or_start_a_line_shows_as_an_escape():
    assert printable("a\x1b[2J\n\u202eb\udcff\0") == "a\\x1b[2J\\n\\u202eb\\udcff\\x00"
    assert printable("it's <b> 漢字 ~") == "it's <b> 漢字 ~"


def test_an_error_is_one_line_and_can_be_encoded():
    error = DataError("class\r\nname\x07 of \udcff is missing")
    assert str(error) == "class\\r\\nname\\x07 of \\udcff is missing"
    assert str(error).encode()


def test_an_endless_error_is_shortened_in_its_middle():
    said = str(DataError(f"x has {'a' * 100_000}; remove it"))
    assert said.startswith("x has aaa")
    assert said.endswith("aaa; remove it")
    assert len(said) < 4100
    assert str(DataError("a" * 4000)) == "a" * 4000
