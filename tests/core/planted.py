"""Planted truth: features, labels, and a teacher that errs; and a linear student in NumPy."""

from dataclasses import dataclass

import numpy as np

from candist_core.answers import Answers, read_answers
from candist_core.losses import loss_gradients
from candist_core.memory import begin, observe
from candist_core.recipe import Recipe
from candist_core.refine import refine


@dataclass(frozen=True)
class Planted:
    X: np.ndarray
    truth: np.ndarray
    S: np.ndarray
    R: np.ndarray


def plant(seed, n=1200, k=5, first_right=0.7, second_right=0.6, second_share=0.6, spread=2.0):
    """Classes are Gaussian. The first label is right by chance; of those texts with a second one, it is right where
    the first is wrong by another chance. Wrong labels are drawn at random."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    X = rng.normal(size=(n, 8)) + spread * rng.normal(size=(k, 8))[truth]
    first = np.where(rng.random(n) < first_right, truth, (truth + rng.integers(1, k, size=n)) % k)
    random_other = (first + rng.integers(1, k, size=n)) % k
    knows = (rng.random(n) < second_right) & (first != truth)
    second = np.where(knows, truth, random_other)
    R = np.full((n, k), -1)
    has_second = rng.random(n) < second_share
    R[np.arange(n)[has_second], second[has_second]] = 1
    R[np.arange(n), first] = 0
    return Planted(X, truth, R >= 0, R)


def fit(X: np.ndarray, answers: Answers, recipe: Recipe, rate: float = 0.5, steps: int = 10):
    """Full-batch gradient steps of a linear student, one refinement an epoch; returns belief, memory, all targets."""
    X = np.hstack([X, np.ones((len(X), 1))])
    weights, memory, seen = np.zeros((X.shape[1], answers.S.shape[1])), begin(answers, recipe), []
    for _ in range(recipe.epochs):
        targets = refine(answers, recipe, memory)
        seen.append(targets)
        kept = np.flatnonzero(targets.kept)
        for _ in range(steps):
            Z = X[kept] @ weights
            weights -= rate * X[kept].T @ loss_gradients(targets.loss, Z, targets.Q[kept], targets.power[kept]) / len(X)
        Z = X @ weights
        P = np.exp(Z - Z.max(axis=1, keepdims=True))
        P /= P.sum(axis=1, keepdims=True)
        memory = observe(memory, P, P, answers, recipe)
    return P, memory, seen


def accuracy_of(planted: Planted, recipe: Recipe, seed: int = 0) -> float:
    P, *_ = fit(planted.X, read_answers(planted.S, planted.R, recipe, seed), recipe)
    return float((P.argmax(axis=1) == planted.truth).mean())
