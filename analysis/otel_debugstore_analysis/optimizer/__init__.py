"""The loop, closed: an item of the queue, an optimizer that changes the code, and a proof that decides.

The names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_debugstore_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from otel_debugstore_analysis.optimizer.auto_evolver import ProvenEvolver
    from otel_debugstore_analysis.optimizer.by_command import CommandOptimizer
    from otel_debugstore_analysis.optimizer.loop import optimize
    from otel_debugstore_analysis.optimizer.mechanical import MechanicalOptimizer
    from otel_debugstore_analysis.optimizer.protocol import Candidate, Optimizer, OptimizerError, Task, find_optimizer
    from otel_debugstore_analysis.optimizer.results import Attempt, Optimization, OptimizeOptions

_MODULES = {
    "Attempt": "results",
    "Candidate": "protocol",
    "CommandOptimizer": "by_command",
    "MechanicalOptimizer": "mechanical",
    "Optimization": "results",
    "OptimizeOptions": "results",
    "Optimizer": "protocol",
    "OptimizerError": "protocol",
    "ProvenEvolver": "auto_evolver",
    "Task": "protocol",
    "find_optimizer": "protocol",
    "optimize": "loop",
}

__all__ = [
    "Attempt",
    "Candidate",
    "CommandOptimizer",
    "MechanicalOptimizer",
    "Optimization",
    "OptimizeOptions",
    "Optimizer",
    "OptimizerError",
    "ProvenEvolver",
    "Task",
    "find_optimizer",
    "optimize",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
