"""Alignment of language models with human feedback: supervised fine-tuning, reward model, PPO."""
