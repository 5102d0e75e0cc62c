#!/bin/bash
# A run on four nodes of Slurm. Written by Ray's documentation; was not run on a cluster.
#     sbatch examples/cluster/slurm.sh
#SBATCH --job-name=a3cjax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00

set -euo pipefail
RAY_AUTH_TOKEN=$(openssl rand -hex 32)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$(srun --nodes=1 --ntasks=1 --nodelist="$first" hostname --ip-address | cut -d' ' -f1):6379"

# Starts Ray on every node, the command on the first one, and ends both with it.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus="$SLURM_CPUS_PER_TASK" -- \
    a3cjax train env=Breakout total_frames=200M cluster=ray ray_address=auto grads_per_push=8 \
    run_dir="runs/$SLURM_JOB_ID"
