from a3cjax.config.settings import Config
from a3cjax.training import train

CARTPOLE = Config(
    env="CartPole",
    num_actors=2,
    deterministic=True,
    total_frames=8_000,
    eval_episodes=0,
    video=False,
    tensorboard=False,
)


def test_x(ray_address, tmp_path):
    config = CARTPOLE.replace(run_dir=str(tmp_path / "a"))
    train(config)
    config = CARTPOLE.replace(
        run_dir=str(tmp_path / "b"), cluster="ray", ray_address=ray_address, num_workers=2
    )
    train(config)
