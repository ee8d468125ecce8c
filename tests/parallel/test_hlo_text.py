"""Programs for TPUs, read from small pieces of their text."""

import pytest

from vidflow.parallel.hlo import SLICES, Program
from vidflow.parallel.traffic import memory_bytes

MESH = {"data": 1, "fsdp": 1, "sequence": 4, "tensor": 1}

# One gather, begun, carried and ended in three fusions that compute something else meanwhile.
ASYNCHRONOUS = """
%start (p: bf16[8,16]) -> bf16[8,64] {
  %p = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[8,64]{1,0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={1}, \
frontend_attributes={chain_id="3"}
}

%done (p.1: bf16[8,16]) -> bf16[8,64] {
  %p.1 = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[8,64]{1,0} all-gather(%p.1), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={1}, \
frontend_attributes={chain_id="3"}
}

ENTRY %main (x: bf16[8,16]) -> bf16[8,64] {
  %x = bf16[8,16]{1,0} parameter(0)
  %begin = bf16[8,64]{1,0} fusion(%x), kind=kCustom, calls=%start
  %alone = bf16[8,64]{1,0} all-gather(%x), channel_id=8, replica_groups={{0,1,2,3}}, dimensions={1}
  ROOT %end = bf16[8,64]{1,0} fusion(%x), kind=kCustom, calls=%done
}
"""

SPLASH = """
ENTRY %main (q: bf16[2,256,128], k: bf16[2,512,128]) -> bf16[2,256,128] {
  %q = bf16[2,256,128]{2,1,0} parameter(0)
  %k = bf16[2,512,128]{2,1,0} parameter(1)
  %splash_mha_fwd_segmented.1 = bf16[2,256,128]{2,1,0} custom-call(%q, %k, %k), custom_call_target="tpu_custom_call", \
operand_layout_constraints={s8[1,2,4]{2,1,0}, bf16[2,256,128]{2,1,0}, bf16[2,512,128]{2,1,0}, bf16[2,512,128]{2,1,0}}, \
metadata={op_name="a"}
  ROOT %splash_mha_dkv_segmented.2 = bf16[2,256,128]{2,1,0} custom-call(%q, %k, %k), \
custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,2,4]{2,1,0}, bf16[2,256,128]{2,1,0}, \
bf16[2,512,128]{2,1,0}, bf16[2,512,128]{2,1,0}}, metadata={op_name="b"}
}
"""

# A sum over the network between slices, by way of the hosts.
NETWORK = """
ENTRY %main (g: bf16[4,8]) -> token[] {
  %g = bf16[4,8]{1,0} parameter(0)
  %after = token[] after-all()
  %send.1 = (bf16[4,8]{1,0}, u32[], token[]) send(%g, %after), channel_id=1, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %send-done.1 = token[] send-done(%send.1), channel_id=1, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
}
"""

# A loop of five that reads a layer's kernel from a stack, multiplies, and writes the result into a buffer.
LOOP = """
%slice_and_multiply (s: f32[5,8,8], x: f32[8,8], i: s32[]) -> f32[8,8] {
  %s = f32[5,8,8]{2,1,0} parameter(0)
  %x = f32[8,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %part = f32[1,8,8]{2,1,0} dynamic-slice(%s, %i, %zero, %zero), dynamic_slice_sizes={1,8,8}
  %kernel = f32[8,8]{1,0} bitcast(%part)
  ROOT %y = f32[8,8]{1,0} dot(%x, %kernel), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%update (b: f32[5,8,8], y.1: f32[8,8], i.1: s32[]) -> f32[5,8,8] {
  %b = f32[5,8,8]{2,1,0} parameter(0)
  %y.1 = f32[8,8]{1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  %row = f32[1,8,8]{2,1,0} bitcast(%y.1)
  ROOT %new = f32[5,8,8]{2,1,0} dynamic-update-slice(%b, %row, %i.1, %zero.1, %zero.1)
}

%body (t: (s32[], f32[8,8], f32[5,8,8], f32[5,8,8])) -> (s32[], f32[8,8], f32[5,8,8], f32[5,8,8]) {
  %t = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) parameter(0)
  %j = s32[] get-tuple-element(%t), index=0
  %a = f32[8,8]{1,0} get-tuple-element(%t), index=1
  %stack = f32[5,8,8]{2,1,0} get-tuple-element(%t), index=2
  %buffer = f32[5,8,8]{2,1,0} get-tuple-element(%t), index=3
  %product = f32[8,8]{1,0:T(8,128)} fusion(%stack, %a, %j), kind=kOutput, calls=%slice_and_multiply
  %fast = f32[8,8]{1,0:T(8,128)S(1)} copy(%product)
  %written = f32[5,8,8]{2,1,0} fusion(%buffer, %fast, %j), kind=kLoop, calls=%update
  ROOT %next = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) tuple(%j, %product, %stack, %written)
}

%condition (t.1: (s32[], f32[8,8], f32[5,8,8], f32[5,8,8])) -> pred[] {
  %t.1 = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) parameter(0)
  %j.1 = s32[] get-tuple-element(%t.1), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%j.1, %five), direction=LT
}

ENTRY %main (w: (s32[], f32[8,8], f32[5,8,8], f32[5,8,8])) -> (s32[], f32[8,8], f32[5,8,8], f32[5,8,8]) {
  %w = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) parameter(0)
  ROOT %loop = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}, f32[5,8,8]{2,1,0}) while(%w), condition=%condition, body=%body
}
"""

