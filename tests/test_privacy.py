"""What is taken out of an error's message, and what is left of it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.privacy import LONGEST, MASK, masked


@pytest.mark.parametrize(
    "message",
    [
        "The customer failed to create due to an invalid Id",
        "Error: Request failed with status code 403",
        "invalid bearer token",
        "basic authentication is not allowed",
        "rate limited: 40 requests in 60 seconds",
        "POST https://api.example.com/admin/v2/orders/draft answered 422",
        "The field internationalizationOfThings is required, überprüfen 注文 🚚",
    ],
)
def test_what_went_wrong_can_still_be_read(message: str) -> None:
    """Words, statuses, hosts and paths stay as they are."""
    assert masked(message, "mask") == message


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("Customer ada@example.com not found", "Customer *** not found"),
        ("ada%40example.com is taken", "*** is taken"),
        ("Authorization: Bearer abc was refused", "Authorization: *** was refused"),
        ("bearer abcd is over", "bearer *** is over"),
        ('{"password": "two words", "n": 1}', '{"password": ***, "n": 1}'),
        (r"{\"client_secret\":\"two words\"}", r"{\"client_secret\":***}"),
        ("Cookie: sid=abc; theme=dark", "Cookie: ***"),
        (
            "https://u:p@ss@h.example/a?x=1&mail=a#f no",
            "https://***@h.example/a?x=***&mail=***#*** no",
        ),
        ("GET /customers?name=ada&x failed", "GET /customers?name=***&x failed"),
        ("card 4111 1111 1111 1111 declined", "card *** declined"),
        ("call +1 (239) 475-0599 now", "call *** now"),
        ("key sk_live_abcd revoked", "key *** revoked"),
        ("no order 67ef01ed8eaeb50b18e646ea", "no order ***"),
        ("/orders/67ef01ed8eaeb50b18e646ea/lines", "/orders/***/lines"),
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "***/***/***"),
        ("two\nlines\x1b[31m", "two lines [31m"),
    ],
)
def test_what_is_masked(message: str, left: str) -> None:
    """Each kind is replaced where it stands, and no more than that."""
    assert masked(message, "mask") == left


def test_the_choices() -> None:
    """`keep` keeps words but bounds them; `drop` gives nothing; nothing stays nothing."""
    assert masked("to ada@example.com\n", "keep") == "to ada@example.com"
    assert masked("x" * 5000, "keep") == "x" * LONGEST
    assert masked("to ada@example.com", "drop") is None
    for choice in ("keep", "mask", "drop"):
        assert masked(None, choice) is None
        assert masked(" \n", choice) is None


# Properties ---------------------------------------------------------------------------------------

letters = "abcdefghijklmnopqrstuvwxyz"
word = st.text(letters, min_size=3, max_size=8)
secret = st.text(letters + letters.upper() + "0123456789", min_size=8, max_size=20)
number = st.text("0123456789", min_size=6, max_size=19)
kinds = st.one_of(
    st.tuples(st.builds("{}.{}@{}.example".format, word, word, word)),
    st.tuples(secret, st.sampled_from(["Bearer {}", "bearer {}", "Authorization: Bearer {}"])),
    st.tuples(
        secret,
        st.sampled_from(
            ["api_key={}", "apiKey: {}", '"token":"{}"', "my-secret = '{}'", "X-Api-Key: {}"]
        ),
    ),
    st.tuples(
        secret, st.sampled_from(["sk_live_{}", "ghp_{}", "shpat_{}", "xoxb-{}", "AKIA{}"])
    ).map(lambda pair: (pair[0].upper() if pair[1] == "AKIA{}" else pair[0], pair[1])),
    st.tuples(st.binary(min_size=24, max_size=60).map(lambda b: b.hex())),
    st.tuples(number),
    st.tuples(number, st.sampled_from(["+{}", "no {}", "({})"])),
    st.tuples(secret, st.sampled_from(["https://{}@h.example/", "https://u:{}@h.example/x"])),
    st.tuples(secret, st.sampled_from(["https://h.example/p?q={}", "/p?a=b&q={}", "http://h/#{}"])),
)
around = st.text(max_size=30)
between = st.sampled_from([" ", ", ", ' "', "\n", "; "])


@settings(deadline=None)
@given(before=around, gap=between, kind=kinds, after=around)
def test_a_secret_never_stays(before: str, gap: str, kind: tuple[str, ...], after: str) -> None:
    """Of whatever stands around it, in whatever it is written, nothing of it is left."""
    told = (kind[1] if len(kind) > 1 else "{}").format(kind[0])
    left = masked(f"{before}{gap}{told} {after}", "mask") or ""
    assert kind[0] not in left.replace(after, "").replace(before, "")


@settings(deadline=None)
@given(value=st.binary(min_size=24, max_size=90))
def test_base64_never_stays(value: bytes) -> None:
    """No eight characters in a row of what is written in base64 are left."""
    for text in (base64.b64encode(value).decode(), base64.urlsafe_b64encode(value).decode()):
        if len(set(text)) < 12:
            continue
        left = masked(f"the signature {text} differs", "mask") or ""
        for begin in range(len(text) - 8):
            assert text[begin : begin + 8] not in left


pieces = st.sampled_from(
    [
        *(
            "token",
            "=",
            ":",
            "://",
            "@",
            "?",
            "&",
            "#",
            ";",
            "bearer ",
            "sk_",
            "%40",
            '"',
            "\\",
            "***",
        ),
        *(
            "1",
            "12345",
            "a",
            "Ab1",
            "/",
            "-",
            ".",
            "_",
            " ",
            "https",
            "\n",
            "cookie",
            "é",
            "*",
            "+",
        ),
    ]
)


@settings(deadline=None)
@given(message=st.lists(pieces, max_size=60).map("".join) | st.text(max_size=200))
def test_what_is_masked_stays_as_it_is(message: str) -> None:
    """Masking a second time changes nothing, so that a repeat is the same."""
    once = masked(message, "mask")
    assert masked(once, "mask") == once
    assert once is None or (
        len(once) <= LONGEST and not set("\n\x1b\x85") & set(once) and once == once.strip()
    )


@pytest.mark.parametrize("after", ["", "@", "=", '"', " ", "x"])
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "a.",
            "a-",
            "a@",
            "@",
            "/",
            "?a=",
            "token",
            "token=",
            "token=b;a=b",
            '"',
            "%40",
            "x%40",
        ),
        *(
            "http://",
            "http://a@",
            "1 ",
            "1",
            "bearer ",
            "-",
            "_",
            "=;",
            " ",
            'password:"',
            "api-",
            "((1",
        ),
    ],
)
def test_nothing_takes_long(unit: str, after: str) -> None:
    """No text makes the search go back over itself; one that did would not end in this test's time.
    What lies far behind is not looked at, and not given."""
    left = masked(unit * 100_000 + after + " ada@example.com", "mask")
    assert left is None or (len(left) <= LONGEST and "ada" not in left)


def test_half_a_secret_is_not_left_at_the_cut() -> None:
    """What is cut off in the middle would no longer look like a secret: it goes as a whole."""
    for length in range(4060, 4110):
        text = "ab " * 1400
        left = masked(text[:length] + "cafe0123456789abcdef0123456789" + " x" * 99, "mask") or ""
        assert "caf" not in left
    assert masked("x" * 5000 + "1", "mask") in (None, MASK)
