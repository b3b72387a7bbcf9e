"""Take the shipped configs and lessons into a wheel; all else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copy `configs/` into the package, where an installed initbench looks for it."""

    def run(self) -> None:
        """Build the package, then copy; an editable install reads the checkout's own."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "initbench" / "configs"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(Path(__file__).parent / "configs", target)


setup(cmdclass={"build_py": BuildWithConfigs})
