"""The key in a file: exchanged while it is in use, it is taken up; what is no key changes
nothing."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.key import KeyFile
from otel_alloy.alloy.query import Query
from otel_alloy.errors import AccessRefused
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.simulator import Config, Simulator


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("first-key\n")
    return path


def exchange(file: Path, text: str) -> None:
    """As Kubernetes does: another file in its place."""
    new = file.with_name("new")
    new.write_text(text)
    new.replace(file)


def test_the_key_is_that_of_the_file(file: Path) -> None:
    """Without the line's end and `bearer `; read again where the file is another, or written to."""
    key = KeyFile(str(file))
    assert key() == "first-key"
    exchange(file, "Bearer second-key\n")
    assert key() == "second-key"
    file.write_text("third-key!")
    assert key() == "third-key!"


def test_what_is_no_key_changes_nothing(file: Path) -> None:
    """Empty, half written or gone for a moment: the last key goes on."""
    key = KeyFile(str(file))
    assert key() == "first-key"
    for text in ("", "bearer ", "two words", "ä"):
        exchange(file, text)
        assert key() == "first-key"
    file.unlink()
    assert key() == "first-key"
    file.write_text("second-key")
    assert key() == "second-key"


@pytest.mark.parametrize("text", ["", "two words", None])
def test_a_file_without_a_key_is_a_mistake_at_the_start(file: Path, text: str | None) -> None:
    """The words name what is wrong, and not what stands there."""
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(ValueError, match=r"empty|spaces|cannot be read") as error:
        KeyFile(str(file))()
    assert "two words" not in str(error.value)


def test_an_exchanged_key_is_used_with_the_next_request(file: Path) -> None:
    """The old key is not sent any more, and no request is refused."""
    with (
        Simulator(Config(api_key="first-key")) as simulator,
        closing(AlloyClient(simulator.endpoint, KeyFile(str(file)), system_runtime())) as client,
    ):
        client.fetch(Query(10))
        simulator.configure(api_key="second-key")
        exchange(file, "second-key")
        client.fetch(Query(10))
        assert [r.status for r in simulator.requests] == [200, 200]


def test_a_key_that_is_exchanged_during_a_refused_request_is_tried_at_once(file: Path) -> None:
    """A 401 looks at the file again: another key is tried once; the same one is a refusal."""
    with Simulator(Config(api_key="second-key")) as simulator:
        told = KeyFile(str(file))
        times = [0]

        def key() -> str:
            times[0] += 1
            if times[0] == 2:
                exchange(file, "second-key")
            return told()

        with closing(AlloyClient(simulator.endpoint, key, system_runtime())) as client:
            client.fetch(Query(10))
            assert [r.status for r in simulator.requests] == [401, 200]
            simulator.configure(api_key="third-key")
            with pytest.raises(AccessRefused):
                client.fetch(Query(10))


def test_a_stamp_sees_a_write_that_keeps_size_and_time(file: Path) -> None:
    """A tool that restores the modification time does not hide the exchange."""
    key = KeyFile(str(file))
    assert key() == "first-key"
    before = file.stat()
    file.write_text("other-key\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert key() == "other-key"
