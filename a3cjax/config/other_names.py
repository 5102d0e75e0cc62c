"""What other libraries call our settings, for the hint that answers such a name.

Words of Stable-Baselines3 and rl-zoo3, CleanRL, RLlib, PFRL, Tianshou, Gymnasium and the paper.
"""

from collections.abc import Collection

OTHER_NAMES = {
    "env": "env_id env_name environment game task",
    "total_frames": "total_timesteps n_timesteps num_timesteps timesteps total_steps max_steps"
    " steps num_frames frames",
    "algorithm": "algo agent method",
    "network": "policy model net architecture",
    "preset": "config config_file hyperparams",
    "unroll_length": "num_steps n_steps nsteps t_max rollout_length rollout_fragment_length",
    "discount": "gamma discount_factor",
    "lambda_": "gae_lambda lam lambd",
    "value_cost": "vf_coef value_coef value_loss_coef vf_loss_coeff",
    "entropy_cost": "ent_coef entropy_coef entropy_coeff beta",
    "max_grad_norm": "grad_clip gradient_clip clip_norm max_norm",
    "centre_observations": "center_observations norm_obs normalize_observations",
    "exploration_frames": "exploration_fraction",
    "target_period_frames": "target_network_frequency target_update_interval",
    "optimizer": "optim opt optimiser",
    "learning_rate": "lr alpha step_size eta",
    "anneal_learning_rate": "anneal_lr lr_schedule",
    "epsilon": "eps adam_eps rms_prop_eps",
    "num_actors": "num_workers n_workers num_threads threads num_env_runners processes",
    "envs_per_actor": "num_envs n_envs envs batch_size num_envs_per_env_runner",
    "run_dir": "output out output_dir log_dir logdir save_dir save_path tensorboard_log",
    "output": "out output_dir save_dir",
    "sweep_dir": "output out output_dir log_dir",
    "resume": "load restore checkpoint trained_agent",
    "deterministic": "torch_deterministic",
    "greedy": "deterministic",
    "log_period_frames": "log_interval log_freq",
    "wandb": "track use_wandb",
    "video": "capture_video record_video",
    "checkpoint_period_frames": "save_freq checkpoint_frequency",
    "eval_episodes": "n_eval_episodes num_eval_episodes num_episodes n_episodes episodes",
    "num_episodes": "n_eval_episodes num_eval_episodes eval_episodes n_episodes episodes games",
    "eval_period_frames": "eval_freq eval_frequency",
    "sticky_actions": "sticky repeat_action_probability",
    "jobs": "n_jobs parallel",
    "max_seconds": "seconds duration",
}


def own_name(name: str, names: Collection[str]) -> str | None:
    """The setting that a name means; None where none is known.

    Args:
      name: as somebody wrote it, `--num-envs` for instance.
      names: of the settings that there are.
    """
    plain = plain_name(name).strip("_+")
    for own in names:
        if plain_name(own).strip("_") == plain:
            return own
    return next((own for own in names if plain in OTHER_NAMES.get(own, "").split()), None)


def plain_name(name: str) -> str:
    """A name as it compares with others: `N-Step-Q` is `n_step_q`."""
    return name.lower().replace("-", "_")
