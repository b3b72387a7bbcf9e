"""`python -m initbench.testing PLUGIN`: check the entries of a plug-in for the properties of built-in ones.

Exit code 0 if all checks pass, 1 if one fails, 2 if the plug-in cannot be imported or registers nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from initbench import plugins
from initbench.errors import InitbenchError, UsageError
from initbench.registry import Registry, RegistryEntry
from initbench.testing.check import Result, run_check


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m initbench.testing", description=__doc__.splitlines()[0])
    parser.add_argument("plugin", metavar="PLUGIN", help="module or .py file, as for --plugin")
    name = parser.parse_args(arguments).plugin
    try:
        return _test_plugin(name)
    except InitbenchError as error:
        print(f"initbench.testing: {error}", file=sys.stderr)
        return error.exit_code


def _test_plugin(name: str) -> int:
    from initbench.render.text import plural
    from initbench.testing.entries import all_entries

    plugins.request_plugins([name])
    top = plugins.import_plugin(name).__name__.partition(".")[0]
    entries = [
        (registry, entry)
        for registry, entry in all_entries()
        if registry.origin(entry.name)[0].partition(".")[0] == top
    ]
    if not entries:
        raise UsageError(f"{name} registers nothing: call INITS.add(Scheme(...)) when it is imported")
    results = [result for pair in entries for result in _test_entry(*pair)]
    states = Counter(result.state for result in results)
    numbers = ", ".join(f"{count} {state}" for state, count in sorted(states.items(), reverse=True))
    print(f"{plural(len(results), 'check')}: {numbers}")
    return 1 if states["FAILED"] else 0


def _test_entry(registry: Registry[Any], entry: RegistryEntry) -> Iterator[Result]:
    """Print and yield the results of an entry."""
    from initbench.testing.entries import entry_checks

    print(f"{registry.kind} {entry.name}")
    for check in entry_checks(registry, entry):
        result = run_check(check)
        print(f"  {result.state:7}  {result.title}{result.reason and f': {result.reason}'}", flush=True)
        yield result


if __name__ == "__main__":
    sys.exit(main())
