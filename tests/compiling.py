"""How the tests' programs are compiled: soon, but where the numbers are the proof as they are for users.

Compiling well takes longer than all else in these tests. What most of them run need not be fast.
"""

SOON = "--xla_cpu_use_fusion_emitters=false"
"""For XLA_FLAGS, which hold for a whole process: kernels in XLA's older way, which takes a third of the time."""

AS_FOR_USERS = {"xla_cpu_use_fusion_emitters": True}
"""`compiler_options` that undo it for one program; JAX_DISABLE_MOST_OPTIMIZATIONS is undone by JAX's config."""
