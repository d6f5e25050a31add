#!/usr/bin/env bash
# Step 3 on two CPU processes with the built-in dataset: a check that the installation works, in under two minutes.
# MODELS is the folder in which scripts/make_tiny_model.py put `tiny` and the earlier steps put theirs.
set -euo pipefail
: "${MODELS:?set MODELS to a folder; python scripts/make_tiny_model.py --output \$MODELS/tiny makes the model}"
MODELS=$(realpath "$MODELS")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec deepspeed --num_gpus 2 --master_port 29517 main_wpr.py \
    --data_path pydoc-tldr --data_split 2,4,4 --dtype fp32 --max_steps 5 \
    --actor_model_name_or_path "$MODELS/sft" --critic_model_name_or_path "$MODELS/reward" \
    --per_device_generation_batch_size 8 --per_device_training_batch_size 8 --max_prompt_seq_len 192 \
    --max_answer_seq_len 32 --actor_learning_rate 1e-4 --critic_learning_rate 1e-3 --actor_zero_stage 2 \
    --critic_zero_stage 3 --cost_dim 128 --top_k 32 --output_dir "$MODELS/wpr" "$@"
