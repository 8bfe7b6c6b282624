"""What the rules look at: the question, every priced rung and the verdict."""

from __future__ import annotations

from typing import NamedTuple

from advisor.ladder.fit import Case
from advisor.memory.params import known_adapter_params
from advisor.values import Method, Plan, Request, Rung, Verdict


class Situation(NamedTuple):
    """The facts that a rule may speak from."""

    case: Case
    request: Request
    rungs: tuple[Rung, ...]
    verdict: Verdict

    def rung(self, method: Method) -> Rung:
        return next(rung for rung in self.rungs if rung.plan.method is method)

    @property
    def chosen(self) -> Rung | None:
        return None if self.verdict.method is None else self.rung(self.verdict.method)

    @property
    def focus(self) -> Rung:
        """The rung that the reader looks at: the chosen one, else the one asked for, else QLoRA, the most frugal."""
        return self.chosen or self.rung(self.request.method or Method.QLORA)


def params_per_rank(case: Case, plan: Plan) -> int | None:
    """LoRA parameters per unit of rank: inputs plus outputs of every wrapped matrix (fact T7); None for a model without tables."""
    return known_adapter_params(case.model, plan.model_copy(update={"method": Method.LORA, "quantization": None, "rank": 1}))
