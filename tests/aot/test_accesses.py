"""Bytes that a module reads and writes, counted by hand in text as XLA prints it."""

from tests.aot import accesses

# A cache of 4 KiB in bf16 into which one row of 128 B is written in place; it is read whole once, and one row of it
# once. A weight of 8 KiB comes into near memory in two slices, of which only the first is used again, from there.
TEXT = """HloModule step, is_scheduled=true

%write (c: bf16[32,64], n: bf16[1,64], i: s32[]) -> bf16[32,64] {
  %c = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(0)
  %n = bf16[1,64]{1,0:T(8,128)(2,1)} parameter(1)
  %i = s32[] parameter(2)
  %z = s32[] constant(0)
  ROOT %u = bf16[32,64]{1,0:T(8,128)(2,1)} dynamic-update-slice(%c, %n, %i, %z)
}

%sum (a: bf16[32,64], w: bf16[16,64]) -> f32[64] {
  %a = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[16,64]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %s = f32[64]{0} custom-call(%a, %w)
}

%row (b: bf16[32,64], j: s32[]) -> f32[1,64] {
  %b = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(0)
  %j = s32[] parameter(1)
  %o = s32[] constant(0)
  %d = bf16[1,64]{1,0:T(8,128)(2,1)} dynamic-slice(%b, %j, %o), dynamic_slice_sizes={1,64}
  ROOT %e = f32[1,64]{1,0} convert(%d)
}

ENTRY %main (cache: bf16[32,64], new: bf16[1,64], at: s32[], kernel: bf16[64,64]) -> f32[1,64] {
  %cache = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(0)
  %new = bf16[1,64]{1,0:T(8,128)(2,1)} parameter(1)
  %at = s32[] parameter(2)
  %kernel = bf16[64,64]{1,0:T(8,128)(2,1)} parameter(3)
  %begun = ((bf16[64,64]{1,0:T(8,128)(2,1)}), bf16[16,64]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%kernel)
  %other = ((bf16[64,64]{1,0:T(8,128)(2,1)}), bf16[48,64]{1,0:T(8,128)(2,1)S(1)}, s32[]{:S(2)}) slice-start(%kernel)
  %written = bf16[32,64]{1,0:T(8,128)(2,1)} fusion(%cache, %new, %at), kind=kLoop, calls=%write
  %near = bf16[16,64]{1,0:T(8,128)(2,1)S(1)} slice-done(%begun)
  %unused = bf16[48,64]{1,0:T(8,128)(2,1)S(1)} slice-done(%other)
  %total = f32[64]{0:T(128)} fusion(%written, %near), kind=kLoop, calls=%sum
  %copied = (f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)}, u32[]{:S(2)}) copy-start(%total)
  ROOT %found = f32[1,64]{1,0:T(8,128)} fusion(%written, %at), kind=kLoop, calls=%row
}
"""


def test_what_is_touched_counts_once() -> None:
    kernel = 64 * 64 * 2  # its two slices, brought into near memory
    write = 128 + 128 + 4  # the row and its place are read, the row is written
    total = 32 * 64 * 2 + 64 * 4  # the whole cache; the near slice counts where it was brought in
    moved = 64 * 4  # read once more
    row = 128 + 4 + 64 * 4
    assert accesses.accessed(TEXT) == kernel + write + total + moved + row


def test_a_copied_cache_counts() -> None:
    copied = TEXT.replace("%written, %near)", "%twice, %near)").replace(
        "  %near =", "  %twice = bf16[32,64]{1,0:T(8,128)(2,1)} copy(%written)\n  %near ="
    )
    assert accesses.accessed(copied) - accesses.accessed(TEXT) == 2 * 32 * 64 * 2
