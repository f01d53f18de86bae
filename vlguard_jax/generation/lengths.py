"""Lengths of prompts and of caches: few, so that few programs are compiled, and each a function of the prompt alone, so
that no answer depends on what stands beside it."""

MULTIPLE = 64  # of the tokens of a prefill
FULL_LENGTH = 1024  # tokens of the longest prompt with which all slots are in use
TOGETHER = 512  # tokens of a prefill in a row shard: enough for its products to be bound by arithmetic
REFILLED = 8  # a prefill fills at most one of so many slots: more would wait empty for each other


def padded(tokens: int) -> int:
    """The next multiple of 64."""
    return -(-tokens // MULTIPLE) * MULTIPLE


def room(tokens: int) -> int:
    """Slots of the cache for a prompt: the next multiple of 128, of 256 beyond 1,024, of 512 beyond 2,048 ..."""
    unit = 128
    while tokens > 8 * unit:
        unit *= 2
    return -(-tokens // unit) * unit


def slots(each: int, tokens: int) -> int:
    """Decode slots of a row shard for prompts of `tokens` tokens: `each`, or a half, a quarter, ... of them, so that
    their cache takes no more memory than that of `each` prompts of FULL_LENGTH; at least one."""
    used = each
    while used > 1 and used * room(tokens) > each * FULL_LENGTH:
        used //= 2
    return used


def group(each: int, tokens: int) -> int:
    """Prompts of `tokens` tokens that a row shard with `each` slots reads together."""
    return max(1, min(each // REFILLED, TOGETHER // padded(tokens)))
