"""Diagnosis of a trained adapter from its two files, without the base weights. Needs numpy; torch and peft are not needed."""

from advisor.adapters.inspect import inspect_adapter, open_adapter
from advisor.adapters.truncate import truncate_adapter

__all__ = ["inspect_adapter", "open_adapter", "truncate_adapter"]
