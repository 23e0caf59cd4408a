"""The part `processes`: what recording adds to a program that begins and ends, and to a fork."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import run
import table
from tool import SHIM
from workload import compiled

HEADING = "What a process and a fork cost"
CHILDREN = 200
BIG_MIB = 200
BIG_CHILDREN = 20
COLUMNS = {
    "native": None,
    "off, no pictures": {"MEMSPY_STACKS": "off", "MEMSPY_MAPS": "off"},
    "off": {"MEMSPY_STACKS": "off"},
    "full": {"MEMSPY_STACKS": "full"},
}
ROWS = [
    ("vfork", 0, "vfork, the child becomes `true`"),
    ("spawn", 0, "posix_spawn of `true`"),
    ("exit", 0, "fork, the child ends at once"),
    ("malloc", 0, "fork, the child calls malloc once"),
    ("exec", 0, "fork, the child becomes `true`"),
    ("malloc", BIG_MIB, f"fork of {BIG_MIB} MiB, the child calls malloc once"),
]


def once(program, how, mib, added, place):
    """Microseconds a child, of the whole and of the processor."""
    out = pathlib.Path(tempfile.mkdtemp(dir=place))
    settings = [] if added is None else [f"LD_PRELOAD={SHIM}", f"MEMSPY_LOG={out}/"]
    settings += [f"{key}={value}" for key, value in (added or {}).items()]
    count = BIG_CHILDREN if mib else CHILDREN
    ended = subprocess.run(
        ["env", *settings, program, how, str(count), str(mib)],
        env=run.environment({}),
        cwd=out,
        check=True,
        capture_output=True,
        text=True,
    )
    shutil.rmtree(out)
    wall, processor = map(int, ended.stdout.split())
    return wall / 1000, processor / 1000


def report(place, rounds):
    """The section's text."""
    program = compiled("children.c", place)
    best = {}
    for number in range(rounds):
        for how, mib, words in ROWS:
            for name, added in COLUMNS.items():
                found = once(program, how, mib, added, place)
                known = best.get((how, mib, name), found)
                best[how, mib, name] = tuple(map(min, found, known))
            print(f"round {number + 1} {words}", file=sys.stderr)
    lines = []
    for how, mib, words in ROWS:
        cells = [best[how, mib, name] for name in COLUMNS]
        lines.append([words, *[f"{wall:,.0f} ({processor:,.0f})" for wall, processor in cells]])
    return "\n".join(
        [
            f"Microseconds a child, in brackets those of the processor: {CHILDREN} children one after the other",
            f"({BIG_CHILDREN} of the large process), the best of {rounds} rounds. *off*, *full* are MEMSPY_STACKS; *no pictures*",
            "is MEMSPY_MAPS=off. A child that becomes `true` has two logs after a fork and one after a vfork.",
            "",
            *table.rows(["wall (processor) µs", *COLUMNS], lines),
        ]
    )
