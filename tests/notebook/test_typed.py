"""From a line to words and values: like a shell, like Python literals, and without evaluating anything."""

from __future__ import annotations

import pytest

from grym_nb.errors import CommandError
from grym_nb.notebook.typed import Parser, Words, keyword, refers, text_of, value_of, words_of


@pytest.mark.parametrize(
    ("line", "words", "quiet"),
    [
        ("", (), False),
        ("status", ("status",), False),
        ("run echo 'two words' x", ("run", "echo", "two words", "x"), False),
        ("status # how are they?", ("status",), False),
        ("status;", ("status",), True),
        ("status ;", ("status",), True),
        ("status; # quietly", ("status",), True),
        (";", (), True),
        ('run echo "a;"', ("run", "echo", "a;"), False),
        ('run echo "a b";', ("run", "echo", "a b"), True),
        ("run echo 'a;';", ("run", "echo", "a;"), True),
        ("""run echo '{"a": 1}'""", ("run", "echo", '{"a": 1}'), False),
    ],
)
def test_a_line_is_divided_as_a_shell_would(line: str, words: tuple[str, ...], quiet: bool) -> None:
    """Quotes hold words together, a comment is left out, a semicolon at the end asks for silence."""
    assert words_of(line, posix=True) == Words(words, quiet)


def test_on_windows_a_backslash_belongs_to_the_path() -> None:
    """Quotes are taken off there all the same."""
    assert words_of(r'run echo C:\new "two words" \'', posix=False).words == (
        "run",
        "echo",
        r"C:\new",
        "two words",
        "\\'",
    )


def test_a_quote_that_is_not_closed_is_told_with_the_line() -> None:
    """The one mistake that keeps a line from being divided."""
    with pytest.raises(CommandError) as caught:
        words_of("run echo 'it", posix=True)
    assert caught.value.lines() == [
        "%grym cannot divide this line into words: no closing quotation",
        "  run echo 'it",
        "→ a quote inside of a word: put the word in the other kind of quotes",
    ]


class Untouchable:
    """An object that nobody may look into."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked for")


CLIP = Untouchable()
VARIABLES = {"clip": CLIP, "n": 3, "_hidden": 1}


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("tempo", "tempo"),
        ("42", "42"),
        ("[1, 2]", "[1, 2]"),
        ("True", "True"),
        ("'42'", "42"),
        ("None", None),
        ("$n", 3),
        ("{n}", 3),
        ("$n more", "$n more"),
    ],
)
def test_where_a_text_is_meant_a_number_is_text(word: str, text: object) -> None:
    """A key may be 42; a variable is what it is, and None is nothing."""
    assert text_of(word, VARIABLES) == text
    assert refers(word) == ("n" if text == 3 else "")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("-1e3", -1000.0),
        ("0.5", 0.5),
        ("None", None),
        ("True", True),
        ("[1, 'a']", [1, "a"]),
        ("{}", {}),
        ("{'a': 1}", {"a": 1}),
        ("{1}", {1}),
        ("'3'", "3"),
        ("hello", "hello"),
        ("", ""),
        ("a/b.wav", "a/b.wav"),
        ("$n", 3),
        ("{n}", 3),
        ("$n!", "$n!"),
        ("x$n", "x$n"),
        ("{n.real}", "{n.real}"),
        ("$", "$"),
        ("$1", "$1"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("[" * 500, "[" * 500),
    ],
)
def test_a_word_is_an_object_by_name_a_literal_or_text(word: str, value: object) -> None:
    """Only a whole word names an object; nothing is evaluated."""
    assert value_of(word, VARIABLES) == value


def test_the_object_itself_is_passed() -> None:
    """No copy, no repr, no attribute is asked for."""
    assert value_of("$clip", VARIABLES) is CLIP
    assert value_of("{clip}", VARIABLES) is CLIP


def test_an_unknown_name_is_an_error_that_names_the_closest() -> None:
    """Hidden names are not offered."""
    with pytest.raises(CommandError, match=r"no variable 'clipp'. Did you mean 'clip'\?"):
        value_of("$clipp", VARIABLES)
    with pytest.raises(CommandError, match=r"no variable 'hidden'\.\n"):
        value_of("{hidden}", VARIABLES)


@pytest.mark.parametrize(
    ("word", "pair"),
    [
        ("a=1", ("a", "1")),
        ("a_b2=x=y", ("a_b2", "x=y")),
        ("a=", ("a", "")),
        ("größe=2", ("größe", "2")),
        ("=1", None),
        ("2a=1", None),
        ("a b=1", None),
        ("a.b=1", None),
        ("text", None),
    ],
)
def test_a_keyword_is_a_name_an_equals_sign_and_the_rest(word: str, pair: tuple[str, str] | None) -> None:
    """As in a call."""
    assert keyword(word) == pair


def _parser() -> Parser:
    parser = Parser("%grym unload", "%grym unload SERVICE... [--timeout S]")
    parser.add_argument("services", nargs="+", metavar="SERVICE")
    parser.add_argument("--timeout", type=float, metavar="S")
    return parser


@pytest.mark.parametrize("line", ["a b --timeout 3", "a --timeout 3 b", "--timeout=3 a b"])
def test_options_may_stand_anywhere(line: str) -> None:
    """Before, between and behind the names."""
    given = _parser().parse(line.split())
    assert (given.services, given.timeout) == (["a", "b"], 3.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --timout 3", "%grym unload does not take '--timout'. Did you mean '--timeout'?"),
        ("a --time 3", "%grym unload does not take '--time'. Did you mean '--timeout'?"),
        ("a --timeout", "%grym unload: argument --timeout: expected one argument"),
        ("a --timeout soon", "%grym unload: argument --timeout: invalid float value: 'soon'"),
        ("", "%grym unload: the following arguments are required: SERVICE"),
    ],
)
def test_what_does_not_fit_is_our_error_with_the_usage(line: str, message: str) -> None:
    """Nothing exits, nothing is printed, no option is guessed from its beginning."""
    with pytest.raises(CommandError) as caught:
        _parser().parse(line.split())
    assert caught.value.lines() == [message, "→ usage: %grym unload SERVICE... [--timeout S]"]


def test_a_parser_never_leaves_the_kernel() -> None:
    """argparse would raise SystemExit."""
    with pytest.raises(CommandError, match="would end with status 3"):
        _parser().exit(3)
