"""Language models, reward models, their tokenizers, weights and adapters."""

import logging

# peft loads it where it is installed, and it asks everybody with a new CPU to install more
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
