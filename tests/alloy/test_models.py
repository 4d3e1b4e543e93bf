"""Reading an answer: the vendor's sample exactly, every leniency, and one bad record never costs
the others."""

import copy
import gc
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.alloy.models import (
    Integration,
    Unreadable,
    User,
    Workflow,
    read_notification,
    read_page,
)
from otel_alloy.testing.simulator import ODDITIES, Traffic, generate

TESTDATA = Path(__file__).parents[1] / "testdata"
SAMPLE: dict[str, Any] = json.loads((TESTDATA / "vendor-sample.input.json").read_text("utf-8"))
CREATED = 1_745_948_650_432


def body(*notifications: Any, **more: Any) -> bytes:
    return json.dumps({"notifications": notifications, **more}).encode()


def vendors_answer() -> dict[str, Any]:
    description = yaml.safe_load((TESTDATA / "alloy-logs.openapi.yaml").read_text("utf-8"))
    success = description["paths"]["/logs"]["get"]["responses"]["200"]["content"]
    answer: dict[str, Any] = success["application/json"]["examples"]["Result"]["value"]
    return answer


def test_the_vendors_example_is_read_whole() -> None:
    """The vendor's printed answer: every documented field arrives, with its type."""
    answer = vendors_answer()
    assert answer["notifications"] == [SAMPLE]
    page = read_page(json.dumps(answer).encode())
    (record,) = page.records
    n = record.notification
    assert record.identity == ("68110feaa81a0e507fbdd36a", "executionError")
    assert record.created == CREATED and page.bad == [] and page.received == 1
    assert n.execution == "68110fea7d181f356acd1bf1"
    assert n.data is not None and n.data.executionUuid == "35SnGU0DUSNP5L26fsmnq"
    assert (n.startedAt, n.completedAt) == (SAMPLE["startedAt"], SAMPLE["completedAt"])
    assert (n.customVersion, n.workflowVersion) == (False, 1)
    assert isinstance(n.user, User)
    assert (n.user.email, n.user.fullName) == ("eduardo.souza@runalloy.com", "Eduardo Souza")
    assert isinstance(n.forgeWorkflow, Workflow) and n.forgeWorkflow.name == "order_id example"
    assert isinstance(n.forgeWorkflow.integrationId, Integration)
    assert n.forgeWorkflow.integrationId.blockId == "MuK2Kk9lu0v8N86brS3x"
    assert page.last_fetched == "2025-04-29T17:46:38.237Z"
    assert page.pagination is not None and page.pagination.totalItems == 4
    assert json.loads(record.text()) == SAMPLE


@pytest.mark.parametrize("name", [*SAMPLE, "data.executionId", "data.executionUuid"])
@pytest.mark.parametrize("how", ["missing", "null"])
def test_every_field_is_optional(name: str, how: str) -> None:
    """The description requires no field: each may be missing or null, and the record stays."""
    entry = copy.deepcopy(SAMPLE)
    inside = entry
    *path, leaf = name.split(".")
    for part in path:
        inside = inside[part]
    inside[leaf] = None
    if how == "missing":
        del inside[leaf]
    page = read_page(body(entry, SAMPLE))
    assert len(page.records) == 2 and page.bad == []
    if name == "createdAt":
        assert page.records[0].created == CREATED // 1000 * 1000  # from the ObjectId
    if name == "data.executionId":
        assert page.records[0].notification.execution == "35SnGU0DUSNP5L26fsmnq"
    if name == "data":
        assert page.records[0].notification.execution is None


def test_references_may_be_bare_ids() -> None:
    """`user`, `forgeWorkflow` and `integrationId` may come as an id instead of an object."""
    bare = SAMPLE | {"user": "u", "forgeWorkflow": "w"}
    half = SAMPLE | {"forgeWorkflow": {"name": "n", "integrationId": "i"}}
    one, two = (r.notification for r in read_page(body(bare, half)).records)
    assert (one.user, one.forgeWorkflow) == ("u", "w")
    assert isinstance(two.forgeWorkflow, Workflow) and two.forgeWorkflow.integrationId == "i"


