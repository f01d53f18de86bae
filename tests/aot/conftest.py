"""A line for each compiled config, as it is done and whichever process compiled it."""

from __future__ import annotations

import pytest

COLUMNS = f"{'config':32} {'topology':10} {'program':8} {'peak GiB':>8} {'room':>6} {'formula':>8} {'compile s':>9}"
HEAD = f"{COLUMNS}  collectives, GB a device receives"


class Lines:
    """Prints what the tests of compiled configs record as "aot"."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self.terminal, self.begun = terminal, False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, line in report.user_properties:
            if name == "aot":
                if not self.begun:
                    self.terminal.write_line("")
                    self.terminal.write_line(HEAD)
                    self.begun = True
                self.terminal.write_line(str(line))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not config.pluginmanager.has_plugin("aot-lines"):
        config.pluginmanager.register(Lines(terminal), "aot-lines")
