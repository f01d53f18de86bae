"""Lengths of prompts and of caches: few, so that few programs are compiled, and each a function of the prompt alone, so
that no answer depends on what stands beside it."""

MULTIPLE = 64  # of the tokens of a prefill; half of it for short ones, which are most of what stands behind a picture
FULL_LENGTH = 1024  # tokens of the longest prompt with which all slots are in use
TOGETHER = 512  # tokens of a prefill in a row shard: enough for its products to be bound by arithmetic
REFILLED = 8  # a prefill fills at most one of so many slots: more would wait empty for each other


def padded(tokens: int) -> int:
    """The next multiple of 64, of 32 up to 128."""
    unit = MULTIPLE if tokens > 2 * MULTIPLE else MULTIPLE // 2
    return -(-tokens // unit) * unit


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


def fewer(each: int, live: int) -> int:
    """Slots of a row shard that are kept when no prompt waits and `live` go on at most: a quarter, a sixteenth, ..., of
    four at least, so that few programs are compiled."""
    while each >= 16 and live <= each // 4:
        each //= 4
    return each
