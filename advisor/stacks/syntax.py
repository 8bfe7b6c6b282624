"""Syntax trees of text that someone else wrote."""

from __future__ import annotations

import ast
import warnings


def tree_of(text: str) -> ast.Module:
    """Parse a Python file. What Python warns of in it (an escape that is none) is its author's, and is not told.

    Raises SyntaxError, ValueError, RecursionError or MemoryError for what is no Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def expression_of(text: str) -> ast.expr:
    """Parse one expression, likewise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode="eval").body
