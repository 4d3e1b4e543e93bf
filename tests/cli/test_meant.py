"""Words of the command line that are none: exit code 2, and what was probably meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Place


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rum"], "There is no command 'rum'; did you mean run?"),
        (["checkpoint", "shwo"], "There is no command 'shwo'; did you mean show?"),
        (["retry"], "There is no command 'retry'; did you mean rejected retry?"),
        (["zzqx"], "There is no command 'zzqx'; see --help"),
        (["run", "--sinse", "1h"], "There is no option '--sinse'; did you mean --since?"),
        (["tail", "--error"], "There is no option '--error'; did you mean --errors?"),
        (["run", "--zzqx"], "There is no option '--zzqx'; see --help"),
        (["--config", "a", "run"], "stands behind the command: otel-alloy run --config"),
        (["run", "--api-key", "canary-4711"], "set ALLOY_API_KEY, or name a file with"),
        (["run", "--privacy-key=canary-4711"], "set OTEL_ALLOY_PRIVACY_KEY"),
        (["run", "--rules", "x"], "`rules` is set in the settings file only"),
        (["summary", "--by", "custmer"], "'workflow', 'customer'; did you mean customer?"),
        (["run", "--enrich", "fial"], "--enrich: it has to be 'off', 'failed' or 'all'"),
        (["run", "--enrich", "fail"], "did you mean failed?"),
    ],
)
def test_what_was_meant(place: Place, words: list[str], told: str) -> None:
    """Commands, options and choices: the nearest, or where it has to be given; a key that was typed
    is not repeated."""
    done = place.command(*words)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert "canary-4711" not in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("words", [[], ["checkpoint"]])
def test_no_command_at_all(place: Place, words: list[str]) -> None:
    """The help, on standard error, with exit code 2."""
    done = place.command(*words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: otel-alloy") and "Commands:" in done.err


def test_warnings_do_not_spoil_what_is_printed(place: Place) -> None:
    """A variable that nobody reads is said on standard error, once, by its name."""
    done = place.command("checkpoint", "show", "--json", OTEL_ALLOY_ZZQX="canary-4711")
    assert (done.code, done.out) == (0, "[]\n")
    assert done.err == (
        "Warning: OTEL_ALLOY_ZZQX is set, and there is no such setting: correct it, or unset it; "
        "`otel-alloy run --help` lists all there are\n"
    )
    run = place.command("run", "--once", "--log-format", "json", OTEL_ALLOY_ZZQX="canary-4711")
    assert run.code == 0
    assert run.err.count("OTEL_ALLOY_ZZQX") == 1 and run.err.startswith("{")
    assert "canary-4711" not in run.err + done.err


def test_a_key_file_for_a_command_that_needs_no_key(place: Place) -> None:
    """A key in a file is no second key there."""
    (place.folder / "key").write_text("k")
    del place.environment["ALLOY_API_KEY"]
    done = place.command("checkpoint", "show", ALLOY_API_KEY_FILE="key")
    assert (done.code, done.err) == (0, "")
