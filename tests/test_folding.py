"""What belongs to another partition is not counted in this one."""

from redis_agent.clock import Clock
from redis_agent.folding import Folding
from redis_agent.store.partitions import partition_of
from redis_agent.store.stream import StreamEntry


def folding(**given: int) -> Folding:
    return Folding(clock=Clock(), max_event_bytes=1024, cooldown_seconds=1, max_error_alerts=5, **given)


def entry(number: int, experiment_id: str, event: str = "sent") -> StreamEntry:
    data = f'{{"experiment_id":"{experiment_id}","event":"{event}"}}'.encode()
    return StreamEntry(id=f"{number}-0", data=data, at_ms=1)


def test_event_of_another_partition_is_a_dead_letter_and_raises_no_alert() -> None:
    assert [partition_of(one, 4) for one in ("exp-0", "exp-4")] == [0, 1]
    entries = [entry(1, "exp-0"), entry(2, "exp-4", "error"), entry(3, "exp-4")]
    folded = folding(partition=0, partitions=4).fold(entries, {})
    assert [update.experiment_id for update in folded.batch.updates] == ["exp-0"]
    assert [(letter.position, letter.readable) for letter in folded.batch.dead] == [(1, True), (2, True)]
    reason = "wrong_partition: its experiment belongs to partition 1, and this is partition 0"
    assert {letter.reason for letter in folded.batch.dead} == {reason}
    assert folded.alerts == []
    assert folded.dead == {"wrong_partition": 2}


def test_what_is_no_event_is_a_dead_letter_for_that_wherever_it_is() -> None:
    folded = folding(partition=0, partitions=4).fold([StreamEntry(id="1-0", data=b"no json", at_ms=1)], {})
    assert folded.dead == {"not_json": 1}


def test_with_one_partition_everything_belongs_here() -> None:
    folded = folding().fold([entry(1, "exp-0"), entry(2, "exp-4")], {})
    assert folded.dead == {}
