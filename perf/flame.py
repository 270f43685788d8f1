#!/usr/bin/env python3
"""Draws a flame graph of what `perf script` prints, with the time of contract code apart.

perf script -F comm,ip,sym,dso | perf/flame.py [--through FUNCTION] [--title TEXT] > flame.svg

The table goes to standard error. `--through FUNCTION` counts only stacks that have a function whose name contains the text,
from it on. The graph is plain SVG without scripts; what is too narrow to be read is left out so that it stays below 150 KB.
"""

import argparse
import re
import sys
from collections import Counter
from html import escape

# In the order of the table: kind, colour, what it is.
KINDS = [
    ("native", "#7bc47f", "contract code, compiled"),
    ("interpreter", "#f2a65a", "contract code, interpreted"),
    ("host", "#7fb2e5", "called by contract code: state, hashing, memory"),
    ("engine", "#ead36a", "around contract code: transactions, receipts, blocks"),
    ("compiler", "#c39bd3", "compiling"),
    ("kernel", "#b8b8b8", "kernel"),
    ("other", "#dddddd", "everything else"),
]
COLOUR = {kind: colour for kind, colour, _ in KINDS}

NATIVE = re.compile(r"^evm:([0-9a-f]{8}):(quick|full):([0-9a-f]+|shared)$")
INTERPRETER = re.compile(r"revm_interpreter::|revm_bytecode::")
COMPILER = re.compile(r"cranelift|regalloc2|zvm_jit::(compiler|code|flow|ir|fold|lower|words|disk)\b")
ENGINE = re.compile(r"zvm_|revm|alloy|rayon")
LOOP = re.compile(r"revm_handler::|zvm_runtimes::evm::machine|FrameRunner")
LIMIT = 150_000
WIDTH, ROW, TOP, MARGIN = 1200, 16, 150, 10


def stacks(lines):
    """Yields each sample's frames from the outermost to the innermost, as (name, is in the kernel)."""
    frames, open_sample = [], False
    for line in lines:
        if not line.strip():
            if open_sample:
                yield frames[::-1]
            frames, open_sample = [], False
        elif line[0].isspace():
            match = re.match(r"\s+[0-9a-f]+ (.*) \(([^()]*(?:\([^()]*\))?[^()]*)\)\s*$", line)
            if match:
                name, place = match.groups()
                kernel = "kernel" in place or "vmlinux" in place or name.endswith("_[k]")
                frames.append((name, kernel))
        else:
            open_sample = True
    if open_sample:
        yield frames[::-1]


def kinds(frames):
    """What each frame of a stack is."""
    found, contract, compiler, engine = [], None, False, False
    for name, kernel in frames:
        compiler = compiler or bool(COMPILER.search(name))
        engine = engine or bool(ENGINE.search(name))
        if kernel:
            kind = "kernel"
        elif compiler:
            kind = "compiler"
        elif NATIVE.match(name):
            kind = contract = "native"
        elif LOOP.search(name):
            # Between two frames of contract code.
            kind, contract = "engine", None
        elif contract == "native":
            # Also an instruction of the interpreter that native code calls.
            kind = "host"
        elif INTERPRETER.search(name):
            kind = contract = "interpreter"
        elif contract:
            kind = "host"
        else:
            kind = "engine" if engine else "other"
        found.append(kind)
    return found


def short(name):
    """A function's name without generic arguments and most of its path."""
    name = re.sub(r"::h[0-9a-f]{16}$|\+0x[0-9a-f]+$", "", name)
    name = re.sub(r"^<(.*?) as .*>::", r"\1::", name)
    before = None
    while before != name:
        before, name = name, re.sub(r"<[^<>]*>", "", name)
    parts = [part for part in name.split("::") if part]
    return "::".join(parts[-2:]) or "?"


def named(frames):
    """(kind, label) of each frame; a block of compiled code is below its contract."""
    for (name, _), kind in zip(frames, kinds(frames)):
        native = NATIVE.match(name)
        if native:
            code, level, pc = native.groups()
            yield kind, f"evm {code} {level}"
            yield kind, pc if pc == "shared" else f"pc 0x{pc}"
        else:
            yield kind, short(name)


class Node:
    def __init__(self):
        self.count = 0
        self.children = {}

    def child(self, key):
        return self.children.setdefault(key, Node())


def collect(samples, through):
    """The tree of all stacks, and samples by kind of their innermost frame."""
    root, table = Node(), Counter()
    for frames in samples:
        if through:
            start = next((i for i, (name, _) in enumerate(frames) if through in name), None)
            if start is None:
                continue
            frames = frames[start:]
        labels = list(named(frames)) or [("other", "?")]
        table[labels[-1][0]] += 1
        node = root
        node.count += 1
        for key in labels:
            node = node.child(key)
            node.count += 1
    return root, table


def rectangles(node, x, depth, scale, least):
    """Yields (depth, x, width, kind, label, count) of all that is wide enough."""
    for (kind, label), child in sorted(node.children.items()):
        width = child.count * scale
        if width >= least:
            yield depth, x, width, kind, label, child.count
            yield from rectangles(child, x, depth + 1, scale, least)
        x += width


def draw(root, table, title, least):
    scale = (WIDTH - 2 * MARGIN) / max(root.count, 1)
    boxes = list(rectangles(root, MARGIN, 0, scale, least))
    rows = 1 + max((box[0] for box in boxes), default=0)
    height = TOP + rows * ROW + MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="20" font-size="15">{escape(title)}: {root.count} samples</text>',
    ]
    for line, (kind, colour, meaning) in enumerate(KINDS):
        y, share = 40 + line * 15, 100 * table[kind] / max(root.count, 1)
        out.append(f'<rect x="{MARGIN}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        out.append(f'<text x="{MARGIN + 16}" y="{y}">{share:.1f} % {kind}: {meaning}</text>')
    for depth, x, width, kind, label, count in boxes:
        y = height - MARGIN - (depth + 1) * ROW
        share = 100 * count / root.count
        fits = int((width - 4) / 5.6)
        text = label if len(label) <= fits else label[: max(fits - 1, 0)] + "…"
        out.append(
            f'<g><title>{escape(label)} ({share:.2f} %)</title>'
            f'<rect x="{x:.1f}" y="{y}" width="{max(width - 0.4, 0.3):.1f}" height="{ROW - 1}" fill="{COLOUR[kind]}"/>'
            + (f'<text x="{x + 2:.1f}" y="{y + 11}">{escape(text)}</text>' if fits >= 4 else "")
            + "</g>"
        )
    out.append("</svg>")
    return "\n".join(out) + "\n"


def fitting(root, table, title):
    """The picture with as many frames as fit."""
    least = 0.3
    while len((svg := draw(root, table, title, least)).encode()) > LIMIT:
        least *= 1.3
    return svg


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--through", default="", help="only stacks through this function, from it on")
    parser.add_argument("--title", default="zvm")
    arguments = parser.parse_args()
    root, table = collect(stacks(sys.stdin), arguments.through)
    if not root.count:
        sys.exit("no samples")
    for kind, _, meaning in KINDS:
        print(f"{100 * table[kind] / root.count:6.1f} %  {kind:12} {meaning}", file=sys.stderr)
    sys.stdout.write(fitting(root, table, arguments.title))


if __name__ == "__main__":
    main()
