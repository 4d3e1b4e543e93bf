"""What is read of an execution's inside, and what is passed over: everything that a customer's data
can be in."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.alloy import skim
from otel_alloy.alloy.models import Oversized, Unreadable
from otel_alloy.alloy.skim import Names, Skim
from otel_alloy.alloy.steps import (
    LONGEST_ID,
    LONGEST_MESSAGE,
    Block,
    BlockError,
    BlockName,
    WorkflowBlocks,
    app_of,
    failing,
    read_errors,
    read_steps,
    read_workflow,
)
from otel_alloy.alloy.timestamps import to_ns
from otel_alloy.testing.simulator import PAYLOAD_CANARY, Traffic, failure_of, generate
from otel_alloy.testing.simulator.inside import error_of, steps_of, workflow_of

START, END = "2024-11-15T17:57:42.233Z", "2024-11-15T17:57:42.847Z"
CANARY = "canary-5f3a"


def newer(**fields: Any) -> dict[str, Any]:
    """An execution as the vendor's reference prints it, with other values."""
    return {
        "executionId": "uGmauA50FBlibba3JkPfB",
        "startedAt": START,
        "stoppedAt": END,
        "finished": True,
        "results": [
            {
                "startedAt": START,
                "stoppedAt": END,
                "data": [[{"json": {"statusCode": 999, "to": CANARY}, "id": CANARY}]],
                "connectorId": "b-1",
            },
            {
                "startedAt": START,
                "data": [[{"json": None, CANARY: {"statusCode": 500}, "statusCode": 200}]],
                "stoppedAt": END,
                "connectorId": "b-2",
            },
        ],
        "inputs": [{"connectorId": "b-1", "data": {"email": CANARY}}],
    } | fields


def body(*entries: Any, **more: Any) -> bytes:
    return json.dumps({**more, "data": list(entries)}).encode()


def one(entry: Any) -> tuple[Block, ...]:
    (found,) = read_steps(body(entry))
    return found.blocks


def test_the_newer_shape() -> None:
    """Blocks, times and the app's own status are read; a `statusCode` inside payload is not one."""
    (steps,) = read_steps(body(newer()))
    started, stopped = to_ns(START), to_ns(END)
    assert (steps.uuid, steps.started, steps.stopped) == ("uGmauA50FBlibba3JkPfB", started, stopped)
    assert steps.finished is True
    assert steps.blocks == (
        Block(0, "b-1", started=started, stopped=stopped),
        Block(1, "b-2", started=started, stopped=stopped, status_code=200),
    )
    assert failing(steps) is None


def test_the_older_shape() -> None:
    """`blockId`, `status` in place of `finished`, an id of another length, and items that are not
    in lists of their own."""
    result = {"blockId": "b-9", "data": [{"json": {}, "meta": {"x-real-ip": CANARY}}]}
    (steps,) = read_steps(
        body({"executionId": "6daaa0cf1a3daa6c41b5-ef", "status": "success", "results": [result]})
    )
    assert (steps.uuid, steps.finished) == ("6daaa0cf1a3daa6c41b5-ef", True)
    assert steps.blocks == (Block(0, "b-9"),)


@pytest.mark.parametrize(
    ("result", "failed", "status"),
    [
        ({"error": {"message": CANARY, "stack": CANARY}}, True, None),
        ({"error": CANARY}, True, None),
        ({"error": None}, None, None),
        ({"error": {}}, None, None),
        ({"error": ""}, None, None),
        ({"error": False, "status": "success"}, False, None),
        ({"status": "Failed"}, True, None),
        ({"finished": False}, True, None),
        ({"statusCode": 404}, None, 404),
        ({"data": [[{"statusCode": 200}], [{"statusCode": 422}, {"statusCode": 201}]]}, None, 422),
        ({"data": [{"statusCode": 503}]}, None, 503),
        (
            {"data": [[{"statusCode": n} for n in ("200", 2.5, True, 99, 600, None, [200])]]},
            None,
            None,
        ),
    ],
)
def test_what_tells_a_failure(result: dict[str, Any], failed: bool | None, status: Any) -> None:
    """What Alloy says of a block is kept apart from what its app answered."""
    (block,) = one({"executionId": "e", "results": [{"connectorId": "b", **result}]})
    assert (block.failed, block.status_code) == (failed, status)


