"""From a record to the sample that takes part in training: everything that decides how long it is, in one place."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from vlguard_jax import types
from vlguard_jax.data import batches
from vlguard_jax.data import conversations
from vlguard_jax.data import templates
from vlguard_jax.data import tokenizer as tokenizer_lib


@dataclasses.dataclass(frozen=True)
class Tokenization:
    """`patches` is P, the slots a picture takes; `max_len` is where conversations are cut, before and after image
    expansion."""

    tokenizer: tokenizer_lib.Tokenizer
    template: templates.Template
    patches: int
    max_len: int

    @property
    def fingerprint(self) -> str:
        """sha256 over everything that decides tokens, labels and lengths."""
        decisive = [self.tokenizer.fingerprint, dataclasses.asdict(self.template), self.patches, self.max_len]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def tokens(self, record: types.Record) -> types.Tokens:
        """Ids and labels before image expansion; see data/conversations.py."""
        return conversations.tokenize(record, self.tokenizer, self.template, self.max_len)

    def sample(self, record: types.Record, tokens: types.Tokens | None = None) -> batches.Sample:
        """What is trained on, without its pictures' pixels."""
        tokens = self.tokens(record) if tokens is None else tokens
        return batches.expand(tokens, [self.patches] * len(record.images), self.max_len, self.tokenizer.pad_id)
