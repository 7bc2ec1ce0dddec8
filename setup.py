"""Compiles the loops of predictions, if there is a C compiler; all else is in setup.cfg, which has no words for that."""

from setuptools import Extension, setup

# a fused multiply-add would round less often than numpy does
EXACT = ["-ffp-contract=off"]

setup(
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
    ]
)
