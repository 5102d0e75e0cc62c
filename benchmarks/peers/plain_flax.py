"""a3cjax with plain `flax.linen.Conv` layers: steps a second of training, one line.

Only the torso differs: frames become NHWC bytes where ours become blocks, at the same place on the
host, so that the network rearranges nothing. It divides them by 255 as float32, does not centre
them, and convolves whole batches as XLA lowers it. Actors, lock and optimizer are a3cjax's own. All
actors compute on XLA's default client with a thread for each core: this was the quicker of the
two, for on a client of one thread the gradient of these convolutions takes several seconds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from arguments import make_parser
from flax import linen as nn

from a3cjax import torsos
from a3cjax.config.settings import Config
from a3cjax.envs import observations as reading
from a3cjax.envs import specs
from a3cjax.system import machine
from a3cjax.training.measuring import Training


class PlainTorso(nn.Module):
    """conv 16 8×8/4, conv 32 4×4/2, dense 256 (Mnih et al. 2016) on NHWC bytes."""

    @nn.compact
    def __call__(self, observations, statistics) -> jax.Array:
        assert statistics is None  # main sets centre_observations=False
        x = jnp.asarray(observations, jnp.float32) / 255.0
        for channels, size, stride in torsos.PAPER_LAYERS:
            x = nn.relu(nn.Conv(channels, (size, size), stride, padding="VALID")(x))
        x = x.reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(256)(x))


def frames_to_nhwc(frames: np.ndarray) -> np.ndarray:
    """Puts the channels of `[B, C, height, width]` last, in a fresh array."""
    return np.ascontiguousarray(frames.transpose(0, 2, 3, 1))


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    num_actors = machine.available_cores()
    torsos.TORSOS["atari"] = (PlainTorso, 256)
    reading.frames_to_blocks = frames_to_nhwc
    specs.structure_of = lambda *_: jax.ShapeDtypeStruct((84, 84, 4), np.uint8)
    config = Config(
        num_actors=num_actors,
        devices="cpu:0",  # XLA's default client for all
        kernels=False,
        envs_per_actor=arguments.num_envs // num_actors,
        unroll_length=arguments.unroll_length,
        network="atari_ff",
        warmup_steps=64,
        centre_observations=False,
    )
    training = Training(config)
    print(f"steps_per_second {training.run(arguments.seconds)['steps_per_second']:.1f}")
    training.close()


if __name__ == "__main__":
    main()
