#!/usr/bin/env bash
# The same on two nodes: HOSTFILE has one line per node, such as "node1 slots=8". All nodes need this checkout, the same
# .venv and a shared output folder at the same paths, and password-less ssh from the first node to the others. The
# global batch doubles with the nodes, so gradients are accumulated over half as many micro-batches.
set -euo pipefail
: "${HOSTFILE:?set HOSTFILE to the path of your hostfile}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec deepspeed --hostfile "$HOSTFILE" --master_port 1234 main_wpr.py \
    --data_path openai/summarize_from_feedback --data_split 2,4,4 \
    --actor_model_name_or_path ../../models/summarize/sft \
    --critic_model_name_or_path ../../models/summarize/reward_model/step_581 \
    --per_device_generation_batch_size 8 --per_device_training_batch_size 8 \
    --max_answer_seq_len 256 --max_prompt_seq_len 512 \
    --actor_learning_rate 1.5e-5 --critic_learning_rate 1.5e-5 --actor_weight_decay 0.1 --critic_weight_decay 0.1 \
    --warmup_ratio 0.05 --lr_scheduler_type linear --gradient_accumulation_steps 2 \
    --actor_gradient_checkpointing --critic_gradient_checkpointing --end_of_conversation_token "<eos>" \
    --actor_dropout 0.0 --actor_zero_stage 2 --critic_zero_stage 3 --offload --dtype bf16 \
    --kl_ctl 0.05 --temperature 0.8 --max_iter 10 --cost_dim 512 --top_k 128 \
    --output_dir ../../models/summarize/wpr "$@"
