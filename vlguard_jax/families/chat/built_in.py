"""Chat templates in Jinja that the program brings, by name: formats of models whose folders carry none, or another."""

from __future__ import annotations

from typing import NamedTuple


class BuiltIn(NamedTuple):
    """A template's text, and the token that ends a turn; only a tokenizer that has it can be used."""

    text: str
    end: str


# LLaVA-NeXT's (llava/conversation.py, conv_llava_llama_3, rendered by the chat template of Llama-3-Instruct): a system
# text unless the conversation brings one, and white space around a turn dropped.
_LLAMA_3 = """
{%- macro text(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content -%}
            {{- '<image>\\n' if part['type'] == 'image' else part['text'] -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- macro turn(role, content) -%}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + content | trim + '<|eot_id|>' -}}
{%- endmacro -%}
{{- bos_token -}}
{%- if messages[0]['role'] != 'system' -%}
    {{- turn('system', 'You are a helpful language and vision assistant. You are able to understand the visual content '
        'that the user provides, and assist the user with a variety of tasks using natural language.') -}}
{%- endif -%}
{%- for message in messages -%}
    {{- turn(message['role'], text(message['content'])) -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

TEMPLATES = {"llava_llama_3": BuiltIn(_LLAMA_3, "<|eot_id|>")}
