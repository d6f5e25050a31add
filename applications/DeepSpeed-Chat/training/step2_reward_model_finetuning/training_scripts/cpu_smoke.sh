#!/usr/bin/env bash
# Step 2 on two CPU processes with the built-in dataset: a check that the installation works, in under two minutes.
# MODELS is the folder in which scripts/make_tiny_model.py put `tiny` and the earlier steps put theirs.
set -euo pipefail
: "${MODELS:?set MODELS to a folder; python scripts/make_tiny_model.py --output \$MODELS/tiny makes the model}"
MODELS=$(realpath "$MODELS")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec deepspeed --num_gpus 2 --master_port 29517 main.py \
    --data_path pydoc-tldr --data_split 2,4,4 --dtype fp32 --max_steps 5 \
    --model_name_or_path "$MODELS/sft" --max_seq_len 256 --per_device_train_batch_size 8 \
    --per_device_eval_batch_size 8 --learning_rate 1e-3 --zero_stage 2 --output_dir "$MODELS/reward" "$@"
