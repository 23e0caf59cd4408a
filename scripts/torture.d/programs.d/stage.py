"""Where a program is run: a directory that is new each time and has the same path each time."""

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

from trial import Trial, files_in

FUNCTIONS = pathlib.Path(__file__).resolve().parent
ROOT = FUNCTIONS.parents[2]
MEMSPY = ROOT / "target/release/memspy"
HEAPTRACK = pathlib.Path("/usr/lib/heaptrack/libheaptrack_preload.so")
# Longer than any program needs on a busy machine.
LIMIT_S = 1200


@dataclasses.dataclass(frozen=True)
class Program:
    """A bash function, and what the comments above it say.

    `subjects`: the commands that heaptrack records. `incomplete`: a pattern of reasons why a log may lack its end.
    `says`: a pattern of memspy's own lines on standard error. `vary`: a pattern of files whose content is never the same.
    """

    name: str
    file: pathlib.Path
    subjects: str = ""
    incomplete: str = ""
    says: str = ""
    vary: str = ""


def programs():
    """All programs by name, in the order of the files. A comment `# key: value` before a function belongs to it."""
    found = {}
    for file in sorted(FUNCTIONS.glob("*.sh")):
        said = {}
        for line in file.read_text().splitlines():
            if comment := re.fullmatch(r"# (subjects|incomplete|says|vary): (.*)", line):
                said[comment[1]] = comment[2]
            elif function := re.match(r"program_(\w+)\(\) \{", line):
                found[function[1]] = Program(function[1], file, **said)
                said = {}
    return found


class Stage:
    """One program's directories: `inputs` is made once, `work` anew for each run, `logs` by the recorder."""

    def __init__(self, program, scratch):
        self.program = program
        self.scratch = scratch
        self.inputs, self.work, self.logs = (scratch / name for name in ("inputs", "work", "logs"))

    def prepare(self):
        """Runs the function `prepare_NAME`, where there is one, in `inputs`."""
        self.inputs.mkdir()
        code = f"if declare -F prepare_{self.program.name} >/dev/null; then set -e; prepare_{self.program.name}; fi"
        with open(self.scratch / "prepare.out", "wb") as out:
            prepared = self.bash(code, self.inputs, {}, out, out)
        if prepared != 0:
            said = (self.scratch / "prepare.out").read_text(errors="replace")
            raise SystemExit(f"prepare_{self.program.name} failed ({prepared}): {said[-2000:]}")

    def run(self, recorder):
        """Runs the program under `recorder` (`plain`: none) and answers what could be seen of it."""
        for directory in (self.work, self.logs):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        self.logs.chmod(0o1777)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {"port": str(port)} | self.recorded_by(recorder)
        out, err = self.scratch / f"{recorder}.out", self.scratch / f"{recorder}.err"
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            code = f"program_{self.program.name}; status=$?; descriptors_left; exit $status"
            status = self.bash(code, self.work, environment, out_file, err_file)
        left = self.end_processes()
        texts = [path.read_text(errors="surrogateescape") for path in (out, err)]
        return Trial(status, *texts, files_in(self.work), left, port)

    def recorded_by(self, recorder):
        """The environment that makes the recorder record."""
        if recorder == "memspy":
            return {"LD_PRELOAD": shim(), "MEMSPY_LOG": f"{self.logs}/"}
        if recorder == "heaptrack":
            # It records no child processes: each subject is started through a script of its name.
            places = self.scratch / "recorded"
            places.mkdir(exist_ok=True)
            for name in self.program.subjects.split():
                script, real = places / name, shutil.which(name, path=search_path())
                preload = f"LD_PRELOAD={HEAPTRACK}${{LD_PRELOAD:+:$LD_PRELOAD}}"
                output = f"DUMP_HEAPTRACK_OUTPUT={self.logs}/{name}.$$"
                script.write_text(f'#!/bin/sh\nexec env {preload} {output} {real} "$@"\n')
                script.chmod(0o755)
            return {"PATH": f"{places}:{search_path()}"}
        return {}

    def bash(self, code, directory, environment, out, err):
        """Runs bash code with the program's functions at hand; answers its status as the shell has it."""
        whole = f'. "{FUNCTIONS}/stage.bash"; . "{self.program.file}"; {code}'
        given = {
            "PATH": search_path(),
            "HOME": str(self.work),
            "USER": "root",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "xterm",
            "inputs": str(self.inputs),
            "work": str(self.work),
            "MEMSPY_TORTURE": str(self.scratch),
            "memspy": str(MEMSPY),
        }
        child = subprocess.Popen(
            ["/bin/bash", "-c", whole],
            cwd=directory,
            env=given | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status = child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return "still running, killed"
        return status if status >= 0 else 128 - status

    def end_processes(self):
        """Kills what the program left running (they carry the stage's name in their environment); answers their names."""
        mark = f"MEMSPY_TORTURE={self.scratch}".encode()
        left = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    left.append((process / "comm").read_text().strip())
                    os.kill(int(process.name), signal.SIGKILL)
            except (OSError, ValueError):
                continue
        return sorted(left)


@functools.cache
def shim():
    """The shim that the program carries."""
    asked = subprocess.run([MEMSPY, "shim-path"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def search_path():
    """Where the programs are: the distribution's, so that a result can be had again elsewhere."""
    cargo = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")) / "bin"
    return f"/usr/sbin:/usr/bin:/sbin:/bin:{cargo}"
