"""gunicorn with the settings that docs/operating.md prints records every request."""

import re
from pathlib import Path

from tests.faults.processes import Host, Ledger, until
from tests.faults.test_forks import connects, get
from tests.servers import free_port

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


def test_gunicorn_with_the_printed_settings_records_every_request(
    host: Host, sqlite_uri: str, tmp_path: Path
) -> None:
    [printed] = re.findall(r"```python\n# gunicorn.conf.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(printed)
    port = free_port()
    options = ("--config", str(config), "--bind", f"127.0.0.1:{port}")
    with host.running("-m", "gunicorn", "web:application", *options, uri=sqlite_uri):
        until(lambda: connects(port), "gunicorn listens")
        answers = [get(port, number) for number in range(20)]
    assert [f"You asked for /{number}\n" for number in range(20)] == answers
    Ledger(sqlite_uri).wait_for_once(21, host)
