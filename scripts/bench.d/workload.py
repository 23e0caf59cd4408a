"""The workloads: what runs under every tool. Built once, in a directory of the caller's."""

import dataclasses
import pathlib
import shutil
import subprocess

PROGRAMS = pathlib.Path(__file__).parent / "programs"


@dataclasses.dataclass
class Workload:
    """One command to measure. `missing` says why it can't run here, None if it can."""

    name: str
    about: str
    argv: list
    env: dict = dataclasses.field(default_factory=dict)
    stdin: str | None = None
    missing: str | None = None


def compiled(source, directory):
    """The program of a C source, with malloc and free kept as calls."""
    binary = directory / pathlib.Path(source).stem
    command = ["gcc", "-O2", "-fno-builtin", "-pthread", PROGRAMS / source, "-o", binary]
    subprocess.run(command, check=True)
    return str(binary)


def system_python():
    """A Python that is a binary: version managers put scripts in front of it."""
    for name in ("/usr/bin/python3", shutil.which("python3")):
        if name and pathlib.Path(name).exists():
            with open(name, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    return name
    return None


def compiler(directory):
    """cc1plus with its preprocessed input, so that nothing but the compiler itself runs."""
    if not shutil.which("g++"):
        return None
    preprocessed = directory / "regex.ii"
    subprocess.run(["g++", "-E", PROGRAMS / "regex.cpp", "-o", preprocessed], check=True)
    found = subprocess.run(
        ["g++", "-print-prog-name=cc1plus"], check=True, capture_output=True, text=True
    )
    return [found.stdout.strip(), "-fpreprocessed", "-quiet", "-O1", str(preprocessed), "-o", "-"]


def workloads(directory):
    """All six, ready to run."""
    pairs = compiled("pairs.c", directory)
    churn = compiled("churn.c", directory)
    sqlite = shutil.which("sqlite3")
    python = system_python()
    cc1plus = compiler(directory)
    return [
        Workload("pairs", "2 M malloc and free of one block", [pairs, "2000000"]),
        Workload("churn1", "1 M random replacements, half with realloc", [churn, "1", "1000000"]),
        Workload("churn2", "the same work shared by two threads", [churn, "2", "1000000"]),
        Workload(
            "sqlite",
            "200 k inserts, an index, two queries, in memory",
            [sqlite, ":memory:"],
            stdin=str(PROGRAMS / "items.sql"),
            missing=None if sqlite else "sqlite3 is not installed",
        ),
        Workload(
            "python",
            "JSON round trips, PYTHONMALLOC=malloc",
            [python, str(PROGRAMS / "round_trips.py"), "150"],
            env={"PYTHONMALLOC": "malloc"},
            missing=None if python else "no python3 that is a binary",
        ),
        Workload(
            "cc1plus",
            "-O1 on a file that uses <regex>",
            cc1plus,
            missing=None if cc1plus else "g++ is not installed",
        ),
    ]
