"""The options of `perdure serve`."""

from __future__ import annotations

import pytest

from perdure.cli import run
from perdure.cli.commands.serve import make_options, parse_size
from perdure.cli.exits import UsageError


def test_options_come_from_the_line_then_from_the_environment() -> None:
    """Each has its variable; `PORT` is for platforms that give one."""
    environment = {"PERDURE_HOST": "localhost", "PERDURE_DRAIN_DELAY": "1.5", "PORT": "9000", "PERDURE_MAX_BODY": "1MiB", "PERDURE_UDS": ""}
    options = make_options({"drain_timeout": 3.0}, environment)
    assert (options.host, options.port, options.drain_delay, options.drain_timeout) == ("localhost", 9000, 1.5, 3.0)
    assert (options.max_body, options.uds) == (1 << 20, None)
    assert make_options({"port": 1}, {"PORT": "9000"}).port == 1
    assert make_options({}, {"PORT": "9000", "PERDURE_PORT": "7"}).port == 7
    assert make_options({}, {}).port == 8420


BAD = [{"max_body": "5"}, {"max_body": "many"}, {"allow_anonymous": "~"}, {"allow_anonymous": ""}]
BAD += [{"port": 70_000}, {"port": -1}, {"root_path": "x"}, {"root_path": "/x/"}, {"ssl_certfile": "a.pem"}, {"drain_delay": -1.0}]


@pytest.mark.parametrize("given", BAD, ids=str)
def test_an_option_that_cannot_work_is_refused(given: dict[str, object]) -> None:
    """Before anything is opened."""
    with pytest.raises(UsageError):
        make_options(given, {})


def test_sizes_have_units() -> None:
    """With and without; powers of two."""
    assert [parse_size(text, "--max-body") for text in ("2048", "16MiB", "1 gib", "64KiB", "5B")] == [2048, 16 << 20, 1 << 30, 64 << 10, 5]


def test_the_command_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that would open the store to everyone is wrong, and nothing is opened."""
    assert run(["serve", "memory:", "--host", "0.0.0.0"]) == 2
    assert "--allow-anonymous" in capsys.readouterr().err
    assert run(["serve", "memory:", "--url", "memory:"]) == 2
