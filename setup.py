"""Compiles the loops of predictions if there is a C compiler, and puts conf/ into a wheel; all else is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

# a fused multiply-add would round less often than numpy does
EXACT = ["-ffp-contract=off"]


class BuildWithConfig(build_py):
    """Copies the config files into the package `housing`. An editable install reads them where they are."""

    def run(self):
        """Copy the Python files, then the config files."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("conf", Path(self.build_lib) / "housing" / "conf", dirs_exist_ok=True)


setup(
    cmdclass={"build_py": BuildWithConfig},
    ext_modules=[
        Extension(
            "housing.bundle.tree_walker",
            ["housing/bundle/tree_walker.c"],
            depends=["housing/bundle/quick_scorer.h"],
            optional=True,
        ),
        Extension(
            "housing.features.spatial_kernels", ["housing/features/spatial_kernels.c"], extra_compile_args=EXACT, optional=True
        ),
    ],
)
