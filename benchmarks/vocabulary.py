"""Makes a tokenizer as large as a random model's vocabulary: with fewer tokens it would count as another model's."""

from __future__ import annotations

import json
import pathlib

from sentencepiece import sentencepiece_model_pb2

_UNUSED = 5  # SentencePiece.Type of sentencepiece_model.proto: a piece that no text produces


def fill(folder: pathlib.Path, tokens: int) -> None:
    """Fill the tokenizer that `quickstart.model.train_tokenizer` wrote into `folder` to `tokens` tokens, its added one
    last."""
    model_file, config_file = folder / "tokenizer.model", folder / "tokenizer_config.json"
    model = sentencepiece_model_pb2.ModelProto.FromString(model_file.read_bytes())  # type: ignore[attr-defined]
    config = json.loads(config_file.read_text())
    (added,) = config["added_tokens_decoder"].values()
    for i in range(len(model.pieces), tokens - 1):
        model.pieces.add(piece=f"<unused{i}>", score=0.0, type=_UNUSED)
    config["added_tokens_decoder"] = {str(len(model.pieces)): added}
    model_file.write_bytes(model.SerializeToString())
    config_file.write_text(json.dumps(config, indent=2) + "\n")
