"""Pages of detached bodies: what travels is what was meant, and nothing inflates beyond a page."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labxchange.errors import PeerError
from labxchange.wire.control.messages import PAGE_BYTES, PageOf, decode_answer, encode
from labxchange.wire.control.pages import bytes_of, deflated


@given(data=st.binary(max_size=4096), times=st.integers(1, 256), last=st.booleans())
def test_a_page_is_what_it_was(data: bytes, times: int, last: bool) -> None:
    told = decode_answer(encode(deflated(data * times, last=last)))
    assert isinstance(told, PageOf)
    assert (bytes_of(told), told.last) == (data * times, last)
    assert len(told.data) <= len(data * times)


def test_names_that_are_alike_take_a_fraction() -> None:
    names = b"".join(b"study/site-%03d/subject-%06d.xpt" % (number % 70, number) for number in range(20_000))
    assert len(deflated(names, last=True).data) < len(names) / 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        zlib.compress(b"x" * 1000)[:-1],
        zlib.compress(b"x" * 1000) + b"more",
        zlib.compress(bytes(PAGE_BYTES + 1)),
        zlib.compress(bytes(500 << 20), 9),
    ],
    ids=["empty", "garbage", "cut short", "something after it", "a byte too much", "half a gigabyte"],
)
def test_what_does_not_inflate_to_a_page_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        bytes_of(PageOf(data=data, last=True, deflated=True))
    assert caught.value.code == "malformed-page"
