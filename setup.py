"""Compiles the walker of trees, where there is a C compiler; all else is in setup.cfg, which has no words for that."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("housing.walker", ["housing/walker.c"], optional=True)])
