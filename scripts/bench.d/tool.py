"""The tools that are compared: how each is put around a command, and whether it is here."""

import dataclasses
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIM = ROOT / "target/release/libmemspy.so"
MEMSPY = ROOT / "target/release/memspy"


@dataclasses.dataclass
class Tool:
    """A way to run a command. `wrap(argv, out)` gives (argv, added environment); `out` is an empty directory."""

    name: str
    wrap: object
    missing: str | None = None
    leak_status: int | None = None  # the exit status that means "leaks", where a leak checker has one


def preload(library, **environment):
    """Runs the command itself with a library preloaded; `{out}` in a value is the output directory."""

    def wrap(argv, out):
        values = {key: value.replace("{out}", str(out)) for key, value in environment.items()}
        return argv, {"LD_PRELOAD": str(library), **values}

    return wrap


def wrapper(*before, **environment):
    """Runs the command behind another one; `{out}` in its arguments is the output directory."""

    def wrap(argv, out):
        return [word.replace("{out}", str(out)) for word in before] + argv, dict(environment)

    return wrap


def absent(program):
    """Why a program of the PATH can't be used, None if it can."""
    return None if shutil.which(program) else f"{program} is not installed"


def library(name):
    """Where the C compiler finds a library, or None."""
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return found if "/" in found else None


def knows_check():
    """Why `memspy check` can't be used, None if it can."""
    if not MEMSPY.exists():
        return "target/release/memspy is not built"
    tried = subprocess.run([MEMSPY, "check", "--help"], capture_output=True)
    return None if tried.returncode == 0 else "this memspy has no check command"


def tools(everything):
    """Native first, then memspy's modes, then the peers; LSan only when asked."""
    shim = None if SHIM.exists() else "target/release/libmemspy.so is not built"
    check = knows_check()
    lsan = library("liblsan.so")

    def recorder(stacks, mode="events"):
        return preload(SHIM, MEMSPY_LOG="{out}/", MEMSPY_STACKS=stacks, MEMSPY_MODE=mode)

    def checker(stacks):
        return wrapper(str(MEMSPY), "check", "--", MEMSPY_STACKS=stacks)

    found = [
        Tool("native", wrapper()),
        Tool("memspy off", recorder("off"), shim),
        Tool("memspy full", recorder("full"), shim),
        Tool("leaks fp", recorder("fp", "leaks"), shim),
        Tool("leaks full", recorder("full", "leaks"), shim),
        Tool("check fp", checker("fp"), check, 23),
        Tool("check full", checker("full"), check, 23),
        Tool("memusage -d", wrapper("memusage", "-d", "{out}/usage"), absent("memusage")),
        Tool("heaptrack -r", wrapper("heaptrack", "-r", "-o", "{out}/heap"), absent("heaptrack")),
        Tool("heaptrack", wrapper("heaptrack", "-o", "{out}/heap"), absent("heaptrack")),
    ]
    if everything:
        found.append(
            Tool("LSan", preload(lsan), None if lsan else "liblsan.so is not installed", 23)
        )
    return found


def valgrind():
    """Valgrind's leak check; its exit status stays the program's."""
    command = wrapper("valgrind", "--leak-check=full", "--log-file={out}/report", "--")
    return Tool("valgrind", command, absent("valgrind"))
