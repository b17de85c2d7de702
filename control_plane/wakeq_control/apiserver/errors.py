"""What the API server refuses beside what deployments and control planes refuse themselves."""

from wakeq_control.deploy.errors import DeploymentError
from wakeq_control.errors import ControlError

NO_DEPLOYMENT = "Deployment not found"
"""The clients' own words where there is none of that name."""


class NoDefaultService(ControlError):
    """A task that names no service, in a deployment that has no default one."""

    code = "NO_DEFAULT_SERVICE"
    title = "No default service"

    def __init__(self) -> None:
        super().__init__("Service is None and deployment has no default service")


class DeployForbidden(ControlError):
    """Deployments run code: who isn't on this machine must show the token."""

    code = "DEPLOY_FORBIDDEN"
    title = "Deploy forbidden"


class ControlPlaneUnavailable(ControlError):
    """A deployment's control plane gives no answer."""

    code = "CONTROL_PLANE_UNAVAILABLE"
    title = "Control plane unavailable"


class Relayed(ControlError):
    """A refusal of the control plane's, handed on."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.relayed_code = code


class DeploymentRefused(ControlError):
    """What deployments refuse, as the API server tells it."""

    def __init__(self, error: DeploymentError) -> None:
        super().__init__(error.detail)
        self.relayed_code = error.code
        self.hint = error.hint
