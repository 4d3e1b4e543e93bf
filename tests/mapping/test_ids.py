"""The id recipe is public: what other programs compute from `X-Alloy-ExecutionUuid`."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from otel_alloy.mapping.ids import BLOCK_PREFIX, PREFIX, block_span_id, execution_ids

TESTDATA = Path(__file__).parents[1] / "testdata"
VECTORS: list[dict[str, str]] = json.loads(
    (TESTDATA / "execution-id-vectors.json").read_text("utf-8")
)
BLOCKS: list[dict[str, Any]] = json.loads((TESTDATA / "block-id-vectors.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["uuid"][:21])
def test_fixed_vectors(vector: dict[str, str]) -> None:
    """Ten published vectors hold; a change here breaks every trace that another service joined."""
    trace_id, span_id = execution_ids(vector["uuid"])
    assert (trace_id.hex(), span_id.hex()) == (vector["trace_id"], vector["span_id"])


def test_vectors_cover_what_is_odd() -> None:
    """Ten different executions, among them the vendor's, short, long and non-ASCII ones."""
    uuids = {v["uuid"] for v in VECTORS}
    assert len(uuids) == 10 and "35SnGU0DUSNP5L26fsmnq" in uuids
    assert min(map(len, uuids)) == 1 and max(map(len, uuids)) > 64
    assert not all(u.isascii() for u in uuids)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_shell_recipe_gives_the_same() -> None:
    """The documented shell line, run by a shell, prints the same trace id."""
    line = "printf 'runalloy.execution:%s' \"$UUID\" | sha256sum | cut -c1-32"
    uuid = "35SnGU0DUSNP5L26fsmnq"
    done = subprocess.run(
        ["sh", "-c", line],
        env={"UUID": uuid, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == execution_ids(uuid)[0].hex()
    assert PREFIX == "runalloy.execution:"


def test_a_lone_surrogate_is_no_error() -> None:
    """Any text gives ids, even one that UTF-8 cannot hold."""
    assert execution_ids("\ud83d") == execution_ids("?")
    assert block_span_id("\ud83d", "\ud83d", 0) == block_span_id("?", "?", 0)


@pytest.mark.parametrize("vector", BLOCKS, ids=lambda v: f"{v['uuid'][:4]}-{v['index']}")
@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_fixed_vectors_of_blocks(vector: dict[str, Any]) -> None:
    """The published vectors hold, here and by the documented shell line; a block without an id, one
    that ran twice and a non-ASCII one are among them."""
    uuid, block, index = vector["uuid"], vector["block_id"], vector["index"]
    assert block_span_id(uuid, block, index).hex() == vector["span_id"]
    text = (Path(__file__).parents[2] / "docs" / "id-recipe.md").read_text("utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith(f"printf '{BLOCK_PREFIX}"))
    environment = {"UUID": uuid, "BLOCK": block, "INDEX": str(index), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().strip() == vector["span_id"]
    ids = {v["block_id"] for v in BLOCKS}
    assert "" in ids and not all(i.isascii() for i in ids)
    assert len({v["span_id"] for v in BLOCKS}) == len(BLOCKS) > len(ids)
