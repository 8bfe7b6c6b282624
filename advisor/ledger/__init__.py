"""The ledger of a project: what was run, what it took, how it scored."""

from advisor.ledger.book import ledger_path
from advisor.ledger.callback import record_callback
from advisor.ledger.facts import facts_from_ledger
from advisor.ledger.store import held, record, record_all, runs

__all__ = ["facts_from_ledger", "held", "ledger_path", "record", "record_all", "record_callback", "runs"]
