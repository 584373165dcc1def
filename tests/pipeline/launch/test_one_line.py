"""Error messages of one line."""

import pytest

from pipeline.launch import one_line


def test_value_is_escaped_and_keeps_beginning_and_end():
    assert one_line.value("15s") == "15s"
    assert one_line.value("a\x1b[31m\n") == "a\\x1b[31m\\n"
    assert one_line.value("x" * 60 + "y" * 100) == f"{'x' * 60}{'y' * 40}...{'y' * 20} (160 characters)"


def test_reason_joins_the_lines_of_an_error():
    assert one_line.reason(ValueError("no such table\n  in this dataset")) == "no such table in this dataset"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "error: the following arguments are required: --rate\n"),
        (["--rate=a\nb"], "error: --rate: invalid int value: 'a\\nb'\n"),
    ],
)
def test_parser_reports_a_wrong_command_line_on_one_line(flags, expected, capsys):
    parser = one_line.Parser(prog="test")
    parser.add_argument("--rate", type=int, required=True)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(flags)
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", expected)
