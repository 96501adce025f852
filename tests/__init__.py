"""The tests; they mirror the package."""

import os

# No test may load anything. Asking for what cannot be had takes minutes where there is no network.
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
