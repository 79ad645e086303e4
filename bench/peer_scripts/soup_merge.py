"""Run by the bench inside Soup's own environment: its search for the weights of a merge.

The calls are those of its command line, its plateau rule apart: it tries all that it may.

Arguments: suite, directory to write, population, generations, adapters. Prints how many it tried.
"""

import sys

from soup_cli.utils.adapter_merge import merge_adapters
from soup_cli.utils.cmaes_merge import build_cmaes_eval_fn, build_cmaes_plan, run_cmaes_merge

suite, output, population, generations, *adapters = sys.argv[1:]
plan = build_cmaes_plan(
    adapters=adapters,
    eval_suite=suite,
    budget_spec="24h",
    population_size=int(population),
    max_generations=int(generations),
)
result = run_cmaes_merge(plan, eval_fn=build_cmaes_eval_fn(plan), convergence_tol=-1.0)
merge_adapters(adapters, output, strategy="linear", weights=list(result.best_weights))
print(result.evaluations)
