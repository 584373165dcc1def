"""The grammar of paths, and errors that show the place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decode.paths import Attribute, Every, InDocument, Item, Key, MessageTime, PathError, Where, parse_path

A, B = Key("a"), Key("b")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a", InDocument((A,))),
        ("$", InDocument(())),
        ("$.a.b", InDocument((A, B))),
        ("$['a']", InDocument((A,))),
        ("$schema", InDocument((Key("$schema"),))),
        ("['a.b']", InDocument((Key("a.b"),))),
        ('a["it\'s"]', InDocument((A, Key("it's")))),
        ("['it\\'s']", InDocument((Key("it's"),))),
        ("a-b.3303", InDocument((Key("a-b"), Key("3303")))),
        ("größe", InDocument((Key("größe"),))),
        ("a[0][-1]", InDocument((A, Item(0), Item(-1)))),
        ("a[*].*", InDocument((A, Every(), Every()))),
        ("[*]~", InDocument((Every(),), takes_key=True)),
        ("a[*]~/1", InDocument((A, Every()), takes_key=True, segment=1)),
        ("a/-1", InDocument((A,), segment=-1)),
        ("$/2", InDocument((), segment=2)),
        ("a[?@.k=='v']", InDocument((A, Where(((("k",), "v"),))))),
        ("a[?(@.k == 'v' && @['m n'].o==2.5)].b", InDocument((A, Where(((("k",), "v"), (("m n", "o"), 2.5))), B))),
        ("a[?@=='v']", InDocument((A, Where((((), "v"),))))),
        ("attribute:topic/1", Attribute("topic", 1)),
        ("attribute:ce-time", Attribute("ce-time")),
        ("attribute:'a b'", Attribute("a b")),
        ("message:time", MessageTime()),
    ],
)
def test_text_is_parsed_to_its_source(text, source):
    assert parse_path(text).sources == (source,)


def test_alternatives_are_kept_in_order():
    path = parse_path(" a.b | attribute:x | message:time ")
    assert path.sources == (InDocument((A, B)), Attribute("x"), MessageTime())
    assert path.text == "a.b | attribute:x | message:time"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "expected a key at character 1, at the end"),
        ("a.", "expected a key at character 3, at the end"),
        ("a..b", "expected a key at character 3, before '.b'"),
        ("a.[b", "expected a key at character 3, before '[b'"),
        ("a[b]", "expected a quoted key, a number, * or ?@ at character 3, before 'b]'"),
        ("a[0", "expected ] at character 4, at the end"),
        ("a['b", 'expected a text in quotes at character 3, before "\'b"'),
        ("a.'b'", "expected a quoted key in brackets, ['...'] at character 3"),
        ("a b", "expected a dot, a bracket, |, ~, / or the end at character 3, before 'b'"),
        ("a:b", "expected a key with a colon in quotes, ['a:b'] at character 2"),
        ("a|", "expected a key at character 3, at the end"),
        ("a/b", "expected the number of a segment at character 3, before 'b'"),
        ("a[?@.k]", "expected a member and ==, such as @.name=='temperature' at character 7"),
        ("a[?@.k==v]", "expected a text in quotes, a number, true or false at character 9, before 'v]'"),
        ("a[?k=='v']", "expected @ at character 4, before \"k=='v']\""),
        ("attribute:", "expected an attribute's name at character 11, at the end"),
        ("message:id", "expected message:time at character 9"),
        ("a[0:2]", "expected ] at character 4, before ':2]'"),
        ("a\x1b", "a character that cannot be printed"),
        ("a" * 1_001, "longer than 1,000 characters"),
        ("a" + "[0]" * 40, "expected at most 32 steps"),
    ],
)
def test_invalid_path_is_refused_with_its_place(text, error):
    with pytest.raises(PathError) as caught:
        parse_path(text)
    assert str(caught.value).startswith(error)


@given(st.text("ab.[]*?@='\"~/|:$ 0-&()", max_size=30))
def test_any_text_is_parsed_or_refused(text):
    try:
        path = parse_path(text)
    except PathError:
        return
    assert path.sources
