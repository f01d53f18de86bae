"""The flag --config of every command that takes one."""

from __future__ import annotations

from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from vlguard_jax import shipped

flags.disclaim_key_flags()  # the flag belongs to the program that asks for it


def define(command: str, text: str, default: str | None = None) -> flags.FlagHolder[Any]:
    """--config of a command, which takes NAME, FILE, NAME:argument or FILE:argument (`shipped.config`), and with it a
    flag for each setting, --config.a.b. text: for --help."""
    holder = config_flags.DEFINE_config_file("config", help_string=text)
    flags.FLAGS["config"].parser = _Parser(command)
    if default is not None:
        flags.set_default(holder, default)
    return holder


class _Parser(config_flags.ConfigFileFlagParser):
    """Reads the config of a file or of a name."""

    def __init__(self, command: str):
        super().__init__("config")
        self._command = command

    def parse(self, path: str) -> Any:
        """See the class. Raises UserError: there is no such file or name."""
        return super().parse(shipped.config(path, self._command))