# A conditional whose second branch multiplies, in a computation that it calls.
BRANCHES = """
%cheap (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  ROOT %negated = f32[8,8]{1,0} negate(%a)
}

%product (b: f32[8,8]) -> f32[8,8] {
  %b = f32[8,8]{1,0} parameter(0)
  ROOT %y = f32[8,8]{1,0} dot(%b, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%dear (c: f32[8,8]) -> f32[8,8] {
  %c = f32[8,8]{1,0} parameter(0)
  %once = f32[8,8]{1,0} fusion(%c), kind=kOutput, calls=%product
  ROOT %twice = f32[8,8]{1,0} fusion(%once), kind=kOutput, calls=%product
}

%middling (d: f32[8,8]) -> f32[8,8] {
  %d = f32[8,8]{1,0} parameter(0)
  ROOT %only = f32[8,8]{1,0} fusion(%d), kind=kOutput, calls=%product
}

ENTRY %main (i: s32[], x: f32[8,8]) -> f32[8,8] {
  %i = s32[] parameter(0)
  %x = f32[8,8]{1,0} parameter(1)
  ROOT %chosen = f32[8,8]{1,0} conditional(%i, %x, %x, %x), branch_computations={%cheap, %dear, %middling}
}
"""


def test_a_collective_spread_over_fusions_counts_once_and_is_overlapped():
    spread, alone = sorted(Program(ASYNCHRONOUS).collectives(MESH), key=lambda c: c.overlapped is None)
    assert spread.bytes == alone.bytes == 3 * 8 * 16 * 2 and spread.axes == ("sequence",)
    assert (spread.overlapped, alone.overlapped) == (True, None)


@pytest.mark.parametrize(("slices", "parts"), [(2, 1), (4, 1.5)])
def test_what_goes_to_other_slices_is_listed_by_itself(slices, parts):
    (sum_,) = Program(NETWORK).collectives(MESH, slices)
    assert (sum_.operation, sum_.axes, sum_.bytes) == ("all-reduce", (SLICES,), parts * 4 * 8 * 2)


def test_splash_has_two_products_forward_and_five_backward():
    assert Program(SPLASH).matrix_flops() == (2 + 5) * 2 * 2 * 256 * 512 * 128
    batched = SPLASH.replace("[2,", "[3,2,").replace("{2,1,0}", "{3,2,1,0}")
    assert Program(batched).matrix_flops() == 3 * Program(SPLASH).matrix_flops()


def test_memory_traffic_counts_slices_and_updates_not_their_stacks():
    matrix, index = 8 * 8 * 4, 4
    product = matrix + matrix + index + matrix  # the slice, x, i, and the result
    copy = matrix  # written where main memory is not
    update = index + matrix  # its value is read from there
    assert memory_bytes(Program(LOOP)) == 5 * (product + copy + update)


def test_a_loop_without_a_number_is_an_error():
    with pytest.raises(ValueError, match="loop cannot be read from its condition condition"):
        Program(LOOP.replace("constant(5)", "add(%j.1, %j.1)"))


@pytest.mark.parametrize(
    ("branches", "products"),
    [
        ("branch_computations={%cheap, %dear, %middling}", 2),
        ("branch_computations={%cheap, %middling}", 1),
        ("true_computation=%dear, false_computation=%cheap", 2),
        ("true_computation=%cheap, false_computation=%middling", 1),
    ],
)
def test_of_a_conditional_the_dearest_branch_counts(branches, products):
    program = Program(BRANCHES.replace("branch_computations={%cheap, %dear, %middling}", branches))
    assert program.matrix_flops() == products * 2 * 8**3
