"""Write requirements*.txt anew: `make lock`. Needs uv and a network connection.

Versions stay while pyproject.toml admits them, unless an option of `uv pip compile` says otherwise, as in
`make lock LOCK_OPTIONS="--upgrade-package pandas"`. PyPI does not hold torch's CPU builds: their hashes stay while
torch's version does. When it changes, name the index that holds them: `make lock CPU_INDEX=ADDRESS`.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
UV += ["--universal", "--generate-hashes"]
WRITTEN = "Written by `make lock`.\n"
ENGINE = "spu==0.9.5\njax\nnumpy<2\nonnx\n"
HEADERS = {
    "requirements-pip.txt": f"# pip itself, which installs requirements.txt. {WRITTEN}",
    "requirements.txt": "# The versions that were tested together, with the SHA-256 of every file that holds them. "
    f"{WRITTEN}-c requirements-cuda.txt\n",
    "requirements-cuda.txt": f"# What torch's CUDA builds need: constraints, as a CPU build needs none. {WRITTEN}",
    "requirements-mpc.txt": f"# The engine of private inference, for `make mpc`: Python 3.10 or 3.11. {WRITTEN}",
}


def compiled(*options: str, wanted: str = "", known: str = "", python: str = "3.11") -> dict[str, str]:
    """What uv resolves, as `entries` gives it; versions in `known` are preferred."""
    with tempfile.NamedTemporaryFile("w+") as file:
        file.write(known)
        file.flush()
        subprocess.run(
            [*UV, f"--python-version={python}", *options, f"--output-file={file.name}"],
            input=wanted,
            text=True,
            cwd=ROOT,
            check=True,
        )
        return entries(Path(file.name).read_text())


def entries(text: str) -> dict[str, str]:
    """The requirements of a file, each with its lines of hashes, by `name==version`."""
    return {entry.split()[0]: entry for entry in re.findall(r"^\w(?:.*\\\n)*.*\n", text, re.MULTILINE)}


def main() -> None:
    """Resolve, add the CPU builds, and write each part into its file."""
    files = {name: ROOT / name for name in HEADERS}
    engine = files.pop("requirements-mpc.txt")  # an environment of its own, with older versions
    known = engine.read_text() if engine.exists() else ""
    own = compiled("-", *sys.argv[1:], wanted=ENGINE, known=known, python="3.10")
    engine.write_text(HEADERS[engine.name] + "".join(own.values()))
    before = entries("".join([path.read_text() for path in files.values()]))
    known = "".join(before.values())
    pip = compiled("-", *sys.argv[1:], wanted="pip", known=known)
    found = compiled("pyproject.toml", "--all-extras", *sys.argv[1:], known=known)
    for pin in [pin for pin in found if pin.startswith(("torch==", "torchvision=="))]:
        index = os.environ.get("CPU_INDEX")
        builds = compiled("-", "--no-deps", f"--index={index}", wanted=f"{pin}+cpu") if index else {}
        hashes = re.findall(r"--hash=\S+", "".join([found[pin], before.get(pin, ""), *builds.values()]))
        found[pin] = " \\\n    ".join([pin, *sorted(set(hashes))]) + "\n"
        if not builds and pin not in before:
            print(
                f"requirements.txt holds no CPU build of {pin}: make lock CPU_INDEX=ADDRESS adds them.", file=sys.stderr
            )
    cuda = {pin: entry for pin, entry in found.items() if pin.startswith(("cuda-", "nvidia-", "triton=="))}
    rest = {pin: entry for pin, entry in found.items() if pin not in cuda}
    for (name, path), part in zip(files.items(), (pip, rest, cuda), strict=True):
        path.write_text(HEADERS[name] + "".join(part.values()))


if __name__ == "__main__":
    main()
