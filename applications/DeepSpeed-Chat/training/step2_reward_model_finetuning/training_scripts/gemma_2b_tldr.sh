#!/usr/bin/env bash
# Step 2 for Gemma-2B on TL;DR, as published. Run on one node with 8 GPUs; extra arguments are passed on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec deepspeed -i localhost:0,1,2,3,4,5,6,7 --master_port 1234 main.py \
    --data_path openai/summarize_from_feedback --data_split 2,4,4 \
    --model_name_or_path ../../models/summarize/sft \
    --per_device_train_batch_size 8 --per_device_eval_batch_size 8 --max_seq_len 1024 \
    --learning_rate 1e-5 --weight_decay 0.1 --num_padding_at_beginning 0 --num_train_epochs 1 \
    --gradient_accumulation_steps 1 --lr_scheduler_type cosine --warmup_ratio 0.1 --seed 1234 \
    --gradient_checkpointing --zero_stage 2 --deepspeed \
    --output_dir ../../models/summarize/reward_model "$@"
