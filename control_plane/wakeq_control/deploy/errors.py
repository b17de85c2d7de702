"""What a deployment can be refused with.

DeploymentError
├── InvalidDeployment       the file is broken; says which field, and what to write there
├── DeploymentFailed        the file is right, but what it describes can't be started here
├── DeploymentExists        one of that name runs
└── DeploymentNotFound      none of that name runs
"""

from typing import ClassVar


class DeploymentError(Exception):
    """Base of everything that can be refused. The text is one sentence; ``hint`` says what to do."""

    code: ClassVar[str]

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


class InvalidDeployment(DeploymentError):
    """The file is broken: nothing was started, and what ran before still runs."""

    code = "INVALID_DEPLOYMENT"


class DeploymentFailed(DeploymentError):
    """A part of the deployment can't be started; what had been started for it is stopped."""

    code = "DEPLOYMENT_FAILED"


class DeploymentExists(DeploymentError):
    """A deployment of that name runs, and it was not to be reloaded."""

    code = "DEPLOYMENT_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"Deployment already exists: {name}", "reload it, or give the new one another name")


class DeploymentNotFound(DeploymentError):
    """No deployment of that name runs."""

    code = "DEPLOYMENT_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"Deployment not found: {name}", "see which there are with wakeq status")
