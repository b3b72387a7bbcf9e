"""Import everything that training needs, in the fork server, before it forks workers.

Plug-ins are left to the workers, because a mistake in one is reported with the run that uses it.
"""

from initbench.components.activation import ACTIVATIONS
from initbench.components.init_scheme import INITS
from initbench.components.norm import NORMS
from initbench.data.dataset import DATASETS
from initbench.models.network import FAMILIES
from initbench.runner.workers import process_pool

__all__ = ["process_pool"]

for registry in (ACTIVATIONS, NORMS, INITS, FAMILIES, DATASETS):
    registry.import_package()
