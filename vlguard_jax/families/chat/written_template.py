"""The program's own templates in the form that other programs read: chat_template.jinja."""

from __future__ import annotations

import json

from vlguard_jax.families.chat import built_in
from vlguard_jax.families.chat import templates

_CONTENT = (
    "{%- macro text(message) -%}{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{ IMAGE }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
)
_BEFORE = (
    "{%- if messages and messages[0]['role'] == 'system' -%}{{ text(messages[0]) }}{%- set turns = messages[1:] -%}"
    "{%- else -%}{{ SYSTEM }}{%- set turns = messages -%}{%- endif -%}"
)
_TURNS = (
    "{%- for message in turns -%}{%- if message['role'] == 'user' -%}{{ USER }}{{ text(message) }}{{ ASKED }}"
    "{%- elif message['role'] == 'assistant' -%}{{ ASSISTANT }}{{ text(message) }}{{ ANSWERED }}"
    "{%- else -%}{{ raise_exception('only the first message may be of the system') }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ BEGIN }}{%- endif -%}"
)


def text(name: str) -> str | None:
    """The template of this name in Jinja, None where the program has none: what it makes of one question, with
    `add_generation_prompt`, is `Template.prompt`."""
    if name in built_in.TEMPLATES:
        return built_in.TEMPLATES[name].text
    return _text(templates.TEMPLATES[name]) if name in templates.TEMPLATES else None


def _text(template: templates.Template) -> str:
    user, assistant = template.roles
    words = {
        "IMAGE": f"{templates.IMAGE_TAG}\n",
        "SYSTEM": template.system,
        "USER": f"{user}: ",
        "ASKED": template.sep,
        "ASSISTANT": f"{assistant}: ",
        "ANSWERED": template.sep2,
        "BEGIN": f"{assistant}:",
    }
    before = f"{_BEFORE}{{{{ {json.dumps(template.sep)} }}}}"
    if isinstance(template, templates.Instruct):
        words |= {"SYSTEM": "", "USER": "[INST] ", "ASKED": " [/INST]", "ASSISTANT": " ", "BEGIN": ""}
        words["ANSWERED"] = f" {template.sep2}"
        before = _BEFORE
    made = _CONTENT + before + _TURNS
    for name, word in words.items():
        made = made.replace(f"{{{{ {name} }}}}", f"{{{{ {json.dumps(word)} }}}}")
    return f"{made}\n"
