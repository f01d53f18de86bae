"""A cloud of one queued resource or instance group, as a `gcloud` that the rendered scripts find first.

Its state is a JSON file: `lives` says what becomes of the machines each time they are made: a list of exit codes that
they write to the bucket, or "lost". Every call is checked against the flags that the real gcloud has, and noted.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
import pathlib
import subprocess
import sys
import textwrap

from tests import source

FLAGS = pathlib.Path(__file__).with_name("gcloud_flags.json")

PROGRAM = """
import json, pathlib, sys
flags, state_file = json.loads(pathlib.Path(FLAGS).read_text()), pathlib.Path(STATE)
state = json.loads(state_file.read_text())
words = sys.argv[1:]
plain = []
for word in words:
    if word.startswith('-') or '/' in word: break
    plain.append(word)
command = next(c for n in range(len(plain), 0, -1) if (c := ' '.join(plain[:n])) in flags['commands'])
known = {*flags['commands'][command], *flags['everywhere'], *flags['newer'].get(command, ())}
for word in words:
    if word.startswith('--') and word.split('=')[0] not in known:
        sys.exit(f'gcloud has no {word} for {command}')
state['calls'].append([command, *words[len(command.split()):]])
code, out = 0, ''
if command.endswith((' list', ' list-instances')):
    if state['silent'] > 0:
        state['silent'] -= 1
        code = 1
    elif state['machines']:
        if state['life'] == 'lost' and command != 'compute instance-groups managed list':
            state['polls'] += 1
        gone = state['polls'] > 2
        out = {'list': 'NAME' if 'groups' in command else 'SUSPENDED' if gone else 'ACTIVE',
               'list-instances': 'TERMINATED' if gone else 'RUNNING'}[command.split()[-1]]
elif command == state['makes']:
    if state['machines']: sys.exit('they exist already')
    state |= {'machines': True, 'life': state['lives'].pop(0), 'polls': 0}
    if state['life'] == 'refused':
        state['machines'], code = False, 1
elif command in ('compute tpus queued-resources delete', 'compute instance-groups managed delete'):
    state['machines'] = False
elif command == 'storage rm':
    state['codes'] = []
elif command == 'storage cat':
    if state['machines'] and isinstance(state['life'], list): state['codes'] = state['life']
    out, code = '\\n'.join(map(str, state['codes'])), 0 if state['codes'] else 1
state_file.write_text(json.dumps(state))
print(out)
sys.exit(code)
"""


def make(folder: pathlib.Path, *, makes: str, lives: Sequence[list[int] | str], silent: int = 0) -> dict[str, str]:
    """Write `gcloud` and its state below `folder`; returns the environment to run a script in."""
    tools = folder / "tools"
    tools.mkdir()
    state = folder / "state.json"
    state.write_text(
        json.dumps(
            {
                "makes": makes,
                "lives": list(lives),
                "life": "",
                "machines": False,
                "polls": 0,
                "codes": [],
                "calls": [],
                "silent": silent,
            }
        )
    )
    program(tools / "gcloud", PROGRAM.replace("FLAGS", repr(str(FLAGS))).replace("STATE", repr(str(state)), 1))
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "POLL_SECONDS": "0.01", "RESTART_SECONDS": "0"}


def program(path: pathlib.Path, text: str) -> None:
    """Write a Python program that can be started by its name."""
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
    path.chmod(0o755)


def calls(folder: pathlib.Path) -> list[list[str]]:
    """What gcloud was asked: [command, argument, ...] each."""
    return json.loads((folder / "state.json").read_text())["calls"]


def bash(script: pathlib.Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, timeout=source.PATIENCE
    )
