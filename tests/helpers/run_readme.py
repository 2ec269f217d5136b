"""Run every Python snippet of README.md, in order and in one namespace, as a reader would paste them.

`--check-shell` also runs each `pyro-vae ...` line of the shell snippets, after the Python ones.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

README = Path(__file__).resolve().parents[2] / "README.md"


def snippets(text: str, *languages: str) -> Iterator[tuple[int, str]]:
    """Find the fenced blocks in these languages: the line number of the first line inside, and the code."""
    fence = rf"^```(?:{'|'.join(languages)})[ \t]*\n(.*?)^```[ \t]*$"
    for match in re.finditer(fence, text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)) + 1, match[1]


def commands(text: str) -> Iterator[tuple[int, str]]:
    """Find the `pyro-vae ...` lines of the shell snippets, continued ones joined, with their line numbers."""
    for first, code in snippets(text, "console", "sh", "bash", "shell"):
        concat = re.sub(r" *\\\n[ \t]*", " \0", code)  # \0 keeps count of the lines joined
        number = first
        for line in concat.split("\n"):
            command = line.replace("\0", "").removeprefix("$ ").strip()
            if command.startswith("pyro-vae "):
                yield number, command
            number += 1 + line.count("\0")


def run_python(text: str) -> None:
    """Run the Python snippets in one module; a traceback shows README.md's own line numbers."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    found = list(snippets(text, "python"))
    if not found:
        sys.exit("README.md has no ```python snippet: nothing was run.")
    for line, code in found:
        print(f"README.md:{line}: running {len(code.splitlines())} lines of Python", flush=True)
        try:
            exec(compile("\n" * (line - 1) + code, README, "exec"), module.__dict__)
        except BaseException:
            traceback.print_exc()
            sys.exit(f"README.md:{line}: this snippet failed.")


def run_shell(text: str) -> None:
    """Run the `pyro-vae` lines with the `pyro-vae` that belongs to this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line, command in commands(text):
        print(f"README.md:{line}: {command}", flush=True)
        status = subprocess.run(command, shell=True, env={**os.environ, "PATH": path}).returncode
        if status != 0:
            sys.exit(f"README.md:{line}: this command ended with status {status}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check-shell", action="store_true", help="also run each `pyro-vae ...` line")
    options = parser.parse_args()
    os.environ.setdefault("MPLBACKEND", "Agg")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run_python(README.read_text(encoding="utf-8"))
        if options.check_shell:
            run_shell(README.read_text(encoding="utf-8"))
        os.chdir(README.parent)  # a folder in use cannot be removed on every system