def test_the_failing_block() -> None:
    """It is the one of which Alloy says so, else the last one if its app refused; never guessed."""

    def found(*results: dict[str, Any]) -> int | None:
        (steps,) = read_steps(body({"executionId": "e", "results": list(results)}))
        block = failing(steps)
        return None if block is None else block.index

    refused, fine = {"statusCode": 422}, {"statusCode": 200}
    assert found(fine, {"error": "no"}, refused) == 1
    assert found(refused, fine) is None
    assert found(fine, refused) == 1
    assert found(fine, {}) is None
    assert found() is None


def test_errors_of_all_ages() -> None:
    """The current shape, and that of 2021 with its other names."""
    current: dict[str, str] = {
        "workflowId": "w",
        "block": "shopify",
        "errorOccurredAt": START,
        "message": "The customer failed to create due to an invalid Id",
    }
    assert list(read_errors(body(current))) == [
        BlockError("w", None, "shopify", None, to_ns(START), current["message"], None)
    ]
    old: dict[str, Any] = {
        "_id": "6155b192a13d750013322432",
        "workflowId": "w",
        "executionId": "e",
        "blockId": "b",
        "blockType": "alloy.shopify",
        "error": "Error: Request failed with status code 403",
        "createdAt": START,
        "__v": 0,
    }
    assert list(read_errors(json.dumps({"errors": [old]}).encode())) == [
        BlockError("w", None, "b", "alloy.shopify", to_ns(START), old["error"], "e", old["_id"])
    ]
    assert list(read_errors(b"[]")) == list(read_errors(body())) == []
    assert list(read_errors(body({}, 7, None, {"workflowId": "w"}))) == []
    (long,) = read_errors(body({"message": "\U0001f69a" * (LONGEST_MESSAGE + 5)}))
    assert long.message == "\U0001f69a" * LONGEST_MESSAGE
    (inside,) = read_errors(body({"error": {"message": "no", "request": {"headers": CANARY}}}))
    assert inside.message == "no"


def test_names_of_blocks_of_both_ages() -> None:
    """`blocks` with id, name, type; `connectors` with longer names; with an envelope and without.
    What has no id cannot be found and is left out."""
    block = {"name": "Get order", "id": "b-1", "type": "alloy.shopify", "icon": "https://x/s.png"}
    connector = {"connectorName": "Kno", "connectorId": "b-2", "connector": "knoCommerceTrigger"}
    expected = WorkflowBlocks(
        3,
        (
            BlockName("b-1", "Get order", "alloy.shopify", "shopify"),
            BlockName("b-2", "Kno", "knoCommerceTrigger", "knoCommerce"),
        ),
    )
    workflow = {"name": CANARY, "version": 3, "blocks": [block, {}], "connectors": [connector]}
    assert read_workflow(json.dumps({"data": workflow}).encode()) == expected
    assert read_workflow(json.dumps(workflow).encode()) == expected
    assert read_workflow(b'{"data":[1,{"blocks":3}]}') == WorkflowBlocks(None, ())


@pytest.mark.parametrize(
    ("type", "app"),
    [
        ("alloy.shopify", "shopify"),
        ("netsuite", "netsuite"),
        ("alloy.customCode", None),
        ("webhookTrigger", None),
        ("shopifyTrigger", "shopify"),
        ("Trigger", None),
        ("", None),
        (None, None),
    ],
)
def test_which_blocks_call_an_app(type: str | None, app: str | None) -> None:
    """The app is in the type; Alloy's own blocks call none."""
    assert app_of(type) == app


def test_odd_ids_are_none() -> None:
    """An id that is too long, empty or no text is none; digits are taken as a text."""
    odd: list[Any] = ["x" * (LONGEST_ID + 1), "", None, {}, True, 7]
    results = [{"connectorId": value} for value in odd]
    assert [block.id for block in one({"executionId": "e", "results": results})] == [
        *(None,) * 5,
        "7",
    ]


