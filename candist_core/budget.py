"""What the teacher costs: a price table, an estimate before, a hard cap during.

Prices are US dollars a million tokens. Invariant: what an `Allowance` has granted and not yet
settled, together with what is spent, never exceeds its cap.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from candist_core.ports import PromptHead, Reply, Request
from candist_core.spec import Strategy, TaskSpec, canonical_json
from candist_core.teacher_config import PriceConfig

# OpenAI's rule of thumb: a token is about four characters of English. Counted in UTF-8 bytes, which other
# scripts need more of, as they need more tokens.
BYTES_PER_TOKEN = 4.0
# Role markers of two messages and the start of the answer, as counted in OpenAI's cookbook.
_TOKENS_BESIDE = 9
# Chat templates of other models spend more; a cap has to hold there too.
_TOKENS_BESIDE_AT_MOST = 64
# Mean set sizes in CanDist's tables are 1.1 to 1.7.
_LABELS_A_REPLY = 1.5
# What a message adds beside its text, where chat templates are generous.
_TOKENS_A_MESSAGE = 8
# Three short sentences.
_TOKENS_OF_REASONING = 60
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")

Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one model, US dollars a million tokens: prompt, cached part of the prompt, completion."""

    input_usd: float
    cached_usd: float
    output_usd: float


def load_prices(overrides: Sequence[PriceConfig] = ()) -> Mapping[str, Price]:
    """Prices by model name: the list that ships with candist, then the user's own.

    Example:
        >>> load_prices([PriceConfig(model="mine", input_usd=1, output_usd=2)])["mine"]
        Price(input_usd=1.0, cached_usd=1.0, output_usd=2.0)
    """
    shipped = json.loads(resources.files("candist_core").joinpath("data/prices.json").read_bytes())["models"]
    prices = {model: Price(**price) for model, price in shipped.items()}
    for own in overrides:
        cached = own.input_usd if own.cached_usd is None else own.cached_usd
        prices[own.model] = Price(own.input_usd, cached, own.output_usd)
    return prices


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """The price under the model's exact name, else under its name without a snapshot's date; None when unknown.

    Example:
        >>> price_of("gpt-4o-mini-2024-07-18", load_prices()).input_usd
        0.15
    """
    return prices.get(model) or prices.get(_SNAPSHOT.sub("", model))


