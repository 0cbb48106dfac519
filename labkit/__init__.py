"""A lab for ORPO-Distill (arXiv 2509.25100): sample traces, pair them, train a student, measure it."""

import logging
import os
import warnings

# Before torch is imported: a thread that waits for its share of a matrix product sleeps instead of burning the core
# that another process needs. On a busy 2-core machine that took a pocket run from 373 s to 23 s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The hub's client would tell the hub which torch is here, and ask it which programs may be driving the client.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# tqdm asks for ipywidgets in every notebook; the plain bar serves, and the warning carries this machine's paths.
warnings.filterwarnings("ignore", message="IProgress not found")

# torchao, where it is installed (8-bit AdamW), is imported by transformers and lists the GPU kernels that are not here.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
