"""Guessing is slowed down by address, and no owner of a name is locked out."""

import pytest
from fastapi import HTTPException

from flowledger.server.guesses import (
    FREE_BY_ADDRESS,
    FREE_BY_NAME,
    LONGEST_WAIT_SECONDS,
    MOST_COUNTED,
    Guesses,
)

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def waits(guesses: Guesses, name: str, address: str) -> int:
    """How many seconds this attempt is told to wait; 0 when it may be made."""
    try:
        guesses.begin(name, address)
    except HTTPException as exc:
        return int((exc.headers or {})["Retry-After"]) if exc.status_code == 429 else -1
    return 0


def test_past_the_free_ones_the_wait_doubles_up_to_a_bound() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    assert [0] * FREE_BY_NAME == [waits(guesses, "ana", HERE) for _ in range(FREE_BY_NAME)]
    found = []
    for _ in range(12):
        found.append(waits(guesses, "ana", HERE))
        clock.now += found[-1]
        assert 0 == waits(guesses, "ana", HERE)
    assert [1, 2, 4, 8, 16, 32, 64, 128, 256, *[int(LONGEST_WAIT_SECONDS)] * 3] == found


def test_the_same_name_may_try_from_elsewhere_and_others_from_here() -> None:
    guesses = Guesses(Clock())
    for _ in range(FREE_BY_NAME):
        guesses.begin("ana", HERE)
    assert (True, 0, 0) == (
        waits(guesses, "ana", HERE) > 0,
        waits(guesses, "ana", ELSEWHERE),
        waits(guesses, "bob", HERE),
    )


def test_many_names_from_one_address_are_slowed_down_too() -> None:
    guesses = Guesses(Clock())
    for number in range(FREE_BY_ADDRESS):
        guesses.begin(f"user {number}", HERE)
    assert (1, 0) == (waits(guesses, "ana", HERE), waits(guesses, "ana", ELSEWHERE))


def test_a_host_with_many_ipv6_addresses_is_one_place() -> None:
    guesses = Guesses(Clock())
    for number in range(FREE_BY_NAME):
        guesses.begin("ana", f"2001:db8::{number:x}")
    assert (1, 0) == (
        waits(guesses, "ana", "2001:db8::ffff"),
        waits(guesses, "ana", "2001:db8:0:1::1"),
    )


@pytest.mark.parametrize(("passed", "left"), [(True, 10), (False, 1)])
def test_an_attempt_that_is_taken_back_is_no_failure(passed: bool, left: int) -> None:
    guesses = Guesses(Clock())
    for _ in range(FREE_BY_NAME):
        guesses.begin("ana", HERE)
    guesses.take_back("ana", HERE, passed=passed)
    allowed = [waits(guesses, "ana", HERE) for _ in range(FREE_BY_NAME + 1)].index(1)
    assert left == allowed


def test_a_quiet_quarter_of_an_hour_is_forgotten() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(FREE_BY_NAME):
        guesses.begin("ana", HERE)
    clock.now += 901
    assert [0] * FREE_BY_NAME == [waits(guesses, "ana", HERE) for _ in range(FREE_BY_NAME)]


def test_what_is_counted_is_bounded_and_the_oldest_goes_first() -> None:
    guesses = Guesses(Clock())
    for number in range(MOST_COUNTED):
        guesses.begin(f"user {number}", f"10.0.{number // 250}.{number % 250}")
    assert MOST_COUNTED == len(guesses._counts)