def cost_usd(price: Price, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
    """What one reply costs. Cached tokens are part of the prompt tokens.

    Example:
        >>> cost_usd(Price(2.0, 1.0, 8.0), prompt_tokens=1000, cached_tokens=400, completion_tokens=100)
        0.0024
    """
    cached = min(cached_tokens, prompt_tokens)
    fresh = prompt_tokens - cached
    return (fresh * price.input_usd + cached * price.cached_usd + completion_tokens * price.output_usd) / 1e6


@dataclass(slots=True)
class Allowance:
    """A hard cap in dollars for one call of `annotate`, whose event loop alone may touch it.

    A request is sent only after `reserve` granted its bound: one token a byte of prompt, which no tokenizer with
    byte fallback exceeds, and the longest answer. `settle` gives back what the reply did not cost, so bounds hold
    money for the length of a request only. Attempts that bring no reply are taken as unpaid.

    Example:
        >>> allowance = Allowance(1.0, Price(1.0, 1.0, 1.0))
        >>> allowance.reserve(0.75), allowance.reserve(0.5)
        (True, False)
        >>> allowance.settle(0.75, 0.25)
        >>> allowance.reserve(0.5), allowance.spent_usd
        (True, 0.25)
    """

    max_usd: float
    price: Price
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    n_reserved: int = 0
    _head_usd: dict[str, float] = field(default_factory=dict, repr=False)

    def bound_usd(self, request: Request) -> float:
        """The most that one reply to this request can cost, for an endpoint that honours `max_tokens`."""
        head = request.head
        if (usd := self._head_usd.get(head.fingerprint)) is None:
            usd = self._head_usd[head.fingerprint] = _bound_of_head(head, self.price)
        n_tokens = len(request.user.encode()) + _bound_of_turns(request.turns)
        return usd + n_tokens * max(self.price.input_usd, self.price.cached_usd) / 1e6

    def reserve(self, estimate_usd: float) -> bool:
        """Set money aside for one request; False, and nothing set aside, when the cap leaves too little."""
        if self.spent_usd + self.reserved_usd + estimate_usd > self.max_usd:
            return False
        self.reserved_usd += estimate_usd
        self.n_reserved += 1
        return True

    def settle(self, estimate_usd: float, actual_usd: float) -> None:
        """Turn what `reserve` set aside into what was paid."""
        self.n_reserved -= 1
        # Sums of floats drift; with nothing reserved the sum is zero.
        self.reserved_usd = self.reserved_usd - estimate_usd if self.n_reserved else 0.0
        self.spent_usd += actual_usd


def _bound_of_head(head: PromptHead, price: Price) -> float:
    prompt_tokens = _bytes_of_head(head) + _TOKENS_BESIDE_AT_MOST + 2 * len(head.turns) * _TOKENS_A_MESSAGE
    input_usd = max(price.input_usd, price.cached_usd)
    return (prompt_tokens * input_usd + head.sampling.get("max_tokens", 0) * price.output_usd) / 1e6


def _bound_of_turns(turns: Turns) -> int:
    return _bytes_of_turns(turns) + 2 * len(turns) * _TOKENS_A_MESSAGE


def _bytes_of_turns(turns: Turns) -> int:
    return sum(len(user.encode()) + len(assistant.encode()) for user, assistant in turns)


def _bytes_of_head(head: PromptHead) -> int:
    schema = canonical_json(head.response_format) if head.response_format else ""
    return len((head.system + schema).encode()) + _bytes_of_turns(head.turns)


def prompt_bytes(request: Request) -> int:
    """UTF-8 bytes of all that a request has the model read: instructions, schema, examples, text."""
    return _bytes_of_head(request.head) + _bytes_of_turns(request.turns) + len(request.user.encode())


@dataclass(frozen=True, slots=True)
class Measured:
    """What kept replies tell of tokens: bytes of prompt a token, tokens a reply, share of prompt tokens cached."""

    bytes_per_token: float
    completion_tokens: float
    cached_share: float


def measure(pairs: Iterable[tuple[Request, Reply]]) -> Measured | None:
    """Tokens as counted by the endpoint for requests that it has answered; None without any count.

    Example:
        >>> measure([]) is None
        True
    """
    n_bytes = n_prompt = n_cached = n_completion = n = 0
    for request, reply in pairs:
        if reply.prompt_tokens:
            n_bytes += prompt_bytes(request)
            n_prompt += reply.prompt_tokens
            n_cached += reply.cached_tokens
            n_completion += reply.completion_tokens
            n += 1
    return Measured(n_bytes / n_prompt, n_completion / n, n_cached / n_prompt) if n else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What annotating would take; tokens over all calls, `cost_usd` None where no price is known."""

    n_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    seconds: float
    is_measured: bool = False

    def __add__(self, other: "Estimate") -> "Estimate":
        """Of two teachers, asked one after the other."""
        costs = (self.cost_usd, other.cost_usd)
        return Estimate(
            self.n_calls + other.n_calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            None if None in costs else sum(cost for cost in costs if cost is not None),
            self.seconds + other.seconds,
            self.is_measured and other.is_measured,
        )


def estimate(
    sample: Sequence[Request],
    spec: TaskSpec,
    n_calls: int,
    *,
    price: Price | None,
    max_in_flight: int,
    latency_s: float = 1.0,
    reasons: bool = False,
    measured: Measured | None = None,
) -> Estimate:
    """Foresee tokens, cost and time of so many calls from a sample of their requests.

    Tokens go by what kept replies measured, else by bytes (`BYTES_PER_TOKEN`) and without the discount for cached
    prompts. A model that thinks before it answers, unasked, writes more than is counted here.

    Args:
        sample: some of the requests, drawn so that their mean length stands for all.
        spec: the task, for the length of a reply.
        n_calls: requests to send.
        price: of the model; None when unknown.
        max_in_flight: requests under way at once.
        latency_s: seconds that one request takes.
        reasons: the model is asked to think first.
        measured: from `measure`.
    """
    mean_bytes = sum(map(prompt_bytes, sample)) / max(len(sample), 1)
    if measured is None:
        a_prompt = math.ceil(mean_bytes / BYTES_PER_TOKEN + _TOKENS_BESIDE)
        limit = int(sample[0].head.sampling.get("max_tokens", 10**9)) if sample else 10**9
        a_reply = float(min(_reply_tokens(spec) + reasons * _TOKENS_OF_REASONING, limit))
    else:
        a_prompt, a_reply = math.ceil(mean_bytes / measured.bytes_per_token), measured.completion_tokens
    prompt_tokens, completion_tokens = n_calls * a_prompt, math.ceil(n_calls * a_reply)
    cached_tokens = int(prompt_tokens * measured.cached_share) if measured else 0
    cost = None if price is None else cost_usd(price, prompt_tokens, cached_tokens, completion_tokens)
    seconds = n_calls * latency_s / max_in_flight
    return Estimate(n_calls, prompt_tokens, completion_tokens, cost, seconds, measured is not None)


def _reply_tokens(spec: TaskSpec) -> int:
    mean_name = sum(len(name.encode()) for name in spec.label_names) / len(spec.label_names)
    n_labels = 1.0 if spec.strategy is Strategy.SA else _LABELS_A_REPLY
    return math.ceil((len('{"candidates": []}') + n_labels * (mean_name + len('"", '))) / BYTES_PER_TOKEN)
