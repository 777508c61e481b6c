"""How the tests' programs are compiled: soon, but where the numbers are the proof as they are for users.

Compiling well takes longer than all else in these tests. What most of them run need not be fast.
"""

import importlib.metadata

# XLA ends a process that has a flag it does not know; later versions of it have dropped this one.
_HAS_OLDER_WAY = importlib.metadata.version("jaxlib").startswith("0.10.")

SOON = "--xla_cpu_use_fusion_emitters=false" if _HAS_OLDER_WAY else ""
"""For XLA_FLAGS, which hold for a whole process: kernels in XLA's older way, which takes a third of the time."""

AS_FOR_USERS = {"xla_cpu_use_fusion_emitters": True} if _HAS_OLDER_WAY else {}
"""`compiler_options` that undo it for one program; JAX_DISABLE_MOST_OPTIMIZATIONS is undone by JAX's config."""
