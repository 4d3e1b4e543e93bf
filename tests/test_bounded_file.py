"""Small files of other people: whatever a path has become, it is read within limits or refused."""

import os
import threading
from pathlib import Path

import pytest

from otel_alloy.bounded_file import check_file, read_bounded


def test_what_fits_is_read(tmp_path: Path) -> None:
    """Up to the limit, a byte more is refused with the limit; a link is what it leads to."""
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(path)
    assert read_bounded(path, 1000) == read_bounded(tmp_path / "link", 1000) == b"x" * 1000
    check_file(str(path), 1000)
    for read in (read_bounded, check_file):
        with pytest.raises(OSError, match="more than 999 bytes"):
            read(path, 999)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_refused(path: str) -> None:
    """A device has no end."""
    for read in (read_bounded, check_file):
        with pytest.raises(OSError, match="a device"):
            read(path, 1000)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """In words, as every other mistake."""
    for read in (read_bounded, check_file):
        with pytest.raises(OSError, match="a folder"):
            read(tmp_path, 1000)


def test_what_is_not_there(tmp_path: Path) -> None:
    """A missing file, and a name that can be none."""
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 1000)
    with pytest.raises(ValueError):
        read_bounded("a\0b", 1000)


def test_a_pipe_is_read_and_not_waited_for(
    tmp_path: Path,
) -> None:
    """`--config <(sops -d settings.yaml)` works; a pipe into which nobody writes is empty, not a
    hang; a library that would wait for it does not get it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert read_bounded(path, 1000) == b""
    with pytest.raises(OSError, match="a pipe"):
        check_file(path, 1000)
    read_end, write_end = os.pipe()

    def write() -> None:
        os.write(write_end, b"endpoint: x")
        os.close(write_end)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert read_bounded(f"/dev/fd/{read_end}", 1000) == b"endpoint: x"
    finally:
        writer.join()
        os.close(read_end)
