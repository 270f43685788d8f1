#!/usr/bin/env python3
"""`perf/test_flame.py`: what flame.py makes of the output of perf script."""

import unittest
import xml.etree.ElementTree as xml

import flame

NATIVE = "\t7f evm:e66df5a4:quick:8b1 (/tmp/perf-9.map)"
HANDLER = "\t    a1 revm_handler::handler::Handler::run_exec_loop (/x/zvm)"
NODE = "\t    a0 zvm_engine::executor::execute (/x/zvm)"
STEP = "\t    c1 revm_interpreter::instructions::host::sload<W,H> (/x/zvm)"
KECCAK = "\t    d1 keccakf (/x/zvm)"
FAULT = "\tffffffff81 exc_page_fault ([kernel.kallsyms])"
UNKNOWN = "\t    12 [unknown] (/memfd:zvm-native-code (deleted))"
COMPILE = "\t    b1 regalloc2::run_with_ctx (/x/zvm)"


def sample(*frames):
    return "\n".join(("zvm ", *frames)) + "\n\n"


class Flame(unittest.TestCase):
    def collect(self, *samples, through=""):
        return flame.collect(flame.stacks("".join(samples).splitlines(keepends=True)), through)

    def test_time_is_told_apart_by_the_innermost_frame_and_who_called_it(self):
        _, table = self.collect(
            sample(NATIVE, HANDLER, NODE),
            sample(STEP, HANDLER, NODE),
            sample(KECCAK, STEP, NATIVE, HANDLER, NODE),
            sample(KECCAK, STEP, HANDLER, NODE),
            sample(STEP, NATIVE, HANDLER, NODE),
            sample(HANDLER, NODE),
            sample(KECCAK, HANDLER, NODE),
            sample(FAULT, KECCAK, NATIVE),
            sample("\t 1 memmove (/libc.so.6)", COMPILE),
            sample(UNKNOWN),
        )
        self.assertEqual(
            table,
            {"native": 1, "interpreter": 1, "host": 3, "engine": 2, "other": 1, "kernel": 1, "compiler": 1},
        )

    def test_blocks_stand_below_their_contract(self):
        root, _ = self.collect(sample(KECCAK, NATIVE), sample(NATIVE))
        contract = root.children[("native", "evm e66df5a4 quick")]
        block = contract.children[("native", "pc 0x8b1")]
        self.assertEqual((contract.count, block.count), (2, 2))
        self.assertEqual(block.children[("host", "keccakf")].count, 1)

    def test_only_stacks_through_a_function_count_from_it_on(self):
        root, _ = self.collect(sample(NATIVE, HANDLER, NODE), sample(COMPILE), through="Handler::run")
        self.assertEqual(root.count, 1)
        self.assertEqual(list(root.children), [("engine", "Handler::run_exec_loop")])

    def test_names_lose_generics_and_paths(self):
        for name, short in [
            ("<zvm_engine::a::PreState as zvm_runtimes::b::StateReader>::account", "PreState::account"),
            ("revm_interpreter::instructions::host::sload<W,H<X>>", "host::sload"),
            ("alloc::vec::Vec<T,A>::push", "Vec::push"),
            ("memmove", "memmove"),
        ]:
            self.assertEqual(flame.short(name), short)

    def test_the_picture_is_well_formed_and_below_the_limit(self):
        samples = [sample(f"\t 1 f{i}<&> (/x)", f"\t 1 g{i % 50} (/x)") for i in range(4000)]
        root, table = self.collect(*samples)
        svg = flame.fitting(root, table, "a < b")
        self.assertLessEqual(len(svg.encode()), flame.LIMIT)
        xml.fromstring(svg)


if __name__ == "__main__":
    unittest.main()
