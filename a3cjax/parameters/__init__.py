"""The shared parameters: what actor-learners pull and push."""

from a3cjax.parameters.shared import ParametersOnDevice as ParametersOnDevice
from a3cjax.parameters.shared import ParameterStore as ParameterStore
from a3cjax.parameters.shared import Receipt as Receipt
from a3cjax.parameters.shared import SharedParameters as SharedParameters