@pytest.mark.parametrize("failed", ["error", "status", "absent"])
@pytest.mark.parametrize("ids", ["connectorId", "blockId"])
def test_what_the_stand_in_tells_is_read(ids: Any, failed: Any) -> None:
    """Of both ages and all ways to show a failure: the blocks that ran, under their names, and the
    one that failed where it is told; never a byte of payload."""
    traffic = Traffic(error_rate=0.5)
    log = list(generate(200, start=1.7e9, end=1.7e9 + 900, traffic=traffic))
    ends = [r for r in log if r["message"] != "executionStarted"]
    entries = [steps_of(r, ids=ids, failed=failed, payload_bytes=2000) for r in ends]
    found = list(read_steps(body(*entries)))
    assert [steps.uuid for steps in found] == [r["data"]["executionUuid"] for r in ends]
    assert PAYLOAD_CANARY in json.dumps(entries) and PAYLOAD_CANARY not in repr(found)
    for record, steps in zip(ends, found, strict=True):
        failure, named = failure_of(record), read_workflow(json.dumps(workflow_of(record)).encode())
        names = [block.id for block in named.blocks]
        assert [block.id for block in steps.blocks] == names[: len(steps.blocks)]
        assert all((block.started or 0) < (block.stopped or 0) for block in steps.blocks)
        assert steps.finished == (failure is None)
        told = failing(steps)
        if failure is None or failed == "absent" or (failed == "status" and not failure.status):
            assert told is None
        else:
            assert told is not None and told.id == failure.block.id
        for shape in ("current", "2021"):
            (error,) = read_errors(body(error_of(record, shape))) if failure else (None,)
            assert error is None or (error.message, error.workflow) == (
                failure and failure.reason,
                record["workflowId"],
            )


# Properties ---------------------------------------------------------------------------------------

