"""Compiles the walker of trees, where there is a C compiler; all else is in setup.cfg, which has no words for that."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("housing.bundle.tree_walker", ["housing/bundle/tree_walker.c"], optional=True)])
