"""Chat templates in the formats of ChatML, Llama 3, Mistral and Gemma, and conversations drawn for them."""

from __future__ import annotations

import random
from typing import NamedTuple

from vlguard_jax import types

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


class Format(NamedTuple):
    """A template; its special tokens by name, and the others. end: the text of the end token. system: whether it takes
    system turns. strips: whether answers lose white space around them."""

    template: str
    named: dict[str, str]
    others: tuple[str, ...]
    end: str
    system: bool
    strips: bool


FORMATS = {
    "chatml": Format(CHATML, {"eos_token": "<|im_end|>"}, ("<|im_start|>",), "<|im_end|>", True, False),
    "llama3": Format(
        LLAMA3,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        ("<|start_header_id|>", "<|end_header_id|>"),
        "<|eot_id|>",
        True,
        True,
    ),
    "mistral": Format(
        MISTRAL, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, (), "</s>", False, False
    ),
    "gemma": Format(
        GEMMA,
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        False,
        True,
    ),
}
WORDS = ("the", "cat", "sat", "on", "caf\u00e9", "\U0001f408", "No.", "I cannot", "that\n\n", "?", "12345", " ")


def conversation(rng: random.Random, form: Format) -> list[types.Turn]:
    """One to four rounds, after a system turn now and then where the format takes one. Texts may be empty, begin or
    end with white space, or hold words of the template itself."""
    turns = [types.Turn("system", _text(rng, form))] if form.system and rng.random() < 0.5 else []
    for _ in range(rng.randrange(1, 5)):
        turns += [types.Turn("human", _text(rng, form)), types.Turn("gpt", _text(rng, form))]
    return turns


def _text(rng: random.Random, form: Format) -> str:
    own = [form.end, *form.others, *form.named.values(), "assistant\n", "user", "[INST] ", " [/INST]", "model\n"]
    words = [rng.choice(own if rng.random() < 0.1 else WORDS) for _ in range(rng.choice((0, 1, 1, 3, 12)))]
    around = rng.choice(("", "", "", " ", "\n", "  \n", "\t"))
    return around + " ".join(words) + rng.choice(("", "", around))


def messages(turns: list[types.Turn]) -> list[dict[str, str]]:
    """As transformers takes them."""
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    return [{"role": roles[turn.role], "content": turn.text} for turn in turns]
