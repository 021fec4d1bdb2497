"""One file out of an npm package, at build or test time: what a page needs is never fetched when it is opened.

`npm pack` downloads a package of an exact version without installing it or running its scripts.
"""

import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path


def npm_file(package: str, member: str, target: Path, *, timeout: float = 120.0) -> str | None:
    """Put one file of an npm package in place, unless it is there already.

    Args:
        package: Name and exact version, as `mathjax@3.2.2`.
        member: The file's path in the package, as `es5/tex-svg-full.js`.
        target: Where it goes; written whole or not at all.
        timeout: Seconds to wait for npm.

    Returns:
        None if the file is in place, else the reason why it is not.
    """
    if target.is_file():
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package, "--silent", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=folder, timeout=timeout, check=True, capture_output=True, text=True)
            packed = next(Path(folder).glob("*.tgz")).read_bytes()
        except subprocess.TimeoutExpired:
            return f"npm did not answer within {timeout:.0f} s"
        except subprocess.CalledProcessError as error:
            return f"npm failed: {(error.stderr or error.stdout).strip()[-300:]}"
        except StopIteration:
            return "npm left no package"
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            content = archive.extractfile(f"package/{member}").read()
    except (KeyError, tarfile.TarError) as error:
        return f"the npm package is not as expected: {error}"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)
    return None
