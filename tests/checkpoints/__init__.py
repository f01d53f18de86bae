"""Tests of the package checkpoints."""
