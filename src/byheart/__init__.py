"""byheart teaches a small open language model a product's manual by heart, proves what it knows, and serves it."""

import os

__version__ = "0.1.0"

# Read by OpenMP when torch is loaded. Threads that spin while they wait for one another stall as soon as any other
# process is busy: one question then took 350 ms instead of 20 on two cores (docs/experiments.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
