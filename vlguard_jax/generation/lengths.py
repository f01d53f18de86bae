"""Padded lengths of prompts: rounded up, so that few programs are compiled."""

MULTIPLE = 64


def padded(tokens: int) -> int:
    """The next multiple of 64."""
    return -(-tokens // MULTIPLE) * MULTIPLE
