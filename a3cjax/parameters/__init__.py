"""The shared parameters: what actor-learners pull and push."""

from a3cjax.parameters.on_device import ParametersOnDevice
from a3cjax.parameters.shared import SharedParameters
from a3cjax.parameters.store import ParameterStore, Receipt

__all__ = ["ParameterStore", "ParametersOnDevice", "Receipt", "SharedParameters"]