def test_the_envelope_that_other_operations_use() -> None:
    """`{"data": {…}}` around the answer is looked through, clock and paging included."""
    page = read_page(json.dumps({"data": vendors_answer()}).encode())
    assert [r.identity[0] for r in page.records] == [SAMPLE["_id"]]
    assert page.last_fetched == "2025-04-29T17:46:38.237Z"
    assert page.pagination is not None and page.pagination.pageSize == 10


@pytest.mark.parametrize(
    "pagination", [None, [], "none", {"currentPage": 1.5}, {"totalItems": "many"}, {}]
)
def test_pagination_is_never_needed(pagination: object) -> None:
    """Whatever stands in `pagination`, the records are read."""
    assert len(read_page(body(SAMPLE, pagination=pagination)).records) == 1


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"workflowVersion": "not a number"}, "workflowVersion"),
        ({"workflowVersion": 1.5}, "workflowVersion"),
        ({"customVersion": "perhaps"}, "customVersion"),
        ({"user": [1, 2]}, "user"),
        ({"user": {"email": {"deep": 1}}}, "user"),
        ({"forgeWorkflow": {"integrationId": {"name": []}}}, "forgeWorkflow"),
        ({"data": "text"}, "data"),
        ({"message": ["x"]}, "message"),
        ({"teamId": {}}, "teamId"),
    ],
)
def test_a_wrong_field_costs_only_itself(change: dict[str, Any], stays: str) -> None:
    """A field of another type is left out; the record's others, and the other records, stay."""
    page = read_page(body(SAMPLE, SAMPLE | change | {"_id": "odd"}, SAMPLE))
    assert [r.notification.id for r in page.records] == [SAMPLE["_id"], "odd", SAMPLE["_id"]]
    odd = page.records[1].notification
    assert getattr(odd, stays) is None
    assert odd.userId == SAMPLE["userId"] and page.bad == []
    assert json.loads(page.records[1].text()) == SAMPLE | change | {"_id": "odd"}


def test_numbers_where_ids_should_be_become_text() -> None:
    """Ids are opaque text; a number is taken as its digits, and numbers beyond 64 bits stay."""
    page = read_page(body(SAMPLE | {"_id": 7, "teamId": 8, "workflowVersion": 2**70}))
    n = page.records[0].notification
    assert (n.id, n.teamId, n.workflowVersion) == ("7", "8", 2**70)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param("null", id="null"),
        pytest.param('"text"', id="text"),
        pytest.param("[]", id="list"),
        pytest.param("17", id="number"),
        pytest.param("[" * 50 + "]" * 50, id="nested"),
    ],
)
def test_what_is_no_notification_is_set_aside_alone(entry: str) -> None:
    """An entry that is no object goes to `bad` with a reason and its JSON; its page stays, and its
    identity is the same each time, so that it is set aside once."""
    good = json.dumps(SAMPLE)
    text = f'{{"notifications":[{good},{entry},{good}],"lastFetched":"x"}}'.encode()
    page, again = read_page(text), read_page(text)
    assert len(page.records) == 2 and page.received == 3 and page.last_fetched == "x"
    (bad,) = page.bad
    assert bad.reason and json.loads(bad.text()) == json.loads(entry)
    assert bad.identity == again.bad[0].identity


@pytest.mark.parametrize(
    "value",
    [
        pytest.param('"\\ud83d"', id="lone surrogate"),
        pytest.param('"\\u0000"', id="NUL"),
        pytest.param("1" * 5000, id="5000 digits"),
        pytest.param("1e999", id="infinite"),
        pytest.param("NaN", id="NaN"),
        pytest.param("[" * 300 + "]" * 300, id="300 deep"),
        pytest.param("[" * 600 + "]" * 600, id="600 deep"),
        pytest.param("[" * 900 + "]" * 900, id="900 deep"),
    ],
)
@pytest.mark.parametrize("name", ["tags", "workflowVersion", "userId"])
def test_one_hard_value_never_takes_its_page(name: str, value: str) -> None:
    """Values at the edge of what parsers take, in known and unknown fields: the other record is
    read, this one is read or set aside, and both can be written down."""
    odd = f'{{"_id":"odd","message":"executionError","{name}":{value}}}'
    page = read_page(f'{{"notifications":[{odd},{json.dumps(SAMPLE)}]}}'.encode())
    assert page.received == 2
    assert page.records[-1].identity == (SAMPLE["_id"], "executionError")
    originals = [*page.records, *page.bad]
    assert [json.loads(o.text())["_id"] for o in originals] in (
        ["odd", SAMPLE["_id"]],
        [SAMPLE["_id"], "odd"],
    )
    for record in page.records:
        (record.notification.userId or "").encode()  # raises on a lone surrogate


