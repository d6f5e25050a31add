#!/usr/bin/env bash
# Step 1 for CodeGemma-2B on APPS: 20 % of the problems, 16 solutions an update, lengths of step 3. Run on one node with 8 GPUs; extra arguments are passed on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec deepspeed -i localhost:0,1,2,3,4,5,6,7 --master_port 1234 main.py \
    --data_path codeparrot/apps --data_split 2,0,8 \
    --model_name_or_path google/codegemma-2b \
    --per_device_train_batch_size 2 --per_device_eval_batch_size 2 --max_seq_len 1112 \
    --learning_rate 5e-6 --weight_decay 0.01 --num_train_epochs 1 --gradient_accumulation_steps 1 \
    --lr_scheduler_type cosine --warmup_ratio 0.1 --seed 1234 --gradient_checkpointing --zero_stage 2 --deepspeed \
    --output_dir ../../models/apps/sft "$@"
