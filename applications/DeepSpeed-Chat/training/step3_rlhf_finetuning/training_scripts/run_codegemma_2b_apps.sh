#!/usr/bin/env bash
# Step 3 for CodeGemma-2B on APPS with KL and rewards from unit tests, 16 programs an update. Needs bubblewrap or Landlock on the node. Run on one node with 8 GPUs; extra arguments are passed on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec deepspeed -i localhost:0,1,2,3,4,5,6,7 --master_port 1234 main_apps.py \
    --data_path codeparrot/apps --data_split 2,0,8 \
    --actor_model_name_or_path ../../models/apps/sft \
    --per_device_generation_batch_size 2 --per_device_training_batch_size 2 \
    --generation_batches 1 --ppo_epochs 1 --max_answer_seq_len 512 --max_prompt_seq_len 600 \
    --actor_learning_rate 5e-7 --critic_learning_rate 5e-5 --actor_weight_decay 0.1 --critic_weight_decay 0.1 \
    --num_train_epochs 1 --warmup_ratio 0.05 --lr_scheduler_type linear --gradient_accumulation_steps 1 \
    --actor_gradient_checkpointing --critic_gradient_checkpointing --end_of_conversation_token "<eos>" \
    --actor_dropout 0.0 --deepspeed --seed 1234 --actor_zero_stage 2 --critic_zero_stage 3 --offload \
    --kl_ctl 0.05 --temperature 1.0 --sampling_top_k 5 --gamma 1.0 --lam 0.95 \
    --output_dir ../../models/apps/ppo "$@"
