"""The games of MinAtar under their Gymnasium ids, which it leaves to its user to register.

`pip install --no-deps minatar` brings it; a3cjax does not depend on it.
"""

from minatar.gym import register_envs

register_envs()
