"""A process belongs to the sender of its first record, on both databases and among many threads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from flowledger.records import Gap, encode, new_id
from flowledger.store.bulk import BulkSink, open_bulk
from flowledger.store.senders import SHIPPER
from tests.calls import a_call
from tests.server_client import rows
from tests.test_store import destination

ANA, BOB = "ana", "bob"


def opened(uri: str) -> BulkSink:
    sink = open_bulk(destination(uri))
    assert sink is not None
    return sink


def test_of_two_senders_at_the_same_time_one_owns_the_process(database_uri: str) -> None:
    producers = [new_id() for _ in range(20)]
    names = [f"user {number}" for number in range(4)]
    start = Barrier(len(names))

    def send(sender: str, order: Sequence[str]) -> list[str]:
        sink = opened(database_uri)
        start.wait(60)
        taken = []
        for producer in order:
            call = a_call(producer=producer, experiment=sender)
            taken += [producer] if [] == sink.write([encode(call)], sender=sender) else []
        sink.close()
        return taken

    with ThreadPoolExecutor(len(names)) as threads:
        orders = [producers, producers[::-1], producers, producers[::-1]]
        owned = list(threads.map(send, names, orders))

    bound = {row["id"]: row["user_name"] for row in rows(database_uri, "SELECT * FROM llm_senders")}
    assert sorted(producers) == sorted(producer for taken in owned for producer in taken)
    assert bound == {p: name for name, taken in zip(names, owned, strict=True) for p in taken}
    calls = rows(database_uri, "SELECT DISTINCT producer_id, feature FROM llm_calls")
    assert len(producers) == len(calls)


def test_a_batch_of_many_processes_is_bound_in_one_go(database_uri: str) -> None:
    calls = [encode(a_call(producer=new_id())) for _ in range(1200)]
    sink = opened(database_uri)
    assert [] == sink.write(calls, sender=ANA)
    refused = sink.write([*calls[:700], encode(a_call(producer=new_id()))], sender=BOB)
    assert [*range(700)] == [refusal.place for refusal in refused]
    assert [] == sink.write(calls, sender=ANA)
    sink.close()


def test_no_user_takes_over_from_a_shipper_and_no_shipper_from_a_user(sqlite_uri: str) -> None:
    sink = opened(sqlite_uri)
    of_ana, shipped = encode(a_call(producer=new_id())), encode(a_call(producer=new_id()))
    assert [] == sink.write([of_ana], sender=ANA)
    assert [] == sink.write([shipped], sender=SHIPPER)
    assert [0] == [one.place for one in sink.write([of_ana, shipped], sender=SHIPPER)]
    assert [1] == [one.place for one in sink.write([of_ana, shipped], sender=ANA)]
    sink.close()


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [(0, 5, 1), (5, 4, 1), (1, 5, 0), (1, 5, 6), (1, 2**40, 1), (2**63, 2**63, 1), (-9, 5, 1)],
)
def test_a_gap_with_numbers_of_no_process_is_refused_alone(
    database_uri: str, first: int, last: int, count: int
) -> None:
    producer = new_id()
    gap = Gap(id=new_id(), producer=producer, first_seq=first, last_seq=last, count=count)
    sink = opened(database_uri)
    refused = sink.write([encode(gap), encode(a_call(producer=producer))])
    sink.close()
    assert [(0, True)] == [(one.place, "a gap counts" in one.reason) for one in refused]
    assert [] == rows(database_uri, "SELECT * FROM llm_gaps")
