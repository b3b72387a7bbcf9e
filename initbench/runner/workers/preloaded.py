"""Import everything that training needs, in the fork server, before it forks workers.

The first call of vmap imports torch's decompositions and, with them, sympy, which takes half a second. One
element is too little for several threads, so the server still has a single one.
"""

import torch
from torch.func import vmap

from initbench.runner.workers import process_pool

__all__ = ["process_pool"]

vmap(torch.neg)(torch.zeros(1))