def test_bytes_that_are_no_utf8() -> None:
    """A broken byte is replaced; the records stay."""
    text = body(SAMPLE).replace(b"order_id example", b"order\xff example")
    (record,) = read_page(text).records
    workflow = record.notification.forgeWorkflow
    assert isinstance(workflow, Workflow) and workflow.name == "order\ufffd example"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"<!DOCTYPE html><p>", "HTML"),
        (b" <html>", "HTML"),
        (b'{"notifications":[{"_id"', "cut off"),
        (b"Service Unavailable", "not JSON"),
        (b"null", "notifications"),
        (b"[]", "notifications"),
        (b'{"notifications":null}', "notifications"),
        (b'{"data":[]}', "notifications"),
        (b'{"message":"Unauthorized"}', "notifications"),
        (b"[" * 1_000_000, "nested too deeply"),
    ],
)
def test_what_is_no_answer_says_so(text: bytes, word: str) -> None:
    """A body of another shape is Unreadable with the reason, without the body's own words."""
    with pytest.raises(Unreadable, match=word) as caught:
        read_page(text)
    assert "Unauthorized" not in str(caught.value) and "Service" not in str(caught.value)


def test_a_record_without_an_id_is_known_by_its_content() -> None:
    """Without `_id` the record's JSON is its identity: stable between readings, different between
    records."""
    one, two = {k: v for k, v in SAMPLE.items() if k != "_id"}, {"message": "executionError"}
    first = [r.identity for r in read_page(body(one, two, SAMPLE)).records]
    again = [r.identity for r in read_page(body(SAMPLE, two, one)).records]
    assert first == again[::-1] and len(set(first)) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(
        json_values | st.dictionaries(st.sampled_from(list(SAMPLE)), json_values, max_size=6),
        max_size=4,
    ),
    json_values,
)
@settings(max_examples=300, deadline=None)
def test_any_json_is_a_record_or_a_bad_record(entries: list[Any], clock: Any) -> None:
    """Whatever JSON the entries are: nothing raises, nothing is lost, the neighbours stay, and the
    notifications come out in order."""
    page = read_page(body(SAMPLE, *entries, SAMPLE, lastFetched=clock))
    assert page.received == len(entries) + 2
    assert (
        page.records[0].identity == page.records[-1].identity == (SAMPLE["_id"], SAMPLE["message"])
    )
    positions = [r.index for r in page.records]
    assert positions == sorted(positions)
    assert sorted(positions + [b.index for b in page.bad]) == list(range(page.received))
    for record in page.records:
        again = read_notification(record.text())
        assert again == record.notification


@pytest.mark.parametrize("oddity", ODDITIES)
def test_every_oddity_of_the_simulator_is_read(oddity: str) -> None:
    """Traffic in which every record has this departure from the usual gives no bad record."""
    traffic = Traffic(odd={oddity: 1.0})
    records = list(generate(30, start=1e9, end=1e9 + 3600, traffic=traffic))
    page = read_page(body(*records))
    assert len(page.records) == len(records) and page.bad == []


def test_the_collector_is_left_as_it_was() -> None:
    """Reading switches garbage collection off for a moment and always gives it back."""
    assert gc.isenabled()
    with pytest.raises(Unreadable):
        read_page(b"")
    assert gc.isenabled()
    gc.disable()
    try:
        read_page(body(SAMPLE))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_stored_record_is_read_as_leniently() -> None:
    """`read_notification` takes what a page takes, and says why it cannot."""
    assert read_notification(json.dumps(SAMPLE)) == read_page(body(SAMPLE)).records[0].notification
    assert read_notification('{"user":[1],"_id":"x"}').id == "x"
    for text in ("", "[]", "{"):
        with pytest.raises(Unreadable):
            read_notification(text)
