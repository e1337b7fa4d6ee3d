"""Ctrl-C at any moment of a `dest` process: one line, exit code 130, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
MOMENTS = {
    "while modules are imported": f"{INTERRUPT}\ndef main(): print('ran')",
    "where an import takes it for a failure": f"""
try:
    {INTERRUPT}
except BaseException: raise ImportError('half imported') from None
def main(): print('ran')
""",
    "in the verb": """
import os, signal
def main(): os.kill(os.getpid(), signal.SIGINT)
""",
    "in the verb, where an import takes it for a failure": """
import os, signal
def main():
    try: os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt: raise RuntimeError('half imported')
""",
    "in the verb, which then takes a package for missing": """
import os, signal
def main():
    try: os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt: return 2
""",
    "in a callback that may not raise": """
import os, signal
class Noisy:
    def __del__(self): os.kill(os.getpid(), signal.SIGINT)
def main():
    Noisy()
    print('ran')
""",
    "while a first one is dealt with": """
import os, signal
def main():
    try: os.kill(os.getpid(), signal.SIGINT)
    finally: os.kill(os.getpid(), signal.SIGINT)
""",
    "once the verb is over": """
import atexit, os, signal
def main(): atexit.register(os.kill, os.getpid(), signal.SIGINT)
""",
}


def start(folder: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process with `folder` before our source, and without anything that the tests import."""
    paths = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(SOURCE)!r}]; import _dest\n"
    command = [sys.executable, "-c", paths + code, *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def put_in_place(folder: Path, main: str) -> None:
    """A package of our name whose command is `main`."""
    package = folder / "distributed_estimator" / "cli"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").touch()
    (package / "main.py").write_text(main)


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_ends_in_one_line(tmp_path: Path, moment: str) -> None:
    put_in_place(tmp_path, MOMENTS[moment])
    process = start(tmp_path, "sys.exit(_dest.main())")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "dest: interrupted\n")


def test_an_interrupt_when_python_itself_ends_changes_nothing(tmp_path: Path) -> None:
    late = "class Late:\n    def __del__(self): self.kill(self.own, 2)\n"
    late += "import os\nlate = Late()\nlate.kill, late.own = os.kill, os.getpid()\n"
    put_in_place(tmp_path, late + "def main(): return 3")
    process = start(tmp_path, "sys.exit(_dest.main())")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 3


def test_where_interrupts_are_ignored_they_stay_so(tmp_path: Path) -> None:
    put_in_place(tmp_path, f"{INTERRUPT}\ndef main():\n    {INTERRUPT}\n    print('ran')")
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    process = start(tmp_path, ignore + "sys.exit(_dest.main())")
    assert process.communicate(timeout=60) == ("ran\n", "")
    assert process.returncode == 0


def test_the_command_begins_without_importing_the_package(tmp_path: Path) -> None:
    code = "print(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    bare = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, check=True
    )
    out, _ = start(tmp_path, code).communicate(timeout=60)
    assert set(eval(out)) - set(eval(bare.stdout)) == {"_dest"}


def interrupted(folder: Path, seconds: float, again: float | None = None) -> None:
    """Interrupts a training, from when the command minds Ctrl-C, and checks how it ends."""
    options = ("iris", "--cuts", "1", "--epochs", "500", "--no-figure")
    code = "verb = _dest._verb\n_dest._verb = lambda: (print('up', flush=True), verb())[1]\n"
    process = start(folder, code + "sys.exit(_dest.main())", "train", *options)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for pause in (seconds,) if again is None else (seconds, again):
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("dest: ")
    if "--resume" in err:
        assert (folder / err.split("--resume ")[-1].strip() / "checkpoint.safetensors").exists()
    else:
        assert err.splitlines()[-1] == "dest: interrupted"


@pytest.mark.parametrize("seconds", [0.02, 0.5])
def test_a_training_is_interrupted_in_its_first_moments(tmp_path: Path, seconds: float) -> None:
    interrupted(tmp_path, seconds)


@pytest.mark.soak
@pytest.mark.parametrize("again", [None, 0.3])
@pytest.mark.parametrize("tenths", range(0, 31, 6))
def test_a_training_is_interrupted_at_any_moment(
    tmp_path: Path, tenths: int, again: float | None
) -> None:
    interrupted(tmp_path, tenths / 10, again)