names = st.sampled_from(
    [
        "data",
        "results",
        "connectorId",
        "blockId",
        "statusCode",
        "json",
        "error",
        "status",
        "id",
        "é\\",
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.integers(100, 599)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(['"', "\\", '\\"', "{", "]", "é🚚", "\ud83d", "\x00", "success"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(max_size=4), inner),
    max_leaves=6,
)
executions = st.fixed_dictionaries(
    {
        "inputs": values,
        "executionId": st.text(min_size=1, max_size=5) | leaves,
        "results": st.lists(
            st.fixed_dictionaries(
                {
                    "headers": values,
                    "connectorId": leaves,
                    "data": st.lists(st.lists(values, max_size=3), max_size=3),
                }
            )
            | values,
            max_size=4,
        )
        | values,
    }
)


def _plain(text: Any) -> Any:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _told(entry: Any) -> Any:
    """The same as the reader finds, of the whole answer as Python has it."""

    def word(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        return _plain(str(value)) or None

    def parts(value: Any) -> list[Any]:
        return value if isinstance(value, list) else []

    def member(value: Any, name: str) -> Any:
        return value.get(name) if isinstance(value, dict) else None

    blocks = []
    for result in parts(member(entry, "results")):
        identity = word(member(result, "connectorId"))
        later = word(member(result, "blockId"))
        if isinstance(result, dict) and later:
            order = [name for name in result if name in ("connectorId", "blockId")]
            identity = later if order[-1] == "blockId" else identity or later
        items = [
            item
            for part in parts(member(result, "data"))
            for item in (part if isinstance(part, list) else [part])
        ]
        codes = [member(item, "statusCode") for item in items] + [member(result, "statusCode")]
        good = [code for code in codes if type(code) is int and 100 <= code <= 599]
        blocks.append((identity, max(good, default=None)))
    uuid = word(member(entry, "executionId"))
    return (uuid, blocks) if uuid else None


@settings(deadline=None)
@given(entries=st.lists(executions | values, max_size=4), ascii=st.booleans())
def test_what_is_read_is_what_a_whole_parser_finds(entries: list[Any], ascii: bool) -> None:
    """Whatever payload stands around them, uuid, ids and status are those of `json.loads`; however
    the text is written."""
    text = json.dumps({"z": entries, "data": entries}, ensure_ascii=ascii, indent=1)
    found = [
        (steps.uuid, [(block.id, block.status_code) for block in steps.blocks])
        for steps in read_steps(text.encode("utf-8", "surrogatepass"))
    ]
    whole = json.loads(json.dumps(entries))
    expected = [told for entry in whole if (told := _told(entry)) is not None]
    if ascii or "\\ud" not in json.dumps(entries):  # a surrogate is no UTF-8
        assert found == expected


@settings(deadline=None)
@given(
    entries=st.lists(executions | values, max_size=6),
    spaces=st.sampled_from([(",", ":"), (" , ", " : "), (",\n", ": ")]),
    data=st.data(),
)
def test_those_that_are_not_wanted_change_nothing(
    entries: list[Any], spaces: tuple[str, str], data: st.DataObject
) -> None:
    """Of an answer, the executions that are wanted are the same as when all are read, whatever
    stands before and between them."""
    text = json.dumps({"data": entries}, separators=spaces).encode()
    every = list(read_steps(text))
    uuids = sorted({steps.uuid for steps in every})
    wanted = set(data.draw(st.lists(st.sampled_from(uuids)))) if uuids else set()
    assert list(read_steps(text, wanted)) == [steps for steps in every if steps.uuid in wanted]


def test_what_looks_like_the_next_one_is_none() -> None:
    """An entry that holds what looks like the beginning of the next one ends where it ends."""
    false = [{"executionId": "e-9", "results": []}, {"executionId": "e-9"}]
    entries = [
        {"executionId": "e-1", "inputs": false},
        {"executionId": "e-2", "inputs": '},{"executionId": "e-9"'},
        {"executionId": "e-3", "inputs": ["}", {"executionId": "e-9"}, false]},
        {"executionId": "e-4", "inputs": [{"a": 1}, {"executionId": "e-9"}]},
        {"executionId": "e-5", "inputs": '"}]},{"executionId":'},
        {"inputs": [], "executionId": "e-7"},
        {"executionId": "e-6"},
    ]
    for spaces in ((",", ":"), (", ", ": ")):
        text = json.dumps({"data": entries}, separators=spaces).encode()
        assert [steps.uuid for steps in read_steps(text, {"e-6", "e-7", "e-9"})] == [
            "e-7",
            "e-6",
        ]


texts = st.text(st.sampled_from('ab"\\{}[]:, \n\u00e9'), max_size=12)
shapes = st.recursive(
    texts | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(value=shapes, repeated=st.sampled_from([1, 40, 700, 3000]), deeper=st.integers(0, 40))
def test_long_values_are_passed_over_to_their_end(value: Any, repeated: int, deeper: int) -> None:
    """Of whatever length and depth, and wherever it is cut into pieces while it is passed over."""
    one = json.dumps(value)
    whole = "[" * deeper + f"[{','.join([one] * repeated)}]" + "]" * deeper
    long = json.dumps(one * repeated)
    for text in (whole, long, f'{{"a":{whole},"b":{long}}}'):
        reader = Skim(f"[{text} , 4711]".encode())
        assert [reader.scalar(9) for number, _ in enumerate(reader.items()) if number] == [4711]


@pytest.mark.parametrize("unit", ['"', "\\", '\\"', 'a"', '[\\"'])
def test_no_piece_ends_within_an_escape(unit: str) -> None:
    """However what is escaped lies to where a long value is cut into pieces."""
    for shift in range(4):
        value = {"a" * shift: [unit * 20_000], "b": ["]"]}
        reader = Skim(json.dumps([value, 4711]).encode())
        assert [reader.scalar(9) for number, _ in enumerate(reader.items()) if number] == [4711]


@settings(deadline=None)
@given(value=values)
def test_anything_is_passed_over_to_its_end(value: Any) -> None:
    """After any value the next is read as it stands."""
    reader = Skim(json.dumps([value, 4711]).encode())
    read = []
    for number, _ in enumerate(reader.items()):
        if number:
            read.append(reader.scalar(10))
    assert read == [4711]


@settings(deadline=None)
@given(
    value=values, where=st.integers(0, 400), byte=st.integers(0, 255), more=st.binary(max_size=5)
)
def test_nonsense_gives_nothing_or_is_unreadable(
    value: Any, where: int, byte: int, more: bytes
) -> None:
    """No body brings another error than Unreadable: not a wrong shape, not damaged bytes."""
    text = bytearray(json.dumps({"data": [value, newer()], "blocks": value}).encode())
    for damaged in (bytes(text), bytes(text[:where]) + more + bytes(text[where + 1 :]), more):
        for read in (read_steps, read_errors, lambda text: [read_workflow(text)]):
            try:
                list(read(damaged))
            except Unreadable as error:
                assert CANARY not in str(error)


def test_a_body_that_is_cut_off_is_told_from_a_whole_one() -> None:
    """At whatever byte it ends, what came whole before is given, and then it is Unreadable."""
    whole = body(newer(executionId="e-1"), newer(executionId="e-2"))
    for end in range(len(whole)):
        found = []
        with pytest.raises(Unreadable):
            for steps in read_steps(whole[:end]):
                found.append(steps.uuid)
        assert found == ["e-1", "e-2"][: len(found)]
    with pytest.raises(Unreadable, match="HTML"):
        list(read_steps(b"<!doctype html><p>"))


# What it costs ------------------------------------------------------------------------------------


def _peak(text: bytes) -> int:
    """The most memory in bytes that reading took besides the body itself."""
    list(read_steps(body(newer())))  # patterns are compiled once
    tracemalloc.start()
    try:
        assert sum(len(steps.blocks) for steps in read_steps(text)) == 2
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


RECORD = b'{"email":"%b","lines":[{"sku":"a\\"b","tags":["x",{"y":[[null]]}]}]},' % CANARY.encode()


@pytest.mark.parametrize("size", [46_000, 20_000_000])
@pytest.mark.parametrize(
    ("begin", "part", "end"),
    [
        (b"[", RECORD * 10, b"1]"),
        (b'"', rb"\\ {[ \" ]}" * 90, b'"'),
        (b"[" * 20, b"[" * 12 + RECORD * 99 + b"1" + b"]" * 12 + b",", b"1" + b"]" * 20),
    ],
    ids=["items", "one text", "deep"],
)
def test_memory_does_not_grow_with_payload(
    size: int, begin: bytes, part: bytes, end: bytes
) -> None:
    """A step of 46 KB and one of 20 MB are read in the same 200 KB, whatever is in them."""
    payload = begin + part * (size // len(part) + 1) + end
    text = body(newer(inputs=4711)).replace(b'"json": null', b'"json": ' + payload)
    text = text.replace(b"4711", payload)
    assert len(text) > 2 * size
    assert _peak(text) < 200_000


def test_what_is_looked_at_is_bounded() -> None:
    """Of a loop the first thousand blocks are read; a text of nothing but brackets is refused."""
    many = one({"executionId": "e", "results": [{"connectorId": "b"}] * (skim.MOST + 5)})
    assert len(many) == skim.MOST
    with pytest.raises(Oversized, match="too deeply"):
        list(read_steps(b'{"z":' + b"[" * 100_000))
    text = b"[" + b"1," * 99 + b"1]"
    with pytest.raises(Oversized, match="more values"):
        list(Skim(text, looks=20).items())
    assert len(list(Skim(text, looks=100).items())) == 100


def test_a_name_that_is_passed_over_is_never_given() -> None:
    """Only what was asked for by name comes out, also where the consumer reads nothing."""
    reader = Skim(b'{"a":{"b":1},"b":[{"b":2}],"c":"b","b" : 3 }')
    assert list(reader.members(Names("b"))) == ["b", "b"]
